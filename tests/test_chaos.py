"""A few fixed examples of `tests/chaos.py`: strikes at file operations only, so the same ones each time."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(("subject", "seed", "kills"), [("train", 0, 5), ("compare", 1, 2), ("study", 2, 2)])
def test_harmed_runs_end_as_those_left_alone(subject, seed, kills):
    words = ["--exact", "--subjects", subject, "--seed", str(seed), "--kills", str(kills)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", *words], cwd=ROOT, capture_output=True, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    last = done.stdout.splitlines()[-1]
    assert re.fullmatch(rf"\d+ kills, \d+ starvations, \d+ doubles, \d+ damages .* 0 failures, seed {seed}", last)
