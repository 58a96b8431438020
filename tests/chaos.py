"""Harm done to running commands: ``python -m tests.chaos --kills 50``.

Small random runs of ``train``, ``compare``, ``study`` and ``python -m figures --update`` are killed, starved of disk,
doubled and damaged, each at a random file operation in their folders or shortly after it, and started again until they
end. The end must be that of the same run left alone, byte for byte, timings apart; and whatever a command says on the
way is one line. A run may be refused after its files were damaged, in one line that says so; then it starts anew.

Every attempt is a fork of this process, which has everything imported; file operations are seen by an audit hook.
"""

import argparse
import contextlib
import fcntl
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import threading
import traceback
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pmdllm.train as loop
import yaml
from pmdllm import cli, models
from pmdllm.study import Setting, Study, declared
from pmdllm.tasks import load

ROOT = Path(__file__).parent.parent
TASK = "arithmetic:terms=4,modulus=6"
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
OPERATIONS = {"open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate"}
MOST_FAILURES = 10
TIMINGS = ("seconds", "cpu_seconds", "command")


class Rewarded(loop.Run):
    """A run whose rewards are coins thrown by the text: a random model is never right and would not move."""

    def __init__(self, config, folder, task=None, reward=None, progress=False):
        coins = lambda texts, _: [zlib.crc32(text.encode()) % 2 for text in texts]  # noqa: E731
        super().__init__(config, folder, task, coins, progress)


@dataclass
class Outcome:
    """How an attempt ended: exit code (negative: a signal), what it printed, its file operations."""

    code: int
    text: str
    operations: int


class Subject:
    """A command whose folder is harmed; a subclass for each kind.

    Parameters
    ----------
    rng : numpy.random.Generator
        Draws the settings.
    model : Path
        Folder of a tiny model.
    """

    signals = SIGNALS

    def __init__(self, rng, model):
        self.settings = {
            "task": TASK, "model": str(model), "max_new_tokens": 4, "prompts_per_batch": 4, "threads": 1,
            "rollouts_per_prompt": int(rng.integers(2, 5)), "updates_per_batch": int(rng.integers(1, 4)),
            "algorithm": str(rng.choice(["pmd-mean", "pmd-part-loo", "grpo", "kimi-token"])), "tau": 0.5,
            "epochs": int(rng.integers(1, 3)), "rollout_lag": int(rng.integers(0, 3)),
            "iterations": int(rng.integers(1, 5)), "eval_every": int(rng.integers(0, 3)), "eval_prompts": 4,
            "test_prompts": 4, "eval_samples": 2, "lr_schedule": str(rng.choice(["constant", "linear", "cosine"])),
            "checkpoint_seconds": float(rng.choice([0, 0, 1e9])), "reset_optimizer_every": int(rng.integers(0, 3)),
        }  # fmt: skip

    def start(self, folder):
        """Run the command in this process; return its exit code."""
        (folder.parent / "preset.yaml").write_text(yaml.safe_dump(self.settings))
        return cli.main([*self.words, "--preset", str(folder.parent / "preset.yaml"), "--output", str(folder)])

    def damageable(self, folder):
        """Files that may be damaged between two attempts."""
        names = ("config.yaml", "metrics.jsonl", "timings.jsonl", "result.json", "*.pt")
        return sorted(path for name in names for path in folder.rglob(name))


class Train(Subject):
    words = ("train",)

    def result(self, folder):
        """What must be the same."""
        result = json.loads((folder / "result.json").read_text())
        del result["seconds"]
        kept = {name: (folder / name).read_bytes() for name in ("metrics.jsonl", "model/model.safetensors")}
        return kept | {"result.json": result, "timings": (folder / "timings.jsonl").read_bytes().count(b"\n")}


class Compare(Subject):
    words = ("compare", "--algorithms", "pmd-mean,grpo", "--seeds", "0")

    def __init__(self, rng, model):
        super().__init__(rng, model)
        self.settings |= {"iterations": min(2, self.settings["iterations"])}

    def result(self, folder):
        """The tables without timings."""
        tables = {path.name: pd.read_csv(path) for path in sorted(folder.glob("*.csv"))}
        return {
            name: table.drop(columns=[column for column in TIMINGS if column in table]).to_csv()
            for name, table in tables.items()
        }


class AStudy(Compare):
    def start(self, folder):
        """Two settings, one of them tuned."""
        preset = folder.parent / "preset.yaml"
        preset.write_text(yaml.safe_dump(self.settings))
        trials = ({"learning_rate": 1e-3}, {"learning_rate": 1e-2})
        settings = (Setting({"method": "a"}, {}), Setting({"method": "b"}, {"tau": 0.3}, trials))
        study = Study("chaos", settings, seeds=(0,), tuning_seeds=(7,), preset=str(preset))
        declared.STUDIES["chaos"] = study
        return cli.main(["study", "chaos", "--tables", str(folder), "--runs", str(folder / "runs"), "--jobs", "1"])


