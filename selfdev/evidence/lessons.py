"""The same lesson by other objectives and pair rules, beside each other.

The programs of a finished run's first iteration teach a copy of the same first factory once more for every
variant. Each of these factories then writes at the second iteration's temperature, by the same random
numbers as the run's own and the untrained one in `learning.py`: what differs is the lesson alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from selfdev.config.config import Config, changed
from selfdev.errors import SelfdevError
from selfdev.evidence.learning import Fresh, Learned, fresh_config, fresh_of, learned_of, named, write_and_try
from selfdev.factory.lessons import lessons_of, teaches
from selfdev.factory.preferences import make_pairs
from selfdev.factory.training import check_training, trainer
from selfdev.loop import Progress, Train
from selfdev.progress import Bars
from selfdev.records import Attempt
from selfdev.run import staffed
from selfdev.store.archive import Archive
from selfdev.store.folder import open_archive
from selfdev.workers.workers import Workers

TAUGHT = 1  # iteration whose programs are the lesson
SECTIONS = ("dpo", "pairs")


def variants(config: Config, texts: Sequence[str]) -> dict[str, Config]:
    """The run's config as each text changes it, such as "dpo.objective=ipo dpo.beta=0.1"; SelfdevError for a
    key that is not of the lesson."""
    found = {}
    for text in texts:
        for override in text.split():
            if override.split(".")[0] not in SECTIONS:
                raise SelfdevError(
                    f"lesson {text!r} sets {override.partition('=')[0]!r}, and a lesson changes keys of"
                    f" {' and '.join(SECTIONS)} alone; for example --lesson dpo.objective=ipo."
                )
        found[" ".join(text.split())] = changed(config, text.split(), f"--lesson {text!r}")
    return found


def teach_variants(
    config: Config, run: Archive, out: Path, programs: int, lessons: Mapping[str, Config]
) -> tuple[tuple[Fresh, ...], tuple[tuple[str, Learned], ...]]:
    """Teach, write and score each variant and the untrained factory in `out`, going on with what is there;
    what each wrote, and what it wrote better than the untrained one."""
    for variant in lessons.values():
        check_training(variant)
    own = fresh_config(config, programs)
    bars = Bars(lambda *_: None)
    with staffed(own) as (models, workers):

        def train(variant: Config) -> Train:
            return trainer(variant, models.factory, bars, workers)

        wrote = write_variants(own, run, out, models.factory, lessons, train, workers, bars)
    rows = tuple(fresh_of(own, TAUGHT + 1, name, attempts) for name, attempts in wrote.items())
    before = wrote["untrained"]
    return rows, tuple((n, learned_of(own, TAUGHT + 1, wrote[n], before)) for n in lessons)


def write_variants(
    config: Config, run: Archive, out: Path, first: Path, lessons: Mapping[str, Config],
    train: Callable[[Config], Train], workers: Workers, progress: Progress,
) -> dict[str, list[Attempt]]:  # fmt: skip
    """The fresh programs of the untrained factory `first` and of each variant's; `config` is that of
    `fresh_config`."""
    wrote = {}
    for name, variant in {"untrained": None, **lessons}.items():
        folder = out / name.replace("/", "_")
        folder.mkdir(parents=True, exist_ok=True)
        writer = first if variant is None else teach(variant, run, folder, first, train(variant))
        with open_archive(folder / f"{config.factory.programs} programs") as archive:
            write_and_try(config, TAUGHT + 1, writer, archive, workers, named(progress, name))
            wrote[name] = archive.attempts("factory", TAUGHT + 1)
    return wrote


def teach(config: Config, run: Archive, folder: Path, first: Path, train: Train) -> Path:
    """The factory that this config makes of the run's first iteration; where nothing can be learned from it,
    the first one."""
    out = folder / f"iteration_{TAUGHT + 1}"
    if out.is_dir():
        return out
    attempts = run.attempts("factory", TAUGHT)
    pairs = make_pairs(attempts, TAUGHT, config.pairs, random.Random(f"pairs {config.seed} {TAUGHT}"))
    lessons = lessons_of(config, TAUGHT, attempts, pairs)
    if not teaches(lessons, config.dpo.objective):
        return first
    train(first, out, lessons, config.seed + TAUGHT)
    return out
