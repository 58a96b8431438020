"""Word problems of one to three steps, in English: shopping, ages, distances, sharing, time, collections, and others.

A template is a story, a question, and the steps that lead to the answer, each an operation on numbers of the story and
on earlier results (x, then y)::

    {name} had {f} {boxes} of {g} {things} and gave {p} {things} to {friend}. How many {things} does {name} have left?
        → f * g; x - p
    Mia had 6 bags of 4 shells and gave 9 shells to Leo. How many shells does Mia have left?
    6 * 4 = 24. 24 - 9 = 15. The answer is 15.

The numbers f to i are factors, from 2 to at most 12; p to r are small, as of ages, from 2 to at most 40; a to d go from
2 to the largest. Every result is a positive integer. The answer of a completion is the number after its last "answer
is", or else its last number.

Held out are templates and numbers. The templates of `UNSEEN` never occur in training. Of the numbers of a `SEEN` one,
whatever the names and things around them, a hash (`pmdllm.tasks.fraction`) gives 10% to validation and 10% to test.
An evaluation also counts the two kinds of held-out problems separately, as ``seen/…`` and ``unseen/…``.
"""

import functools
import re
from collections import namedtuple
from collections.abc import Iterator

import numpy as np

from .answers import Verdict, turn
from .pool import Pool, Problem, split_of
from .sums import OPERATIONS, last_numbers

__all__ = ["SEEN", "UNSEEN", "Template", "WordProblems"]

HELD_OUT = 0.1
FACTOR, SMALL, MOST = 12, 40, 3
STATED = re.compile(r"(?i:answer(?: is)?:?)[\s*$]*([-−]?\d[\d,.]*+)(?!\s*[-+*/=×÷])", re.ASCII)

Template = namedtuple("Template", "story question steps")


def _templates(text):
    """Templates from a text: stories whose last sentence is a question, and after an arrow their steps."""
    rows = re.findall(r"\s+([^→]+\.)\s+([^.→]+\?)\s+→ (.+)", text)
    return [Template(" ".join(story.split()), " ".join(question.split()), steps) for story, question, steps in rows]


