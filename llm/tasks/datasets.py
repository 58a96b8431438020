r"""Tables of questions and answers: GSM8K, MATH, DAPO-Math-17k and any other, from the Hugging Face hub or from files.

The schemas of GSM8K, MATH and DAPO-Math-17k stand below as those data sets publish them. A column may be a path into
nested fields, ``reward_model.ground_truth``. A list of chat messages is read as their contents. DAPO's rows repeat
every prompt many times and its prompts already say how to answer; a prompt is kept once.

Splits named train, validation and test are used as they are; one that is missing is carved from the training rows by
the hash of the question (`pmdllm.tasks.fraction`), 5% each. No question of a held-out split is a training question.

Answers are checked by `pmdllm.tasks.answers.math`. Rows are left out, with a warning that counts and names them, if
they lack a question or an answer, if their answer cannot be trusted to be read as it is meant, or if another row
answers their question differently.

GSM8K: Cobbe et al., arXiv 2110.14168. MATH: Hendrycks et al., arXiv 2103.03874. DAPO: Yu et al., arXiv 2503.14476.
"""

import re
import warnings
from collections import defaultdict
from functools import partial

import numpy as np

from . import answers, tables
from .answers import Verdict
from .pool import Pool, Problem, fraction, split_of

__all__ = ["TEMPLATES", "Table", "dapo_math_17k", "file", "gsm8k", "hub", "math"]

CARVED = 0.05
CALCULATOR = re.compile(r"<<[^<>\n]*>>")  # GSM8K's annotations for a calculator
TEMPLATES = {
    "boxed": "{question}\nPlease reason step by step, and put your final answer within \\boxed{}.",
    "plain": "{question}",
}
NEXT_QUESTION = ("\nQuestion:", "\nProblem:")


class Table(Pool):
    r"""A table of questions and answers.

    Parameters
    ----------
    path : str
        A file (json, jsonl, parquet or csv; all of it training rows), a folder of such files named after their splits,
        or the name of a data set on the Hugging Face hub.
    question, answer : str
        Their columns, with dots into nested fields.
    extract : {"plain", "hashes", "boxed"}
        The answer is the whole column, what follows its last ``####`` (less commas), or its last ``\boxed{}``.
    template : str
        ``boxed`` (asks for reasoning and a ``\boxed{}``), ``plain`` (the question alone), or a text that contains
        ``{question}``. What stands before it in a text also ends a completion: the model asks itself the next one.
    configs : str
        Configurations on the hub, separated by spaces; in a folder, its subfolders of these names.

    Examples
    --------
    >>> rows = getfixture("tmp_path") / "rows.csv"
    >>> _ = rows.write_text("question,answer\n" + "".join(f"1+{i}?,{i + 1}\n" for i in range(200)))
    >>> Table(str(rows), template="plain").held_out("test", 1)
    [Problem(prompt='1+105?', answer='106')]
    """

    online = True

    def __init__(
        self,
        path: str,
        question: str = "question",
        answer: str = "answer",
        extract: str = "plain",
        template: str = "boxed",
        configs: str = "",
        max_new_tokens: int = 1024,
    ):
        if extract not in EXTRACT:
            raise ValueError(f"extract must be one of {', '.join(EXTRACT)}, got {extract!r}.")
        template = TEMPLATES.get(template, template)
        if "{question}" not in template:
            accepted = f"one of {', '.join(TEMPLATES)} or contain {{question}}"
            raise ValueError(f"template must be {accepted}, got {template!r}.")
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {max_new_tokens}.")
        self.spec, self.max_new_tokens = f"file:{path}", max_new_tokens
        before = template.partition("{question}")[0].strip()
        self.stop = (*NEXT_QUESTION, "\n" + before) if before else NEXT_QUESTION
        splits = tables.read(path, configs.split(), self.online)
        if "train" not in splits:
            raise ValueError(f"path must have a split called train, got {', '.join(splits) or 'none'} in {path!r}.")
        splits = {name: splits[name] for name in ("train", "validation", "test") if name in splits}
        rows = _disjoint(_answers(splits, path, (question, answer), EXTRACT[extract]))
        if not rows["train"]:
            raise ValueError(f"path must have training rows with a question and an answer, got none in {path!r}.")
        self.problems = {
            split: [Problem(template.replace("{question}", q), *answered) for q, answered in pairs.items()]
            for split, pairs in rows.items()
        }

    def judge(self, completions: list[str], answers_: list[str]) -> Verdict:
        """Compare by value, as `pmdllm.tasks.answers.math` does."""
        return answers.math(completions, answers_, self.stop)

    def demonstrations(self, count: int, rng: np.random.Generator) -> list[tuple[str, str]]:
        """Draw training prompts, which may repeat, with what their answer column says: a worked solution, or less."""
        rows = self.problems["train"]
        return [(rows[i].prompt, rows[i].solution) for i in rng.integers(len(rows), size=count)]


