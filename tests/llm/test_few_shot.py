"""Few-shot examples: training problems before every question, never the question's own."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from pmdllm import tasks


def examples_and_question(prompt):
    assert prompt.startswith("Question: ") and prompt.endswith("\nAnswer:")
    *solved, last = prompt.removesuffix("\nAnswer:").split("\n\nQuestion: ")
    pairs = [tuple(text.removeprefix("Question: ").split("\nAnswer: ")) for text in solved]
    return pairs, last.removeprefix("Question: ")


@pytest.fixture
def gsm8k(tmp_path):
    rows = [
        {"question": f"{i} and 2 more?", "answer": f"{i}+2=<<{i}+2={i + 2}>>{i + 2}\n#### {i + 2}"} for i in range(40)
    ]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return f"gsm8k:path={tmp_path / 'train.jsonl'},template=plain,shots=3"


@pytest.mark.parametrize("name", ["word_problems", "sums:largest=30", "arithmetic", "reasoning_gym:chain_sum"])
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_examples_are_solved_training_problems_before_the_tasks_own_question(name, split):
    separator = "," if ":" in name else ":"
    plain, task = tasks.load(name), tasks.load(f"{name}{separator}shots=3")
    if split == "train":
        own, problems = (t.sample(40, np.random.default_rng(5)) for t in (plain, task))
    else:
        own, problems = (t.held_out(split, 40) for t in (plain, task))
    held_out = {p.prompt for name in ("validation", "test") for p in plain.held_out(name, 40)}
    for a, b in zip(own, problems, strict=True):
        assert b.prompt.endswith(f"Question: {a.prompt}\nAnswer:") and b.answer == a.answer
        before = b.prompt.removesuffix(f"Question: {a.prompt}\nAnswer:")
        assert before.count("Question: ") == 3 == before.count("\nAnswer: ") and before.endswith("\n\n")
        assert f"Question: {a.prompt}\nAnswer: " not in before
        assert not any(f"Question: {prompt}\nAnswer: " in before for prompt in held_out)
    if split != "train":
        assert len({b.prompt.removesuffix(f"{a.prompt}\nAnswer:") for a, b in zip(own, problems)}) == 1


def test_answers_of_the_examples_are_right():
    task = tasks.load("word_problems:shots=8")
    pairs, _ = examples_and_question(task.held_out("test", 1)[0].prompt)
    assert len(pairs) == 8
    for question, solution in pairs:
        assert re.search(r"(\d+)\. The answer is \1\.$", solution) and "?" in question


def test_a_question_is_never_its_own_example(gsm8k):
    for spec in (gsm8k, "sums:operators=*,largest=6,shots=4"):
        task = tasks.load(spec)
        shots = task.shots
        count = len(task.task.problems["train"])
        met = 0
        for problem in task.sample(count, np.random.default_rng(0)):
            pairs, question = examples_and_question(problem.prompt)
            assert len(pairs) == len(dict(pairs)) == shots and question not in dict(pairs)
            met += question in dict(task.examples)
        assert met == shots + 1  # all examples are training problems, and were asked


def test_worked_solutions_of_a_table(gsm8k):
    for problem in tasks.load(gsm8k).sample(5, np.random.default_rng(0)):
        pairs, question = examples_and_question(problem.prompt)
        for asked, solution in [
            *pairs,
            (question, f"{int(problem.answer) - 2}+2={problem.answer}\n#### {problem.answer}"),
        ]:
            i = int(asked.split()[0])
            assert solution == f"{i}+2={i + 2}\n#### {i + 2}"  # without marks for a calculator


def test_what_follows_a_next_question_is_not_judged(gsm8k):
    for spec, end in (("word_problems:shots=1", "\n"), (gsm8k, "\n\nQuestion:")):
        task = tasks.load(spec)
        assert end in task.stop
        completions = [" It is 5.\n\nQuestion: What is 3 + 4?\nAnswer: 7", " It is 7."]
        assert task.judge(completions, ["5", "5"]).correct.tolist() == [True, False]
        assert task.max_new_tokens == task.task.max_new_tokens


def test_lines_after_the_first_are_judged_where_examples_have_more(gsm8k):
    """An answer in one line, as those of sums and word problems, ends with it; one of GSM8K goes on."""
    completions = [" 1 + 4 = 5\n5 + 2 = 7"]
    for spec, last in (("sums:shots=1", "5"), ("word_problems:shots=2", "5"), (gsm8k, "7")):
        task = tasks.load(spec)
        assert [task.judge(completions, [answer]).correct[0] for answer in "57"] == [last == "5", last == "7"]
        assert ("\n" in task.stop) == (last == "5")


def test_prompts_are_measured_with_their_examples():
    task, lengths = tasks.load("word_problems:shots=2"), []

    def fits(prompts):
        lengths.extend(map(len, prompts))
        assert all(prompt.count("Question: ") == 3 for prompt in prompts)
        return [len(prompt) % 7 > 0 for prompt in prompts]

    with pytest.warns(UserWarning, match="do not fit the model"):
        task.restrict(fits)
    assert lengths
    assert all(len(problem.prompt) % 7 for problem in task.held_out("test", 50))


def test_examples_are_the_same_in_another_process():
    code = "from pmdllm import tasks; print(tasks.load('word_problems:shots=2').held_out('test', 1)[0].prompt)"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert other.strip() == tasks.load("word_problems:shots=2").held_out("test", 1)[0].prompt


def test_demonstrations_have_the_examples_too():
    task = tasks.load("word_problems:shots=2")
    for prompt, completion in task.demonstrations(20, np.random.default_rng(0)):
        pairs, question = examples_and_question(prompt)
        assert len(pairs) == 2 and question not in dict(pairs) and completion.startswith(" ")
        assert task.judge([completion], [re.search(r"(\d+)\.$", completion)[1]]).correct.all()
    assert not hasattr(tasks.load("reasoning_gym:chain_sum,shots=1"), "demonstrations")
    assert tasks.load("arithmetic:shots=1").alphabet == tasks.load("arithmetic").alphabet


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("sums:shots=-1", "shots must be an integer from 0 to 64, got -1."),
        ("sums:shots=few", "shots must be an integer, got 'few'."),
        ("sums:operators=*,largest=3,shots=9", "shots must be fewer than the training problems of sums:"),
    ],
)
def test_bad_numbers_of_shots(spec, message):
    with pytest.raises(ValueError) as raised:
        tasks.load(spec)
    assert str(raised.value).startswith(message) and "\n" not in str(raised.value)


def test_no_shots_are_no_change():
    assert tasks.load("sums:shots=0").held_out("test", 9) == tasks.load("sums").held_out("test", 9)
