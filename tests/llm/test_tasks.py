"""Tasks: arithmetic against Python's own grammar, splits that never meet, demonstrations, specs, reasoning-gym."""

import ast
import functools
import hashlib
import importlib
import itertools
import json
import operator
import os
import re
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
from pmdllm import tasks
from pmdllm.tasks import arithmetic
from pmdllm.tasks.arithmetic import Arithmetic, reductions
from pmdllm.tasks.reasoning import ReasoningGym

OPERATIONS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.USub: operator.neg}
LEVELS = [
    "arithmetic",
    "arithmetic:operators=-*,modulus=8",
    "arithmetic:terms=6-8,parentheses=true,modulus=97",
    "arithmetic:terms=5,parentheses=true,modulus=4,operators=-*",
    "arithmetic:terms=5,modulus=1000",
]


def by_python(text):
    """Value of an expression by Python's grammar, in integers."""

    def value(node):
        if isinstance(node, ast.Constant):
            return node.value
        operands = (node.operand,) if isinstance(node, ast.UnaryOp) else (node.left, node.right)
        return OPERATIONS[type(node.op)](*map(value, operands))

    return value(ast.parse(text, mode="eval").body)


def in_order(text, order):
    """Value with parentheses but without precedence: innermost pairs first, rewritten with a pair per operation."""
    while (inner := re.search(r"\(([^()]*)\)", text)) or not re.fullmatch("-?[0-9]+", text):
        start, end, chain = (*inner.span(), inner[1]) if inner else (0, len(text), text)
        numbers, signs = re.findall("(?:(?<=[-+*])|^)-?[0-9]+", chain), re.findall("(?<=[0-9])[-+*]", chain)
        if order == "left":
            nested = "(" * len(signs) + numbers[0] + "".join(f"{s}({x}))" for s, x in zip(signs, numbers[1:]))
        else:
            nested = "".join(f"({x}){s}(" for x, s in zip(numbers, signs)) + numbers[-1] + ")" * len(signs)
        text = text[:start] + str(by_python(nested)) + text[end:]
    return int(text)


def next_texts(text, modulus):
    """All texts one operation away: two neighbouring numbers replaced by their result, lone parentheses dropped."""
    tokens = re.findall(r"[0-9]+|.", text)
    for i in range(1, len(tokens) - 1):
        if tokens[i] in "+-*" and tokens[i - 1].isdigit() and tokens[i + 1].isdigit():
            after = [*tokens[: i - 1], str(by_python("".join(tokens[i - 1 : i + 2])) % modulus), *tokens[i + 2 :]]
            if i > 1 and after[i - 2 : i + 1 : 2] == ["(", ")"]:
                del after[i], after[i - 2]
            yield "".join(after)


@cache
def load(spec):
    return tasks.load(spec)


@pytest.mark.parametrize("spec", LEVELS)
def test_every_prompt_is_answered_rightly_and_defeats_both_wrong_orders(spec):
    task = load(spec)
    held_out = task.held_out("test", 5) + task.held_out("validation", 5)
    for problem in task.sample(100, np.random.default_rng(0)) + held_out:
        text = problem.prompt.removesuffix("=")
        right = by_python(text) % task.modulus
        assert problem.answer == str(right)
        assert right not in (in_order(text, "left") % task.modulus, in_order(text, "right") % task.modulus)
        operands = [int(x) for x in re.findall("[0-9]+", text)]
        assert len(operands) in task.terms and all(0 < x < task.modulus for x in operands)
        assert ("(" in text) == task.parentheses
        assert set(problem.prompt) <= set(task.alphabet)


def test_a_small_level_is_complete():
    """The three splits together are what brute force over all 1,458 texts keeps."""
    task, wanted = Arithmetic(operators="+*", modulus=4), set()
    for digits in itertools.product("123", repeat=4):
        for signs in itertools.product("+*", repeat=3):
            text = "".join(itertools.chain(*zip(digits, signs))) + digits[3]
            if by_python(text) % 4 not in (in_order(text, "left") % 4, in_order(text, "right") % 4):
                wanted.add(text + "=")
    sizes = {split: len(task.problems[split]) for split in ("train", "validation", "test")}
    found = task.sample(sizes["train"], np.random.default_rng(0))
    found += task.held_out("validation", sizes["validation"]) + task.held_out("test", sizes["test"])
    assert {problem.prompt for problem in found} == wanted
    assert len(found) == len(wanted)


