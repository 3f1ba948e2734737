"""Five searches on the lab with seeds 0-4, and each trained factory against the untrained one.

    python scripts/lab_evidence.py --out runs/evidence            (about 45 minutes on two cores)

For every seed: the whole run of configs/lab.yaml, then fresh programs of the last factory and of the seed at
the *same* temperature, that of the last iteration, each asked the same questions to the end. Prints the table
of lab/README.md in Markdown.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from selfdev import factory
from selfdev.archive import Archive
from selfdev.config import Config, load_config
from selfdev.findings import best_baseline
from selfdev.fingerprint import make_probes
from selfdev.loop import factory_of
from selfdev.progress import Bars
from selfdev.results import RunResult
from selfdev.run import make_setup, open_models, run_config
from selfdev.workers import Workers

FRESH = 256  # programs of each factory
QUESTIONS = 80  # each is scored on, all of them: none is stopped early
FRESH_ITERATION = 1_000_001  # its random numbers are used by no iteration of a run


@dataclass(frozen=True, slots=True)
class Fresh:
    """Programs of one factory: share that reached a score, and the dev accuracies of those."""

    written: int
    scored: int
    mean: float


def fresh(config: Config, model: Path, temperature: float, workers: Workers, bars: Bars) -> Fresh:
    """Write, run and score FRESH programs of a factory at a temperature."""
    f = config.factory
    batches = [
        factory.uniforms(config.seed, FRESH_ITERATION, start, min(f.batch, FRESH - start), f.max_new_tokens)
        for start in range(0, FRESH, f.batch)
    ]
    written = dict(
        bars(workers.write(model, factory.prompt(), temperature, batches), "fresh: write", len(batches))
    )
    texts = [text for place in sorted(written) for text in written[place]]
    probed = dict(bars(workers.probe([(text, 0) for text in texts]), "fresh: probe", len(texts)))
    jobs = [(p.code, 0, "dev") for _, p in sorted(probed.items()) if p.fingerprint is not None]
    tried = dict(bars(workers.try_programs(jobs), "fresh: score", len(jobs)))  # type: ignore[arg-type]
    scores = [t.score.accuracy for t in tried.values() if t.score is not None]
    return Fresh(len(texts), len(scores), statistics.fmean(scores))


def equal_temperature(config: Config, folder: Path, bars: Bars) -> tuple[Fresh, Fresh]:
    """The last factory of a run and the seed, at the last iteration's temperature."""
    asked = config.task.model_copy(update={"dev": QUESTIONS, "first_block": 0})
    config = config.model_copy(update={"task": asked})
    models = open_models(config)
    last = config.factory.iterations
    temperature = factory.temperature(last, config.factory.temperature, config.factory.decay)
    with tempfile.TemporaryDirectory() as scratch:
        setup = make_setup(config, models, make_probes(models.shown, Path(scratch)))
        with Workers(setup, config.workers) as workers:
            trained = factory_of(last, models.seed.path, folder / "factory")
            paths = (trained, models.seed.path)
            both = [fresh(config, path, temperature, workers, bars) for path in paths]
    return both[0], both[1]


def row(config: Config, result: RunResult, trained: Fresh, untrained: Fresh) -> str:
    """One line of the table."""
    turns = [result.iterations[0], result.iterations[-1]]
    yields = [t.states.get("SCORED", 0) / t.written for t in turns]
    means = [t.dev_mean if t.dev_mean is not None else float("nan") for t in turns]
    rows = {r.name: r for r in result.test}
    best, rival, seed = rows[result.best_name], best_baseline(result.test), rows["seed"]
    p = best.p_vs_best_baseline
    cells = [
        str(config.seed),
        f"{yields[0]:.0%} -> {yields[1]:.0%}",
        f"{means[0]:.3f} -> {means[1]:.3f}",
        f"{trained.scored / trained.written:.0%} / {untrained.scored / untrained.written:.0%}",
        f"{trained.mean:.3f} / {untrained.mean:.3f}",
        f"{seed.accuracy:.3f}",
        f"{rival.accuracy:.3f}" if rival else "-",
        f"{best.accuracy:.3f} [{best.low:.3f}, {best.high:.3f}]",
        f"{p:.1e}" if p is not None else "-",
        f"{result.seconds:.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="configs/lab.yaml")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    bars = Bars(lambda *_: None)
    lines = [
        "| seed | yield 1 -> 3 | mean dev 1 -> 3 | equal T: yield, trained / untrained | equal T: mean dev |"
        " seed model | best baseline | discovered [95 %] | p | s |",
        "|" + " --- |" * 10,
    ]
    for number in range(arguments.seeds):
        config = load_config(arguments.config, [f"seed={number}"])
        folder = arguments.out / f"seed_{number}"
        result = run_config(config, folder)
        archive = Archive(folder / "archive.sqlite")
        if not archive.events("equal temperature"):
            pair = equal_temperature(config, folder, bars)
            archive.log("equal temperature", both=[asdict(one) for one in pair])
        trained, untrained = (Fresh(**one) for one in archive.events("equal temperature")[0]["both"])
        archive.close()
        lines.append(row(config, result, trained, untrained))
        print("\n".join(lines), flush=True)
    (arguments.out / "table.md").write_text("\n".join(lines) + "\n")
    print(json.dumps({"seeds": arguments.seeds, "questions": int(np.max([r.n for r in result.test]))}))


if __name__ == "__main__":
    main()
