"""Is the lab a fair arena? Two measurements that must hold (lab/README.md has the last figures).

(a) the best human-designed baseline, tuned on dev, beats the seed on test by at least 5 points;
(b) an oracle search, CMA-ES over one coefficient per expert and layer with 1,000 full evaluations on dev,
    beats that baseline on test by at least 3 points with p < 0.01: there is something left to find.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from selfdev.checkpoints import Checkpoint, open_checkpoint, views
from selfdev.errors import SelfdevError
from selfdev.fingerprint import make_probes
from selfdev.lab import FAMILIES, MODELS, experts
from selfdev.library import load_program
from selfdev.progress import Bars
from selfdev.records import Score
from selfdev.stats import mcnemar
from selfdev.tasks.questions import ExamName
from selfdev.workers.workers import Setup, Subject, Tried, Workers

DEV, TEST = 1000, 5000
EVALUATIONS = 1000
BASELINE_GAIN, ORACLE_GAIN, P = 0.05, 0.03, 0.01
SIGMA = 0.2  # first step of CMA-ES, in units of a task vector
ORACLE = """COEFFICIENTS = {coefficients}  # one row per expert, one number per layer


def merge_models(models, device):
    seed = models["seed"]
    experts = [models[name] for name in models if name != "seed"]
    merged = {{}}
    for name in seed:
        layer = int(name.split(".")[2])
        delta = sum(row[layer] * (e[name] - seed[name]) for row, e in zip(COEFFICIENTS, experts))
        merged[name] = seed[name] + delta
    return merged
"""


def grid(count: int) -> dict[str, list[dict[str, object]]]:
    """The tuning grid of each human-designed method for `count` experts; configs/lab.yaml has the same.

    Task arithmetic is tried with one weight for all, and with each expert left out.
    """
    without: list[dict[str, object]] = [
        {"WEIGHT": [0.0 if place == left else weight for place in range(count)]}
        for left in range(count)
        for weight in (0.2, 0.3, 0.4, 0.6)
    ]
    uniform: list[dict[str, object]] = [{"WEIGHT": w} for w in (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)]
    return {
        "linear": [{}],
        "task_arithmetic": uniform + without,
        "ties": [{"DENSITY": d, "LAMBDA": s} for d in (0.2, 0.5, 0.8) for s in (0.5, 1.0, 1.5)],
        "dare_ties": [{"DENSITY": d, "WEIGHT": w} for d in (0.5, 0.8) for w in (0.2, 0.5)],
        "model_stock": [{}],
        "slerp": [{"EXPERT": place, "T": t} for place in range(count) for t in (0.3, 0.6)],
    }


@dataclass(frozen=True, slots=True)
class Measured:
    """A model's test score with its Wilson 95 % interval, and its dev accuracy."""

    name: str
    n: int
    accuracy: float
    low: float
    high: float
    dev_accuracy: float | None = None


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The figures and whether they hold: (a) baseline over seed, (b) oracle over baseline."""

    family: str
    dev: int
    test: int
    seed: Measured
    experts: tuple[Measured, ...]
    baseline: Measured
    oracle: Measured
    oracle_coefficients: list[list[float]]
    evaluations: int
    baseline_gain: float
    oracle_gain: float
    p_oracle_vs_baseline: float
    a_holds: bool
    b_holds: bool


def check(family: str, evaluations: int = EVALUATIONS, workers: int = 2) -> CheckResult:
    """Measure (a) and (b) on a family."""
    if family not in FAMILIES:
        raise SelfdevError(f"family {family!r} does not exist; choose {' or '.join(FAMILIES)}.")
    bars = Bars(lambda *_: None)
    seed = open_checkpoint(MODELS / family / "seed", "seed")
    relatives = tuple(open_checkpoint(MODELS / family / name, name) for name in experts(family))
    with tempfile.TemporaryDirectory(prefix="selfdev-") as scratch:
        setup = _setup(seed, relatives, Path(scratch))
        with Workers(setup, workers) as pool:
            named = _tuned(pool, len(relatives), bars)
            start = max(0.1, _mean_weight(named[0]))
            layers = 1 + max(int(slot.split(".")[2]) for slot in seed.slots if ".layers." in slot)
            coefficients, dev = _search(pool, len(relatives), layers, start, evaluations, bars)
            code = ORACLE.format(coefficients=coefficients)
            tested = _test(pool, [seed, *relatives], [named[1], code], bars)
    base, oracle = tested[-2:]
    a = base.accuracy - tested[0].accuracy
    b = oracle.accuracy - base.accuracy
    p = mcnemar(oracle.strict, base.strict)
    return CheckResult(
        family=family,
        dev=DEV,
        test=TEST,
        seed=_measured("seed", tested[0]),
        experts=tuple(_measured(m.name, s) for m, s in zip(relatives, tested[1:-2], strict=True)),
        baseline=_measured(named[0], base, named[2]),
        oracle=_measured("CMA-ES, one coefficient per expert and layer", oracle, dev),
        oracle_coefficients=coefficients,
        evaluations=evaluations,
        baseline_gain=a,
        oracle_gain=b,
        p_oracle_vs_baseline=p,
        a_holds=a >= BASELINE_GAIN,
        b_holds=b >= ORACLE_GAIN and p < P,
    )


def _setup(seed: Checkpoint, relatives: tuple[Checkpoint, ...], scratch: Path) -> Setup:
    shown = views(seed, relatives, "mlp", "F32")
    sizes = {"dev": DEV, "finalist_dev": 1, "test": TEST}
    probes = make_probes(shown, scratch)
    return Setup(seed, relatives, "mlp", "F32", 10.0, 2.0, False, "lab", 0, sizes, 0, 40, 256, 1, {}, probes)


def _tuned(pool: Workers, count: int, bars: Bars) -> tuple[str, str, float]:
    """Name, code and dev accuracy of the best baseline of the whole grid."""
    rows = [(name, values) for name, sets in grid(count).items() for values in sets]
    codes = [load_program(name, values).code for name, values in rows]
    scores = _scores(pool, codes, "baselines", bars)
    best = max(range(len(rows)), key=lambda place: scores[place].accuracy)
    name, values = rows[best]
    label = " ".join([name, *(f"{key}={value}" for key, value in values.items())])
    return label, codes[best], scores[best].accuracy


def _mean_weight(label: str) -> float:
    """Where the oracle starts: the best task arithmetic's mean weight, 0.3 for other methods."""
    import re

    numbers = [float(n) for n in re.findall(r"\d\.\d+", label)] if label.startswith("task") else []
    return float(np.mean(numbers)) if numbers else 0.3


