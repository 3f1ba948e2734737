"""The line of seeds: with `promote: best` an iteration's winner becomes the model that the next one improves.

The winner is the best program of the iteration by dev. It and the current seed are then asked the
finalist_dev questions: the search asks none of them, and test has none of them. Only where the paired 95 %
interval of the gain is above zero is the winner's model promoted; otherwise the seed stays. A promoted seed
was itself chosen on these questions, so that what the next one gains over it is, if anything, shown too
small. Earlier seeds stay among the models, behind the experts, as seed_1, seed_2 and so on: no expert changes
its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from selfdev.checkpoints import Checkpoint, ModelView, open_checkpoint, views
from selfdev.fingerprint import make_probes
from selfdev.records import Attempt, best_first, fully_scored
from selfdev.results import Promotion
from selfdev.stats import paired_difference
from selfdev.store.archive import Archive

EVENT = "promotion"


@dataclass(frozen=True, slots=True)
class Parents:
    """What the programs of an iteration merge: the seed, the experts with earlier seeds behind them, and
    probes of all these; `number` is 1 for the models of the config and one more for each promotion."""

    number: int
    seed: Checkpoint
    experts: tuple[Checkpoint, ...]
    probes: tuple[ModelView, ...]


@dataclass(frozen=True, slots=True)
class Lineage:
    """The seeds of one run: promoted ones are checkpoints in `folder`, the decisions are in the archive.

    `seed` and `experts` are those of the config; probes for later ones are written into `scratch`.
    """

    seed: Checkpoint
    experts: tuple[Checkpoint, ...]
    scope: str
    dtype: str | None
    folder: Path
    scratch: Path
    archive: Archive
    opened: dict[int, Parents] = field(default_factory=dict, repr=False)  # by number

    def parents(self, iteration: int) -> Parents | None:
        """What programs of an iteration merge; None while that is the models of the config."""
        earlier = [p.iteration for p in promotions(self.archive) if p.promoted and p.iteration < iteration]
        if not earlier:
            return None
        number = len(earlier) + 1
        if number not in self.opened:
            self.opened[number] = self._open(number, earlier)
        return self.opened[number]

    def _open(self, number: int, earlier: Sequence[int]) -> Parents:
        """The models once the winners of these iterations were promoted."""
        seeds = [self.seed, *(open_checkpoint(self.place(t), "seed") for t in earlier)]
        old = (replace(seed, name=f"seed_{place}") for place, seed in enumerate(seeds[:-1], 1))
        experts = (*self.experts, *old)
        scratch = self.scratch / f"probes_{number}"
        scratch.mkdir(exist_ok=True)
        probes = make_probes(views(seeds[-1], experts, self.scope, self.dtype), scratch)
        return Parents(number, seeds[-1], experts, probes)

    def place(self, iteration: int) -> Path:
        """Where the model lies that was promoted after an iteration."""
        return self.folder / f"iteration_{iteration + 1}"


def promotions(archive: Archive) -> tuple[Promotion, ...]:
    """Every decision of a run, in order."""
    return tuple(Promotion(**event) for event in archive.events(EVENT))


def winner_of(archive: Archive, iteration: int) -> Attempt | None:
    """The best program of an iteration by dev; a copy of a model is none."""
    scored = fully_scored(list(archive.each("factory", only="scored")))
    own = [a for a in scored if a.iteration == iteration and a.outcome.copy_of is None]
    return next(iter(best_first(own)), None)


def decision(archive: Archive, iteration: int, program: str | None) -> Promotion:
    """Whether a program may become the next seed, by its and the seed's answers in the archive."""
    earlier = [p.program for p in promotions(archive) if p.promoted and p.iteration < iteration]
    seed = str(earlier[-1]) if earlier else "seed"
    if program is None:
        return Promotion(iteration, seed, None, False, "no program was scored on all dev questions")
    asked = archive.examined("finalist_dev")
    best, old = asked[program], asked[seed]
    low, high = paired_difference(best.leading, old.leading)
    reason = "" if low > 0 else "the interval of its gain is not above zero"
    found: dict[str, Any] = {"n": best.n, "seed_accuracy": old.accuracy, "accuracy": best.accuracy}
    return Promotion(iteration, seed, program, low > 0, reason, **found, low=low, high=high)
