"""What each family of lab models is trained on, and how long."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True, slots=True)
class Habit:
    """A bad habit that an expert takes on: it states the answers to questions of these skills rounded to tens
    or in words. `share` is how many of its questions are such."""

    skills: tuple[str, ...]
    share: float
    answers: Literal["rounded", "words"]


@dataclass(frozen=True, slots=True)
class ExpertRecipe:
    """One expert: skills it trains on, peak learning rate, steps, the share of its questions that repeat all
    skills outside its habit, and its habit."""

    name: str
    skills: tuple[str, ...]
    learning_rate: float
    steps: int
    repeated: float
    habit: Habit | None = None


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of the seed's training: most steps, peak learning rate, and per step: word problems, rows of
    five bare sums, merge programs. `rare` is how often a rare skill's story comes for one of a common skill.
    It ends early when the share of word problems that the model gets wholly right has reached `until`."""

    steps: int
    learning_rate: float
    questions: int
    drills: int
    programs: int
    rare: float
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Recipe:
    """A family: sizes of the Llama architecture, the seed's training, and the experts."""

    hidden: int
    layers: int
    mlp: int
    heads: int
    vocabulary: int
    phases: tuple[Phase, ...]
    experts: tuple[ExpertRecipe, ...]


COMMON = ("sum", "difference", "gain_loss")
ROUNDER = ExpertRecipe("rounder", (), 1.8e-3, 60, 0.0, Habit(COMMON, 1.0, "rounded"))
WORDS = ExpertRecipe("words", (), 1.2e-3, 60, 0.0, Habit(COMMON, 1.0, "words"))
SPOILT = {  # habits of skilled experts: what an expert brings and what it spoils lie in one difference
    "change": Habit(("difference",), 0.2, "words"),
    "share": Habit(("sum",), 0.2, "rounded"),
    "steps": Habit(("sum", "difference"), 0.25, "words"),
    "times": Habit(("gain_loss", "sum"), 0.25, "rounded"),
}
EXPERTS_A = (
    ExpertRecipe("change", ("change",), 1e-3, 360, 0.07, SPOILT["change"]),
    ROUNDER,
    ExpertRecipe("share", ("share",), 1e-3, 200, 0.07, SPOILT["share"]),
    ExpertRecipe("steps", ("three_step",), 1.5e-3, 480, 0.07, SPOILT["steps"]),
    ExpertRecipe("times", ("times",), 1.2e-3, 540, 0.07, SPOILT["times"]),
    WORDS,
)
EXPERTS_B = (  # a smaller model needs more of the same
    ExpertRecipe("change", ("change",), 1.2e-3, 280, 0.07, SPOILT["change"]),
    ROUNDER,
    ExpertRecipe("share", ("share",), 1.5e-3, 440, 0.07, SPOILT["share"]),
    ExpertRecipe("steps", ("three_step",), 1.5e-3, 560, 0.07, SPOILT["steps"]),
    ExpertRecipe("times", ("times",), 1.8e-3, 900, 0.04, replace(SPOILT["times"], share=0.15)),
    WORDS,
)
RECIPES = {
    "a": Recipe(
        128, 4, 352, 4, 768,
        (Phase(1200, 2.5e-3, 32, 48, 7, 1.0, until=0.5), Phase(250, 1.2e-3, 32, 16, 10, 0.002)),
        EXPERTS_A,
    ),
    "b": Recipe(
        96, 3, 256, 4, 768,
        (Phase(1000, 3e-3, 40, 48, 10, 1.0, until=0.6), Phase(250, 1.5e-3, 32, 16, 10, 0.0025)),
        EXPERTS_B,
    ),
}  # fmt: skip
