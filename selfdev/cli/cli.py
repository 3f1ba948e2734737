"""The command line: it parses, calls the functions of `selfdev.api` and prints what they return.

Nothing heavy is imported before a verb is at work, so that `selfdev --help` answers at once.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfdev.cli.answer import answer, show_any
from selfdev.cli.evidence import evidence
from selfdev.cli.lab import lab
from selfdev.cli.options import AcceptWeaker, AsJson, Overrides, Parameters, pair, parameters_of
from selfdev.cli.watch import watch

if TYPE_CHECKING:
    from rich.console import Console

STARTED = time.monotonic()

app = typer.Typer(
    name="selfdev",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help: half the time to start
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="A language model writes, tests and learns to write programs that improve itself.",
)
app.add_typer(lab, name="lab")
app.add_typer(evidence)
answers = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Recorded outputs of models.")
app.add_typer(answers, name="answers")


def main() -> None:
    """Entry point of the command `selfdev`; ends the process itself: Python with torch takes 0.7 s to."""
    try:
        app()
    except SystemExit as end:
        if isinstance(end.code, str):
            raise
        atexit._run_exitfuncs()
        with contextlib.suppress(OSError):  # whoever read the output may have left
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(end.code or 0)


@app.callback(invoke_without_command=True)
def _top(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from importlib.metadata import version as version_of

        typer.echo(version_of("selfdev"))
        raise typer.Exit


@app.command()
def run(
    config: Annotated[Path, typer.Argument(help="YAML file, e.g. configs/lab.yaml.")],
    out: Annotated[
        Path | None, typer.Option(help="Run folder; by default runs/NAME. A run in it goes on.")
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Run the loop, or go on with it where the run folder exists."""

    def work() -> Any:
        from selfdev import api

        return api.run(config, out, overrides or [])

    def show(result: Any, console: Console) -> None:
        from selfdev.cli.terminal import print_run

        print_run(result, console)

    interrupted = "Interrupted; every finished attempt is kept. Give the same command again to go on."
    answer(work, show, as_json, interrupted)