SEEN = _templates("""
    {name} has {a} {things} and finds {b} more. How many {things} does {name} have now?
        → a + b
    {name} had {a} {things} and gave {b} of them to {friend}. How many {things} does {name} have left?
        → a - b
    There are {f} {boxes} on the table, with {g} {things} in each {box}. How many {things} are there in all?
        → f * g
    {name} shares {a} {things} equally among {g} children. How many {things} does each child get?
        → a / g
    {name} is {p} years old. {friend} is {q} years older than {name}. How old is {friend}?
        → p + q
    {name} walked {a} kilometres on Saturday and {b} kilometres on Sunday. How many kilometres did {name} walk on
    the two days together?
        → a + b
    A journey takes {a} minutes. {name} has been on the way for {b} minutes. How many more minutes does the
    journey take?
        → a - b
    {name} bought {f} tickets for {g} dollars each. How many dollars did {name} pay?
        → f * g
    {name} had {a} {things}. Then {he} bought {f} {boxes} with {g} {things} in each {box}. How many {things} does
    {name} have now?
        → f * g; a + x
    {name} had {f} {boxes} of {g} {things} and gave {p} {things} to {friend}. How many {things} does {name} have
    left?
        → f * g; x - p
    {name} had {a} {things}. In the morning {he} found {b} more, and in the evening {he} lost {c}. How many
    {things} does {name} have now?
        → a + b; x - c
    {name} collected {a} {things} and {friend} collected {b}. They put all of them into {boxes}, {g} in each
    {box}. How many {boxes} do they fill?
        → a + b; x / g
    {name} had {a} dollars and bought {f} tickets for {g} dollars each. How many dollars does {name} have left?
        → f * g; a - x
    {name} is {p} years old. {friend} is {q} years younger than {name}, and {third} is {r} years older than
    {friend}. How old is {third}?
        → p - q; x + r
    {name} cycled {f} kilometres a day for {g} days, and {a} kilometres on the day after. How many kilometres did
    {name} cycle in all?
        → f * g; x + a
    {name} picked {a} {things}, kept {b} for {himself}, and shared the rest equally among {g} friends. How many
    {things} did each friend get?
        → a - b; x / g
    A book has {a} pages. {name} read {b} pages on Monday and {c} pages on Tuesday. How many pages are left to
    read?
        → a - b; x - c
    A morning at school has {f} lessons of {g} minutes and breaks of {a} minutes in all. How many minutes does the
    morning take?
        → f * g; x + a
    {name} had {a} {things}. Then {he} bought {f} {boxes} of {g} {things}, and gave {b} {things} to {friend}. How
    many {things} does {name} have left?
        → f * g; a + x; y - b
    {name} had {a} {things} and bought {f} {boxes} of {g} {things}. Then {he} shared all of {his} {things} equally
    among {h} friends. How many {things} did each friend get?
        → f * g; a + x; y / h
    {name} bought {f} notebooks for {g} dollars each and {h} pens for {i} dollars each. How many dollars did
    {name} pay in all?
        → f * g; h * i; x + y
    {name} had {a} dollars and earned {b} dollars. Then {he} bought {f} tickets for {g} dollars each. How many
    dollars does {name} have left?
        → a + b; f * g; x - y
    {name} walked {f} kilometres a day for {g} days. {friend} walked {h} kilometres a day for {i} days. How many
    kilometres more did {name} walk than {friend}?
        → f * g; h * i; x - y
    {name} had {a} {things}. On Monday {he} lost {b}, on Tuesday {he} found {c}, and on Friday {he} gave {d} to
    {friend}. How many {things} does {name} have left?
        → a - b; x + c; y - d
    {name} is {p} years old and {friend} is {q} years older than {name}. {third} is {r} years younger than {name}
    and {friend} together. How old is {third}?
        → p + q; p + x; y - r
    {name} packed {a} {things} in the morning and {b} in the afternoon. Of these {c} were broken. The others went
    into {boxes}, {g} in each {box}. How many {boxes} did {name} fill?
        → a + b; x - c; y / g
""")
UNSEEN = _templates("""
    A farmer planted {f} rows of {g} trees. How many trees did the farmer plant?
        → f * g
    A bus carried {a} people. At the next stop {b} of them got off. How many people stayed on the bus?
        → a - b
    A rope of {a} metres is cut into pieces of {g} metres. How many pieces are there?
        → a / g
    On Monday {a} children came to the club, and on Tuesday {b} more than on Monday. How many children came on
    Tuesday?
        → a + b
    A cinema has {f} rows of {g} seats. People sit on {p} of the seats. How many seats are free?
        → f * g; x - p
    A tank held {a} litres of water. Rain added {b} litres, and the garden took {c} litres. How many litres are in
    the tank now?
        → a + b; x - c
    The home team scored {a} points in the first half and {b} points in the second. The guests scored {c} points
    fewer than the home team in the whole game. How many points did the guests score?
        → a + b; x - c
    There are {a} girls and {b} boys in the hall. They form teams of {g} children. How many teams are there?
        → a + b; x / g
    A train left with {a} passengers. At the first stop {b} got on and {c} got off, and at the second stop {d} got
    on. How many passengers are on the train now?
        → a + b; x - c; y + d
    A farm has {f} coops with {g} hens each. Today {p} of the hens laid no egg, and each of the others laid one.
    The eggs were packed into cartons of {h}. How many cartons were filled?
        → f * g; x - p; y / h
    A library has {f} shelves with {g} novels each and {h} shelves with {i} atlases each. How many books are on
    the shelves?
        → f * g; h * i; x + y
    A gardener planted {f} rows of {g} tulips. Deer ate {p} of the tulips, and the gardener planted {b} new ones.
    How many tulips are there now?
        → f * g; x - p; y + b
""")
DISTRACTORS = [
    "There are {n} lamps in the street.", "The clock on the wall is {n} years old.", "A neighbour lives at number {n}.",
    "The radio has {n} buttons.", "A sparrow sang for {n} seconds.", "The table weighs {n} kilograms.",
]  # fmt: skip

PRONOUNS = {"she": ("her", "herself"), "he": ("his", "himself"), "they": ("their", "themselves")}
NAMES = {
    "she": "Mia Emma Ava Zoe Lily Nora Priya Aisha Maria Keiko Ines Freya".split(),  # noqa: SIM905
    "he": "Tom Ben Leo Omar Raj Lucas Daniel Kofi Ivan Hugo Kenji Pablo".split(),  # noqa: SIM905
    "they": "Alex Robin Kim Jordan".split(),  # noqa: SIM905
}
PEOPLE = [(name, pronoun) for pronoun, names in NAMES.items() for name in names]
THINGS = [
    "apples", "pears", "lemons", "oranges", "plums", "marbles", "stickers", "shells", "stones", "coins", "cards",
    "buttons", "beads", "stamps", "pencils", "crayons", "ribbons", "acorns", "walnuts", "balloons", "badges",
    "postcards", "candles", "cookies",
]  # fmt: skip
BOXES = {"box": "boxes", "bag": "bags", "basket": "baskets", "jar": "jars", "crate": "crates", "tin": "tins"}