class Figure(Subject):
    signals = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP)  # Python prints of a Ctrl-C in hooks of fork

    def start(self, folder):
        """Replace the tables and pictures of a copy of the figures."""
        if not folder.exists():
            part = folder.with_name("part")
            shutil.rmtree(part, ignore_errors=True)
            shutil.copytree(ROOT / "figures", part / "figures", ignore=shutil.ignore_patterns("__pycache__"))
            shutil.copy(ROOT / "README.md", part)
            table = part / "figures" / "data" / "adaptive_weight.csv"
            table.write_text(table.read_text().replace("1", "2"))
            part.rename(folder)
        sys.path.insert(0, str(folder))
        from figures.__main__ import main

        return main(["adaptive_weight", "--update"])

    def damageable(self, folder):
        """None: the tables are what is kept."""
        return []

    def result(self, folder):
        """All tables and pictures."""
        kept = {}
        for path in sorted((folder / "figures").rglob("*")):
            if path.suffix in (".csv", ".png", ".svg", ".md"):
                kept[str(path.relative_to(folder))] = path.read_bytes()
        return kept


SUBJECTS = {"train": Train, "compare": Compare, "study": AStudy, "figures": Figure}


def attempt(subject, folder, moment=0, strike=None, meanwhile=None):
    """Run the command in a fork; at file operation number `moment` in its folder, `strike` it.

    `meanwhile` is called while the process has stopped itself, with its number.
    """
    sys.stdout.flush()
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 1 << 20)
    pid = os.fork()
    if pid == 0:
        _child(subject, folder, moment, strike, writing)
    os.close(writing)
    _, status = os.waitpid(pid, os.WUNTRACED)
    while os.WIFSTOPPED(status):
        meanwhile(pid)
        os.kill(pid, signal.SIGCONT)
        _, status = os.waitpid(pid, os.WUNTRACED)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # workers that a killed process has left behind
    with os.fdopen(reading, errors="replace") as pipe:
        text = pipe.read()
    text, mark, operations = text.partition("operations: ")
    return Outcome(os.waitstatus_to_exitcode(status), text, int(operations) if mark else 0)


def _child(subject, folder, moment, strike, writing):
    seen, main = 0, os.getpid()

    def hook(event, arguments):
        nonlocal seen
        path = str(arguments[0]) if event in OPERATIONS else ""
        if str(folder) in path and not path.endswith((".py", ".pyc", "__pycache__")):
            seen += 1
            if seen == moment:
                strike(main)

    loop.Run = Rewarded
    try:
        os.setsid()
        os.dup2(writing, 1), os.dup2(writing, 2)
        sys.stdout, sys.stderr = open(1, "w"), open(2, "w", buffering=1)  # noqa: SIM115
        for number in SIGNALS[2:]:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        sys.addaudithook(hook)
        code = subject.start(folder)
        sys.stdout.flush()
        print(f"operations: {seen}", file=sys.stderr, flush=True)
    except BaseException:
        traceback.print_exc()
        code = 99
    os._exit(code)


def kill(number, delay=0.0):
    """A strike: this signal, at once or after some seconds."""

    def strike(pid):
        if delay:
            timer = threading.Timer(delay, os.kill, (pid, number))
            timer.daemon = True
            timer.start()
        else:
            os.kill(pid, number)

    return strike


def starve(room):
    """A strike: from now on no file may be longer than this, as on a disk that is full."""
    return lambda _: resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def damage(path, rng):
    """Shorten, delete, change or lengthen a file."""
    content = bytearray(path.read_bytes())
    kind = rng.choice(["cut", "delete", "change", "lengthen", "zeros"])
    if kind == "delete":
        path.unlink()
        return f"{path.name} deleted"
    if kind == "cut" or path.name == "result.json":  # a number changed there is a number
        content = content[: rng.integers(len(content))] if content else content
    elif kind == "change":
        for place in rng.integers(len(content), size=3) if content else ():
            content[place] ^= 1 << int(rng.integers(8))
    elif kind == "lengthen":
        content += rng.bytes(50)
    else:
        content = bytes(len(content))
    path.write_bytes(content)
    return f"{path.name} damaged ({kind})"