@pytest.mark.parametrize("spec", LEVELS)
def test_splits_never_meet(spec):
    task = load(spec)
    count = 10 if "modulus=4" in spec else 50
    held_out = [{p.prompt for p in task.held_out(split, count)} for split in ("validation", "test")]
    train = {p.prompt for p in task.sample(5 * count, np.random.default_rng(0))}
    train |= {prompt for prompt, _ in task.demonstrations(5 * count, np.random.default_rng(1))}
    assert len(held_out[0]) == len(held_out[1]) == count
    assert not held_out[0] & held_out[1] and not train & (held_out[0] | held_out[1])


def test_a_twentieth_is_held_out_twice():
    """Binomial shares of a level of 29,568 prompts, within four standard deviations."""
    pool = load("arithmetic").problems
    total = sum(len(problems) for problems in pool.values())
    for split in ("validation", "test"):
        assert abs(len(pool[split]) - 0.05 * total) < 4 * np.sqrt(0.05 * 0.95 * total)


@pytest.mark.parametrize("spec", [LEVELS[0], LEVELS[2]])
def test_held_out_prompts_are_the_same_everywhere_and_nested(spec):
    code = (
        "import json; from pmdllm import tasks;"
        f"print(json.dumps([p.prompt for p in tasks.load({spec!r}).held_out('test', 20)]))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONHASHSEED": "7"})
    assert json.loads(run.stdout) == [p.prompt for p in load(spec).held_out("test", 20)]
    assert load(spec).held_out("test", 5) == load(spec).held_out("test", 20)[:5]


def test_fraction_is_sha256():
    """The published digest of "abc" begins with ba7816bf8f01, that of the empty text with e3b0c44298fc."""
    assert tasks.fraction("abc") == 0xBA7816BF8F01 / 2**48
    assert tasks.fraction("") == 0xE3B0C44298FC / 2**48


