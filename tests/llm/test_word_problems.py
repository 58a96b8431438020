"""Word problems: answers against Python's arithmetic, splits by template and numbers, grammar, judging."""

import ast
import itertools
import operator
import re
import subprocess
import sys

import numpy as np
import pytest
from pmdllm import tasks
from pmdllm.tasks import word_problems
from pmdllm.tasks.word_problems import BOXES, PEOPLE, PRONOUNS, SEEN, THINGS, UNSEEN

LEVELS = ["word_problems", "word_problems:steps=3,largest=12", "word_problems:steps=2,largest=9999,distractors=true"]
OPERATIONS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def template_of(prompt):
    """The template and numbers of a prompt, by matching the text with all templates."""
    matches = []
    for template in [*SEEN, *UNSEEN]:
        pattern = re.sub(r"\\\{([a-r])\\\}", r"(\\d+)", re.escape(template.story))
        pattern = re.sub(r"\\\{\w+\\\}", r"\\w+", pattern)
        if match := re.match(
            pattern + r"(?: [^?]*\.)? " + re.sub(r"\\\{\w+\\\}", r"\\w+", re.escape(template.question)), prompt
        ):
            matches.append((template, match.groups()))
    assert len(matches) == 1, prompt
    return matches[0]


@pytest.mark.parametrize("spec", LEVELS)
def test_solutions_are_right_and_use_the_numbers_of_the_story(spec):
    task = tasks.load(spec)
    for problem in task.sample(300, np.random.default_rng(0)):
        known = re.findall(r"\d+", problem.prompt)
        *steps, last = problem.solution.removesuffix(".").split(". ")
        for step in steps:
            expression, value = step.split(" = ")
            node = ast.parse(expression, mode="eval").body
            assert OPERATIONS[type(node.op)](node.left.value, node.right.value) == int(value) > 0
            assert {str(node.left.value), str(node.right.value)} <= {*known}
            known.append(value)
        assert last == f"The answer is {problem.answer}" and known[-1] == problem.answer
        assert len(steps) in task.steps


@pytest.mark.parametrize("spec", LEVELS)
def test_every_number_of_a_story_counts(spec):
    template_numbers = {t: set(re.findall(r"\{([a-r])\}", t.story)) for t in [*SEEN, *UNSEEN]}
    for template, numbers in template_numbers.items():
        assert numbers == set(re.findall(r"\b[a-r]\b", template.steps))
        results = set("xyz"[: template.steps.count(";")])
        assert results == set(re.findall(r"\b[xyz]\b", template.steps))
    for problem in tasks.load(spec).sample(50, np.random.default_rng(1)):
        extra = len(re.findall(r"\d+", problem.prompt)) - len(template_of(problem.prompt)[1])
        assert extra == ("distractors" in spec)


def test_there_are_many_templates_of_each_number_of_steps():
    assert len({*SEEN, *UNSEEN}) == len(SEEN) + len(UNSEEN) >= 30
    for templates in (SEEN, UNSEEN):
        assert all(sum(t.steps.count(";") == k for t in templates) >= 3 for k in range(3))


@pytest.mark.parametrize("spec", ["word_problems", "word_problems:steps=1,largest=12"])
def test_held_out_are_numbers_and_templates(spec):
    task = tasks.load(spec)
    splits = {split: {template_of(p.prompt) for p in task.held_out(split, 400)} for split in ("validation", "test")}
    splits["train"] = {template_of(p.prompt) for p in task.sample(2000, np.random.default_rng(0))}
    for one, other in itertools.combinations(splits.values(), 2):
        assert not one & other
    assert {template for template, _ in splits["train"]} <= set(SEEN)
    for split in ("validation", "test"):
        unseen = np.mean([template in UNSEEN for template, _ in splits[split]])
        assert 0.15 < unseen < 0.5
    train = splits["train"] | {template_of(prompt) for prompt, _ in task.demonstrations(200, np.random.default_rng(1))}
    assert not train & (splits["validation"] | splits["test"])


