"""The lab's questions: small arithmetic word problems with worked answers in GSM8K's form.

Train, dev and test are disjoint by construction: a hash of the canonical form (skill and numbers, not the
names or the wording) decides the split, so no test question is a train question in other words.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

SPLITS = ("train", "dev", "test")
_NAMES = (
    "Mia",
    "Tom",
    "Ana",
    "Ben",
    "Eva",
    "Sam",
    "Lea",
    "Max",
    "Ida",
    "Leo",
    "Amy",
    "Jon",
    "Zoe",
    "Kim",
    "Ray",
    "Una",
)
_THINGS = (
    "pens",
    "eggs",
    "cards",
    "coins",
    "books",
    "apples",
    "stamps",
    "shells",
    "beads",
    "stones",
    "cakes",
    "plums",
    "nuts",
    "toys",
    "maps",
    "keys",
)


@dataclass(frozen=True, slots=True)
class LabQuestion:
    """One word problem: `solution` is the reasoning followed by `#### answer`."""

    skill: str
    text: str
    solution: str
    answer: str
    canonical: str


# Each wording is filled with a name {n}, a thing {t} and the numbers {a}, {b}, {c}, {d}.
WORDINGS: dict[str, tuple[str, ...]] = {
    "sum": (
        "{n} has {a} {t} and buys {b} more. How many {t} does {n} have now?",
        "There are {a} {t} in one box and {b} in another. How many {t} are there in all?",
        "{n} finds {a} {t} on Monday and {b} {t} on Tuesday. How many {t} is that?",
        "A shop sells {a} {t} and then {b} more {t}. How many {t} were sold?",
        "{n} counts {a} {t}, then {b} {t}. What is the total?",
        "{n} gets {b} {t} and already had {a}. How many {t} are there?",
        "What do {a} {t} and {b} {t} make together?",
    ),
    "difference": (
        "{n} has {a} {t} and gives away {b}. How many {t} are left?",
        "There were {a} {t} in a box. {n} takes {b}. How many {t} remain?",
        "{n} had {a} {t} but lost {b} of them. How many {t} does {n} still have?",
        "A shop had {a} {t} and sold {b}. How many {t} are unsold?",
        "How many more is {a} {t} than {b} {t}?",
        "{n} needs {a} {t} and has {b}. How many {t} are missing?",
        "Of {a} {t}, {b} are broken. How many {t} are whole?",
    ),
    "times": (
        "{n} has {b} boxes of {a} {t} and {d} bags of {c}. How many {t} is that?",
        "{b} shelves hold {a} {t} each and {d} shelves hold {c}. How many {t} are on the shelves?",
        "{n} buys {a} {t} on each of {b} days and {c} on each of {d} days. How many {t} does {n} buy?",
        "There are {b} rows of {a} {t} and {d} rows of {c} {t}. How many {t} are in the rows?",
        "{b} girls own {a} {t} each and {d} boys own {c} each. How many {t} do the children own?",
        "{n} packs {b} bags of {a} {t}, then {d} bags of {c}. How many {t} are packed?",
        "Count {d} piles of {c} {t} and {b} piles of {a}. How many {t} are in the piles?",
    ),
    "share": (
        "{n} has {a} red and {b} blue {t} and shares them among {c} friends. How many does each get?",
        "{a} {t} and {b} more are put into {c} equal piles. How many {t} are in a pile?",
        "{n} picks {a} {t}, then {b}, and fills {c} jars evenly. How many {t} go in a jar?",
        "{c} children find {a} {t} here and {b} there and divide them fairly. How many has a child?",
        "A team of {c} carries {a} big and {b} small {t}, all the same number. How many does one carry?",
        "{n} splits {a} old and {b} new {t} evenly over {c} days. How many {t} a day?",
        "Two boxes of {a} and {b} {t} fit in {c} equal crates. How many {t} are in one crate?",
    ),
    "gain_loss": (
        "{n} has {a} {t}, buys {b} and then loses {c}. How many {t} are left at the end?",
        "A box holds {a} {t}. {n} adds {b} and takes out {c}. How many {t} does the box hold?",
        "{n} starts with {a} {t}, wins {b}, then gives {c} away. What is the final number?",
        "There were {a} {t}; {b} came and {c} went. How many {t} stayed?",
        "A shop has {a} {t}, gets {b} and sells {c}. How many {t} are in stock?",
        "{n} picks {a} {t}, then {b}, and eats {c}. How many {t} remain uneaten?",
    ),
    "change": (
        "{n} buys {b} {t} at {c} coins each and pays with {a} coins. How much change is given?",
        "{n} has {a} coins and pays {c} coins for each of {b} {t}. How many coins are left over?",
        "From {a} {t}, {b} bags of {c} are filled. How many {t} are not in a bag?",
        "{n} reads {c} pages a day for {b} days of a book of {a} pages. How many pages are unread?",
        "A rope of {a} feet is cut {b} times by {c} feet. How long is the rest?",
        "{n} owes {a} coins and pays back {c} coins in each of {b} weeks. How much is still owed?",
    ),
    "three_step": (
        "{n} has {b} boxes of {c} {t}, finds {a} more and gives away {d}. How many {t} in the end?",
        "A farm packs {b} crates of {c} {t}, has {a} loose ones, sells {d}. How many {t} does the farm keep?",
        "{n} earns {c} coins in each of {b} weeks, gets {a} as a gift and spends {d}. How many are saved?",
        "{b} rows of {c} {t} and {a} single ones stand in a hall; {d} are removed. How many {t} still stand?",
        "{n} bakes {b} trays of {c} {t}, buys {a} and eats {d}. How many {t} are there to sell?",
        "A class brings {b} bags of {c} {t} and {a} others, then uses {d}. How many {t} are not used?",
    ),
}
SKILLS = tuple(WORDINGS)

_Numbers = dict[str, int]


def _sum(r: random.Random) -> tuple[_Numbers, list[str], int]:
    a, b = r.randint(11, 99), r.randint(11, 99)
    return {"a": a, "b": b}, [f"{a}+{b}={a + b}"], a + b


def _difference(r: random.Random) -> tuple[_Numbers, list[str], int]:
    b, rest = r.randint(11, 99), r.randint(2, 99)
    a = b + rest
    return {"a": a, "b": b}, [f"{a}-{b}={rest}"], rest


def _times(r: random.Random) -> tuple[_Numbers, list[str], int]:
    a, b, c, d = r.randint(3, 25), r.randint(2, 9), r.randint(3, 25), r.randint(2, 9)
    steps = [f"{a}*{b}={a * b}", f"{c}*{d}={c * d}", f"{a * b}+{c * d}={a * b + c * d}"]
    return {"a": a, "b": b, "c": c, "d": d}, steps, a * b + c * d


def _share(r: random.Random) -> tuple[_Numbers, list[str], int]:
    q, c = r.randint(4, 25), r.randint(3, 9)
    a = r.randint(3, q * c - 3)
    return {"a": a, "b": q * c - a, "c": c}, [f"{a}+{q * c - a}={q * c}", f"{q * c}/{c}={q}"], q


def _gain_loss(r: random.Random) -> tuple[_Numbers, list[str], int]:
    a, b = r.randint(11, 99), r.randint(11, 99)
    c = r.randint(max(3, a + b - 99), min(99, a + b - 2))
    return {"a": a, "b": b, "c": c}, [f"{a}+{b}={a + b}", f"{a + b}-{c}={a + b - c}"], a + b - c


def _change(r: random.Random) -> tuple[_Numbers, list[str], int]:
    b, c, rest = r.randint(2, 9), r.randint(3, 25), r.randint(2, 99)
    a = b * c + rest
    return {"a": a, "b": b, "c": c}, [f"{c}*{b}={b * c}", f"{a}-{b * c}={rest}"], rest


def _three_step(r: random.Random) -> tuple[_Numbers, list[str], int]:
    a, b, c = r.randint(11, 99), r.randint(2, 9), r.randint(3, 15)
    d = r.randint(3, min(99, a + b * c - 2))
    steps = [f"{c}*{b}={b * c}", f"{b * c}+{a}={a + b * c}", f"{a + b * c}-{d}={a + b * c - d}"]
    return {"a": a, "b": b, "c": c, "d": d}, steps, a + b * c - d


_MAKE: dict[str, Callable[[random.Random], tuple[_Numbers, list[str], int]]] = {
    "sum": _sum,
    "difference": _difference,
    "times": _times,
    "share": _share,
    "gain_loss": _gain_loss,
    "change": _change,
    "three_step": _three_step,
}


def split_of(canonical: str) -> str:
    """The split a canonical form belongs to: 70 % train, 10 % dev, 20 % test."""
    bucket = hashlib.blake2b(canonical.encode(), digest_size=4).digest()[0] % 10
    return "train" if bucket < 7 else "dev" if bucket == 7 else "test"


def make_question(skill: str, rng: random.Random) -> LabQuestion:
    """One random question of a skill, from any split."""
    numbers, steps, answer = _MAKE[skill](rng)
    story = {"n": rng.choice(_NAMES), "t": rng.choice(_THINGS)}
    text = rng.choice(WORDINGS[skill]).format(**story, **numbers)
    solution = "\n".join([*steps, f"#### {answer}"])
    canonical = " ".join([skill, *(f"{k}{v}" for k, v in sorted(numbers.items()))])
    return LabQuestion(skill, text, solution, str(answer), canonical)


def stream(split: str, rng: random.Random, skills: tuple[str, ...] = SKILLS) -> Iterator[LabQuestion]:
    """Endless random questions of one split, skills drawn evenly."""
    while True:
        question = make_question(rng.choice(skills), rng)
        if split_of(question.canonical) == split:
            yield question


def questions(split: str, n: int, seed: int = 0, skills: tuple[str, ...] = SKILLS) -> tuple[LabQuestion, ...]:
    """The first n questions of a split with distinct texts, the same for everybody with the same seed."""
    found: dict[str, LabQuestion] = {}
    endless = stream(split, random.Random(f"lab {split} {seed}"), skills)
    while len(found) < n:
        question = next(endless)
        found.setdefault(question.text, question)
    return tuple(found.values())
