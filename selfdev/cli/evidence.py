"""The commands that set a finding beside others, explain or check it: tune, compare, transfer, explain,
verify."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfdev.cli.answer import answer
from selfdev.cli.options import AcceptWeaker, AsJson, Overrides, Parameters, parameters_of

if TYPE_CHECKING:
    from rich.console import Console

evidence = typer.Typer(rich_markup_mode=None)
GOES_ON = "Interrupted; give the same command again to go on, nothing that was finished is lost."


@evidence.command()
def tune(
    config: Annotated[Path, typer.Argument(help="YAML file with models, task and the baselines' grids.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder; by default runs/NAME-tune. A search in it goes on.")
    ] = None,
    method: Annotated[str, typer.Option(help="task_arithmetic or ties.")] = "task_arithmetic",
    by_layer: Annotated[
        bool, typer.Option("--by-layer", help="One weight per expert and group of layers, not per expert.")
    ] = False,
    strategy: Annotated[str, typer.Option(help="cma (CMA-ES) or random.")] = "cma",
    evaluations: Annotated[int, typer.Option(help="Full scores on dev to spend.", min=2)] = 300,
    set_: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Search the best coefficients of a human-designed method (what mergekit-evolve did)."""
    _one_of(method, ("task_arithmetic", "ties"), "--method")
    _one_of(strategy, ("cma", "random"), "--strategy")

    def work() -> Any:
        from selfdev import api

        return api.tune(
            config,
            out,
            set_ or (),
            method=method,
            by_layer=by_layer,
            strategy=strategy,
            evaluations=evaluations,
        )

    def show(result: Any, console: Console) -> None:
        from selfdev.cli.terminal import print_tuned

        print_tuned(result, console)

    answer(work, show, as_json, GOES_ON)


@evidence.command()
def compare(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the controls; by default RUN/compare.")] = None,
    control: Annotated[
        list[str] | None, typer.Option(help="Which control, e.g. untrained; repeat. By default all.")
    ] = None,
    repeats: Annotated[int, typer.Option(help="Searches per control, with other random seeds.", min=1)] = 1,
    fresh: Annotated[
        int | None,
        typer.Option(
            help="Fresh programs of each factory, trained and not, at equal temperature; 0: none.", min=0
        ),
    ] = None,
    lesson: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE ...",
            help='Teach the first iteration again with these settings, e.g. "dpo.objective=ipo"; repeat. Then'
            " only the controls named are run.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Set a run beside controls that spend the same budget without learning."""

    def work() -> Any:
        from selfdev import api

        return api.compare(run, out, control or (), repeats, fresh, lesson or ())

    def show(result: Any, console: Console) -> None:
        from selfdev.cli.terminal import print_comparison

        print_comparison(result, console)

    answer(work, show, as_json, GOES_ON)


@evidence.command()
def transfer(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    config: Annotated[Path, typer.Argument(help="YAML file with the other models, e.g. configs/lab_b.yaml.")],
    out: Annotated[
        Path | None, typer.Option(help="Its folder; by default RUN/transfer/NAME. What is in it goes on.")
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Try a run's finalists, unchanged, on models they never saw, beside baselines tuned again there."""

    def work() -> Any:
        from selfdev import api

        return api.transfer(run, config, out, overrides or [])

    def show(result: Any, console: Console) -> None:
        from selfdev.cli.terminal import print_transfer

        print_transfer(result, console)

    interrupted = "Interrupted; every finished attempt is kept. Give the same command again to go on."
    answer(work, show, as_json, interrupted)


@evidence.command()
def explain(
    target: Annotated[
        str,
        typer.Argument(
            metavar="PROGRAM|RUN", help="Built-in name, program file, or a finished run's folder."
        ),
    ],
    config: Annotated[
        Path | None,
        typer.Option(help="YAML file with models and task; none: probes only. A run has its own."),
    ] = None,
    overrides: Overrides = None,
    param: Parameters = None,
    questions: Annotated[
        int | None,
        typer.Option(help="Dev questions for each variant; by default 400, or all there are.", min=1),
    ] = None,
    by_score: Annotated[
        bool, typer.Option("--by-score", help="Simplify further while the dev score shows no loss.")
    ] = False,
    margin: Annotated[float, typer.Option(help="Most accuracy that --by-score may lose.", min=0)] = 0.01,
    out: Annotated[Path | None, typer.Option(help="New file for the simplified program.")] = None,
    random_seed: Annotated[int, typer.Option(help="Seed of a program's random numbers.", min=0)] = 0,
    accept_weaker: AcceptWeaker = False,
    as_json: AsJson = False,
) -> None:
    """Say what a program does, which of its parts matter, and what simpler one does the same."""
    parameters = parameters_of(param)

    def work() -> Any:
        from selfdev import api

        return api.explain(
            target,
            config,
            overrides or (),
            parameters=parameters,
            questions=questions,
            by_score=by_score,
            margin=margin,
            out=out,
            random_seed=random_seed,
            accept_weaker=accept_weaker,
        )

    def show(result: Any, console: Console) -> None:
        from selfdev.cli.terminal_explain import print_explanation

        print_explanation(result, console)

    answer(work, show, as_json)


@evidence.command()
def verify(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    sample: Annotated[int, typer.Option(help="Attempts to run again; 0: none.", min=0)] = 20,
    as_json: AsJson = False,
) -> None:
    """Check a run's archive and run a sample of its attempts again; exits 1 when anything differs."""

    def work() -> Any:
        from selfdev import api

        return api.verify(run, sample)

    def show(result: Any, console: Console) -> None:
        for difference in result.differences:
            console.print(f"- {difference}", markup=False, highlight=False)
        console.print(result.sentence, markup=False, highlight=False, soft_wrap=True)

    if not answer(work, show, as_json).ok:
        raise typer.Exit(1)


def _one_of(value: str, allowed: tuple[str, ...], option: str) -> None:
    if value not in allowed:
        raise typer.BadParameter(f"{value!r} must be {' or '.join(allowed)}", param_hint=option)