class file(Table):  # noqa: N801  a maker like the others
    """A `Table` of a file or folder, which must exist."""

    online = False


hub = Table
gsm8k = partial(Table, path="openai/gsm8k", configs="main", extract="hashes", max_new_tokens=512)
SUBJECTS = "algebra counting_and_probability geometry intermediate_algebra number_theory prealgebra precalculus"
math = partial(
    Table, path="EleutherAI/hendrycks_math", configs=SUBJECTS, question="problem", answer="solution", extract="boxed"
)
dapo_math_17k = partial(
    Table, path="BytedTsinghua-SIA/DAPO-Math-17k", question="prompt", answer="reward_model.ground_truth",
    template="plain", max_new_tokens=4096,
)  # fmt: skip


def _answers(splits, path, columns, extract):
    """(answer, solution) by question in each split, each question once; unusable rows are counted and left out."""
    pairs, kept, left_out = {split: {} for split in splits}, {split: {} for split in splits}, defaultdict(list)
    for split, rows in splits.items():
        for name in columns:
            if rows and not any(_column(row, name) for _, row in rows):
                names = " ".join(", ".join(map(str, rows[0][1])).split()) or "none"  # on one line
                raise ValueError(f"columns of {path!r} are {names}, got {name!r}: set question= and answer=.")
        for place, row in rows:
            asked, answered = (_text(_column(row, name)) for name in columns)
            right = answered and extract(answered)
            if asked and right:
                pairs[split].setdefault(asked, {}).setdefault(right, (place, answered))
            else:
                left_out["without the text of a question or an answer"].append(place)
    problems = answers.untrusted({right for rows in pairs.values() for rights in rows.values() for right in rights})
    for split, rows in pairs.items():
        for asked, rights in rows.items():
            (right, (place, worked)), *others = rights.items()
            boxes = [rf"\boxed{{{other}}}" for other, _ in others]
            if right in problems:
                why = f"with an answer that {problems[right].removeprefix('it ')}"
                left_out[why].append(f"{place}: {right[:60]!r}")
            elif others and not answers.math(boxes, [right] * len(boxes)).correct.all():
                left_out["with another answer to the same question"].append(others[0][1][0])
            else:
                kept[split][asked] = right, CALCULATOR.sub("", worked)
    if left_out:
        count, total = (sum(map(len, lists.values())) for lists in (left_out, splits))
        reasons = "; ".join(f"{len(places)} {why} ({places[0]})" for why, places in left_out.items())
        warnings.warn(f"{count} of {total} rows of {path} are left out: {reasons}.", stacklevel=4)
    return kept


def _column(row, name):
    """The value of a column in a list, which is empty where the row lacks it."""
    for key in [name] if name in row else name.split("."):
        if not isinstance(row, dict) or key not in row:
            return []
        row = row[key]
    return [row]


def _text(value):
    """The text of a value; of a list, those of its messages or parts, or of its only element; otherwise none."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return _text(value.get("content", value.get("text")))
    if isinstance(value, list):
        if len(value) > 1 and not all(isinstance(item, dict) for item in value):
            return ""
        return "\n\n".join(filter(None, map(_text, value)))
    return "" if value is None else str(value).strip()


def _disjoint(rows):
    """Order each split by hash, carve the missing ones from training, and keep held-out questions out of training."""
    ordered = {split: dict(sorted(pairs.items(), key=lambda row: fraction(row[0]))) for split, pairs in rows.items()}
    train = ordered["train"]
    for split in ("validation", "test"):
        ordered.setdefault(split, {q: a for q, a in train.items() if split_of(q, CARVED) == split})
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
    return answers.last_boxed(text) or (bare[-1].rstrip(".") if bare else "")


EXTRACT = {"plain": str, "hashes": _after_hashes, "boxed": _boxed}