@app.command()
def doctor(
    config: Annotated[
        Path | None, typer.Argument(help="YAML file, e.g. configs/lab.yaml; none: the sandbox only.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder it would have; by default runs/NAME.")] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Look at this machine's sandbox and, with a config, at all that a run needs; exits 1 on a problem."""

    def work() -> Any:
        from selfdev import api

        return api.doctor(config, out, overrides or [])

    def show(result: Any, console: Console) -> None:
        from selfdev.cli.terminal_doctor import print_diagnosis

        print_diagnosis(result, console)

    if not answer(work, show, as_json).ok:
        raise typer.Exit(1)


@app.command()
def merge(
    program: Annotated[str, typer.Argument(help="Built-in name, or a .py file or text with a fenced block.")],
    seed: Annotated[str, typer.Option(help="Model to improve: a folder, a hub id or lab:FAMILY/NAME.")],
    expert: Annotated[
        list[str], typer.Option(metavar="NAME=DIR", help="A relative of the seed, or a LoRA adapter; repeat.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="New folder for the merged checkpoint; none: only try.")
    ] = None,
    param: Parameters = None,
    scope: Annotated[str, typer.Option(help="Parameters it sees: mlp, all or a regular expression.")] = "mlp",
    show_dtype: Annotated[
        str, typer.Option(help="Dtype in which it sees tensors: stored or float32.")
    ] = "stored",
    random_seed: Annotated[int, typer.Option(help="Seed of its random numbers.", min=0)] = 0,
    shard_size: Annotated[
        str | None, typer.Option(help="Most bytes of a weight file, e.g. 5GB; none: files as the seed's.")
    ] = None,
    timeout: Annotated[float, typer.Option(help="Most wall time, seconds.", min=0.1)] = 600.0,
    memory: Annotated[float, typer.Option(help="Most memory, GiB.", min=0.1)] = 16.0,
    accept_weaker: AcceptWeaker = False,
    as_json: AsJson = False,
) -> None:
    """Run one program on given models and write the merged checkpoint."""
    experts = [pair(text, "--expert") for text in expert]
    parameters = parameters_of(param)

    def work() -> Any:
        from selfdev import api

        return api.merge(
            program,
            seed,
            experts,
            out=out,
            parameters=parameters,
            scope=scope,
            dtype=_shown(show_dtype),
            random_seed=random_seed,
            started=STARTED,
            shard_size=shard_size,
            timeout=timeout,
            memory=memory,
            accept_weaker=accept_weaker,
        )

    answer(work, show_any, as_json)


@app.command()
def score(
    model: Annotated[Path, typer.Argument(help="Model: a folder or lab:FAMILY/NAME.")],
    task: Annotated[str, typer.Option(help="lab, gsm8k, math, a .jsonl file or lm-eval:NAME.")] = "lab",
    split: Annotated[str, typer.Option(help="Which questions: dev or test.")] = "test",
    limit: Annotated[int, typer.Option(help="Only the first so many questions; 0: all.", min=0)] = 0,
    shots: Annotated[
        int | None, typer.Option(help="Solved examples before each question; by default the task's.", min=0)
    ] = None,
    path: Annotated[
        str | None, typer.Option(help="Where gsm8k or math lie, a folder or a file; by default the hub.")
    ] = None,
    grader: Annotated[
        str | None, typer.Option(help="Of a .jsonl file: number, math, exact or choice.")
    ] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Ask through the model's chat template.")] = False,
    show_prompt: Annotated[
        bool, typer.Option("--show-prompt", help="Print the exact prompt of question 1 and score nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Score a model on a task, with its interval."""
    how: dict[str, Any] = {"split": split, "shots": shots, "path": path, "grader": grader, "chat": chat}

    def work() -> Any:
        from selfdev import api

        if show_prompt:
            return api.show_prompt(model, task, **how)
        return api.score(model, task, limit=limit, **how)

    def show(result: Any, console: Console) -> None:
        if show_prompt:
            typer.echo(result.prompt, nl=False)
        else:
            show_any(result, console)

    answer(work, show, as_json)


@answers.command()
def grade(
    file: Annotated[Path, typer.Argument(help="JSONL file, each line with response and answer.")],
    task: Annotated[str, typer.Option(help="gsm8k, math, lab, or a grader: number, math, exact, choice.")],
    as_json: AsJson = False,
) -> None:
    """Grade recorded outputs of a model under both readings."""

    def work() -> Any:
        from selfdev import api

        return api.answers_grade(file, task)

    def show(grades: Any, console: Console) -> None:
        show_any({"answers": grades.n, "strict": grades.strict, "flexible": grades.flexible}, console)

    answer(work, show, as_json)


@app.command()
def export(
    program: Annotated[str, typer.Argument(help="Built-in name, or a .py file or text with a fenced block.")],
    out: Annotated[Path, typer.Option(help="New Python file.")],
    to: Annotated[str, typer.Option(help="Tool that gets a merge method: mergekit.")] = "mergekit",
    param: Parameters = None,
    scope: Annotated[str, typer.Option(help="Parameters it merges: mlp, all or a pattern.")] = "mlp",
    accept_weaker: AcceptWeaker = False,
    as_json: AsJson = False,
) -> None:
    """Write a program as a merge method of mergekit, where its parameters do not depend on each other."""
    parameters = parameters_of(param)

    def work() -> Any:
        from selfdev import api

        return api.export(program, to, out, parameters=parameters, scope=scope, accept_weaker=accept_weaker)

    answer(work, show_any, as_json)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    as_json: AsJson = False,
) -> None:
    """Write report.html of a run again."""

    def work() -> dict[str, Any]:
        from selfdev import api

        return {"report": api.report(run)}

    answer(work, show_any, as_json)


app.command()(watch)


@app.command("config-schema")
def config_schema(as_json: AsJson = False) -> None:
    """Print the JSON schema of the config."""

    def work() -> dict[str, Any]:
        from selfdev.config import config

        return config.config_schema()

    def show(schema: dict[str, Any], _: Console) -> None:
        typer.echo(json.dumps(schema, indent=2, ensure_ascii=False))

    answer(work, show, as_json)


def _shown(show_dtype: str) -> str | None:
    if show_dtype not in ("stored", "float32"):
        raise typer.BadParameter(f"{show_dtype!r} must be stored or float32", param_hint="--show-dtype")
    return "F32" if show_dtype == "float32" else None