@pytest.mark.parametrize("spec", LEVELS)
def test_samples_depend_on_the_generator_alone(spec):
    task = load(spec)
    draw = [task.sample(20, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert draw[0] == draw[1] != draw[2]
    assert len(set(draw[0])) == 20


@pytest.mark.parametrize("spec", LEVELS)
def test_demonstrations_take_one_possible_operation_at_a_time(spec):
    task = load(spec)
    for prompt, completion in task.demonstrations(100, np.random.default_rng(0)):
        steps = [prompt[:-1], *completion.split("=")]
        assert all(after in next_texts(before, task.modulus) for before, after in itertools.pairwise(steps))
        assert re.fullmatch("[0-9]+", steps[-1])
        assert len(completion) + 1 <= task.max_new_tokens
        assert set(completion) <= set(task.alphabet)


def test_demonstrations_choose_uniformly():
    rng = np.random.default_rng(0)
    firsts = [reductions("1+2*3-(4+5)", 97, rng)[0] for _ in range(3000)]
    share = [firsts.count(text) / 3000 for text in ("3*3-(4+5)", "1+6-(4+5)", "1+2*3-9")]
    assert sum(share) == pytest.approx(1)
    assert max(abs(x - 1 / 3) for x in share) < 4 * np.sqrt(2 / 9 / 3000)


def random_order_accuracy(text, modulus, answer):
    """Probability that random possible operations end at the answer, over all orders."""
    following = list(next_texts(text, modulus))
    return np.mean([random_order_accuracy(t, modulus, answer) for t in following]) if following else text == answer


@pytest.mark.parametrize(("spec", "share"), [(LEVELS[0], 0.33), (LEVELS[2], 0.22)])
def test_demonstrations_leave_the_documented_room_to_learn(spec, share):
    task = load(spec)
    pairs = task.demonstrations(1000, np.random.default_rng(0))
    right = np.mean([by_python(prompt[:-1]) % task.modulus == int(text.split("=")[-1]) for prompt, text in pairs])
    assert abs(right - share) < 4 * np.sqrt(share * (1 - share) / 1000)
    assert f"{share:.2f}"[1:] in arithmetic.__doc__


def test_room_to_learn_by_enumeration_of_orders():
    """The same share for 300 prompts of the default level, with no randomness but the choice of prompts."""
    problems = load("arithmetic").sample(300, np.random.default_rng(0))
    exact = [random_order_accuracy(p.prompt[:-1], 10, p.answer) for p in problems]
    assert abs(np.mean(exact) - 0.33) < 4 * np.std(exact) / np.sqrt(300)


def test_a_longest_completion_leaves_three_tokens():
    """`7+7-9=4-9=5` is as long as one of the default level gets; the end of sequence and two spare tokens follow."""
    assert load("arithmetic").max_new_tokens == len("7+7-9=4-9=5") + 3


def test_judging():
    task = load("arithmetic")
    problems = task.held_out("test", 50)
    right = task.judge([f"1+2={p.answer}" for p in problems], [p.answer for p in problems])
    wrong = task.judge([f"1+2={(int(p.answer) + 1) % 10}" for p in problems], [p.answer for p in problems])
    none = task.judge(["1+2="] * 50, [p.answer for p in problems])
    assert right.correct.all() and not wrong.correct.any() and not none.correct.any()
    assert right.parsed.all() and wrong.parsed.all() and not none.parsed.any()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("arithmetics", "task must be one of arithmetic, sums, word_problems.*gsm8k.*got 'arithmetics'"),
        ("", "task must be one of"),
        ("arithmetic:depth=3", "no option 'depth'; its options are terms, operators, modulus, parentheses, shots"),
        ("arithmetic:terms", "form option=value, got 'terms'"),
        ("arithmetic:terms=3", "terms must be a number .* 4 to 64 .*got '3'"),
        ("arithmetic:terms=4,parentheses=true", "terms must be a number .* 5 to 64"),
        ("arithmetic:terms=8-6", "got '8-6'"),
        ("arithmetic:terms=four", "got 'four'"),
        ("arithmetic:operators=+-", r"operators must be \* and \+ or -"),
        ("arithmetic:operators=*", r"operators must be \* and \+ or -"),
        ("arithmetic:operators=+*/", r"operators must be \* and .* got '\+\*/'"),
        ("arithmetic:operators=+**", "each once"),
        ("arithmetic:modulus=2", "modulus must be an integer from 3 to 1000, got 2"),
        ("arithmetic:modulus=ten", "modulus must be an integer, got 'ten'"),
        ("arithmetic:parentheses=maybe", "parentheses must be true or false, got 'maybe'"),
        ("reasoning_gym", "needs its dataset right after the colon"),
        ("reasoning_gym:chain_sums", "dataset must be one of .*chain_sum.*got 'chain_sums'"),
        ("reasoning_gym:chain_sum,terms=3", "no option 'terms'; its options are .*min_terms"),
        ("reasoning_gym:chain_sum,min_terms=few", "min_terms must be a number"),
        ("reasoning_gym:chain_sum,min_terms=9", "max_terms must be >= min_terms"),
        ("reasoning_gym:chain_sum,allow_negation=perhaps", "allow_negation must be true or false"),
        ("reasoning_gym:chain_sum,template=why", "template must contain {question}"),
        ("reasoning_gym:countdown", "must not evaluate completions.*'countdown'"),
        ("reasoning_gym:n_queens", "must not evaluate completions"),
        ("reasoning_gym:coin_flip", "must not evaluate completions"),
    ],
)
def test_bad_specs_say_what_is_accepted(spec, message):
    with pytest.raises(ValueError, match=message):
        tasks.load(spec)


@pytest.mark.parametrize("spec", [LEVELS[0], "arithmetic:terms=5,parentheses=true,modulus=3,operators=+*"])
def test_more_problems_than_there_are(spec, monkeypatch):
    task, rng = load(spec), np.random.default_rng(0)
    monkeypatch.setattr(Arithmetic, "attempts", 1000)
    with pytest.raises(
        ValueError, match=r"prompts_per_batch must be at most \d+, the train prompts of arithmetic.*1000000"
    ):
        task.sample(10**6, rng)
    with pytest.raises(ValueError, match=r"test_prompts .* must be at most \d+, the test prompts of arith.*100000"):
        task.held_out("test", 10**5)
    with pytest.raises(ValueError, match=r"eval_prompts .* must be at most \d+, the validation prompts"):
        task.held_out("validation", 10**5)


