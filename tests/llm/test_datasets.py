"""Tables of questions and answers, on small local files in the published schemas."""

import json
import re
import sys

import numpy as np
import pytest
from pmdllm import tasks
from pmdllm.tasks import tables

INSTRUCTION = "\nPlease reason step by step, and put your final answer within \\boxed{}."


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Keep what the package datasets writes inside the test's folder."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def gsm8k_rows(start, count):
    return [
        {
            "question": f"Ann has {i} thousand and {i} apples. How many?",
            "answer": f"{i}+0 = <<{i}+0={i}>>{i}\n#### {i},{i:03d}",
        }
        for i in range(start, start + count)
    ]


@pytest.fixture
def gsm8k(tmp_path):
    write(tmp_path / "gsm8k" / "train.jsonl", gsm8k_rows(1, 300))
    write(tmp_path / "gsm8k" / "test.jsonl", gsm8k_rows(500, 30))
    return tasks.load(f"gsm8k:path={tmp_path / 'gsm8k'}")


def test_gsm8k_reads_questions_and_answers(gsm8k):
    problems = gsm8k.held_out("test", 30)
    assert {p.prompt for p in problems} == {row["question"] + INSTRUCTION for row in gsm8k_rows(500, 30)}
    for problem in problems:
        i = int(re.search("[0-9]+", problem.prompt)[0])
        assert problem.answer == str(1000 * i + i)


def test_gsm8k_judges_its_own_solutions(gsm8k):
    rows = {row["question"] + INSTRUCTION: row["answer"] for row in gsm8k_rows(500, 30)}
    problems = gsm8k.held_out("test", 30)
    answers = [p.answer for p in problems]
    assert gsm8k.judge([rows[p.prompt] for p in problems], answers).correct.all()
    assert not gsm8k.judge([rows[p.prompt] for p in problems[1:] + problems[:1]], answers).correct.any()


def test_validation_is_carved_from_training(gsm8k):
    training = {row["question"] + INSTRUCTION for row in gsm8k_rows(1, 300)}
    size = len(gsm8k.problems["train"])
    train = {p.prompt for p in gsm8k.sample(size, np.random.default_rng(0))}
    validation = {p.prompt for p in gsm8k.held_out("validation", 300 - size)}
    assert train | validation == training and not train & validation
    assert abs(len(validation) - 15) < 4 * np.sqrt(300 * 0.05 * 0.95)


