"""One table of what the benchmarks measured last: ours, the peer, the ratio and its goal.

    python benchmarks/table.py        # from the JSON files beside it; run by make bench

Writes benchmarks/results.json, all of them as one, and the table in benchmarks/README.md. What has not been
measured is left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PARTS = (
    "merging",
    "scoring",
    "writing",
    "attempts",
    "commands",
    "sandbox_entry",
    "merge_and_score",
    "big_archive",
    "scale",
)
BEGIN, END = "<!-- measured -->", "<!-- end -->"
HEAD = ("what", "ours", "beside", "ratio", "goal", "reached")
Row = tuple[str, str, str, str, str, str]


def rows(found: Mapping[str, Any]) -> Iterator[Row]:
    """A line for every measured goal."""
    if "merging" in found:
        yield from merging(found["merging"])
    for part, names in (
        ("scoring", ("harness", "answering", "tokens", "examples", "workers")),
        ("writing", ("writing", "step")),
        ("attempts", ("attempts",)),
    ):
        for name in names:
            if name in found.get(part, {}):
                yield compared(found[part][name], smaller=name == "step")
    for name, one in found.get("commands", {}).get("commands", {}).items():
        took, most = one["seconds"], one["goal"]
        if most is None:
            yield (name, "", f"{took} s", "", "", "")
        else:
            yield line(name, f"{took} s", "", "", most, took <= most, f"≤ {most:g} s")
    for name, one in found.get("sandbox_entry", {}).items():
        if isinstance(one, dict) and "back_to_back" in one:
            took = one["back_to_back"]["median_ms"]
            yield line(
                f"program started, models of {name}", f"{took} ms", "", "", 15.0, took <= 15.0, "≤ 15 ms"
            )
    for name, one in found.get("attempts", {}).get("growth", {}).items():
        slope = one["exponent"]
        yield line(f"seconds per attempt by {name}", f"exponent {slope}", "", "", 1.0, slope <= 1.0, "≤ 1")
    if "big_archive" in found:
        slowest, most = max(found["big_archive"]["queries_ms"].values()), 10.0
        what = f"slowest query of an archive of {found['big_archive']['attempts']:,} attempts"
        yield line(what, f"{slowest} ms", "", "", most, slowest <= most, f"≤ {most:g} ms")


def merging(found: Mapping[str, Any]) -> Iterator[Row]:
    """Whole merges to disk, and in the loop."""
    for method, one in found["methods"].items():
        seconds, ratio = one["seconds"], one["times as fast as mergekit"]
        ours, theirs = f"{seconds['selfdev']} s", f"mergekit {seconds['mergekit']} s"
        yield line(f"merge {found['size']}, {method}", ours, theirs, ratio, one["goal"], ratio >= one["goal"])
        share, most = one["memory of mergekit's"], one["memory goal"]
        peaks = one["peak GiB"]
        ours, theirs = f"{peaks['selfdev']} GiB", f"mergekit {peaks['mergekit']} GiB"
        yield line(f"peak memory, {method}", ours, theirs, share, most, share <= most, f"≤ {most}")
        if "limit" in seconds:
            over, most = one["times the limit"], one["limit goal"]
            limit = f"limit {seconds['limit']} s"
            yield line(
                f"merge, {method}", f"{seconds['selfdev']} s", limit, over, most, over <= most, f"≤ {most}"
            )
    if loop := found.get("loop"):
        over, most = loop["times the bare one"], loop["goal"]
        ours, bare = f"{loop['seconds']['selfdev']} s", f"bare torch {loop['seconds']['bare']} s"
        yield line("merge in the loop, linear", ours, bare, over, most, over <= most, f"≤ {most}")


def compared(one: Mapping[str, Any], smaller: bool) -> Row:
    """A comparison of two rates, or of two times where the smaller one is better."""
    ours, theirs, ratio, goal = one["ours"], one["theirs"], one["ratio"], one["goal"]
    reached = ratio <= goal if smaller else ratio >= goal
    beside = f"{theirs} {one['median'][theirs]}"
    words = f"{'≤' if smaller else '≥'} {goal:g}"
    return line(f"{one['unit']}, {ours}", str(one["median"][ours]), beside, ratio, goal, reached, words)


def line(
    what: str, ours: str, beside: str, ratio: float | str, goal: float, reached: bool, words: str = ""
) -> Row:
    """One row in words."""
    return (what, ours, beside, str(ratio), words or f"≥ {goal:g}", "yes" if reached else "no")


def table(found: Mapping[str, Any]) -> str:
    """The table in Markdown, and where it was measured."""
    lines = [HEAD, ("---",) * len(HEAD), *rows(found)]
    told = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
    return told + "\n\nMachine and versions: " + machines([one.get("machine", {}) for one in found.values()])


def machines(places: Sequence[Mapping[str, Any]]) -> str:
    """What was measured where, each fact once; one that differed between the parts with all its values."""
    facts: dict[str, set[Any]] = {}
    for place in places:
        for name, value in place.items():
            facts.setdefault(name, set()).add(value)
    return ", ".join(f"{name} {' or '.join(map(str, sorted(facts[name])))}" for name in sorted(facts)) + "."


def main() -> None:
    """Gather what there is, write results.json and the table."""
    files = {name: HERE / f"{name}.json" for name in PARTS}
    found = {name: json.loads(file.read_text()) for name, file in files.items() if file.is_file()}
    (HERE / "results.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    page = HERE / "README.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n{table(found)}\n{END}{after}", encoding="utf-8")
    print(table(found))


if __name__ == "__main__":
    main()
