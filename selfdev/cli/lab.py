"""The commands `selfdev lab ...`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from selfdev.cli.answer import answer, show_any
from selfdev.cli.options import AsJson

lab = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="The tiny built-in models: train, check and find them."
)


@lab.command()
def build(
    out: Annotated[Path, typer.Option(help="New folder for the models.")],
    family: Annotated[str, typer.Option(help="a, or b for the other size.")] = "a",
    seed: Annotated[int, typer.Option(help="Random seed.", min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Train a family of lab models from nothing (up to half an hour)."""

    def work() -> Any:
        from selfdev import api

        return api.lab_build(family, seed, out)

    answer(work, show_any, as_json)


@lab.command()
def check(
    family: Annotated[str, typer.Option(help="a or b.")] = "a",
    as_json: AsJson = False,
) -> None:
    """Measure whether the lab is a fair arena: tuned baseline over seed, oracle search over baseline."""

    def work() -> Any:
        from selfdev import api

        return api.lab_check(family)

    answer(work, show_any, as_json)


@lab.command("path")
def lab_path(as_json: AsJson = False) -> None:
    """Print where the built-in models lie."""

    def work() -> Any:
        from selfdev import api

        return api.lab_paths()

    answer(work, show_any, as_json)