@pytest.mark.parametrize(("kind", "templates"), [("seen", SEEN), ("unseen", UNSEEN)])
def test_seen_and_unseen_templates_are_counted_separately(kind, templates):
    task = tasks.load(f"word_problems:templates={kind}")
    assert {template_of(p.prompt)[0] for p in task.held_out("test", 300)} == set(templates)
    assert {template_of(p.prompt)[0] for p in task.sample(300, np.random.default_rng(0))} <= set(SEEN)
    both = tasks.load("word_problems").held_out("test", 100)
    assert {p.kind for p in both if template_of(p.prompt)[0] in templates} == {kind}
    after_examples = tasks.load("word_problems:shots=1").held_out("test", 100)
    assert [p.kind for p in after_examples] == [p.kind for p in both]


def test_the_mixture_has_as_many_of_each_number_of_steps():
    problems = tasks.load("word_problems").sample(1500, np.random.default_rng(0))
    counts = np.bincount([problem.solution.count("=") for problem in problems], minlength=4)
    assert np.all(np.abs(counts[1:] - 500) < 5 * np.sqrt(1500 * 2 / 9))


def test_every_template_reads_well_with_every_word():
    for template in [*SEEN, *UNSEEN]:
        text = f"{template.story} {template.question}"
        for (name, he), (box, boxes), things in itertools.product(PEOPLE, BOXES.items(), THINGS):
            his, himself = PRONOUNS[he]
            words = {"name": name, "he": he, "his": his, "himself": himself}
            words |= {"box": box, "boxes": boxes, "things": things}
            story = text.format(**dict.fromkeys("abcdfghipqr", 2), **words, friend="Ann", third="Bob")
            assert not re.search(
                r"  |[{}]|\ba [aeiou]|(?:^|[.?] )[a-z0-9]|\b(?:she|he|they) (?:has|have|is|are|was|were)\b", story
            )
            assert story.endswith("?") and story.count("?") == 1
            # after a number a plural, or a word that stands for one
            assert all(
                word.endswith("s")
                or word in ("more", "children", "people", "new", "were", "got", "in", "of", "for", "and", "to")
                for word in re.findall(r"\b2 (\w+)", story)
            ), story


def test_numbers_are_never_one():
    for largest in (12, 30):
        problems = tasks.load(f"word_problems:largest={largest},distractors=true").sample(
            2000, np.random.default_rng(0)
        )
        numbers = [int(n) for problem in problems for n in re.findall(r"\d+", problem.prompt)]
        assert min(numbers) == 2 and max(numbers) == largest


def test_held_out_problems_are_the_same_in_another_process():
    drawn = "(p.prompt for p in tasks.load('word_problems').held_out('test', 20))"
    code = f"from pmdllm import tasks; print(*{drawn}, sep='\\n')"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert other == [problem.prompt for problem in tasks.load("word_problems").held_out("test", 20)]


@pytest.mark.parametrize(
    ("completion", "read"),
    [
        ("6 * 4 = 24. 24 + 9 = 33. The answer is 33.", "33"),
        ("The answer is 33, since 24 + 9 = 33 and 9 is odd: 9.", "33"),
        ("the answer is: **1,033** shells", "1033"),
        ("The answer is $33.00.", "33"),
        ("The answer is 7. No: the answer is 33", "33"),
        ("The answer is unknown. 12 + 5 = 17 apples", "17"),
        ("The answer is 6 * 4 = 24. 24 + 9 = 33.", "33"),
        ("Answer: 33. That is 3 more than 30.", "33"),
        ("She has 33 apples.", "33"),
        ("33", "33"),
        ("The answer is -3.", "-3"),
        ("It is 33.\n\nNow 5 more.", "33"),
        ("no idea", None),
        ("", None),
    ],
)
def test_judging(completion, read):
    verdict = tasks.load("word_problems").judge([completion] * 2, ["33", "17"])
    assert verdict.answers == [read] * 2
    assert verdict.correct.tolist() == [read == "33", read == "17"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("steps=0", "steps must be a number or range (1-3) within 1 to 3, got '0'."),
        ("steps=2-4", "steps must be a number or range (1-3) within 1 to 3, got '2-4'."),
        ("largest=5", "largest must be an integer from 12 to 9999, got 5."),
        ("templates=new", "templates must be one of all, seen, unseen, got 'new'."),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError) as raised:
        tasks.load(f"word_problems:{options}")
    assert str(raised.value) == message


def test_a_longest_solution_is_not_cut_short():
    longest = max(word_problems.MOST, 3)
    assert tasks.load(f"word_problems:steps={longest}").max_new_tokens >= 64
