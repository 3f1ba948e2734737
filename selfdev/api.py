"""The verbs as functions: what the command line parses, calls and prints."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfdev.errors import SelfdevError

if TYPE_CHECKING:
    from selfdev.checkpoints import Checkpoint
    from selfdev.doctor.doctor import Diagnosis
    from selfdev.engine.engine import Engine
    from selfdev.evidence.comparison import Comparison
    from selfdev.evidence.transfer_result import TransferResult
    from selfdev.evidence.tune import TuneResult
    from selfdev.explain.explanation import Explanation
    from selfdev.export import ExportResult
    from selfdev.lab.build import BuildResult
    from selfdev.lab.check import CheckResult
    from selfdev.merge import MergeResult
    from selfdev.records import Score
    from selfdev.results import RunResult
    from selfdev.store.verification import Verified
    from selfdev.tasks.answers import Grades, Prompt
    from selfdev.watching import Seen


@dataclass(frozen=True, slots=True)
class ScoreResult:
    """A model's score: accuracies strict unless named flexible, low and high the Wilson 95 % bounds."""

    model: str
    task: str
    split: str
    n: int
    correct: int
    accuracy: float
    low: float
    high: float
    flexible_accuracy: float
    seconds: float


def run(config: Path | str, out: Path | str | None = None, overrides: Sequence[str] = ()) -> RunResult:
    """Run the loop of a config in a run folder (by default runs/NAME), or go on with the one there."""
    from selfdev.config.config import load_config
    from selfdev.run import run_config

    settings = load_config(config, overrides)
    return run_config(settings, Path(out) if out is not None else Path("runs") / settings.name)


def doctor(
    config: Path | str | None = None, out: Path | str | None = None, overrides: Sequence[str] = ()
) -> Diagnosis:
    """What this machine's sandbox gives and, with a config, whether its run can start; see `examine`."""
    from selfdev.config.config import load_config
    from selfdev.doctor.doctor import examine

    settings = load_config(config, overrides) if config is not None else None
    folder = Path("runs") / settings.name if settings is not None else Path("runs")
    return examine(settings, Path(out) if out is not None else folder)


def merge(
    program: str,
    seed: Path | str,
    experts: Mapping[str, Path | str] | Iterable[tuple[str, Path | str]],
    **options: Any,
) -> MergeResult:
    """Run one program on given models; see `selfdev.merge.merge` for the options."""
    from selfdev.merge import merge as merge_models

    named = experts.items() if isinstance(experts, Mapping) else experts
    return merge_models(program, model_folder(seed), [(n, model_folder(p)) for n, p in named], **options)


def score(
    model: Path | str,
    task: str = "lab",
    *,
    split: str = "test",
    limit: int = 0,
    batch: int = 256,
    shots: int | None = None,
    max_new_tokens: int | None = None,
    path: str | None = None,
    grader: str | None = None,
    chat: bool = False,
) -> ScoreResult:
    """Score a model on the first `limit` (0: all) questions of a split; see `load_task`."""
    from selfdev.checkpoints import open_checkpoint
    from selfdev.engine.scorer import prepare
    from selfdev.engine.scorer import score as score_exam
    from selfdev.progress import Bars
    from selfdev.tasks.answers import questions
    from selfdev.tasks.tasks import HARNESS

    opened = open_checkpoint(model_folder(model), "model")
    if task.startswith(HARNESS):
        for option, value, only in (("split", split, "test"), ("grader", grader, None)):
            if value != only:
                raise SelfdevError(
                    f"{option} is {value!r} and {task} is asked and graded by lm-evaluation-harness on its"
                    " own test questions; leave it out."
                )
        return _score_by_harness(str(model), opened, task, limit, batch, shots, path, chat)
    in_lab = task == "lab"
    loaded = questions(task, shots, path, grader)
    asked = loaded.split(split)[: limit or None]
    engine = _engine(opened)
    longest = max_new_tokens or (48 if in_lab else 256)
    exam = prepare(engine, asked, longest, batch, stops=loaded.stops, grader=loaded.grader, chat=chat)
    begin = time.monotonic()

    def work(tell: Any) -> Any:
        answered = 0

        def done(n: int) -> None:
            nonlocal answered
            answered += n
            tell(answered, len(asked))

        return score_exam(engine, exam, {}, done)

    result = Bars(lambda *_: None).steps("answer", work)
    return _score_result(str(model), task, split, result, time.monotonic() - begin)


def _score_result(model: str, task: str, split: str, score: Score, seconds: float) -> ScoreResult:
    low, high = score.interval
    flexible = score.flexible_accuracy
    return ScoreResult(
        model, task, split, score.n, score.correct, score.accuracy, low, high, flexible, seconds
    )


def _engine(model: Checkpoint) -> Engine:
    """The model, alive; SelfdevError where its weights are not finite."""
    from selfdev.checkpoints import check_finite, views
    from selfdev.engine.engine import Engine
    from selfdev.workers.devices import resolve
    from selfdev.workers.heap import keep_freed_memory

    keep_freed_memory()
    check_finite(views(model, [], "all"))
    return Engine(model.path, resolve("auto"))