def place(text):
    """SHA-256 as a fraction."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:12], 16) / 16**12


@functools.cache
def arithmetic_by_hashing(low, high):
    """Every prompt of the first level in a range of the hash where both wrong orders lead elsewhere, in its order."""
    digits = np.array(list(itertools.product(range(1, 10), repeat=4)))
    names, found = dict(zip("abcd", digits.T)), []
    for i, j, k in itertools.product("+-*", repeat=3):
        orders = f"a{i}b{j}c{k}d", f"((a{i}b){j}c){k}d", f"a{i}(b{j}(c{k}d))"  # Python's, from the left, from the right
        right, *wrong = (eval(order, {}, names) % 10 for order in orders)
        told_apart = digits[(right != wrong[0]) & (right != wrong[1])]
        found += [f"{a}{i}{b}{j}{c}{k}{d}=" for a, b, c, d in told_apart.tolist()]
    return sorted((prompt for prompt in found if low <= place(prompt) < high), key=place)


def drawn_by_hashing(task, split, count, rng):
    """The drawing rule, written out on its own: the hash holds out 5% each, first come, first kept."""
    low, high = {"validation": (0, 0.05), "test": (0.05, 0.1), "train": (0.1, 1)}[split]
    if task.spec == "arithmetic":
        found = arithmetic_by_hashing(low, high)
        return found[:count] if rng is None else [found[i] for i in rng.choice(len(found), count, replace=False)]
    rng = np.random.default_rng(["validation", "test"].index(split)) if rng is None else rng
    found = []
    while len(found) < count:
        n = 6 + rng.integers(3)
        numbers = rng.integers(1, 97, size=n).tolist()
        expression = [str(numbers[0])]
        for number, sign in zip(numbers[1:], rng.integers(3, size=n - 1).tolist()):
            expression += ["+-*"[sign], str(number)]
        for _ in range(rng.integers(n // 2 - 1, n // 2 + 1)):
            operands = (len(expression) + 1) // 2
            if operands > 2:
                run = rng.integers(2, min(operands, 4))
                start = 2 * rng.integers(operands - run + 1)
                expression[start : start + 2 * run - 1] = ["(" + "".join(expression[start : start + 2 * run - 1]) + ")"]
        text = "".join(expression)
        values = [by_python(text) % 97, *(in_order(text, order) % 97 for order in ("left", "right"))]
        if low <= place(text + "=") < high and values[0] not in values[1:] and text + "=" not in found:
            found.append(text + "=")
    return found


@pytest.mark.parametrize("spec", [LEVELS[0], LEVELS[2]])
def test_a_seed_draws_the_prompts_it_has_always_drawn(spec):
    task, mine, theirs = tasks.load(spec), np.random.default_rng(3), np.random.default_rng(3)
    for count in (5, 20):
        assert [p.prompt for p in task.sample(count, mine)] == drawn_by_hashing(task, "train", count, theirs)
    assert mine.bit_generator.state == theirs.bit_generator.state
    for split in ("validation", "test"):
        assert [p.prompt for p in task.held_out(split, 10)] == drawn_by_hashing(task, split, 10, None)


@pytest.mark.parametrize("spec", [LEVELS[0], LEVELS[2], "reasoning_gym:chain_sum"])
def test_prompts_that_do_not_fit_are_left_out_and_counted(spec):
    task, other = tasks.load(spec), load(spec)
    longest = int(np.median([len(p.prompt) for p in other.sample(50, np.random.default_rng(0))]))
    longest = longest if spec != LEVELS[0] else None

    def fits(prompts):
        return [len(p) <= longest if longest else not p.startswith("7") for p in prompts]

    with pytest.warns(
        UserWarning, match=r"\d+ of \d+ prompts.* of .* do not fit the model and are left out, the first is '"
    ):
        task.restrict(fits)
    problems = task.sample(20, np.random.default_rng(0)) + task.held_out("test", 20)
    assert all(fits([p.prompt for p in problems]))
    with pytest.raises(ValueError, match=r"has no prompt that fits the model, the first is .*smaller max_new_tokens"):
        task.restrict(lambda prompts: [False] * len(prompts))


@pytest.mark.parametrize("spec", [LEVELS[0], LEVELS[2], "reasoning_gym:chain_sum"])
def test_draws_stay_the_same_where_all_fits(spec, recwarn):
    task, rngs = tasks.load(spec), [np.random.default_rng(1) for _ in range(2)]
    before = [load(spec).sample(5, rngs[0]) for _ in range(2)]
    task.restrict(lambda prompts: [True] * len(prompts))
    assert [task.sample(5, rngs[1]) for _ in range(2)] == before and not recwarn.list


OWN = """
from __future__ import annotations
from dataclasses import dataclass
from pmdllm.tasks import Pool, Problem
from pmdllm.tasks.answers import exact

