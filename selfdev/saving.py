"""What a run writes of its models: promoted seeds, and the best program with its model and card."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from selfdev.checkpoints import Checkpoint, save_merged, views
from selfdev.collect import tested
from selfdev.config.config import Config
from selfdev.finish import Candidate, examine, name_of, test_table
from selfdev.lineage import EVENT, Lineage, decision, promotions, winner_of
from selfdev.loop import Progress
from selfdev.records import Attempt, Program
from selfdev.report.card import model_card
from selfdev.results import TestRow
from selfdev.sandbox import Limits, Sandbox
from selfdev.store.archive import Archive
from selfdev.workers.workers import Workers


def line_of(
    config: Config, seed: Checkpoint, experts: Sequence[Checkpoint], folder: Path, scratch: Path,
    archive: Archive,
) -> Lineage:  # fmt: skip
    """The seeds of the run in a folder."""
    scope, dtype = config.models.scope, dtype_of(config)
    return Lineage(seed, tuple(experts), scope, dtype, folder / "seeds", scratch, archive)


def promote_winner(
    config: Config, iteration: int, line: Lineage, workers: Workers, progress: Progress
) -> None:
    """Decide once whether an iteration's winner becomes the next seed, and write its model if it does."""
    if any(p.iteration == iteration for p in promotions(line.archive)):
        return
    winner, parents = winner_of(line.archive, iteration), line.parents(iteration)
    program = name_of(winner) if winner else None
    if winner:
        asked = [Candidate("seed", "seed", checkpoint=line.seed)]
        asked.append(Candidate(name_of(winner), "discovered", attempt=winner, parents=parents))
        examine(asked, "finalist_dev", line.archive, workers, progress)
    decided = decision(line.archive, iteration, program)
    if winner and decided.promoted:
        seed, experts = (parents.seed, parents.experts) if parents else (line.seed, line.experts)
        out = line.place(iteration)
        shutil.rmtree(out, ignore_errors=True)  # of a run that was interrupted before it noted the promotion
        title = f"{config.name}: seed of iteration {iteration + 1}"
        card = _card(config, title, winner, seed, experts, line.archive)
        save_program(config, winner, seed, experts, out, card)
    line.archive.log(EVENT, **asdict(decided))


def save_best(
    config: Config, seed: Checkpoint, experts: Sequence[Checkpoint], best: Candidate, folder: Path,
    archive: Archive,
) -> None:  # fmt: skip
    """Write best/: the program, the merged checkpoint and its card, all at once."""
    target, partial = folder / "best", folder / ".best.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    if best.parents:
        seed, experts = best.parents.seed, best.parents.experts
    rows = test_table(*tested(config, archive, best.name))
    card = _card(config, f"{config.name}: {best.name}", best.attempt, seed, experts, archive, rows)
    if best.attempt is None:
        save_merged(seed, {}, partial / "model", card, None)
    else:
        save_program(config, best.attempt, seed, experts, partial / "model", card)
        (partial / "program.py").write_text(best.attempt.code, encoding="utf-8")
    (partial / "README.md").write_text(card, encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    partial.replace(target)


def save_program(
    config: Config, attempt: Attempt, seed: Checkpoint, experts: Sequence[Checkpoint], out: Path, card: str
) -> None:
    """Write what a program makes of a seed and experts as a checkpoint, whole or not at all."""
    limits = Limits(config.sandbox.seconds, config.sandbox.memory_gb, config.threads)
    models = views(seed, experts, config.models.scope, dtype_of(config))
    with Sandbox({"models": models}, limits, accept_weaker=config.sandbox.accept_weaker) as sandbox:
        run = sandbox.run(Program(attempt.code), attempt.seed)
        if run.tensors is None:
            raise RuntimeError(f"{name_of(attempt)} merged before and now ends in {run.outcome.state}")
        save_merged(seed, run.tensors, out, card, attempt.code)


def dtype_of(config: Config) -> str | None:
    """The dtype in which programs see tensors; None: as they are stored."""
    return "F32" if config.models.show_dtype == "float32" else None


def _card(
    config: Config, title: str, attempt: Attempt | None, seed: Checkpoint, experts: Sequence[Checkpoint],
    archive: Archive, rows: Sequence[TestRow] = (),
) -> str:  # fmt: skip
    return model_card(
        title,
        Program(attempt.code if attempt else ""),
        seed,
        experts,
        scope=config.models.scope,
        dtype=dtype_of(config),
        random_seed=attempt.seed if attempt else 0,
        scores=rows,
        task=config.task.title,
        confinement=json.loads(archive.get("environment") or "{}").get("confinement"),
    )
