"""The data sets of reasoning-gym: procedurally generated English prompts, scored by the data set's own rule.

A data set is a sequence of entries, each generated from its index. Which split an entry belongs to is decided by the
hash of its question (`pmdllm.tasks.fraction`): a quarter validation, a quarter test, half training. So no held-out
question is ever trained on, however many indices repeat it.

A completion is read between ``<answer>`` and ``</answer>``, as its prompt asks. Entries are generated, and completions
scored, in worker processes with bounded time and memory (`pmdllm.tasks.checker`): an entry that takes longer is never
drawn, and a data set whose first entries all do is refused. Some data sets score a text by handing it to Python's
``eval``, to SymPy's ``parse_expr``, which calls it, or to ``Fraction``, which writes out 1e999999999: since a
completion can say anything, they are refused. So are those whose rule takes nonsense, the empty text or the answer of
any other entry, for right, or does not take their own answers. A single entry whose own answer is not right is never
drawn.
"""

import dataclasses
import functools
import inspect
import re
from collections.abc import Iterator

import numpy as np

from .answers import Verdict, turn
from .checker import Checker
from .pool import Pool, Problem, boolean, split_of

__all__ = ["ReasoningGym"]

HELD_OUT = 0.25
TEMPLATE = "{question}\nPut your final answer between <answer> and </answer>."
LONGEST = 10_000
SECONDS = 10.0
TRIED = 5
NONSENSE = ("", "nan", "None", "?", "nonsense of seven words or so, really", "()")
KINDS = {bool: ("true or false", boolean), int: ("a number (int)", int), float: ("a number (float)", float)}
KINDS[str] = ("a text", str)
UNSETTABLE = ("true or false, a number or a text to be set in a spec", ().index)  # finds nothing: ValueError
EVALUATES = re.compile(r"\b(eval|exec|parse_expr|sympify|Fraction)\(")


