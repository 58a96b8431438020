r"""Tables of questions and answers: GSM8K, MATH, DAPO-Math-17k and any other, from the Hugging Face hub or from files.

====================  =================================  =============================  ==============================
task                  rows                               question column                answer column
====================  =================================  =============================  ==============================
gsm8k                 openai/gsm8k, ``main``             question                       answer, after ``####``
math                  EleutherAI/hendrycks_math, all     problem                        solution, its last ``\boxed{}``
                      seven subjects
dapo-math-17k         BytedTsinghua-SIA/DAPO-Math-17k    prompt, a list of messages     reward_model.ground_truth
file:PATH, hub:NAME   your own                           question                       answer
====================  =================================  =============================  ==============================

These are the schemas the data sets publish; the tests use small files of that form and do not go online. A column may
be a path into nested fields, ``reward_model.ground_truth``. A list of chat messages is read as their contents. DAPO's
rows repeat every prompt many times and its prompts already say how to answer; a prompt is kept once.

Splits named train, validation and test are used as they are; one that is missing is carved from the training rows by
the hash of the question (`pmdllm.tasks.fraction`), 5% each. No question of a held-out split is a training question.

Answers are checked by `pmdllm.tasks.answers.math`.
"""

import re
import warnings
from functools import partial
from pathlib import Path

from . import Problem, fraction
from .answers import last_boxed
from .answers import math as compare_by_value

__all__ = ["TEMPLATES", "Table", "dapo_math_17k", "file", "gsm8k", "hub", "math"]

CARVED = {"validation": (0.0, 0.05), "test": (0.05, 0.1)}
FORMATS = {".json": "json", ".jsonl": "json", ".parquet": "parquet", ".csv": "csv"}

INSTRUCTION = "\nPlease reason step by step, and put your final answer within \\boxed{}."
TEMPLATES = {
    "boxed": "{question}" + INSTRUCTION,
    "plain": "{question}",
    "chatml": "<|im_start|>user\n{question}" + INSTRUCTION + "<|im_end|>\n<|im_start|>assistant\n",
}


