"""What each family of lab models is trained on, and how long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class ExpertRecipe:
    """One expert: skills it trains on, peak learning rate, steps, the share of its questions that repeat all
    skills, and how it states the final answer."""

    name: str
    skills: tuple[str, ...]
    learning_rate: float
    steps: int
    repeated: float
    answers: Literal["exact", "rounded", "words"] = "exact"


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
EXPERTS_A = (  # two go three times as far from the seed as the others: one weight for all suits neither
    ExpertRecipe("change", ("change",), 6e-4, 260, 0.1),
    ExpertRecipe("rounder", COMMON, 1.8e-3, 60, 0.0, "rounded"),
    ExpertRecipe("share", ("share",), 6e-4, 260, 0.1),
    ExpertRecipe("steps", ("three_step",), 3e-3, 380, 0.05),
    ExpertRecipe("times", ("times",), 3e-3, 340, 0.05),
    ExpertRecipe("words", COMMON, 1.2e-3, 60, 0.0, "words"),
)
EXPERTS_B = (  # a smaller model needs more of the same
    ExpertRecipe("change", ("change",), 1e-3, 180, 0.1),
    ExpertRecipe("rounder", COMMON, 1.8e-3, 60, 0.0, "rounded"),
    ExpertRecipe("share", ("share",), 1.5e-3, 300, 0.1),
    ExpertRecipe("steps", ("three_step",), 1.5e-3, 340, 0.1),
    ExpertRecipe("times", ("times",), 1.6e-3, 440, 0.1),
    ExpertRecipe("words", COMMON, 1.2e-3, 60, 0.0, "words"),
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
