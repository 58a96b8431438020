"""The command line: ``pmd-llm warmup | train | evaluate | compare | study | validate``."""

import argparse
import functools
import json
import sys
from pathlib import Path

__all__ = ["main"]

VALIDATION = "validate"

_TINY = """examples:
  pmd-llm train --preset tiny-cpu --output runs/mine                     a minute on two cores
  pmd-llm train --algorithm grpo --learning-rate 3e-4 --seed 1 --output runs/grpo
  pmd-llm evaluate --model runs/mine/model --task arithmetic
  pmd-llm compare --algorithms pmd-mean,grpo --seeds 0-2 --iterations 20
  pmd-llm study temperature --dry-run
  pmd-llm warmup --seed 2 --output runs/second-base
  pmd-llm validate                                                       a fitted network beside the exact laws

pmd-llm COMMAND --help lists the options of a command.
"""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message):
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(argv=None):
    """Run the command line; returns the exit code."""
    parser = _Parser(
        prog="pmd-llm",
        description="Policy mirror descent on language models: make a base, train, evaluate, compare, repeat studies.",
        epilog=_TINY,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=list(_COMMANDS), metavar="COMMAND", help=", ".join(_COMMANDS))
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="options of the command")
    chosen = parser.parse_args(argv)
    try:
        return _COMMANDS[chosen.command](chosen.arguments)
    except (ValueError, OSError, ImportError) as error:
        print(f"pmd-llm {chosen.command}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"pmd-llm {chosen.command}: interrupted; the same command goes on from here", file=sys.stderr)
        return 130


def _warmup(arguments):
    from .config import parse
    from .warmup import WarmupConfig, warmup

    folder = warmup(parse(WarmupConfig, arguments, kind="warmup", prog="pmd-llm warmup"))
    print(f"The base is in {folder}; its README.md says what it can do. Train it with --model {folder}")
    return 0


def _train(arguments):
    from .config import Config, parse
    from .train import train

    config = parse(Config, arguments, prog="pmd-llm train")
    print(f"Run in {config.output}: {config.algorithm}, {config.iterations} iterations, seed {config.seed}", flush=True)
    result = train(config)
    print(_accuracies({"before": _part(result, "before/"), "after": _part(result, "test/")}))
    print(
        f"{result['rollouts']} rollouts, {result['tokens']} tokens, {result['updates']} updates in "
        f"{result['seconds']:.0f} s of training. The model is in {config.output}/model"
    )
    return 0


def _evaluate(arguments):
    parser = _Parser(prog="pmd-llm evaluate", description="Accuracy of a model on held-out prompts.")
    parser.add_argument("--model", default="base", help="base, a folder, or a name on the hub (default: base)")
    parser.add_argument("--task", default="arithmetic", help="a task, as in pmd-llm train (default: arithmetic)")
    parser.add_argument("--split", choices=["validation", "test"], default="test", help="default: test")
    parser.add_argument("--prompts", type=int, default=500, help="number of prompts (default: 500)")
    parser.add_argument("--samples", type=int, default=8, help="completions k per prompt (default: 8)")
    parser.add_argument("--max-new-tokens", type=int, default=0, help="bound of a completion (default: the task's)")
    parser.add_argument("--temperature", type=float, default=1.0, help="of the samples (default: 1)")
    parser.add_argument("--top-p", type=float, default=1.0, help="nucleus of the samples (default: 1)")
    parser.add_argument("--batch", type=int, default=0, help="completions sampled at once (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of the samples (default: 0)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ... (default: auto)")
    parser.add_argument("--trust-remote-code", action="store_true", help="run code that comes with a hub model")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    given = parser.parse_args(arguments)
    _positive(prompts=given.prompts, samples=given.samples, temperature=given.temperature)
    _positive(**{"top-p": given.top_p})

    from . import models, tasks
    from .evaluate import evaluate

    task = tasks.load(given.task)
    model, tokenizer = models.load(given.model, models.device(given.device), given.trust_remote_code)
    found = evaluate(
        model, tokenizer, task, given.split, given.prompts, given.samples, given.max_new_tokens or task.max_new_tokens,
        seed=given.seed, temperature=given.temperature, top_p=given.top_p, batch=given.batch,
    )  # fmt: skip
    if given.json:
        print(json.dumps(found))
    else:
        print(_accuracies({given.split: found}))
        print(
            f"{given.prompts} prompts of {given.task}, {given.samples} completions each: {found['length']:.1f} tokens, "
            f"{found['truncated']:.1%} truncated, {found['unparsed']:.1%} without a readable answer"
        )
    return 0


def _compare(arguments):
    parser = _Parser(
        prog="pmd-llm compare",
        description="Train several algorithms at several seeds under one budget; write results.csv, curves.csv and "
        "panels.png to the output folder. Every option of pmd-llm train can be given as well.",
        allow_abbrev=False,
    )
    parser.add_argument("--algorithms", default="pmd-mean,grpo", help="names, separated by commas")
    parser.add_argument("--seeds", default="0-2", help="as 0-2 or 0,3,5 (default: 0-2)")
    parser.add_argument("--preset", help="preset of pmd-llm train (default: tiny-cpu)")
    parser.add_argument("--output", type=Path, help="folder (default: named after task, model and algorithms)")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, a CPU thread each; 1 on GPU (default: 1)")
    given, rest = parser.parse_known_args(arguments)
    _positive(jobs=given.jobs)

    from . import study
    from .study import compare

    declared = compare.declare(given.algorithms, compare.seeds(given.seeds), given.preset, rest)
    output = given.output or compare.default_folder(declared)
    compare.check_start(declared, output)
    print(f"Comparison in {output}", flush=True)
    failed = study.run(declared, output, output / "runs", given.jobs, _log)
    table = declared.results(output).read()
    if len(table):
        compare.draw(output)
        print(compare.comparison(table))
        print(f"Tables and pictures are in {output}")
    return _failed(failed)


def _study(arguments):
    parser = _Parser(
        prog="pmd-llm study",
        description="Train what the tables of the declared studies lack, two cells at a time. It can be interrupted "
        "and started again, and finished cells are kept; another --tables folder starts anew.",
    )
    parser.add_argument("names", nargs="*", default=["all"], metavar="NAME", help="studies (default: all)")
    parser.add_argument("--tables", type=Path, default=Path("figures/data"), help="default: figures/data")
    parser.add_argument("--runs", type=Path, default=Path("build/study"), help="default: build/study")
    parser.add_argument("--jobs", type=int, default=2, help="processes of one CPU thread; 1 on GPU (default: 2)")
    parser.add_argument("--dry-run", action="store_true", help="print the cells and the predicted hours")
    parser.add_argument("--check", action="store_true", help="train a few cells anew, compare with the tables")
    given = parser.parse_args(arguments)
    _positive(jobs=given.jobs)

    from . import study
    from .study.declared import GPU_STUDIES, STUDIES

    known = (*STUDIES, VALIDATION, *GPU_STUDIES)
    unknown = [name for name in given.names if name not in ("all", *known)]
    if unknown:
        raise ValueError(f"no study is called {unknown[0]!r}; there are {', '.join(known)}.")
    named = [name for name in given.names if name != "all"]
    names = dict.fromkeys([*STUDIES, VALIDATION, *named] if "all" in given.names else named)
    declared = STUDIES | GPU_STUDIES
    if VALIDATION in names:
        from .validation.declared import Validation, full

        declared |= {VALIDATION: Validation(full())}
    chosen = [declared[name] for name in names]
    if given.dry_run:
        study.describe(chosen, given.tables, given.runs, given.jobs, _log)
        return 0
    if given.check:
        compared, departures = study.check(chosen, given.tables, given.runs / "check", given.jobs, _log)
        for departure in departures:
            print(f"DEPARTS: {departure}")
        print(f"{compared} numbers compared with the committed tables, {len(departures)} departures.")
        return 1 if departures or not compared else 0
    failed = []
    for each in chosen:
        failed += study.run(each, given.tables, given.runs, given.jobs, _log)
    if not failed:
        print(f"Every cell of {', '.join(names)} is in {given.tables}.")
    return _failed(failed)


def _failed(cells):
    if cells:
        print(f"{len(cells)} cells failed (see above): {'; '.join(map(str, cells))}", file=sys.stderr)
    return 1 if cells else 0


def _accuracies(columns):
    """Table of avg@k, greedy, pass@k and maj@k, in columns of the given names."""
    first = next(iter(columns.values()))
    names = [name for name in first if f"{name}_ci" in first]
    lines = [f"{'':<10}" + "".join(f"{title:>16}" for title in columns)]
    for name in names:
        shown = (f"{found[name]:.3f} ± {found[f'{name}_ci']:.3f}" for found in columns.values())
        lines.append(f"{name:<10}" + "".join(f"{text:>16}" for text in shown))
    return "\n".join([*lines, "± is the 95% interval over prompts"])


def _part(result, prefix):
    return {name.removeprefix(prefix): value for name, value in result.items() if name.startswith(prefix)}


def _validate(arguments):
    from .config import parse
    from .study import run
    from .validation.declared import ValidateConfig, Validation, departures, report

    declared = Validation(parse(ValidateConfig, arguments, kind="validate", prog="pmd-llm validate"))
    output = Path(declared.config.output)
    failed = run(declared, output, output / "runs", declared.config.jobs, _log)
    table = declared.rows(output)
    if len(table):
        print(f"{report(table)}\nTables in {output}")
    departing = departures(table)
    for line in departing:
        print(f"DEPARTS from its law: {line}")
    return 1 if departing else _failed(failed)


def _positive(**values):
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} must be positive, got {value}.")


_log = functools.partial(print, flush=True)
_COMMANDS = {
    "warmup": _warmup,
    "train": _train,
    "evaluate": _evaluate,
    "compare": _compare,
    "study": _study,
    "validate": _validate,
}

if __name__ == "__main__":
    sys.exit(main())