class WordProblems(Pool):
    """A level of the task.

    Parameters
    ----------
    steps : str
        Steps of a problem: ``"2"``, or ``"1-3"`` for a mixture from easy to hard, each number with equal probability.
    largest : int
        Largest number of a story, from 12 to 9999.
    distractors : bool
        Put a sentence with a number that means nothing before the question.
    templates : {"all", "seen", "unseen"}
        Templates of the held-out problems; training problems come from the seen ones.
    """

    attempts = 20_000
    stop = ("\n\n",)

    def __init__(self, steps: str = "1-3", largest: int = 30, distractors: bool = False, templates: str = "all"):
        match = re.fullmatch(r"(\d)(?:-(\d))?", str(steps), re.ASCII)
        low, high = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= low <= high <= MOST:
            raise ValueError(f"steps must be a number or range (1-3) within 1 to {MOST}, got {steps!r}.")
        if not FACTOR <= largest <= 9999:
            raise ValueError(f"largest must be an integer from {FACTOR} to 9999, got {largest}.")
        kinds = {"all": SEEN + UNSEEN, "seen": SEEN, "unseen": UNSEEN}
        if templates not in kinds:
            raise ValueError(f"templates must be one of {', '.join(kinds)}, got {templates!r}.")
        self.steps, self.largest, self.distractors = range(low, high + 1), largest, distractors
        self._train, self._held_out = _by_steps(SEEN), _by_steps(kinds[templates])
        self.max_new_tokens = 24 + 16 * high
        options = f"steps={steps},largest={largest},distractors={distractors},templates={templates}"
        self.spec = f"word_problems:{options}"

    def judge(self, completions: list[str], answers: list[str]) -> Verdict:
        """Compare the number after the last "answer is", or else the last number, with the answer."""
        numbers = last_numbers([_answering(turn(completion, self.stop)) for completion in completions])
        return Verdict.of([number == answer for number, answer in zip(numbers, answers)], numbers)

    def demonstrations(self, count: int, rng: np.random.Generator) -> list[tuple[str, str]]:
        """Draw training prompts, which may repeat, with their worked solutions."""
        return [(problem.prompt, problem.solution) for problem in (self.sample(1, rng)[0] for _ in range(count))]

    def candidates(self, split: str, rng: np.random.Generator | None) -> Iterator[Problem | None]:
        """Draw problems; those of the split whose numbers lead to positive integers are its problems."""
        templates = self._train if split == "train" else self._held_out
        rng = rng or np.random.default_rng(["validation", "test"].index(split))
        while True:
            choices = templates[self.steps[rng.integers(len(self.steps))]]
            template = choices[rng.integers(len(choices))]
            problem = None
            while problem is None:
                problem = self._problem(template, split, rng)
                yield problem

    def _problem(self, template, split, rng):
        """A problem of a template; None if the numbers drawn lead to others than positive integers or other splits."""
        numbers = {x: int(rng.integers(2, self._largest(x) + 1)) for x in _numbers(template)}
        steps = _carried_out(template.steps, numbers)
        if steps is None or split_of(f"{template.story} {numbers}", HELD_OUT) != split:
            return None
        distractor = DISTRACTORS[rng.integers(len(DISTRACTORS))].format(n=rng.integers(2, self.largest + 1))
        story = " ".join([template.story, *([distractor] if self.distractors else []), template.question])
        answer = steps[-1].rpartition(" ")[2]
        solution = ". ".join([*steps, f"The answer is {answer}."])
        kind = "seen" if template in SEEN else "unseen"
        return Problem(story.format(**numbers, **_words(rng)), answer, solution, kind)

    def _largest(self, number):
        return min(self.largest, FACTOR if number in "fghi" else SMALL if number in "pqr" else self.largest)


def _by_steps(templates):
    return {count: [t for t in templates if t.steps.count(";") + 1 == count] for count in range(1, MOST + 1)}


@functools.cache
def _numbers(template):
    return sorted(set(re.findall(r"\{([a-r])\}", template.story)))


def _carried_out(steps, numbers):
    """Each step as a text, "6 * 4 = 24"; None if a result is not a positive integer."""
    values, texts = dict(numbers), []
    for name, step in zip("xyz", steps.split("; ")):
        left, operator, right = step.split()
        a, b = values[left], values[right]
        if operator == "/" and a % b:
            return None
        values[name] = a // b if operator == "/" else OPERATIONS[operator](a, b)
        if values[name] < 1:
            return None
        texts.append(f"{a} {operator} {b} = {values[name]}")
    return texts


def _words(rng):
    """Names, pronouns and things of a story: three people, a container and what is in it."""
    (name, he), (friend, _), (third, _) = (PEOPLE[i] for i in rng.choice(len(PEOPLE), 3, replace=False))
    his, himself = PRONOUNS[he]
    box = list(BOXES)[rng.integers(len(BOXES))]
    things = THINGS[rng.integers(len(THINGS))]
    return {"name": name, "friend": friend, "third": third, "he": he, "his": his, "himself": himself,
            "box": box, "boxes": BOXES[box], "things": things}  # fmt: skip


def _answering(text):
    """The number of the last "answer is", unless it begins a sum; the whole text if there is none."""
    return (STATED.findall(text or "") or [text])[-1]