def _search(
    pool: Workers, count: int, layers: int, start: float, evaluations: int, bars: Bars
) -> tuple[list[list[float]], float]:
    """CMA-ES over one coefficient per expert and layer (Hansen 2016, arXiv 1604.00772), on all of dev.

    Returns the mean of the final distribution, which is less of a lucky draw than the best sample, and the
    accuracy of the last generation's best.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Could not import matplotlib", category=UserWarning)
        import cma

    strategy = cma.CMAEvolutionStrategy(np.full(count * layers, start), SIGMA, {"seed": 1, "verbose": -9})
    done, best = 0, 0.0

    def generations() -> object:
        nonlocal done, best
        while done < evaluations:
            asked = strategy.ask(min(strategy.popsize, max(2, evaluations - done)))
            codes = [ORACLE.format(coefficients=_rows(x, count, layers)) for x in asked]
            found = dict(pool.try_programs([(code, 0, "dev") for code in codes]))
            values = [-(t.score.accuracy if t.score else 0.0) for _, t in sorted(found.items())]
            if len(asked) == strategy.popsize:
                strategy.tell(asked, values)
            done += len(asked)
            best = -min(values)
            yield from asked

    for _ in bars(generations(), "oracle search", evaluations):  # type: ignore[arg-type]
        pass
    return _rows(strategy.result.xfavorite, count, layers), best


def _rows(x: Sequence[float], count: int, layers: int) -> list[list[float]]:
    return [[round(float(v), 4) for v in row] for row in np.asarray(x).reshape(count, layers)]


def _scores(pool: Workers, codes: Sequence[str], stage: str, bars: Bars) -> list[Score]:
    """Dev scores of programs."""
    return _in_order(bars(pool.try_programs([(code, 0, "dev") for code in codes]), stage, len(codes)), stage)


def _in_order(results: Iterable[tuple[int, Tried]], stage: str) -> list[Score]:
    scores = []
    for _, tried in sorted(results, key=lambda result: result[0]):
        if tried.score is None:
            raise RuntimeError(f"{stage}: {tried.outcome.reason}")
        scores.append(tried.score)
    return scores


def _test(pool: Workers, models: Sequence[Checkpoint], codes: Sequence[str], bars: Bars) -> list[Score]:
    """Test scores of whole models, then of programs."""
    jobs: list[tuple[Subject, ExamName]] = [
        *((model, "test") for model in models),
        *(((code, 0, None), "test") for code in codes),
    ]
    return _in_order(bars(pool.examine(jobs), "test", len(jobs)), "test")


def _measured(name: str, score: Score, dev: float | None = None) -> Measured:
    low, high = score.interval
    return Measured(name, score.n, score.accuracy, low, high, dev)
