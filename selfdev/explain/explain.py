"""The verb `explain`: what a program does, which of its parts matter, and a simpler one that does the same.

Every variant of the program goes the road of all programs: gate, probes, sandbox, score. What behaves as the
program does is not scored again. Only dev questions are asked: never those of the test set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from selfdev.checkpoints import ModelView
from selfdev.cli.answer import to_json
from selfdev.config.config import Config
from selfdev.errors import SelfdevError
from selfdev.explain.ablation import EXAM, Seen, Work, effects_of, look, try_variants
from selfdev.explain.explanation import Difference, Explanation, Simplified, accuracy_of, difference_of
from selfdev.explain.likeness import distances, per_probe, weighted_sums
from selfdev.explain.simplify import count, simplify
from selfdev.explain.subject import Subject, known_programs, on_bench, subject_of
from selfdev.explain.words import words_of
from selfdev.progress import Bars
from selfdev.records import Score, State
from selfdev.run import Models, make_setup, scratch_folder
from selfdev.workers.workers import Tried, Workers

QUESTIONS = 400  # asked of every variant where the user does not say and the config has so many
MARGIN = 0.01  # of accuracy, that a program simplified by score may lose


@dataclass(frozen=True, slots=True)
class Options:
    """How to explain: how many questions, whether also to simplify by score, and what that may lose."""

    questions: int | None = None
    by_score: bool = False
    margin: float = MARGIN


def explain(
    target: str,
    config: Config | None = None,
    *,
    parameters: Mapping[str, object] | None = None,
    questions: int | None = None,
    by_score: bool = False,
    margin: float = MARGIN,
    out: Path | str | None = None,
    random_seed: int = 0,
    accept_weaker: bool = False,
) -> Explanation:
    """Explain the best program of a run (its folder), or a program (built-in name or path) on the models and
    dev questions of a config; without one by its behaviour on probes alone.

    `questions` dev questions are asked of each variant. `by_score` simplifies further, by at most `margin` of
    accuracy. The simplified program is written to `out`, a new file; a run also gets explain.html and .json.
    Raises SelfdevError for a program that is refused or fails, and for a run whose best model is the seed.
    """
    options = Options(questions, by_score, margin)
    file = Path(out) if out is not None else None
    if file is not None and file.exists():
        raise SelfdevError(f"{file} is there already; choose another file or remove it")
    subject = subject_of(target, config, parameters or {}, random_seed)
    _check(options, subject)
    if subject.config is not None:
        subject = replace(subject, config=_settled(subject.config, options, accept_weaker))
    found = _explained(subject, options, accept_weaker)
    if file is not None:
        _write(file, (found.simplified_by_score or found.simplified).code)
        found = replace(found, out=str(file))
    if subject.run is not None:
        from selfdev.report.explain import render

        page = subject.run / "explain.html"
        found = replace(found, page=str(page))
        _write(page, render(found))
        _write(page.with_suffix(".json"), to_json(found) + "\n")
    return found


def _check(options: Options, subject: Subject) -> None:
    """SelfdevError for options that do not fit each other."""
    if subject.config is None and (options.questions is not None or options.by_score):
        raise SelfdevError("there are no models and no questions to score on; give --config with both")
    if not 0 <= options.margin < 1:
        raise SelfdevError(f"margin is {options.margin:g} and must be from 0 to below 1; give such a number")
    if options.questions is None or subject.config is None:
        return
    held = subject.config.task.finalist_dev
    if not 1 <= options.questions <= held:
        raise SelfdevError(
            f"questions is {options.questions} and the config keeps {held} for a second look"
            f" (task.finalist_dev); give a number from 1 to {held}"
        )


def _settled(config: Config, options: Options, accept_weaker: bool) -> Config:
    """The config with as many questions as are asked; they are the first of task.finalist_dev."""
    asked = options.questions or min(QUESTIONS, config.task.finalist_dev)
    changed: dict[str, object] = {"task": config.task.model_copy(update={EXAM: asked})}
    if accept_weaker:
        changed["sandbox"] = config.sandbox.model_copy(update={"accept_weaker": True})
    return config.model_copy(update=changed)


def _explained(subject: Subject, options: Options, accept_weaker: bool) -> Explanation:
    bars = Bars(lambda *_: None)
    with scratch_folder(subject.config) as scratch, ExitStack() as stack:
        bench, shown, models, troubles = stack.enter_context(on_bench(subject, Path(scratch), accept_weaker))
        work = Work(subject, bench, bench.behave(subject.code), bench.on_models(subject.code), bars)
        if work.outcome.state is not State.MERGED:
            raise SelfdevError(
                f"{subject.name} ends in {work.outcome.state} on the models ({work.outcome.reason}), so that"
                " there is nothing to explain; correct it"
            )
        seen = look(work, shown)
        shortest = _simplified(work)
        workers = None
        if subject.config is not None and models is not None:
            setup = replace(make_setup(subject.config, models, bench.probes), known={})
            workers = stack.enter_context(Workers(setup, subject.config.workers, ray=subject.config.ray))
        return _put_together(work, shown, models, workers, seen, shortest, options, troubles)


def _simplified(work: Work) -> Simplified:
    def same(code: str) -> bool:
        return work.same(work.bench.behave(code))

    code, steps = work.bars.steps(
        "simplify by behaviour", lambda tell: simplify(work.subject.code, same, tell)
    )
    return Simplified("behaviour", code, count(code), tuple(step.words for step in steps))


def _put_together(
    work: Work, shown: Sequence[ModelView], models: Models | None, workers: Workers | None,
    seen: Sequence[Seen], shortest: Simplified, options: Options,
    troubles: Sequence[str],
) -> Explanation:  # fmt: skip
    subject, bench = work.subject, work.bench
    assert work.base.change is not None
    own, seed_score, tried, by_score = None, None, dict[str, Tried](), None
    if workers is not None and models is not None:
        own, seed_score = _first_scores(work, models, workers)
        tried = try_variants(work, workers, seen)
        if options.by_score:
            by_score = _by_score(work, workers, own, shortest.code, options.margin, tried)
    effects = effects_of(work, seen, tried, own)
    known = bench.changes(known_programs(subject.config))
    reason = bench.dependence(subject.code)
    found = Explanation(
        program=subject.name,
        words=(),
        experts=tuple(view.name for view in shown[1:]),
        questions=own.n if own else 0,
        statements=count(subject.code),
        seconds=work.outcome.seconds,
        local=reason is None,
        not_local_because=reason or "",
        score=accuracy_of(own) if own else None,
        seed_score=accuracy_of(seed_score) if seed_score else None,
        over_seed=difference_of(own, seed_score) if own and seed_score else None,
        nearest=distances(work.base.change, known),
        per_probe=per_probe(bench.probes, work.base.change, known),
        weighted_sums=weighted_sums(bench.probes, work.base.change),
        effects=tuple(effects),
        simplified=shortest,
        simplified_by_score=by_score,
        notes=tuple(troubles),
        code=subject.code,
    )
    return replace(found, words=tuple(words_of(found, options.margin)))


def _first_scores(work: Work, models: Models, workers: Workers) -> tuple[Score, Score]:
    """The program's score and the seed's."""
    asked = workers.examine([((work.subject.code, work.subject.seed, None), EXAM), (models.seed, EXAM)])
    done = dict(work.bars(asked, "score the program and the seed", 2))
    own, seed = done[0].score, done[1].score
    if own is None or seed is None:
        raise RuntimeError(f"{work.subject.name} merged before and now ends in {done[0].outcome.state}")
    return own, seed


def _by_score(
    work: Work, workers: Workers, own: Score, code: str, margin: float, tried: Mapping[str, Tried]
) -> Simplified:
    """Simplified further while the paired difference stays in its interval and above `-margin`."""
    scores = {name: t.score for name, t in tried.items()} | {work.base.fingerprint or "": own}

    def score(text: str) -> Score | None:
        behaviour = work.bench.behave(text)
        if behaviour.fingerprint is None:
            return None
        if behaviour.fingerprint not in scores:
            ((_, done),) = workers.try_programs([(behaviour.code, work.subject.seed, EXAM)])
            scores[behaviour.fingerprint] = done.score
        return scores[behaviour.fingerprint]

    def same(text: str) -> bool:
        found = score(text)
        return found is not None and is_no_loss(difference_of(found, own), margin)

    simpler, taken = work.bars.steps("simplify by score", lambda tell: simplify(code, same, tell))
    steps = tuple(step.words for step in taken)
    last = score(simpler)
    assert last is not None
    return Simplified("score", simpler, count(simpler), steps, accuracy_of(last), difference_of(last, own))


def is_no_loss(difference: Difference, margin: float) -> bool:
    """Whether a program is no measurable loss on dev, and no more than `margin` below."""
    return difference.high >= 0 and difference.points >= -margin


def _write(path: Path, text: str) -> None:
    """The file appears whole; SelfdevError where it cannot be written."""
    draft = path.with_name(f".{path.name}.part")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        raise SelfdevError(f"{path} could not be written ({error.strerror}); choose another file") from error