class Table:
    r"""A table of questions and answers.

    Parameters
    ----------
    path : str
        An existing file (json, jsonl, parquet or csv; all of it training rows), an existing folder of such files named
        after their splits, or the name of a data set on the Hugging Face hub.
    question, answer : str
        Their columns, with dots into nested fields.
    extract : {"plain", "hashes", "boxed"}
        The answer is the whole column, what follows its last ``####``, or what its last ``\boxed{}`` holds; thousands
        separators are dropped after ``####``.
    template : str
        ``boxed`` (asks for reasoning and a ``\boxed{}``), ``plain`` (the question alone), ``chatml`` (``boxed`` as a
        user's turn of Qwen's chat format), or a text that contains ``{question}``.
    configs : str
        Configurations on the hub, separated by spaces; local files have none.

    Raises
    ------
    ImportError
        The package datasets is missing.
    ValueError
        A column, an option or the training rows are missing.

    Warns
    -----
    UserWarning
        Rows without a question or an answer were left out; the message counts them.

    References
    ----------
    GSM8K: Cobbe et al., arXiv 2110.14168. MATH: Hendrycks et al., arXiv 2103.03874. DAPO: Yu et al., arXiv 2503.14476.

    Examples
    --------
    >>> rows = getfixture("tmp_path") / "rows.jsonl"
    >>> text = "".join('{"question": "1+%d?", "answer": "%d"}\n' % (i, i + 1) for i in range(200))
    >>> _ = rows.write_text(text)
    >>> Table(str(rows), template="plain").held_out("test", 1)
    [Problem(prompt='1+105?', answer='106')]
    """

    def __init__(
        self,
        path: str,
        question: str = "question",
        answer: str = "answer",
        extract: str = "plain",
        template: str = "boxed",
        configs: str = "",
    ):
        if extract not in EXTRACT:
            raise ValueError(f"extract must be one of {', '.join(EXTRACT)}, got {extract!r}.")
        template = TEMPLATES.get(template, template)
        if "{question}" not in template:
            raise ValueError(
                f"template must be one of {', '.join(TEMPLATES)} or contain {{question}}, got {template!r}."
            )
        self.spec = f"file:{path}"
        splits = _splits(path, configs.split())
        if "train" not in splits:
            raise ValueError(f"path must have a split called train, got {', '.join(splits) or 'none'} in {path!r}.")
        answers = {name: _read(rows, path, question, answer, EXTRACT[extract]) for name, rows in splits.items()}
        self._problems = {
            split: [Problem(template.replace("{question}", q), a) for q, a in rows.items()]
            for split, rows in _disjoint(answers).items()
        }

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

        Raises
        ------
        ValueError
            There are fewer.
        """
        rows = self._at_least("train", count)
        return [rows[i] for i in rng.choice(len(rows), count, replace=False)]

    def held_out(self, split, count):
        """Return the first `count` problems of the split "validation" or "test", in the order of their hashes."""
        if split not in ("validation", "test"):
            raise ValueError(f"split must be 'validation' or 'test', got {split!r}.")
        return self._at_least(split, count)[:count]

    stop = ()

    def restrict(self, fits):
        pass

    def judge(self, completions, answers):
        """Compare by value, as `pmdllm.tasks.answers.math` does."""
        return compare_by_value(completions, answers)

    def _at_least(self, split, count):
        rows = self._problems[split]
        if count > len(rows):
            raise ValueError(f"count must be at most {len(rows)}, the {split} problems of {self.spec}, got {count}.")
        return rows


hub = Table


def file(
    path: str,
    question: str = "question",
    answer: str = "answer",
    extract: str = "plain",
    template: str = "boxed",
):
    """Make a `Table` of a file or folder, which must exist."""
    if not Path(path).exists():
        raise ValueError(f"path must be an existing file or folder, got {path!r}.")
    return Table(path, question, answer, extract, template)


gsm8k = partial(Table, path="openai/gsm8k", configs="main", extract="hashes")
math = partial(
    Table,
    path="EleutherAI/hendrycks_math",
    configs="algebra counting_and_probability geometry intermediate_algebra number_theory prealgebra precalculus",
    question="problem",
    answer="solution",
    extract="boxed",
)
dapo_math_17k = partial(
    Table,
    path="BytedTsinghua-SIA/DAPO-Math-17k",
    question="prompt",
    answer="reward_model.ground_truth",
    template="plain",
)


def _splits(path, configs):
    """Rows of each split, all configurations together."""
    try:
        import datasets
    except ImportError:
        raise ImportError(f"reading {path!r} needs the package datasets: pip install datasets") from None
    place = Path(path)
    if place.is_file():
        if place.suffix not in FORMATS:
            raise ValueError(f"path must end in {', '.join(FORMATS)} or be a folder or a hub name, got {path!r}.")
        loaded = [datasets.load_dataset(FORMATS[place.suffix], data_files=str(place))]
    elif place.is_dir():
        loaded = [datasets.load_dataset(path)]
    else:
        loaded = [datasets.load_dataset(path, config) for config in configs or [None]]
    return {split: datasets.concatenate_datasets([part[split] for part in loaded]) for split in loaded[0]}


def _read(rows, path, question, answer, extract):
    """Answers by question, each question once; rows without either are counted and left out."""
    found, missing = {}, 0
    for row in rows:
        asked, answered = _text(_column(row, question, path)), _text(_column(row, answer, path))
        right = answered and extract(answered)
        if asked and right:
            found.setdefault(asked, right)
        else:
            missing += 1
    if missing:
        warnings.warn(f"{missing} of {len(rows)} rows of {path} have no question or no answer: left out.", stacklevel=4)
    return found


def _column(row, name, path):
    value = row
    for key in name.split("."):
        if not isinstance(value, dict) or key not in value:
            raise ValueError(f"columns of {path!r} are {', '.join(row)}, got {name!r}: set question= and answer=.")
        value = value[key]
    return value


def _text(value):
    if isinstance(value, list):
        return "\n\n".join(message["content"] for message in value)
    return "" if value is None else str(value).strip()


def _disjoint(answers):
    """Order each split by hash, carve the missing ones from training, and keep held-out questions out of training."""
    ordered = {split: dict(sorted(rows.items(), key=lambda row: fraction(row[0]))) for split, rows in answers.items()}
    train = ordered["train"]
    for split, (low, high) in CARVED.items():
        ordered.setdefault(split, {q: a for q, a in train.items() if low <= fraction(q) < high})
    ordered["validation"] = {q: a for q, a in ordered["validation"].items() if q not in ordered["test"]}
    held_out = ordered["validation"].keys() | ordered["test"].keys()
    ordered["train"] = {q: a for q, a in train.items() if q not in held_out}
    return ordered


def _after_hashes(text):
    _, marker, after = text.rpartition("####")
    return after.replace(",", "").strip() if marker else ""


def _boxed(text):
    r"""What the last box holds; LaTeX also allows ``\boxed 5`` without braces."""
    bare = re.findall(r"\\(?:boxed|fbox)\s+([^\s{$]+)", text)
    return last_boxed(text) or (bare[-1].rstrip(".") if bare else "")


EXTRACT = {"plain": str, "hashes": _after_hashes, "boxed": _boxed}
