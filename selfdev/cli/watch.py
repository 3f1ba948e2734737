"""The command `selfdev watch`: a live view of a run in another terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfdev.cli.answer import answer
from selfdev.cli.options import AsJson

if TYPE_CHECKING:
    from rich.console import Console, Group

    from selfdev.watching import Ended, Seen


def watch(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    every: Annotated[float, typer.Option(help="Seconds between two looks.", min=0.1)] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Look once; so does --json.")] = False,
    as_json: AsJson = False,
) -> None:
    """Watch a run from another terminal until it ends; Ctrl-C stops the watching, not the run."""

    def work() -> Any:
        from rich.console import Console
        from rich.live import Live

        from selfdev import api

        console = Console(stderr=True)
        if once or as_json or not console.is_terminal:
            return api.watch(run, once=True)
        last = api.watch(run, once=True)
        with Live(view(last), console=console, transient=True) as live:

            def show(seen: Seen) -> None:
                nonlocal last
                last = seen
                live.update(view(seen))

            try:
                return api.watch(run, show, every)
            except KeyboardInterrupt:
                return last

    def show_last(seen: Seen, console: Console) -> None:
        console.print(view(seen))

    answer(work, show_last, as_json)


def view(seen: Seen) -> Group:
    """A run at one moment as text: where it is, its turns, its best program, what ended last."""
    from rich.console import Group
    from rich.text import Text

    from selfdev.cli.terminal import iterations_table
    from selfdev.report.findings import duration

    counted = f" {seen.done:,} of {seen.total:,}" if seen.total else ""
    at_work = {"running": f"by {seen.holder}", "stopped": "give its command again to go on", "finished": ""}
    words = [f"{seen.name}: {seen.state}", at_work[seen.state], f"{seen.stage}{counted}"]
    words.append(duration(seen.seconds))
    lines: list[Any] = [Text(" · ".join(word for word in words if word), style="bold")]
    if seen.iterations:
        lines.append(iterations_table(seen.iterations))
    if seen.best is not None:
        lines.append(Text(f"best on dev so far: {_words(seen.best)}"))
    lines += [Text(_words(one), style="dim") for one in seen.latest]
    return Group(*lines)


def _words(one: Ended) -> str:
    from selfdev.report.findings import percent

    if one.accuracy is None:
        return f"{one.name}: {one.state}, {one.reason}"[:160]
    return f"{one.name}: {percent(one.accuracy)} of {one.n:,} ({percent(one.low)} to {percent(one.high)})"
