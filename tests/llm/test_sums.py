"""Sums in English: answers against Python's own arithmetic, splits, levels, and reading of answers."""

import re

import numpy as np
import pytest
from pmdllm import tasks
from pmdllm.tasks.sums import last_numbers

LEVELS = (
    "sums:largest=30", "sums:operations=2,largest=30", "sums:operations=1-3,largest=30,negative=true",
    "sums:operations=3,operators=+-,largest=99", "sums:largest=30,second=9", "sums:operations=2,largest=99,second=5",
)  # fmt: skip


def drawn(spec, count=200, seed=0):
    return tasks.load(spec).sample(count, np.random.default_rng(seed))


@pytest.mark.parametrize("spec", LEVELS)
def test_answers_are_those_of_python(spec):
    for problem in drawn(spec):
        text = re.fullmatch(r"What is ([\d +*-]+)\?", problem.prompt)[1]
        assert eval(text) == int(problem.answer)
        assert "negative=true" in spec or int(problem.answer) >= 0


@pytest.mark.parametrize("spec", LEVELS)
def test_every_step_of_a_demonstration_is_true_and_the_last_is_the_answer(spec):
    task = tasks.load(spec)
    for prompt, completion in task.demonstrations(50, np.random.default_rng(1)):
        steps = re.findall(r"(-?\d+ [-+*] -?\d+) = (-?\d+)", completion)
        assert len(steps) == len(re.findall(r" [-+*] ", prompt))
        assert all(eval(left) == int(right) for left, right in steps)
        assert task.judge([completion], [str(eval(prompt[8:-1]))]).correct.all()


@pytest.mark.parametrize("spec", LEVELS)
def test_no_training_prompt_is_held_out(spec):
    task = tasks.load(spec)
    small = task.problems if spec == "sums:largest=30,second=9" else None  # fewer than are asked for of the others
    count = min(100, *(len(small[split]) for split in ("validation", "test"))) if small else 100
    held_out = [{p.prompt for p in task.held_out(split, count)} for split in ("validation", "test")]
    assert not held_out[0] & held_out[1]
    drawn = task.sample(len(small["train"]) if small else 800, np.random.default_rng(2))
    assert not {p.prompt for p in drawn} & (held_out[0] | held_out[1])
    again = tasks.load(spec)
    assert [p.prompt for p in again.held_out("test", count)] == [p.prompt for p in task.held_out("test", count)]


def test_levels_hold_what_they_say():
    mixture = [len(re.findall(r" [-+*] ", p.prompt)) for p in drawn("sums:operations=1-3,largest=30", 300)]
    assert all(60 < mixture.count(count) < 140 for count in (1, 2, 3))
    numbers = [int(n) for p in drawn("sums:operations=2,largest=99") for n in re.findall(r"\d+", p.prompt)]
    assert min(numbers) >= 1 and 90 < max(numbers) <= 99
    factors = [int(n) for p in drawn("sums:operators=*,largest=99", 60) for n in re.findall(r"\d+", p.prompt)]
    assert max(factors) == 12
    for spec in ("sums:largest=30,second=9", "sums:operations=2,largest=30,second=9"):
        operands = [[int(n) for n in re.findall(r"\d+", p.prompt)] for p in drawn(spec, 200)]
        assert max(numbers[0] for numbers in operands) > 20 and max(max(numbers[1:]) for numbers in operands) == 9
    assert any(p.answer.startswith("-") for p in drawn("sums:negative=true", 100))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("56", "56"), ("The answer is 56.", "56"), ("7 * 8 = 56", "56"), ("**56**", "56"), ("$56$", "56"),
        ("It's 1,056, of course", "1056"), ("= -7", "-7"), ("-7", "-7"), ("minus: −7.", "-7"), ("3-9", "9"),
        ("23-9=14", "14"), ("56.0", "56"), ("56.5", "56.5"), ("(14)", "14"), ("(-14)", "-14"), ("1,2", "2"),
        ("", None), ("fifty-six", None),
    ],
)  # fmt: skip
def test_the_last_number_is_the_answer(text, number):
    assert last_numbers([text]) == [number]


def test_what_follows_a_stop_text_or_precedes_the_end_of_a_thought_is_no_answer():
    verdict = tasks.load("sums").judge(["56\n\nWhat is 3 + 4? 7", "<think>9</think>56", "<think>56"], ["56"] * 3)
    assert verdict.correct.tolist() == [True, True, False] and verdict.parsed.tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("operations=0", "operations must be a number or range"),
        ("operations=3-1", "operations must be a number or range"),
        ("operators=/", "operators must be some of"),
        ("operators=++", "operators must be some of"),
        ("largest=2", "largest must be an integer from 3 to 9999"),
        ("largest=9,second=10", "second must be 0 or an integer from 3 to largest = 9"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        tasks.load(f"sums:{options}")


def test_more_prompts_than_there_are_is_refused():
    with pytest.raises(ValueError, match="at most 28, the test prompts"):
        tasks.load("sums").held_out("test", 29)