class Reverse(Pool):
    max_new_tokens = 16

    def __init__(self, length: int = 4, loud: bool = False):
        self.length, self.loud = length, loud
        words = ["".join(word) for word in __import__("itertools").product("abcd", repeat=length)]
        rows = [Problem(word + "=", word[::-1]) for word in words]
        self.problems = {"train": rows[20:], "validation": rows[:10], "test": rows[10:20]}

    def judge(self, completions, answers):
        return exact(completions, answers, pattern="[a-d]+")

@dataclass
class Half:
    size: int = 3
    max_new_tokens = 3
    def sample(self, count, rng): return []

def failing(): raise ValueError("length must be positive, got 0.")
def careless(): return {}["size"]
class Unlucky:
    def __init__(self): raise RuntimeError("no\\nluck")
class Undone:
    def __init__(self): raise NotImplementedError
class Needy:
    def __init__(self): import nowhere_at_all
class Late(Reverse):
    def restrict(self, fits): return {}["later"]
number = 3
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "strangers_task.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("strangers_task", None)


@pytest.mark.parametrize("place", ["strangers_task", "strangers_task.py", "./strangers_task.py"])
def test_a_strangers_own_task(own, place):
    task = tasks.load(f"{place}:Reverse:length=3,loud=true")
    assert (task.length, task.loud, task.spec) == (3, True, f"{place}:Reverse:length=3,loud=true")
    problem = task.sample(1, np.random.default_rng(0))[0]
    assert problem.answer == problem.prompt[:3][::-1] and len(task.held_out("test", 10)) == 10
    assert task.judge([problem.answer, "dddd"], [problem.answer] * 2).correct.tolist() == [True, False]
    assert tasks.load(f"{place}:Reverse").length == 4


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nowhere.py:Reverse", "task must name a file that exists, got 'nowhere.py'"),
        ("strangers_tusk:Reverse", "there is no module 'strangers_tusk'"),
        ("strangers_task", "or package.module:Class, or file.py:Class, got 'strangers_task'"),
        ("strangers_task.deeper:Reverse", "there is no module 'strangers_task.deeper'"),
        ("strangers_task:Revers", "has no class or function 'Revers'"),
        ("strangers_task:number", "has no class or function 'number'"),
        ("strangers_task:Half", "task strangers_task:Half needs stop, held_out, judge, restrict: add what is missing"),
        ("strangers_task:Reverse:size=3", "has no option 'size'; its options are length, loud, shots"),
        ("strangers_task:Reverse:length=few", "length must be an integer, got 'few'"),
        ("strangers_task.py:failing", "length must be positive, got 0"),
        ("strangers_task.py:careless", "task strangers_task.py:careless cannot be made: KeyError: 'size'"),
        ("strangers_task.py:failing", r"task strangers_task.py:failing cannot be made: ValueError: length must"),
        ("strangers_task.py:Unlucky", r"strangers_task.py:Unlucky cannot be made: RuntimeError: no luck \(.*, line 28"),
        ("strangers_task:Undone", r"task strangers_task:Undone cannot be made: NotImplementedError \(.*, line \d+\)\."),
        ("strangers_task:Needy", "task strangers_task:Needy cannot be made: ModuleNotFoundError: No module named 'now"),
    ],
)
def test_bad_own_tasks_say_what_is_missing(own, spec, message):
    with pytest.raises(ValueError, match=message) as caught:
        tasks.load(spec)
    assert "\n" not in str(caught.value)


