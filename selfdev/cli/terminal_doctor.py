"""What `selfdev doctor` found, for the terminal: problems last, where the eye is."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from selfdev.doctor.doctor import Diagnosis, Machine
from selfdev.doctor.estimate import Estimate
from selfdev.doctor.models import ModelFacts
from selfdev.doctor.scaling import Scaled


def print_diagnosis(found: Diagnosis, console: Console) -> None:
    """Sandbox, machine, models, estimates, remarks and problems."""
    _marks(console, "Sandbox layers of this machine", found.sandbox.layers)
    _marks(console, "Tried out: programs are kept from", _without_computing(found))
    _line(console, "Machine", _machine(found.machine))
    if found.models:
        console.print(models_table(found.models))
    for estimate in found.estimates:
        _estimate(console, estimate)
    if found.scaling:
        console.print(scaling_table(found.scaling))
    if found.disk_gib is not None:
        _line(console, "Disk", f"about {found.disk_gib:.2g} GiB will be written")
    for title, colour, sentences in (
        ("assumed", "dim", found.assumptions),
        ("note", "yellow", found.warnings),
        ("problem", "bold red", found.problems),
    ):
        for sentence in sentences:
            console.print(f"[{colour}]{title}:[/] {escape(sentence)}", highlight=False, soft_wrap=True)
    if found.ok:
        console.print("[bold green]All is well.[/]")
    else:
        console.print(f"[bold red]{len(found.problems)} to solve.[/]")


def models_table(models: Sequence[ModelFacts]) -> Table:
    """One row per model that opened."""
    table = Table(title="Models", title_justify="left", title_style="bold", box=None, pad_edge=False)
    heads = ("model", "architecture", "parameters", "GiB", "dtype", "tied", "tokens", "shared", "template")
    for head in heads:
        table.add_column(head, overflow="fold")
    for m in models:
        counts = [("-" if count is None else f"{count:,}") for count in (m.vocabulary, m.shared_tokens)]
        table.add_row(
            escape(m.name), escape(m.architecture), f"{m.parameters:,}", f"{m.gib:.3g}", "/".join(m.dtypes),
            "yes" if m.tied else "no", *counts, m.chat_template,
        )  # fmt: skip
    return table


def scaling_table(rows: Sequence[Scaled]) -> Table:
    """Hours and memory of the same run with larger models."""
    table = Table(
        title="The same run on GPUs of 80 GB, by arithmetic (benchmarks/SCALING.md)",
        title_justify="left", title_style="bold", box=None, pad_edge=False,
    )  # fmt: skip
    for head in ("model", "GPUs", "GPUs per model", "workers", "GiB on a GPU", "GiB of RAM", "time"):
        table.add_column(head, overflow="fold")
    for row in rows:
        time = "does not fit; lower the batches"
        if row.low_hours is not None and row.high_hours is not None:
            time = f"{hours(row.low_hours)} to {hours(row.high_hours)}"
        cells = (row.gpus, row.together, row.workers or "-", f"{row.gib:.0f}", f"{row.host_gib:.0f}")
        table.add_row(row.model, *map(str, cells), time)
    return table


def _without_computing(found: Diagnosis) -> dict[str, bool]:
    return {what: kept for what, kept in found.sandbox.held.items() if what != "computing"}


def _marks(console: Console, title: str, marks: dict[str, bool]) -> None:
    yes = ", ".join(name for name, there in marks.items() if there) or "none"
    no = ", ".join(name for name, there in marks.items() if not there)
    _line(console, title, yes + (f"; NOT: {no}" if no else ""))


def _machine(machine: Machine) -> str:
    cards = [f"{gpu.name} with {gpu.gib:.0f} GiB ({gpu.free_gib:.0f} free)" for gpu in machine.gpus]
    return (
        f"{machine.cores} cores, {machine.ram_gib:.0f} GiB of RAM ({machine.ram_free_gib:.0f} free),"
        f" {machine.disk_free_gib:.0f} GiB of disk free, {', '.join(cards) or 'no GPU'}"
    )


def _estimate(console: Console, estimate: Estimate) -> None:
    parts = ", ".join(f"{name} {hours(h)}" for name, h in estimate.hours.items())
    used = ", ".join(f"{name} {gib:.2g} GiB" for name, gib in estimate.memory_gib.items())
    low, high = hours(estimate.low_hours), hours(estimate.high_hours)
    _line(console, f"Time on {estimate.where}", f"{low} to {high} ({parts} at the low end)")
    _line(console, f"Memory on {estimate.where}", used)


def hours(value: float) -> str:
    """Hours in words: minutes below two hours, seconds below two minutes."""
    if value >= 2:
        return f"{value:.3g} h"
    return f"{value * 60:.0f} min" if value * 60 >= 2 else f"{value * 3600:.0f} s"


def _line(console: Console, title: str, words: str) -> None:
    console.print(f"[bold]{escape(title)}:[/] {escape(words)}", highlight=False, soft_wrap=True)