class ReasoningGym(Pool):
    """One data set by its name; the template of its prompts contains ``{question}``.

    ``config`` holds options of the data set as text, such as ``min_terms="3"``. Entries are drawn from ``size``
    indices, a million unless said (10,000 where it does not take so many), and ``seed`` is 0.
    """

    max_new_tokens, stop = 512, ("\nQuestion:", "\nProblem:")

    def __init__(self, dataset: str, template: str = TEMPLATE, **config: str):
        try:
            import reasoning_gym  # noqa: F401
            from reasoning_gym.factory import DATASETS
        except ImportError:
            raise ImportError(f"reasoning_gym:{dataset} needs reasoning-gym: pip install reasoning-gym") from None
        if dataset not in DATASETS:
            raise ValueError(f"dataset must be one of {', '.join(sorted(DATASETS))}, got {dataset!r}.")
        if "{question}" not in template:
            raise ValueError(f"template must contain {{question}}, got {template!r}.")
        kind, options = DATASETS[dataset]
        if EVALUATES.search(inspect.getsource(kind.score_answer)):
            why = "must not evaluate completions, as code or without bound"
            raise ValueError(f"dataset {why}, and {dataset!r} does: take another.")
        config = {"seed": 0} | _typed(dataset, options, config)
        generates_all = "self.config.size" in inspect.getsource(kind)  # when it is made, and not one entry when asked
        self.ask = Checker(f"{__name__}:make", dataset, config, seconds=SECONDS)
        for size in [config["size"]] if "size" in config else [10_000] if generates_all else [1_000_000, 10_000]:
            ((self.size, problem),) = self.ask([[size]])
            if self.size:
                break
        else:
            why = problem or "it has no entries"
            raise ValueError(f"reasoning-gym does not accept {config} for {dataset}: {why}.")
        self.template, self.spec = template, f"reasoning_gym:{dataset}"
        self._refuse_a_rule_that_checks_nothing(dataset)

    def candidates(self, split: str, rng: np.random.Generator | None) -> Iterator[Problem | None]:
        """Draw entries, or go through all; those of the split whose own answer is right are its problems."""
        for index in range(self.size) if rng is None else iter(lambda: int(rng.integers(self.size)), None):
            question, own = self._entry(index)
            usable = question and split_of(question, HELD_OUT) == split and (own is None or self._accepts(index))
            yield Problem(self.template.replace("{question}", question), str(index)) if usable else None

    def sample(self, count: int, rng: np.random.Generator) -> list[Problem]:
        """Draw `count` different training problems, as `Pool.sample`; the answer of a problem is its entry's index."""
        problems = super().sample(count, rng)
        rng.integers(self.size)  # drawn ahead and not used: the prompts of a seed must never change
        return problems

    def judge(self, completions: list[str], answers: list[str]) -> Verdict:
        """Score the text between the last pair of answer tags by the data set's own rule; 1 is correct, less is not."""
        texts = [_tagged(turn(completion, self.stop)) for completion in completions]
        pairs = [(int(index), text) for index, text in zip(answers, texts)]
        asked = sorted({pair for pair in pairs if pair[1] is not None})
        right = dict(zip(asked, self._right(asked)))
        correct = [right.get(pair) for pair in pairs]
        own = [yes and self._entry(index)[1] for (index, _), yes in zip(pairs, correct)]
        forms = [None if yes is None else answer or text for answer, text, yes in zip(own, texts, correct)]
        return Verdict.of([bool(yes) for yes in correct], forms)

    def _right(self, pairs):
        """Whether the rule takes each (index, text) for right; None where it fails."""
        scores = self.ask([[self.size, *pair] for pair in pairs])
        return [None if score is None else score >= 1 for score, _ in scores]

    def _refuse_a_rule_that_checks_nothing(self, dataset):
        entries = self.ask([[self.size, index] for index in range(min(TRIED, self.size))])
        if not any(entry for entry, _ in entries):
            why = f"must generate its entries, and the first of {dataset!r} is {entries[0][1]}"
            raise ValueError(f"dataset {why}: take another, or smaller options.")
        own = [entry and entry[1] for entry, _ in entries]
        mine = [(i, a) for i, a in enumerate(own) if a is not None]
        others = [(i, b) for i, a in mine for _, b in mine if a != b]
        nonsense = [(i, text) for i in range(len(own)) for text in NONSENSE if text != own[i]]
        accepted = [repr(text) for (_, text), yes in zip(nonsense, self._right(nonsense)) if yes]
        if others and all(self._right(others)):
            accepted.append("the answer of any other entry")
        if accepted:
            why = f"must have a rule that tells right from wrong, and that of {dataset!r} takes {accepted[0]} for right"
            raise ValueError(f"dataset {why}: take another.")
        if mine and not any(self._right(mine)):
            raise ValueError(f"dataset must accept its own answers, and {dataset!r} does not: take another.")

    @functools.lru_cache(maxsize=4096)  # noqa: B019  a task lives as long as its process
    def _entry(self, index):
        ((entry, _),) = self.ask([[self.size, index]])
        return entry or (None, None)

    @functools.lru_cache(maxsize=4096)  # noqa: B019
    def _accepts(self, index):
        return self._right([(index, self._entry(index)[1])])[0]


def make(dataset, config):
    """Return the function that a worker calls.

    Of a data set of `size` entries it says how many there are; of an index, question and answer; of a text, its score.
    """
    import reasoning_gym

    @functools.cache
    def data(size):
        return reasoning_gym.create_dataset(dataset, **config | {"size": size})

    @functools.lru_cache(maxsize=4096)
    def entry(size, index):
        return data(size)[index]

    def reply(size, index=None, text=None):
        if index is None:
            return len(data(size))
        if text is None:
            return entry(size, index)["question"], entry(size, index)["answer"]
        return float(data(size).score_answer(answer=text, entry=entry(size, index)))

    return reply


def _tagged(completion):
    texts = re.findall(r"<answer>((?:(?!<answer>).)*?)</answer>", completion or "", re.DOTALL)
    return texts[-1].strip() if texts and len(texts[-1]) <= LONGEST else None


def _typed(dataset, options, config):
    """Options from text, in the types of their defaults."""
    defaults = {field.name: field.default for field in dataclasses.fields(options)} | {"seed": 0}
    typed = {}
    for key, value in config.items():
        if key not in defaults:
            raise ValueError(f"{dataset} has no option {key!r}; its options are template, {', '.join(defaults)}.")
        name, read = KINDS.get(type(defaults[key]), UNSETTABLE)
        try:
            typed[key] = read(value)
        except ValueError:
            raise ValueError(f"{key} must be {name}, got {value!r}.") from None
    return typed