def test_an_own_task_with_an_error_says_which(own):
    (own / "broken.py").write_text("import nowhere_at_all")
    with pytest.raises(ImportError, match=r"task broken\.py needs a module that is missing: nowhere_at_all"):
        tasks.load("broken.py:Task")
    (own / "broken.py").write_text("1 +")
    with pytest.raises(ValueError, match=r"task broken\.py cannot be loaded: SyntaxError"):
        tasks.load("broken.py:Task")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("train --task strangers_task.py:Unlucky", "strangers_task.py:Unlucky cannot be made: RuntimeError: no luck"),
        ("train --task strangers_task.py:Late", "your own code fails: KeyError: 'later' ("),
        ("train --reward strangers_task.py:careless", "your own code fails: TypeError: careless()"),
        ("law strangers_task.py:careless", "your own code fails: TypeError: careless()"),
    ],
)
def test_own_code_that_fails_is_one_line(own, capsys, words, message):
    """Naming the class or the place, with exit code 2, whenever it is that it fails."""
    from pmdllm import cli

    command, *rest = words.split()
    small = "--learning-rate 1e-3 --iterations 1 --test-prompts 4 --eval-prompts 4 --output run"
    assert cli.main([command, *rest, *(small.split() if command == "train" else ())]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith(f"pmd-llm {command}: ") and message in line


def test_every_task_has_what_the_loop_needs(tmp_path):
    rows = "".join(json.dumps({"question": f"{i}+1", "answer": str(i + 1)}) + "\n" for i in range(60))
    (tmp_path / "train.jsonl").write_text(rows.replace('"answer": "', '"answer": "#### '))
    (tmp_path / "rows.jsonl").write_text(rows)
    specs = [
        "arithmetic",
        "reasoning_gym:chain_sum",
        f"file:{tmp_path / 'rows.jsonl'}",
        f"gsm8k:path={tmp_path / 'train.jsonl'}",
    ]
    for task in map(tasks.load, specs):
        assert isinstance(task.max_new_tokens, int) and task.max_new_tokens > 0
        assert isinstance(task.stop, tuple) and all(isinstance(text, str) for text in task.stop)
        problems = task.sample(2, np.random.default_rng(0)) + task.held_out("validation", 1)
        assert task.judge(["?"] * 3, [p.answer for p in problems]).correct.tolist() == [False] * 3


@pytest.mark.parametrize("spec", ["arithmetic", "reasoning_gym:chain_sum"])
def test_training_prompts_are_not_held_out_prompts(spec):
    with pytest.raises(ValueError, match="split must be 'validation' or 'test', got 'train'"):
        load(spec).held_out("train", 1)


def test_spec_is_kept():
    assert load("arithmetic:terms=5").spec == "arithmetic:terms=5"


def test_importing_a_task_stays_light():
    code = (
        "import sys; from pmdllm import tasks; tasks.load('arithmetic').held_out('test', 1);"
        "assert not {'torch', 'transformers', 'datasets', 'reasoning_gym', 'sympy', 'math_verify'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    "spec",
    [
        "reasoning_gym:chain_sum,template={{question}}",
        "file:{rows}",
        "file:{rows},template=Q: {{question}}\nA:",
        "gsm8k:path={rows}",
    ],
)
def test_every_task_is_evaluated_with_no_option_but_its_name(spec, tmp_path):
    """A random model that reads English, through the same functions that the commands call."""
    from pmdllm import models
    from pmdllm.evaluate import evaluate as accuracies

    rows = "".join(json.dumps({"question": f"{i}+1?", "answer": f"So.\n#### {i + 1}"}) + "\n" for i in range(60))
    (tmp_path / "rows.jsonl").write_text(rows)
    if spec.startswith("file"):
        spec = spec.replace("{rows}", "{rows},extract=hashes")
    task = tasks.load(spec.format(rows=tmp_path / "rows.jsonl"))
    tokenizer = models.character_tokenizer("\n" + "".join(map(chr, range(32, 127))).replace("<", ""))
    model = models.tiny(tokenizer, hidden_size=16, layers=1, heads=2, max_length=512 + task.max_new_tokens)
    found = accuracies(model, tokenizer, task, "validation", 2, 2, min(task.max_new_tokens, 8))
    assert found["avg@2"] == found["greedy"] == 0 and found["length"] <= 8


def test_reasoning_gym_scores_by_its_own_rule():
    task = load("reasoning_gym:chain_sum")
    problems = task.sample(20, np.random.default_rng(0))
    sums = [str(by_python(re.search(r"problem: (.*) =", p.prompt)[1].replace(" ", ""))) for p in problems]
    answers = [p.answer for p in problems]
    verdict = task.judge([f"<answer>0</answer> no: <answer> {x} </answer>" for x in sums], answers)
    assert verdict.correct.all() and verdict.answers == sums
    assert not task.judge([f"<answer>{x}1</answer>" for x in sums], answers).correct.any()
    assert not task.judge(sums, answers).parsed.any()


@pytest.mark.parametrize("name", ["chain_sum", "basic_arithmetic", "leg_counting", "propositional_logic"])
def test_reasoning_gym_splits_never_meet(name):
    """Also where few different questions exist: sums of two digits repeat within a thousand draws."""
    options = {"min_terms": "2", "max_terms": "2", "max_digits": "1"} if name == "chain_sum" else {}
    task = ReasoningGym(name, **options)
    validation, test = ({p.prompt for p in task.held_out(split, 15)} for split in ("validation", "test"))
    train = {p.prompt for p in task.sample(60, np.random.default_rng(0))}
    assert len(validation) == len(test) == 15 and len(train) == 60
    assert not validation & test and not train & (validation | test)


def test_reasoning_gym_options_reach_the_data_set():
    task = load("reasoning_gym:chain_sum,min_terms=3,max_terms=3,allow_negation=true,template=Q: {question} A:")
    prompts = [p.prompt for p in task.held_out("test", 20)]
    assert all(re.fullmatch(r"Q: [^:]*: -?\d+ [-+] -?\d+ [-+] -?\d+ = A:", prompt) for prompt in prompts)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "complex_arithmetic",
            "rule that tells right from wrong, and that of 'complex_arithmetic' takes 'nan' for right",
        ),
        ("game_of_life_halting", "rule that tells right from wrong, and that of 'game_of_life_halting' takes"),
    ],
)
def test_reasoning_gym_whose_rule_takes_nonsense_is_refused(name, message):
    with pytest.raises(ValueError, match=message):
        ReasoningGym(name)


