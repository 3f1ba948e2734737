"""How a verb ends: its result on stdout, or one sentence on stderr and the exit code."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import typer

from selfdev.errors import SelfdevError, one_line
from selfdev.interrupt import term_like_ctrl_c

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")

TRACEBACK = "SELFDEV_TRACEBACK"  # set it to see where an unexpected error comes from


def answer(
    work: Callable[[], T],
    show: Callable[[T, Console], None],
    as_json: bool,
    interrupted: str = "Interrupted; nothing was finished. Give the same command again.",
) -> T:
    """Do the work, print its result and return it; whatever goes wrong ends in one sentence on stderr."""
    try:
        with _stdout_to_stderr(), term_like_ctrl_c():
            result = work()
        _print(result, show, as_json)
    except SelfdevError as error:
        _stop(str(error), 1)
    except KeyboardInterrupt:
        _stop(interrupted, 130)
    except BrokenPipeError:
        raise  # whoever read our output has left: the command line ends without a word
    except OSError as error:
        _unexpected(error, f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
    except Exception as error:
        _unexpected(
            error, f"unexpected {type(error).__name__}: {error}. Please report it; {TRACEBACK}=1 shows where"
        )
    return result


def _print(result: T, show: Callable[[T, Console], None], as_json: bool) -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # texts from models and files may be no Unicode
    if as_json:
        typer.echo(to_json(result))
        return
    from rich.console import Console

    show(result, Console())


def _stop(sentence: str, code: int) -> NoReturn:
    from rich.console import Console

    Console(stderr=True, soft_wrap=True).print(
        f"selfdev: {one_line(sentence)}", markup=False, highlight=False, emoji=False
    )
    raise typer.Exit(code)


def _unexpected(error: Exception, sentence: str) -> NoReturn:
    if os.environ.get(TRACEBACK):
        raise error
    _stop(" ".join(sentence.split()) + ".", 1)


@contextlib.contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """What libraries and child processes print meanwhile goes to stderr: stdout is for the result."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def to_json(value: Any) -> str:
    """A record, or plain values with records and paths in them, as one line of strict JSON."""
    return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {_text(str(name)): _plain(inner) for name, inner in value.items()}
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Sequence):
        return [_plain(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        digits = digits_of(value)
        return digits if digits.startswith(("0x", "-0x")) else value
    return _text(str(value))


def _text(text: str) -> str:
    """The text without lone surrogates, which no encoding can write."""
    return text.encode("utf-8", "replace").decode()


def digits_of(number: int) -> str:
    """An integer in decimals, or in hexadecimals where Python refuses so many digits."""
    try:
        return str(number)
    except ValueError:
        return hex(number)


def show_any(value: Any, console: Console) -> None:
    """Print a record or a mapping as names and values, anything else as text."""
    from selfdev.cli.terminal import print_mapping, print_record

    if isinstance(value, Mapping):
        print_mapping(value, console)
    elif dataclasses.is_dataclass(value):
        print_record(value, console)
    else:
        console.print(str(value), markup=False, highlight=False, soft_wrap=True)
