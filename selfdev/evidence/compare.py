"""The verb `compare`: what a finished run found beside controls that spend the same budget without learning.

Every control's best programs get the second look that the run's finalists got, then the best of each is asked
the run's test questions. So are the programs that led on dev after each quarter of the budget, for the curve.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

from selfdev.collect import config_of, finished_archive
from selfdev.config.config import Config
from selfdev.config.settings import ControlName
from selfdev.cost import bars_of
from selfdev.errors import SelfdevError
from selfdev.evidence.comparison import Comparison, chosen, gather, kind_of, leaders
from selfdev.evidence.controls import Searcher, cost, random_programs, search_coefficients, write_programs
from selfdev.evidence.learning import learn, lesson
from selfdev.evidence.lessons import teach_variants, variants
from selfdev.evidence.search import Method, Strategy, space_of
from selfdev.finish import Candidate, examine, finalists, name_of
from selfdev.lineage import Parents
from selfdev.records import Attempt
from selfdev.report.compare import write_comparison
from selfdev.run import open_models, questions_of, scratch_folder, staffed
from selfdev.saving import line_of
from selfdev.store.archive import Archive
from selfdev.store.folder import open_archive
from selfdev.store.inputs import settle_inputs

CONTROLS: tuple[str, ...] = get_args(ControlName)
FRESH = 256  # programs of each factory and temperature, at most, where no number is given


def checked_names(names: Sequence[str], all_of_them: bool = True) -> tuple[str, ...]:
    """The controls asked for; where none is, `all_of_them` or none. SelfdevError for any other name."""
    for name in names:
        if name not in CONTROLS:
            raise SelfdevError(f"control {name!r} does not exist; choose from {', '.join(CONTROLS)}.")
    return tuple(dict.fromkeys(names)) or (CONTROLS if all_of_them else ())


def compare(
    folder: Path, out: Path | None = None, controls: Sequence[str] = (), repeats: int = 1,
    fresh: int | None = None, lessons: Sequence[str] = (),
) -> Comparison:  # fmt: skip
    """Run the controls beside a finished run, in `out` (by default its folder compare/), going on with what
    is there; the result is also written there as comparison.json and comparison.html.

    `fresh` programs of each factory at each temperature show what was learned: by default as many as an
    iteration has, at most `FRESH`; 0 for none. `lessons` are settings under which the first iteration is
    taught again, such as "dpo.objective=ipo" (`lessons.py`); with them, only the controls named are run.
    """
    names, target = checked_names(controls, all_of_them=not lessons), out or folder / "compare"
    with finished_archive(folder) as run:
        config = config_of(folder, run)
        other = variants(config, lessons)
        with open_archive(target) as archive:
            _settle(config, archive, target)
            _work(config, folder, run, archive, names, repeats)
            found = gather(config, folder, run, archive, names, repeats)
            programs = min(config.factory.programs, FRESH) if fresh is None else fresh
            if programs:
                rows, learned = learn(config, folder, target / "fresh", programs)
                notes = (*found.notes, *map(lesson, learned))
                found = replace(found, fresh=rows, learned=learned, notes=notes)
            if other:
                taught = teach_variants(config, run, target / "lessons", programs or FRESH, other)
                notes = (*found.notes, *(lesson(gain, f"{name}: factory") for name, gain in taught[1]))
                found = replace(found, lessons=taught[0], notes=notes)
    write_comparison(found, target)
    return found


def _settle(config: Config, archive: Archive, target: Path) -> None:
    """Keep the run's config; an archive that was made beside another run is not gone on with."""
    kept = archive.get("config")
    if kept is None:
        archive.put("lead", config.task.grading)
        archive.put("config", config.model_dump_json())
    elif kept != config.model_dump_json():
        raise SelfdevError(f"{target} holds controls of another run; give another --out.")


def _work(
    config: Config, folder: Path, run: Archive, archive: Archive, names: Sequence[str], repeats: int
) -> None:
    bars = bars_of(config, archive)
    kinds = [kind_of(name, repeat) for name in names for repeat in range(repeats)]
    opened = open_models(config)
    settle_inputs(questions_of(config), [opened.seed, *opened.experts], run)
    with (
        scratch_folder(config) as scratch,
        staffed(config, opened) as (models, workers),
    ):
        # Numbers of a run's seed plus APART are its own; those of the controls begin behind them.
        s = Searcher(config, models.factory, archive, workers, bars, config.seed + 1)
        budget = cost(run.attempts("factory"), config.task.dev)
        search_all(s, names, repeats, budget, [slot.name for slot in models.shown[0].slots])
        line = line_of(config, models.seed, models.experts, folder, Path(scratch), run)
        examine_all(s, run, kinds, line.parents)


def search_all(
    s: Searcher, names: Sequence[str], repeats: int, budget: float, parameters: Sequence[str]
) -> None:
    """Spend the budget on each control, `repeats` times with other random seeds."""
    experts = len(s.config.models.experts)
    for repeat in range(repeats):
        own = Searcher(s.config, s.writer, s.archive, s.workers, s.progress, s.seed + repeat)
        for name in names:
            kind = kind_of(name, repeat)
            if name in ("untrained", "prompted"):
                write_programs(own, kind, budget, prompted=name == "prompted")
            elif name == "generator":
                random_programs(own, kind, budget, experts)
            else:
                strategy: Strategy = "cma" if name.startswith("cma") else "random"
                method: Method = "ties" if " ties" in name else "task_arithmetic"
                space = space_of(method, experts, parameters, by_layer=name.endswith("by layer"))
                search_coefficients(own, kind, space, strategy, budget)


def examine_all(
    s: Searcher, run: Archive, kinds: Sequence[str],
    parents: Callable[[int], Parents | None] = lambda _: None,
) -> None:  # fmt: skip
    """The second look on fresh dev questions, then the test questions, for every control and the run's own
    leaders, which merge the `parents` of their iteration."""
    looked = [c for kind in kinds for c in _candidates(finalists(s.archive, s.config.finalists, kind))]
    examine(looked, "finalist_dev", s.archive, s.workers, s.progress)
    asked = {c.name: c for kind in kinds for c in _to_test(s.config, s.archive, kind)}
    led = leaders(run.attempts("factory"), s.config.task.dev)
    own = [Candidate(name_of(a), "discovered", attempt=a, parents=parents(a.iteration)) for a in led if a]
    asked |= {c.name: c for c in own}
    done = s.archive.examined("test")
    if asked.keys() - done.keys():
        s.archive.log("test opened", for_=[name for name in asked if name not in done])
    examine(list(asked.values()), "test", s.archive, s.workers, s.progress)


def _to_test(config: Config, archive: Archive, kind: str) -> list[Candidate]:
    led = leaders(archive.attempts(kind), config.task.dev)
    return _candidates([*led, chosen(config, archive, kind)])


def _candidates(attempts: Sequence[Attempt | None]) -> list[Candidate]:
    return [Candidate(name_of(a), "discovered", attempt=a) for a in attempts if a is not None]
