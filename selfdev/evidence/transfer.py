"""Transfer: the finalists of a finished run, unchanged, on models or questions they never saw.

Beside them stand human-designed merges, as they were tuned at home and tuned again away. The paper shows one
program beside one baseline; here every finalist is tested and the one chosen at home is marked: its test
score away is free of selection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from selfdev.checkpoints import Checkpoint
from selfdev.cli.answer import to_json
from selfdev.collect import config_of, finished_archive
from selfdev.config.config import Config
from selfdev.cost import bars_of
from selfdev.errors import SelfdevError
from selfdev.evidence.transfer_result import SENT, TransferResult, collect_transfer
from selfdev.finish import Candidate, examine, leaders, name_of, tune_baselines, tuned
from selfdev.loop import Progress, try_attempts
from selfdev.records import Attempt, Score
from selfdev.results import Kind
from selfdev.run import (
    Models,
    check_confinement,
    check_questions,
    open_models,
    questions_of,
    settle_config,
    staffed,
)
from selfdev.store.archive import Archive
from selfdev.store.folder import open_archive
from selfdev.store.inputs import settle_inputs
from selfdev.workers.workers import Workers


@dataclass(frozen=True, slots=True)
class Home:
    """What a finished run sends. `sent` has its programs by kind and name; `dev` their scores on the home
    finalist_dev questions; `best` is the name of the program chosen there."""

    folder: Path
    config: Config
    best: str
    sent: Mapping[Kind, Mapping[str, Attempt]]
    dev: Mapping[str, Score]


def transfer_run(run: Path, config: Config, out: Path) -> TransferResult:
    """Try what `run` found on the models and questions of `config`, going on with what `out` holds."""
    home = read_home(run)
    check_is_away(home, config)
    check_confinement(config)
    models = open_models(config)
    check_questions(config)
    with open_archive(out) as archive:
        settle_home(home, out, archive)
        settle_config(config, out, archive)
        if archive.get("transferred") is None:
            work(config, models, home, archive)
        result = collect_transfer(config, home.folder, home.best, home.dev, archive)
        _write(out / "transfer.json", to_json(result) + "\n")
        return result


def read_home(folder: Path) -> Home:
    """The finalists and tuned baselines of a finished run; SelfdevError when it has no finalist."""
    with finished_archive(folder) as archive:
        dev = archive.examined("finalist_dev")
        found = [a for a in archive.attempts("factory") if name_of(a) in dev]
        if not found:
            raise SelfdevError(
                f"{folder} has no discovered finalist to transfer: the best of that run is the seed; give"
                " another run."
            )
        found.sort(key=lambda a: -dev[name_of(a)].accuracy)
        finalists = {name_of(a): a for a in found}
        baselines = {f"{a.name} (home)": a for a in tuned(archive)}
        scores = {name: dev[name] for name in finalists}
        scores |= {name: dev[a.name] for name, a in baselines.items() if a.name in dev}
        sent: dict[Kind, dict[str, Attempt]] = {"home baseline": baselines, "discovered": finalists}
        return Home(folder, config_of(folder, archive), archive.get("best") or "seed", sent, scores)


def check_is_away(home: Home, config: Config) -> None:
    """SelfdevError for the run's own models and task: its test set is opened once."""
    here, there = ((c.models.seed, c.models.experts, c.task.title) for c in (home.config, config))
    if here == there:
        raise SelfdevError(
            f"config {config.name} has the models and the task of {home.folder} itself, whose test set was"
            " opened already; give other models or another task."
        )


def settle_home(home: Home, out: Path, archive: Archive) -> None:
    """Note whose programs these are; a transfer that goes on must have the same ones."""
    programs = to_json({name: [a.code, a.seed] for kind in SENT for name, a in home.sent[kind].items()})
    kept = archive.get("programs")
    if kept is None and archive.get("config") is not None:
        raise SelfdevError(f"{out} holds a run and not a transfer; give another --out.")
    if kept not in (None, programs):
        raise SelfdevError(
            f"{out} holds the transfer of other programs than {home.folder}'s; give another --out."
        )
    if kept is None:
        archive.put("programs", programs)


def work(config: Config, models: Models, home: Home, archive: Archive) -> None:
    """Everything that takes long, with workers that hold the away models."""
    bars = bars_of(config, archive)
    settle_inputs(questions_of(config), [models.seed, *models.experts], archive)
    with staffed(config, models) as (models, workers):
        examine_away(config, home, models.seed, models.experts, archive, workers, bars)
    archive.put("transferred", "yes")


def examine_away(
    config: Config, home: Home, seed: Checkpoint, experts: Sequence[Checkpoint], archive: Archive,
    workers: Workers, progress: Progress,
) -> None:  # fmt: skip
    """Tune the baselines again, try what came from home on the road all programs take, then open the test."""
    tune_baselines(config, archive, workers, progress)
    examine(leaders(archive), "finalist_dev", archive, workers, progress)
    for kind in SENT:
        if not archive.attempts(kind, 0):
            sent = home.sent[kind].values()
            archive.add_written(
                kind, 0, list(home.sent[kind]), [a.code for a in sent], [a.seed for a in sent]
            )
        try_attempts(kind, 0, archive, workers, progress)
    asked = [Candidate("seed", "seed", checkpoint=seed)]
    asked += [Candidate(e.name, "expert", checkpoint=e) for e in experts]
    asked += [Candidate(a.name, "baseline", attempt=a) for a in tuned(archive)]
    asked += [Candidate(a.name, k, attempt=a) for k in SENT for a in archive.attempts(k, 0) if a.score]
    if not archive.events("test opened"):
        archive.log("test opened", for_=[candidate.name for candidate in asked])
    ask_test(asked, archive, workers, progress)


def ask_test(asked: Sequence[Candidate], archive: Archive, workers: Workers, progress: Progress) -> None:
    """Answers to the test questions; programs that behave alike are asked once, and each gets the answers."""
    first: dict[str | int, Candidate] = {}
    for candidate in asked:
        first.setdefault(_behaviour(candidate), candidate)
    examine(list(first.values()), "test", archive, workers, progress)
    answers = archive.examined("test")
    for c in asked:
        if c.name not in answers and c.attempt:
            archive.add_examined(c.name, c.kind, "test", c.attempt.id, answers[first[_behaviour(c)].name])


def _behaviour(candidate: Candidate) -> str | int:
    """The id of the first attempt that behaves like it; a model's name."""
    attempt = candidate.attempt
    return candidate.name if attempt is None else attempt.same_as or attempt.id


def _write(path: Path, text: str) -> None:
    draft = path.with_name(path.name + ".part")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