def with_rule(monkeypatch, rule):
    """The data set chain_sum with another rule, in this process: a function of answer, entry."""
    import reasoning_gym
    from pmdllm.tasks import reasoning

    data = reasoning_gym.create_dataset("chain_sum", seed=0, size=1000)

    class Here:
        def __init__(self, *arguments, **options):
            pass

        def __call__(self, calls):
            return [(self.reply(*call), None) for call in calls]

        def reply(self, size, index=None, text=None):
            if index is None:
                return size
            return [data[index]["question"], data[index]["answer"]] if text is None else rule(text, data[index])

    monkeypatch.setattr(reasoning, "Checker", Here)


def test_reasoning_gym_that_rejects_its_own_answers_is_refused(monkeypatch):
    with_rule(monkeypatch, lambda answer, entry: 0.0)
    with pytest.raises(ValueError, match="dataset must accept its own answers, and 'chain_sum' does not"):
        ReasoningGym("chain_sum", size="1000")


def test_reasoning_gym_that_takes_every_number_is_refused(monkeypatch):
    with_rule(monkeypatch, lambda answer, entry: float(bool(re.fullmatch("-?[0-9]+", answer))))
    with pytest.raises(ValueError, match="takes the answer of any other entry for right"):
        ReasoningGym("chain_sum", size="1000")


def test_reasoning_gym_entries_whose_own_answer_is_not_right_are_not_drawn(monkeypatch):
    with_rule(monkeypatch, lambda answer, entry: float(answer == entry["answer"] and int(answer) % 2 == 0))
    task = ReasoningGym("chain_sum", size="1000")
    problems = task.sample(30, np.random.default_rng(0)) + task.held_out("test", 10)
    assert all(int(task._entry(int(p.answer))[1]) % 2 == 0 for p in problems)


