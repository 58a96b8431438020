"""The data sets of reasoning-gym: procedurally generated English prompts, scored by the data set's own rule.

A data set is a sequence of entries, each generated from its index. Which split an entry belongs to is decided by the
hash of its question (`pmdllm.tasks.fraction`): a quarter validation, a quarter test, half training. So no held-out
question is ever trained on, however many indices repeat it.

A completion is read between ``<answer>`` and ``</answer>``, as its prompt asks. Some data sets score a text by handing
it to Python's ``eval``, to SymPy's ``parse_expr``, which calls it, or to ``Fraction``, which writes out 1e999999999.
Since a completion can say anything, they are refused.
"""

import dataclasses
import functools
import inspect
import itertools
import re

import numpy as np

from . import Problem, fraction
from .answers import Verdict

__all__ = ["ReasoningGym"]

SPLITS = {"validation": (0.0, 0.25), "test": (0.25, 0.5), "train": (0.5, 1.0)}
TEMPLATE = "{question}\nPut your final answer between <answer> and </answer>."
LONGEST = 10_000
ATTEMPTS = 1000
EVALUATES = re.compile(r"\b(eval|exec|parse_expr|sympify|Fraction)\(")


class ReasoningGym:
    """One data set.

    Parameters
    ----------
    dataset : str
        Its name in reasoning-gym.
    template : str
        The prompt, with the question in place of ``{question}``.
    **config
        Options of the data set as text, such as ``min_terms="3"``. Entries are drawn from ``size`` indices, a million
        unless said, and ``seed`` is 0.

    Raises
    ------
    ImportError
        The package reasoning-gym is missing.
    ValueError
        The data set is unknown or evaluates completions, or an option is not accepted.

    Examples
    --------
    >>> task = ReasoningGym("chain_sum", max_terms="3")
    >>> problem = task.held_out("test", 1)[0]
    >>> task.judge(["<answer>no idea</answer>"], [problem.answer]).correct
    array([False])
    """

    def __init__(self, dataset: str, template: str = TEMPLATE, **config):
        try:
            import reasoning_gym
            from reasoning_gym.factory import DATASETS
        except ImportError:
            raise ImportError(f"reasoning_gym:{dataset} needs reasoning-gym: pip install reasoning-gym") from None
        if dataset not in DATASETS:
            raise ValueError(f"dataset must be one of {', '.join(sorted(DATASETS))}, got {dataset!r}.")
        if "{question}" not in template:
            raise ValueError(f"template must contain {{question}}, got {template!r}.")
        kind, options = DATASETS[dataset]
        if EVALUATES.search(inspect.getsource(kind.score_answer)):
            raise ValueError(
                f"dataset must not evaluate completions, as code or without bound, and {dataset!r} does: take another."
            )
        config = {"seed": 0, "size": 1_000_000} | _typed(dataset, options, config)
        try:
            self.dataset = reasoning_gym.create_dataset(dataset, **config)
        except (AssertionError, TypeError, ValueError) as error:
            raise ValueError(f"reasoning-gym does not accept {config} for {dataset}: {error}.") from None
        self.template = template
        self.spec = f"reasoning_gym:{dataset}"

    def sample(self, count, rng):
        """Draw `count` different training problems.

        Parameters
        ----------
        count : int
            Number of problems.
        rng : numpy.random.Generator
            Where the randomness comes from.

        Returns
        -------
        list of Problem
            The answer is the index of the entry, which `judge` generates again.

        Raises
        ------
        ValueError
            No new training question was found in a thousand draws.
        """
        return self._first("train", count, (int(rng.integers(len(self.dataset))) for _ in itertools.count()))

    def held_out(self, split, count):
        """Return the first `count` problems of the split "validation" or "test", in the order of their indices."""
        if split not in ("validation", "test"):
            raise ValueError(f"split must be 'validation' or 'test', got {split!r}.")
        return self._first(split, count, range(len(self.dataset)))

    stop = ()

    def restrict(self, fits):
        pass

    def judge(self, completions, answers):
        """Score the text between the last pair of answer tags by the data set's own rule; 1 is correct, less is not.

        Raises
        ------
        RuntimeError
            The rule does not accept the data set's own answer.
        """
        found = [_tagged(completion) for completion in completions]
        scores = [0.0 if text is None else self._score(text, int(index)) for text, index in zip(found, answers)]
        found = [text if score is not None else None for text, score in zip(found, scores)]
        correct = np.array([score is not None and score >= 1 for score in scores], dtype=bool)
        return Verdict(correct, np.array([text is not None for text in found], dtype=bool), found)

    def _score(self, text, index):
        """Score of a text, or None if the rule fails on it."""
        entry = self._entry(index)
        try:
            return self.dataset.score_answer(answer=text, entry=entry)
        except Exception:
            return None

    @functools.lru_cache(maxsize=4096)  # noqa: B019  a task lives as long as its process
    def _entry(self, index):
        entry = self.dataset[index]
        own = entry["answer"]
        if own is not None and self.dataset.score_answer(answer=own, entry=entry) < 1:
            raise RuntimeError(f"{self.spec} rejects its own answer {own!r} of entry {index}: use another data set.")
        return entry

    def _first(self, split, count, indices):
        low, high = SPLITS[split]
        found, attempts = {}, 0
        for index in indices:
            if len(found) == count:
                break
            question = self._entry(index)["question"]
            attempts += 1
            if low <= fraction(question) < high and question not in found:
                found[question] = Problem(self.template.replace("{question}", question), str(index))
                attempts = 0
            if attempts == ATTEMPTS:
                break
        if len(found) < count:
            raise ValueError(
                f"count must be at most {len(found)}, the {split} questions found in {self.spec}, got {count}: ask for "
                "fewer, or choose options with more different questions."
            )
        return list(found.values())


def _tagged(completion):
    found = re.findall(r"<answer>((?:(?!<answer>).)*?)</answer>", completion, re.DOTALL)
    return found[-1].strip() if found and len(found[-1]) <= LONGEST else None


def _typed(dataset, options, config):
    """Options from text, in the types of their defaults."""
    defaults = {field.name: field.default for field in dataclasses.fields(options)} | {"seed": 0}
    typed = {}
    for key, value in config.items():
        if key not in defaults:
            raise ValueError(f"{dataset} has no option {key!r}; its options are template, {', '.join(defaults)}.")
        kind = type(defaults[key])
        if kind is bool and value.lower() in ("true", "false"):
            typed[key] = value.lower() == "true"
        elif kind in (int, float, str):
            try:
                typed[key] = kind(value)
            except ValueError:
                raise ValueError(f"{key} must be a number ({kind.__name__}), got {value!r}.") from None
        else:
            raise ValueError(f"{key} must be true or false, a number or a text to be set in a spec, got {value!r}.")
    return typed
