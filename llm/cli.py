"""The command line: ``pmd-llm warmup | train | evaluate | compare | study | validate``."""

import argparse
import functools
import json
import sys
from dataclasses import asdict
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
    parser.add_argument("--preset", default="tiny-cpu", help="preset of pmd-llm train (default: tiny-cpu)")
    parser.add_argument("--output", type=Path, default=Path("runs/compare"), help="folder (default: runs/compare)")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, a CPU thread each; 1 on GPU (default: 1)")
    given, rest = parser.parse_known_args(arguments)
    _positive(jobs=given.jobs)

    from .config import Config, from_preset, parse
    from .study import Setting, Study, Tables, read, run

    usual = asdict(from_preset(Config, given.preset))
    config = asdict(parse(Config, ["--preset", given.preset, *rest], prog="pmd-llm compare"))
    options = {name: value for name, value in config.items() if value != usual[name] and name != "algorithm"}
    names = [name.strip() for name in given.algorithms.split(",")]
    study = Study(
        "compare",
        settings=tuple(Setting({"algorithm": name}, options | {"algorithm": name}) for name in names),
        seeds=_seeds(given.seeds),
        preset=given.preset,
    )
    tables = Tables(*(given.output / f"{name}.csv" for name in ("results", "curves", "tuning")))
    for path in (tables.results, tables.curves):
        path.unlink(missing_ok=True)
    failed = run(study, tables, given.output / "runs", given.jobs, _log)
    if failed:
        return _failed(failed)
    _draw(read(tables.curves), given.output / "panels")
    print(_comparison(read(tables.results)))
    print(f"Tables and pictures are in {given.output}")
    return 0


def _draw(curves, stem):
    import matplotlib

    matplotlib.use("Agg")
    from pmdtheory import plotting

    from .study.panels import panels

    with plotting.style():
        plotting.save(panels(curves, "algorithm"), stem)


def _comparison(table):
    """Mean and 95% interval over the seeds of each algorithm, and what was spent for it."""
    from pmdtheory.intervals import half_width

    from .study import accuracy

    names = [accuracy(table, "test"), "test/greedy"]
    titles = " ".join(f"{name.partition('/')[2]:>15}" for name in names)
    lines = [f"{'algorithm':<14}{'seeds':>6} {titles} {'rollouts':>10}{'updates':>9}{'seconds':>9}"]
    for algorithm, rows in table.groupby("algorithm"):
        half = {name: float(half_width(rows[name].std(ddof=1), len(rows))) for name in names}
        shown = " ".join(f"{rows[name].mean():.3f} ± {half[name]:.3f}".rjust(15) for name in names)
        spent = rows[["rollouts", "updates", "seconds"]].mean()
        lines.append(
            f"{algorithm:<14}{len(rows):>6} {shown} {spent.rollouts:>10.0f}{spent.updates:>9.0f}{spent.seconds:>9.0f}"
        )
    return "\n".join([*lines, "test prompts, mean ± 95% interval over seeds; spending is the mean of a run"])


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
    names = list(dict.fromkeys([*STUDIES, VALIDATION, *named])) if "all" in given.names else named
    chosen = [(STUDIES | GPU_STUDIES)[name] for name in names if name != VALIDATION]
    if given.dry_run:
        return _dry_run(chosen, VALIDATION in names, given)
    if given.check:
        departures = study.check(chosen, given.tables, given.runs / "check", given.jobs, _log)
        if VALIDATION in names:
            from .validation import study as validation_study

            try:
                departures += validation_study.check(given.tables, given.runs / "check", given.jobs, _log)
            except RuntimeError as error:
                departures.append(f"{VALIDATION}: {error}")
        for departure in departures:
            print(f"DEPARTS: {departure}")
        print(f"{len(departures)} departures from the committed tables.")
        return 1 if departures else 0
    failed = []
    for declared in chosen:
        failed += study.run(declared, study.Tables.within(given.tables, declared.name), given.runs, given.jobs, _log)
    if VALIDATION in names:
        from .validation import study as validation_study

        try:
            validation_study.run(given.tables, given.runs, given.jobs, _log)
        except RuntimeError as error:
            failed.append(f"{VALIDATION}: {error}")
    if failed:
        return _failed(failed)
    print(f"Every cell of {', '.join(names)} is in {given.tables}.")
    return 0


def _dry_run(studies, validation, given):
    from . import study

    total = 0
    for declared in studies:
        tables = study.Tables.within(given.tables, declared.name)
        tuning, final, undecided = study.plan(declared, tables)
        for cell in (*tuning, *final):
            print(f"{cell}\n    {cell.command(given.runs)}")
        for cell in undecided:
            print(f"{declared.name}: {cell.columns}, seed {cell.seed}, with the options that tuning chooses")
        cells = [*tuning, *final, *undecided]
        hours = study.predicted_seconds([cell.config(given.runs) for cell in cells], study.read(tables.results)) / 3600
        total += hours / given.jobs
        print(f"{declared.name}: {len(cells)} cells, {len(tuning)} of them for tuning; {hours / given.jobs:.1f} h\n")
    if validation:
        from .validation import study as validation_study

        cells = validation_study.plan(given.tables, given.runs)
        hours = validation_study.predicted_seconds(cells, given.tables) / 3600
        total += hours / given.jobs
        print(*cells, f"{VALIDATION}: {len(cells)} cells; {hours / given.jobs:.1f} h\n", sep="\n")
    print(f"{total:.1f} h in all, {given.jobs} at a time")
    return 0


def _failed(cells):
    print(f"{len(cells)} cells failed (see above): {'; '.join(map(str, cells))}", file=sys.stderr)
    return 1


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


def _seeds(text):
    """Read seeds as in ``0-2`` or ``0,3,5``."""
    try:
        ends = [part.split("-") for part in text.split(",")]
        seeds = tuple(seed for part in ends for seed in range(int(part[0]), int(part[-1]) + 1))
    except ValueError:
        seeds = ()
    if not seeds:
        raise ValueError(f"seeds must be as in 0-2 or 0,3,5, got {text!r}.")
    return seeds


def _validate(arguments):
    from .config import parse
    from .validation.tables import departures
    from .validation.validate import ValidateConfig, validate

    config = parse(ValidateConfig, arguments, kind="validate", prog="pmd-llm validate")
    try:
        table = validate(config, _log)
    except RuntimeError as error:
        print(f"pmd-llm validate: {str(error).splitlines()[0]}", file=sys.stderr)
        return 1
    cell = ["experiment", "reward", "tau", "algorithm", "n", "size", "seed", "split", "iteration"]
    shown = table.reindex(columns=[*cell, "share", "r2_lambert", "r2_kl_law"])
    print(shown.to_string(index=False, float_format="%.3f", na_rep=""))
    print("share: f, 1 on the Lambert-W law of PMD-mean, 0 on the KL law; medians over the prompts")
    print(f"Tables in {config.output}")
    found = departures(table)
    for line in found:
        print(f"DEPARTS from its law: {line}")
    return 1 if found else 0


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
