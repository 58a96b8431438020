"""Tables in JSON, JSON lines and CSV with hostile values, whole and damaged: what was written, or one ValueError."""

import csv
import io
import json
import tempfile
import warnings
from pathlib import Path

from pmdllm.tasks import datasets, tables

VALUES = (
    "1", "007", "2024-01-02", "9007199254740993", "123456789012345678901234567890", "1e400", "-0", "0.10", "true",
    "null", "nan", "Infinity", "", " ", "a,b", 'say "x"', "two\nlines", "tab\t", "\u2028", "é", "𝔸", "\0", "=1+1", "{}",
    "[1", "\\frac{1}{2}", "\\neg 1", "12:00", "#### 3", "'", "x" * 2000, "3, 5", "\ufeff",
)  # fmt: skip
BARE = (
    "1", "-0", "0.5", "1e400", "9007199254740993", "123456789012345678901234567890", "true", "null", "1.0", "[]",
    "{}", '["3"]', '[{"role": "user", "content": "2?"}]', '[{"content": null}]', "NaN", "[1, 2]", '{"text": "7"}',
)  # fmt: skip


def check(rng):
    """Write a table, read it back, damage it, and read again."""
    count, kind = int(rng.integers(0, 8)), ("json", "jsonl", "csv")[int(rng.integers(3))]
    end = ("\n", "\r\n")[int(rng.integers(2))]
    rows = [(f"question {i}", VALUES[int(rng.integers(len(VALUES)))]) for i in range(count)]
    bare = [BARE[int(rng.integers(len(BARE)))] if rng.random() < 0.3 else None for _ in rows]
    if kind == "csv":
        bare, file = [None] * count, io.StringIO(newline="")
        writer = csv.writer(file, lineterminator=end)
        writer.writerows([("question", "answer"), *rows])
        text = file.getvalue()
    else:
        lines = [
            f'{{"question": {json.dumps(q)}, "answer": {b or json.dumps(a, ensure_ascii=bool(rng.integers(2)))}}}'
            for (q, a), b in zip(rows, bare)
        ]
        text = f"[{(',' + end).join(lines)}]" if kind == "json" else end.join(lines) + end
    data = (("\ufeff" if rng.random() < 0.2 else "") + text).encode()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"rows.{kind}"
        path.write_bytes(data)
        read = [row for _, row in tables.read(str(path), hub=False)["train"]]
        written = [(q, a) for (q, a), b in zip(rows, bare) if b is None]
        kept = [(row["question"], row["answer"]) for row, b in zip(read, bare) if b is None]
        assert len(read) == count and kept == written, f"{data!r}: read {kept!r}"
        load(path, data, dict(rows))
        damaged = bytearray(data)
        for _ in range(int(rng.integers(1, 4))):
            place = int(rng.integers(len(damaged) + 1))
            what = int(rng.integers(4))
            if what == 0:
                del damaged[place:]
            elif what == 1:
                damaged[place:place] = bytes(rng.integers(0, 256, size=3).tolist())
            elif what == 2:
                del damaged[place : place + 5]
            else:
                damaged[place:place] = b'"],{}\n'[: int(rng.integers(1, 7))]
        path.write_bytes(bytes(damaged))
        load(path, bytes(damaged), None)


def load(path, data, rows):
    """Load the task: its answers are those that were written, or there is one line of a ValueError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            task = datasets.file(str(path), template="plain")
    except ValueError as error:
        assert len(str(error).split("\n")) == 1, f"{data!r}: {error}"
        return
    problems = [problem for split in task.problems.values() for problem in split]
    assert len({problem.prompt for problem in problems}) == len(problems), f"{data!r}: a question twice"
    texts = {problem.answer for problem in problems}
    assert all(texts), f"{data!r}: an empty answer"
    if rows is not None:
        changed = [a for a in texts if a not in {x.strip() for x in rows.values()} and f" {a}" not in f"{data.decode()}"
                   and f'"{a}"' not in data.decode()]  # fmt: skip
        assert not changed, f"{data!r}: answers {changed!r} were not written"