class Chaos:
    """A session: what was done so far, and what went wrong."""

    def __init__(self, rng, place, exact=False):
        self.rng, self.place, self.exact = rng, place, exact
        self.done, self.failures = Counter(), []
        tokenizer = models.character_tokenizer(load(TASK).alphabet)
        models.save(models.tiny(tokenizer, 16, 1, 2, 64, seed=1), tokenizer, place / "model")

    def ordeal(self, kind):
        """One subject, left alone and harmed."""
        rng, self.story = self.rng, [kind]
        self.done[kind] += 1
        subject = SUBJECTS[kind](rng, self.place / "model")
        shutil.rmtree(self.place / kind, ignore_errors=True)
        whole, harmed = self.place / kind / "whole", self.place / kind / "harmed"
        (self.place / kind).mkdir()
        alone = attempt(subject, whole)
        if alone.code:
            return self.fail(f"left alone, it ends with {alone.code}", alone)
        damaged = False
        for _ in range(int(rng.integers(1, 6))):
            moment = int(rng.integers(1, (alone.operations or 12) + 1))  # a pool of processes does not say how many
            action = rng.choice(["kill", "kill", "kill", "starve", "double", "damage"])
            if action == "kill":
                number = subject.signals[rng.integers(len(subject.signals))]
                delay = 0.0 if self.exact or rng.random() < 0.5 else float(rng.exponential(0.05))
                self.story.append(f"{signal.Signals(number).name} at operation {moment}, after {delay:.3f} s")
                outcome = attempt(subject, harmed, moment, kill(number, delay))
                allowed = {0, -number, 128 + number}
            elif action == "starve":
                room = int(rng.choice([0, 100, 3000, 30_000]))
                self.story.append(f"no file above {room} bytes from operation {moment}")
                outcome, allowed = attempt(subject, harmed, moment, starve(room)), {0, 1, 2}
            elif action == "double" and kind != "figures":
                self.story.append(f"a second process at operation {moment}")
                meanwhile = self.second(subject, harmed)
                outcome, allowed = attempt(subject, harmed, moment, kill(signal.SIGSTOP), meanwhile), {0}
            elif action == "damage" and (files := subject.damageable(harmed)):
                self.story.append(damage(files[rng.integers(len(files))], rng))
                damaged, outcome = True, None
            else:
                continue
            self.done[action] += 1
            if outcome is None:
                continue
            if damaged and self.refused(outcome):
                shutil.rmtree(harmed)
                damaged = False
            elif outcome.code not in allowed or "Traceback" in outcome.text:
                return self.fail(f"ended with {outcome.code}", outcome)
        last = attempt(subject, harmed)
        if damaged and self.refused(last):
            shutil.rmtree(harmed)
            last = attempt(subject, harmed)
        if last.code or "Traceback" in last.text:
            return self.fail(f"started again, it ends with {last.code}", last)
        there, here = subject.result(whole), subject.result(harmed)
        different = [name for name in there if there[name] != here.get(name)]
        if different:
            return self.fail(f"{', '.join(different)} differ from those of the run left alone", last)
        return None

    def second(self, subject, folder):
        """What happens while the first process stands still: a second is refused, by name, if the first has a lock."""

        def meanwhile(pid):
            locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
            locked = any("FLOCK" in words and str(pid) in words for words in locks)
            outcome = attempt(subject, folder)
            if not locked and outcome.code == 0:
                return
            lines = outcome.text.strip().splitlines()
            if outcome.code not in (1, 2) or not (str(pid) in lines[-1] or "another process" in outcome.text):
                self.fail(f"a second process in the folder ended with {outcome.code}", outcome)

        return meanwhile

    def refused(self, outcome):
        """Whether damaged files were refused in words."""
        said = "choose another output" in outcome.text.lower() and "Traceback" not in outcome.text
        self.done["refused"] += said and outcome.code in (1, 2)
        return said and outcome.code in (1, 2)

    def fail(self, what, outcome):
        """Note and print a failure."""
        self.failures.append(what)
        tail = "\n    ".join(outcome.text.strip().splitlines()[-12:])
        print(f"FAILED: {what}\n  story: {'; '.join(self.story)}\n  it said:\n    {tail}", flush=True)


def main(argv=None):
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=50, help="go on until so many signals were sent (default: 50)")
    parser.add_argument("--seed", type=int, help="of everything that is drawn (default: another one each time)")
    parser.add_argument("--exact", action="store_true", help="no delays: the same examples each time")
    parser.add_argument("--subjects", default=",".join(SUBJECTS), help=f"default: {','.join(SUBJECTS)}")
    given = parser.parse_args(argv)
    seed = int.from_bytes(os.urandom(4)) if given.seed is None else given.seed
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory(prefix="chaos-") as place:
        chaos = Chaos(rng, Path(place), given.exact)
        while chaos.done["kill"] < given.kills and len(chaos.failures) < MOST_FAILURES:
            chaos.ordeal(str(rng.choice(given.subjects.split(","))))
    done = chaos.done
    print(
        f"{done['kill']} kills, {done['starve']} starvations, {done['double']} doubles, {done['damage']} damages "
        f"({done['refused']} refused), {len(chaos.failures)} failures, seed {seed}"
    )
    return 1 if chaos.failures else 0


if __name__ == "__main__":
    sys.exit(main())
