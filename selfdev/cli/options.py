"""Options that several commands share, and what their words stand for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a config key, e.g. factory.programs=64."),
]
Parameters = Annotated[
    list[str] | None,
    typer.Option("--param", metavar="NAME=VALUE", help="Parameter of the program, a JSON value."),
]
AcceptWeaker = Annotated[
    bool, typer.Option("--accept-weaker", help="Go on where this machine lacks a confinement layer.")
]


def pair(text: str, option: str) -> tuple[str, str]:
    """NAME=VALUE as name and value."""
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise typer.BadParameter(f"{text!r} must have the form NAME=VALUE", param_hint=option)
    return name, value


def parameters_of(words: Sequence[str] | None) -> dict[str, Any]:
    """What is given with --param, by name."""
    return {name: _json_value(name, value) for name, value in (pair(t, "--param") for t in words or [])}


def _json_value(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise typer.BadParameter(f"{name}: its value is nested too deeply", param_hint="--param") from None
    except ValueError as error:  # no JSON, or a number of more digits than Python reads
        raise typer.BadParameter(
            f"{name}={text}: {text!r} is not a JSON value ({error})", param_hint="--param"
        ) from None