@pytest.fixture
def endless(monkeypatch, tmp_path):
    """A data set whose entry of an index that `slow` is true of is never done, in this process and in its workers."""
    source = """
import reasoning_gym
from reasoning_gym.arithmetic.chain_sum import ChainSumConfig, ChainSumDataset

class Endless(ChainSumDataset):
    def __getitem__(self, index):
        while SLOW(index):
            pass
        return super().__getitem__(index)

from pmdllm.tasks.reasoning import make
reasoning_gym.register_dataset("endless", Endless, ChainSumConfig)
"""

    def made(slow):
        from pmdllm.tasks import reasoning

        module = tmp_path.name  # workers are shared by checkers of one module
        (tmp_path / f"{module}.py").write_text(source.replace("SLOW(index)", slow))
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        monkeypatch.setattr(reasoning, "SECONDS", 0.5)
        monkeypatch.setattr(reasoning, "__name__", module)
        importlib.import_module(module)

    yield made
    del sys.modules[tmp_path.name], sys.modules["reasoning_gym.factory"].DATASETS["endless"]


def test_reasoning_gym_entries_that_are_never_done_are_not_drawn(endless):
    """Two of five indices: the others are drawn as ever."""
    endless("index % 5 > 2 and index < 10")
    task = ReasoningGym("endless", size="20")
    drawn = [int(p.answer) for split in ("validation", "test", "train") for p in task.candidates(split, None) if p]
    assert sorted(drawn) == [i for i in range(20) if i % 5 < 3 or i >= 10]


def test_reasoning_gym_that_generates_nothing_in_time_is_refused(endless):
    endless("True")
    with pytest.raises(ValueError, match=r"the first of 'endless' is not done within 0.5 s: take another, or smaller"):
        ReasoningGym("endless", size="20")


def test_reasoning_gym_that_fails_on_a_text_counts_it():
    task = ReasoningGym("chain_sum")
    problem = task.held_out("test", 1)[0]
    verdict = task.judge([f"<answer>{text}</answer>" for text in ("0.5", "9" * 20_000)], [problem.answer] * 2)
    assert verdict.parsed.tolist() == [True, False] and not verdict.correct.any()


def test_reasoning_gym_judges_the_models_own_turn():
    task = load("reasoning_gym:chain_sum")
    problem = task.held_out("test", 1)[0]
    own = task._entry(int(problem.answer))[1]
    texts = [f"<think><answer>{own}</answer>", f"<answer>{own}</answer>\nQuestion: 1?\n<answer>0</answer>"]
    texts += [f"<think><answer>0</answer></think><answer>{own}</answer>"]
    assert task.judge(texts, [problem.answer] * 3).correct.tolist() == [False, True, True]


def test_reasoning_gym_draws_the_prompts_it_has_always_drawn():
    """Indices by the generator, a quarter of the questions held out twice, and one number drawn ahead."""
    import reasoning_gym

    task, mine, theirs = ReasoningGym("chain_sum"), np.random.default_rng(5), np.random.default_rng(5)
    data, expected = reasoning_gym.create_dataset("chain_sum", seed=0, size=1_000_000), []
    for count in (4, 6):
        taken = []
        for index in iter(lambda: int(theirs.integers(1_000_000)), None):
            if len(taken) == count:
                break
            if int(hashlib.sha256(data[index]["question"].encode()).hexdigest()[:12], 16) >= 16**12 / 2:
                taken.append(str(index))
        expected += taken
    assert [p.answer for count in (4, 6) for p in task.sample(count, mine)] == expected


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(ImportError, match="pip install reasoning-gym"):
        tasks.load("reasoning_gym:chain_sum")


def test_a_split_without_problems_asks_no_tokenizer(tmp_path):
    """One row is a training row; tokenizers fail on an empty list."""
    (tmp_path / "one.csv").write_text("question,answer\n1+1,2\n")
    task = tasks.load(f"file:{tmp_path / 'one.csv'}")
    task.restrict(lambda prompts: [len(prompts[0]) > 0] * len(prompts))
    assert len(task.sample(1, np.random.default_rng(0))) == 1
    with pytest.raises(ValueError, match=r"test_prompts .* must be at most 0"):
        task.held_out("test", 1)