def test_samples_and_held_out_prompts_are_reproducible(gsm8k):
    draw = [gsm8k.sample(20, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert draw[0] == draw[1] != draw[2] and len(set(draw[0])) == 20
    assert gsm8k.held_out("test", 5) == gsm8k.held_out("test", 9)[:5]


def test_math_reads_the_last_box(tmp_path):
    solutions = {
        "a": (r"First $\boxed{1}$, so $x = \boxed{\frac{1}{2}}$.", r"\frac{1}{2}"),
        "b": (r"Hence \boxed{\{1, 2\}}", r"\{1, 2\}"),
        "c": (r"The answer is $\boxed 5$.", "5"),
        "d": (r"It is $\fbox{7}$.", "7"),
    }
    rows = [{"problem": q, "level": "Level 1", "type": "Algebra", "solution": s} for q, (s, _) in solutions.items()]
    write(tmp_path / "math" / "test.jsonl", rows)
    write(tmp_path / "math" / "train.jsonl", [{**rows[0], "problem": f"train {i}"} for i in range(9)])
    task = tasks.load(f"math:path={tmp_path / 'math'},template=plain")
    assert {p.prompt: p.answer for p in task.held_out("test", 4)} == {q: a for q, (_, a) in solutions.items()}
    braced = [p for p in task.held_out("test", 4) if p.prompt != "c"]
    assert task.judge([solutions[p.prompt][0] for p in braced], [p.answer for p in braced]).correct.all()


def test_dapo_reads_messages_and_repeats_nothing(tmp_path):
    import datasets

    rows = [
        {
            "data_source": "math_dapo",
            "prompt": [{"role": "user", "content": f"Solve. End with Answer: $Answer.\n\nWhat is {i}+{i}?"}],
            "ability": "MATH",
            "reward_model": {"ground_truth": str(2 * i), "style": "rule-lighteval/MATH_v2"},
            "extra_info": {"index": f"id-{i}"},
        }
        for i in range(200)
    ]
    path = tmp_path / "dapo.parquet"
    datasets.Dataset.from_list(rows * 3).to_parquet(path)
    task = tasks.load(f"dapo-math-17k:path={path}")
    everything = [p for problems in task.problems.values() for p in problems]
    assert {p.prompt: p.answer for p in everything} == {
        row["prompt"][0]["content"]: row["reward_model"]["ground_truth"] for row in rows
    }
    assert len(everything) == 200
    problem = task.held_out("test", 1)[0]
    assert task.judge([f"So.\nAnswer: ${problem.answer}$"], [problem.answer]).correct.all()


@pytest.mark.parametrize("suffix", ["json", "jsonl", "csv", "parquet"])
def test_files_of_every_format(tmp_path, suffix):
    import datasets

    rows = datasets.Dataset.from_list([{"q": f"{i}+1?", "a": i + 1} for i in range(100)])
    path = tmp_path / f"rows.{suffix}"
    getattr(rows, "to_json" if suffix == "jsonl" else f"to_{suffix}")(path)
    task = tasks.load(f'file:{path},question=q,answer=a,"template=Well, {{question}} "')
    problem = task.sample(1, np.random.default_rng(0))[0]
    assert re.fullmatch(r"Well, \d+\+1\? ", problem.prompt)
    assert int(problem.answer) == int(re.search("[0-9]+", problem.prompt)[0]) + 1


def test_splits_that_exist_are_used_and_never_overlap(tmp_path):
    def rows(*ids):
        return [{"question": f"q{i}", "answer": str(i)} for i in ids]

    write(tmp_path / "d" / "train.jsonl", rows(*range(50)))
    write(tmp_path / "d" / "validation.jsonl", rows(0, 1, 60, 61))
    write(tmp_path / "d" / "test.jsonl", rows(1, 2, 70, 70))
    task = tasks.load(f"file:{tmp_path / 'd'},template=plain")
    names = {split: {p.prompt for p in problems} for split, problems in task.problems.items()}
    assert names["test"] == {"q1", "q2", "q70"}
    assert names["validation"] == {"q0", "q60", "q61"}
    assert names["train"] == {f"q{i}" for i in range(3, 50)}


def test_rows_without_an_answer_are_counted_and_named(tmp_path):
    pairs = [("a", "no marker"), (None, "#### 1"), ("c", None), *((f"q{i}", "#### 2") for i in range(40))]
    path = write(tmp_path / "rows.jsonl", [{"question": q, "answer": a} for q, a in pairs])
    message = (
        r"3 of 43 rows of .* are left out: 3 without the text of a question or an answer \(rows.jsonl, line 1\)\.$"
    )
    with pytest.warns(UserWarning, match=message):
        task = tasks.load(f"file:{path},extract=hashes")
    assert sum(map(len, task.problems.values())) == 40


def test_answers_that_cannot_be_trusted_are_left_out_counted_and_named(tmp_path):
    pairs = [
        ("a", r"\neg 1"),
        ("b", "12:00"),
        ("c", r"0.\overline{3}"),
        ("d", "5."),
        ("e", r"\frac{1}{"),
        ("f", "2 2/3"),
    ]
    path = write(
        tmp_path / "rows.jsonl", [{"question": q, "answer": a} for q, a in pairs + [(str(i), "1") for i in range(40)]]
    )
    with pytest.warns(
        UserWarning, match=r"2 of 46 rows .*: 2 with an answer that cannot be read \(rows.jsonl, line 1: '\\\\neg 1'\)"
    ):
        task = tasks.load(f"file:{path},template=plain")
    everything = {p.prompt: p.answer for problems in task.problems.values() for p in problems}
    assert {q: a for q, a in everything.items() if a != "1"} == {q: a for q, a in pairs if q not in "ae"}


def test_a_question_with_different_answers_is_left_out(tmp_path):
    pairs = [("a", "1"), ("a", "2"), ("b", "0.5"), ("b", r"\frac{1}{2}"), *((str(i), "1") for i in range(40))]
    path = write(tmp_path / "rows.jsonl", [{"question": q, "answer": a} for q, a in pairs])
    with pytest.warns(
        UserWarning, match=r"1 of 44 rows .*1 with another answer to the same question \(rows.jsonl, line 2\)"
    ):
        task = tasks.load(f"file:{path},template=plain")
    everything = {p.prompt: p.answer for problems in task.problems.values() for p in problems}
    assert "a" not in everything and everything["b"] == "0.5" and len(everything) == 41


def everything(path, options="template=plain"):
    task = tasks.load(f"file:{path},{options}")
    return {p.prompt: p.answer for problems in task.problems.values() for p in problems}


WRITTEN = [
    "2024-01-02",
    "9007199254740993",
    "0.5",
    "123456789012345678901234567890",
    "007",
    "1e3",
    "0.10",
    "true",
    "-0",
    "1.0",
]


@pytest.mark.filterwarnings("ignore:.*are left out")
@pytest.mark.parametrize("suffix", ["json", "jsonl", "csv"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_the_text_that_was_written_is_the_text_that_is_used(tmp_path, suffix, start, end):
    """Numbers and booleans as JSON values where JSON has them; dates and zeros as they are."""
    bare = [x if suffix != "csv" and x not in ("2024-01-02", "007") else json.dumps(x) for x in WRITTEN]
    if suffix == "csv":
        text = end.join(["question,answer", *(f"q{i},{x}" for i, x in enumerate(WRITTEN))]) + end
    else:
        lines = [f'{{"question": "q{i}", "answer": {x}}}' for i, x in enumerate(bare)]
        text = end.join(lines) + end if suffix == "jsonl" else "[" + ("," + end).join(lines) + "]"
    path = tmp_path / f"rows.{suffix}"
    path.write_bytes((start + text).encode())
    expected = {f"q{i}": x for i, x in enumerate(WRITTEN) if x != "2024-01-02"}
    assert {q: a for q, a in everything(path).items() if q != "q0"} == expected
    assert tables.read(str(path))["train"][0][1]["answer"] == "2024-01-02"


def test_messages_parts_and_lists_of_one(tmp_path):
    parts = [{"type": "text", "text": "What is"}, {"type": "image", "url": "x"}, {"type": "text", "text": "1+1?"}]
    rows = [
        {"question": [{"role": "system", "content": None}, {"role": "user", "content": parts}], "answer": ["2"]},
        {"question": [{"role": "user", "content": "2+2?"}], "answer": [{"text": 4}]},
        {"question": {"role": "user", "content": "3+3?"}, "answer": 6},
    ]
    path = write(tmp_path / "rows.jsonl", rows + [{"question": str(i), "answer": "1"} for i in range(20)])
    found = everything(path)
    assert {q: a for q, a in found.items() if a != "1"} == {"What is\n\n1+1?": "2", "2+2?": "4", "3+3?": "6"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.jsonl", "", "path must have training rows with a question and an answer, got none"),
        ("rows.json", "[]", "path must have training rows"),
        ("rows.csv", "question,answer\n", "path must have training rows"),
        (
            "rows.jsonl",
            '{"question": "a", "answer": "1"}\n{"question": "b", "ans',
            "rows.jsonl cannot be read: line 2 is no JSON",
        ),
        ("rows.json", '[{"question": "a", "answer": "1"},', "rows.json cannot be read: .*line 1 column"),
        ("rows.json", '{"question": {}', "rows.json cannot be read: line 1"),
        ("rows.jsonl", '["a", "1"]\n', r"a row must be an object with named columns, got list \(line 1\)"),
        ("rows.json", '[{"question": "a", "answer": "1"}, "b"]', r"got str \(row 2\)"),
        ("rows.json", "[" * 100_000, "rows.json cannot be read"),
        ("rows.jsonl", '{"question": "\\ud800", "answer": "1"}', "rows.jsonl cannot be read|must be UTF-8"),
        ("rows.csv", 'question,answer\n"a,1\n', "rows.csv cannot be read"),
        ("rows.csv", "question,answer\na,1,2\n", "line 2 has more cells than the header has columns"),
        ("rows.csv", "answer,answer\na,1\n", "columns must have different names, got answer, answer"),
        ("rows.csv", b"question,answer\na,\xff\n", "rows.csv must be UTF-8 text"),
        ("rows.parquet", "no table", "rows.parquet' cannot be loaded by datasets"),
        ("folder/notes.txt", "", "path must hold files that end in"),
        ("folder/a.csv", None, "files of a folder must be named train, validation or test, got .*a.csv"),
    ],
)
def test_damaged_tables_are_one_clear_line(tmp_path, name, content, message):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    if content is None:
        (path.parent / "b.csv").write_text("question,answer\n")
    path.write_bytes(content if isinstance(content, bytes) else (content or "").encode())
    with pytest.raises(ValueError, match=message) as caught:
        tasks.load(f"file:{path.parent if '/' in name else path}")
    assert "\n" not in str(caught.value)


def test_templates_hold_new_lines_and_say_where_the_next_question_begins(tmp_path):
    path = write(tmp_path / "rows.jsonl", [{"question": f"q{i}", "answer": "1"} for i in range(40)])
    for template in ("Q: {question}\nA:", r"Q: {question}\nA:"):
        task = tasks.load(f"file:{path},template={template}")
        problem = task.sample(1, np.random.default_rng(0))[0]
        assert re.fullmatch(r"Q: q\d+\nA:", problem.prompt)
        assert task.judge([" 1\nQ: and then?\nA: 2", " 2\nQ: and?\nA: 1"], ["1"] * 2).correct.tolist() == [True, False]
    assert task.max_new_tokens == 1024 and tasks.load(f"file:{path},max_new_tokens=9").max_new_tokens == 9


def test_plain_files_need_no_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    path = write(tmp_path / "rows.jsonl", [{"question": f"q{i}", "answer": "1"} for i in range(40)])
    assert len(everything(path)) == 40


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("question=q", "columns of .* are question, answer, got 'q'"),
        ("answer=answer.text", "columns of .* are question, answer, got 'answer.text'"),
        ("extract=last", "extract must be one of plain, hashes, boxed, got 'last'"),
        ("template=why", "template must be one of boxed, plain or contain {question}, got 'why'"),
        (
            "column=q",
            "no option 'column'; its options are path, question, answer, extract, template, configs, max_new_tokens",
        ),
    ],
)
def test_bad_options_say_what_is_accepted(tmp_path, options, message):
    path = write(tmp_path / "rows.jsonl", [{"question": "q", "answer": "1"}])
    with pytest.raises(ValueError, match=message):
        tasks.load(f"file:{path},{options}")


def test_bad_paths_say_what_is_accepted(tmp_path):
    with pytest.raises(ValueError, match=r"path must be an existing file or folder, got 'nowhere\.jsonl'"):
        tasks.load("file:nowhere.jsonl")
    with pytest.raises(ValueError, match="file needs its path right after the colon, as in file:PATH"):
        tasks.load("file")
    (tmp_path / "rows.txt").write_text("1")
    with pytest.raises(ValueError, match=r"path must end in \.json, \.jsonl, \.csv, \.parquet"):
        tasks.load(f"file:{tmp_path / 'rows.txt'}")
    write(tmp_path / "only" / "test.jsonl", [{"question": "q", "answer": "1"}])
    with pytest.raises(ValueError, match="path must have a split called train, got test"):
        tasks.load(f"file:{tmp_path / 'only'}")


def test_more_problems_than_there_are(gsm8k):
    with pytest.raises(ValueError, match=r"test_prompts .* must be at most 30, the test prompts of gsm8k.*got 31"):
        gsm8k.held_out("test", 31)
    with pytest.raises(ValueError, match="split must be 'validation' or 'test', got 'train'"):
        gsm8k.held_out("train", 1)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match="pip install datasets"):
        tasks.load("gsm8k")