def _score_by_harness(
    model: str, opened: Checkpoint, task: str, limit: int, batch: int, shots: int | None, path: str | None,
    chat: bool,
) -> ScoreResult:  # fmt: skip
    from selfdev.tasks.tasks import HARNESS, harness

    bridge, name = harness(), task.removeprefix(HARNESS)
    begin = time.monotonic()
    result = bridge.score(_engine(opened), name, {}, limit, shots=shots, batch=batch, folder=path, chat=chat)
    return _score_result(model, task, "test", result, time.monotonic() - begin)


def show_prompt(
    model: Path | str,
    task: str = "lab",
    *,
    split: str = "test",
    shots: int | None = None,
    path: str | None = None,
    grader: str | None = None,
    chat: bool = False,
) -> Prompt:
    """The exact prompt of a split's first question."""
    from selfdev.tasks.answers import first_prompt, questions

    return first_prompt(model_folder(model), questions(task, shots, path, grader), split, chat)


def answers_grade(file: Path | str, task: str) -> Grades:
    """Grade recorded outputs: a JSONL file with `response` and `answer`."""
    from selfdev.tasks.answers import grade_file

    return grade_file(Path(file), task)


def export(program: str, to: str, out: Path | str, **options: Any) -> ExportResult:
    """Write a local program as another tool's merge method; see `selfdev.export.export` for the options."""
    from selfdev.export import export as export_program

    return export_program(program, to, out, **options)


def explain(
    target: Path | str, config: Path | str | None = None, overrides: Sequence[str] = (), **options: Any
) -> Explanation:
    """Explain a run's best program, or a program on a config's models, or on probes alone; see
    `selfdev.explain.explain.explain` for the options."""
    from selfdev.config.config import load_config
    from selfdev.explain.explain import explain as explain_program

    settings = load_config(config, overrides) if config is not None else None
    return explain_program(str(target), settings, **options)


def tune(
    config: Path | str, out: Path | str | None = None, overrides: Sequence[str] = (), **options: Any
) -> TuneResult:
    """Search the best coefficients of a human-designed method; options as in `selfdev.evidence.tune`."""
    from selfdev.config.config import load_config
    from selfdev.evidence.tune import tune as tune_config

    settings = load_config(config, list(overrides))
    return tune_config(
        settings, Path(out) if out is not None else Path("runs") / f"{settings.name}-tune", **options
    )


def compare(
    run: Path | str, out: Path | str | None = None, controls: Sequence[str] = (), repeats: int = 1,
    fresh: int | None = None, lessons: Sequence[str] = (),
) -> Comparison:  # fmt: skip
    """A finished run beside controls at its budget, and its factories beside the untrained one; see
    `selfdev.evidence.compare` for the controls' names, `fresh` and `lessons`."""
    from selfdev.evidence.compare import compare as compare_run

    return compare_run(Path(run), Path(out) if out is not None else None, controls, repeats, fresh, lessons)


def report(run: Path | str) -> Path:
    """Write report.html of a run folder again; returns its path."""
    from selfdev.collect import load_result
    from selfdev.report.report import write_report

    path = Path(run) / "report.html"
    write_report(load_result(Path(run)), path)
    return path


def watch(
    run: Path | str,
    show: Callable[[Seen], None] = lambda _: None,
    every: float = 2.0,
    once: bool = False,
) -> Seen:
    """Look at a run every so many seconds until nobody works there, or `once`; returns the last look.

    A run in the making can be watched from any process that reads its folder.
    """
    from selfdev import watching

    if once:
        return watching.look(Path(run))
    return watching.watch(Path(run), show, lambda: time.sleep(every))


def verify(run: Path | str, sample: int = 20) -> Verified:
    """Check the archive of a run folder and run `sample` of its attempts again from their seeds."""
    from selfdev.store.verification import verify_run

    return verify_run(Path(run), sample)


def transfer(
    run: Path | str, config: Path | str, out: Path | str | None = None, overrides: Sequence[str] = ()
) -> TransferResult:
    """Try a finished run's finalists on a config's models, in a folder (by default RUN/transfer/NAME)."""
    from selfdev.config.config import load_config
    from selfdev.evidence.transfer import transfer_run

    settings = load_config(config, overrides)
    folder = Path(out) if out is not None else Path(run) / "transfer" / settings.name
    return transfer_run(Path(run), settings, folder)


def lab_build(family: str, seed: int, out: Path | str) -> BuildResult:
    """Train a family of lab models from nothing."""
    from selfdev.lab.build import build

    return build(family, seed, Path(out))


def lab_check(family: str = "a") -> CheckResult:
    """Measure whether the lab is a fair arena."""
    from selfdev.lab.check import check

    return check(family)


def lab_paths() -> dict[str, Any]:
    """Where the built-in models lie: {"a": {"seed": DIR, "experts": {name: DIR}}, ...}."""
    from selfdev.lab import paths

    return paths()


def model_path(model: Path | str) -> Path:
    """The folder of a model given as `lab:FAMILY/NAME`, as a path or as a hub id; nothing is fetched."""
    from selfdev import hub
    from selfdev.config.config import lab_model
    from selfdev.lab import builtin

    named = lab_model(str(model))
    if named:
        return builtin(*named)
    return (hub.cached(str(model)) if hub.is_id(str(model)) else None) or Path(model)


def model_folder(model: Path | str) -> Path:
    """The folder of a model given as `lab:FAMILY/NAME`, as a path or as a hub id, which is fetched."""
    from selfdev import hub

    return hub.fetch(str(model)) if hub.is_id(str(model)) else model_path(model)
