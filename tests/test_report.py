"""report.html: whole, offline, readable by machines, and right in the odd cases."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import get_args

import pytest
from sample_result import PROGRAM, nothing_scored, result, row, turn

from selfdev.config.learning import Objective
from selfdev.report.figures import distribution, outcomes, temperature
from selfdev.report.report import highlight, render, write_report
from selfdev.report.scores import dev_test, interval_axis, interval_bar
from selfdev.report.svg import Axis, axis_over, number_tick, percent_tick, ticks
from selfdev.report.training import OBJECTIVES, checks, training
from selfdev.results import Cost, DpoStep, RunResult, factory_check

VOID = {"meta", "line", "rect", "circle", "path", "br"}


class Page(HTMLParser):
    """Checks that every tag is closed and keeps the tags and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID or tag in ("rect", "circle"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def page(made: RunResult) -> Page:
    return Page(render(made))


def test_page_is_written_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    write_report(result(), tmp_path / "report.html")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == render(result())


def test_page_needs_nothing_from_outside() -> None:
    html = render(result())
    assert not re.search(r"https?:|src=|@import|url\(", html)
    assert page(result()).all("script") == []
    assert len(html) < 200_000


def test_page_has_language_title_one_h1_and_headings_in_order() -> None:
    read = page(result())
    assert read.all("html") == [{"lang": "en"}]
    assert len(read.all("h1")) == 1
    assert "lab · selfdev report" in read.words
    levels = [int(tag[1]) for tag, _ in read.tags if re.fullmatch(r"h\d", tag)]
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_every_drawing_is_named_or_hidden_from_screen_readers() -> None:
    for attrs in page(result()).all("svg"):
        named = attrs.get("role") == "img" and len(attrs.get("aria-label") or "") > 30
        assert named or attrs.get("aria-hidden") == "true"


def test_every_class_of_a_drawing_has_a_style() -> None:
    css = Path(__file__).parents[1].joinpath("selfdev", "report", "style.css").read_text(encoding="utf-8")
    drawn = {
        name
        for tag, attrs in page(result()).tags
        if tag in ("rect", "circle", "line", "path")
        for name in (attrs.get("class") or "").split()
    }
    assert {name for name in drawn if f".{name}" not in css} == set()


def test_page_shows_every_part() -> None:
    words = page(result()).words
    for part in (
        "beats the best tuned baseline by 4.2 points",
        "The dev score of the chosen program was 2.0 points higher",
        "On the test set",
        "Scores of the programs",
        "How the programs ended",
        "Temperature and yield",
        "Training loss",
        "Reward margin",
        "Dev against test",
        "Best program: program 3.117",
        "Nearest human-designed method: task_arithmetic, at distance 0.137",
        "Cost",
        "seed: lab:a/seed",
        "torch: 2.13.0",
    ):
        assert part in words, part


def test_test_table_has_a_row_for_every_model() -> None:
    words = page(result()).words
    for name in (r.name for r in result().test):
        assert name in words
    assert "58.0 % to 60.8 %" in words
    assert len([a for a in page(result()).all("tr") if a.get("class") == "chosen"]) == 1


def test_texts_from_models_cannot_become_markup() -> None:
    evil = "<script>alert(1)</script>"
    made = result(
        name=evil,
        best_program=f"# {evil}",
        best_name=evil,
        notes=(evil,),
        environment={"cpu": evil},
        best_nearest=evil,
    )
    made = replace(
        made, iterations=(replace(turn(1, 0.4, 100), failures={evil: 3}, printed={"CRASHED": evil}),)
    )
    made = replace(made, test=(*made.test, row(evil, "discovered", 0.5)), stage_seconds={evil: 1.0})
    assert "<script" not in render(made)


def test_nothing_scored_still_makes_a_page() -> None:
    words = page(nothing_scored()).words
    assert "No program could be scored." in words
    assert "The test set was not opened in this run." in words
    assert "none scored" in words
    assert "Best program" not in words
    assert "Training loss" not in words


def test_no_iteration_still_makes_a_page() -> None:
    words = page(result(iterations=(), test=(), best_name="", best_program="", stage_seconds={})).words
    assert "No iteration was finished." in words


def test_one_iteration_shows_no_trend() -> None:
    made = result(iterations=(turn(1, 0.4, 168),))
    assert "One iteration" in page(made).words
    assert "→" not in page(made).words


def test_best_equals_seed() -> None:
    assert "No gain: the best model is the seed itself." in page(result(best_name="seed")).words


def test_no_gain_is_on_the_tile_and_the_badge() -> None:
    words = page(result(best_name="program 1.200")).words
    assert "Gain over the seed only" in words
    assert "no gain" in words


def test_missing_config_and_distance() -> None:
    words = page(result(config={}, environment={}, best_nearest=None, best_distance=None)).words
    assert "not recorded" in words
    assert "was not compared" in words


def test_cost_is_sorted_with_shares() -> None:
    words = page(result(stage_seconds={"write": 25.0, "score": 75.0})).words
    assert words.index("score1 min 15 s75 %") < words.index("write25.0 s25 %")


def test_cost_tells_tokens_and_gpus_where_there_were_any() -> None:
    spent = Cost(tokens_of_programs=12_000, tokens_of_answers=3_400_000, gpu_hours=1.5, joules=7.2e6)
    words = page(result(cost=spent)).words
    assert "tokens of programs12,000tokens of answers3,400,000" in words
    assert "GPU hours1.50energy of the GPUs2.00 kWh" in words
    assert "GPU hours" not in page(result(cost=Cost())).words


def test_program_is_shown_whole() -> None:
    painted = highlight(PROGRAM)
    assert Page(painted).words.strip() == PROGRAM.strip()
    assert '<span class="k">def</span>' in painted


def test_distribution_draws_every_program_once() -> None:
    drawn = distribution((turn(1, 0.4, 104),), None, None)
    counts = re.findall(r"<title>(\d+) programs", drawn)
    assert sum(int(count) for count in counts) == 100


def test_distribution_marks_seed_and_baseline() -> None:
    drawn = distribution((turn(1, 0.4, 104),), row("seed", "seed", 0.48), row("ties", "baseline", 0.55))
    assert drawn.count('class="mark') == 2


def test_outcomes_fill_the_bar() -> None:
    drawn = outcomes((turn(1, 0.4, 104),))
    widths = [float(w) for w in re.findall(r'<rect x="[\d.]+" y="[\d.]+" width="([\d.]+)" height="5', drawn)]
    states = [count for count in turn(1, 0.4, 104).states.values() if count]
    assert len(widths) == len(states)
    assert sum(widths) + len(widths) == pytest.approx(420, abs=1)
    assert "SyntaxError: invalid syntax" in drawn


def test_outcomes_show_what_one_of_each_failure_printed() -> None:
    early = replace(turn(1, 0.4, 104), printed={"CRASHED": "old", "TIMED_OUT": "step 7"})
    drawn = outcomes((early, replace(turn(2, 0.4, 104), printed={"CRASHED": "KeyError: <b>"})))
    assert "<summary>Last lines of one that ended as crashed</summary><pre>KeyError: &lt;b&gt;</pre>" in drawn
    assert "as timed out</summary><pre>step 7</pre>" in drawn
    assert "old" not in Page(drawn).words


def test_temperature_shows_the_law() -> None:
    drawn = temperature((turn(1, 0.4, 168), turn(2, 0.4, 196), turn(3, 0.4, 221)))
    for value in ("1.200", "1.000", "0.857"):
        assert value in drawn


def test_training_shows_first_and_last_step() -> None:
    steps = (DpoStep(1, 0.693, 0.0, 0.5), DpoStep(2, 0.25, 1.5, 1.0))
    drawn = training((replace(turn(1, 0.4, 100), dpo=steps),))
    for number in ("0.693", "0.250", "1.500", "100 %"):
        assert number in drawn
    assert training((replace(turn(1, 0.4, 100), dpo=()),)) == ""


def test_an_objective_without_margins_shows_none() -> None:
    steps = (DpoStep(1, 2.5, None, None), DpoStep(2, 2.25, None, None))
    drawn = training((replace(turn(1, 0.4, 100), dpo=steps),))
    assert "2.250" in drawn
    assert "–" in drawn
    assert "Reward margin" not in drawn


def test_looks_at_factories_are_shown_with_their_uncertainty() -> None:
    seen = factory_check(trained=90, held_out=20, right=15, programs=64, kl=3.25, kl_error=0.5)
    made = page(result(iterations=(replace(turn(1, 0.4, 100), check=seen), turn(2, 0.4, 100)))).words
    for part in ("75.0 %", "53.1 % to 88.8 %", "3.25 ± 0.50", "held-out pairs"):
        assert part in made, part
    assert checks((turn(1, 0.4, 100),)) == ""
    unmeasured = replace(turn(1, 0.4, 100), check=factory_check(90, 0, 0, 0, None, None))
    assert checks((unmeasured,)) == ""


def test_the_page_names_the_objective() -> None:
    assert set(OBJECTIVES) == set(get_args(Objective))
    made = result()
    assert (
        "Kahneman-Tversky" in page(replace(made, config={**made.config, "dpo": {"objective": "kto"}})).words
    )


def test_long_training_is_thinned() -> None:
    steps = tuple(DpoStep(i, 0.5, 0.1, 0.5) for i in range(5000))
    assert len(training((replace(turn(1, 0.4, 100), dpo=steps),))) < 20_000


def test_dev_against_test_names_what_is_outside_the_frame() -> None:
    drawn = dev_test(result().test, "program 3.117")
    assert "Outside the frame: sum, difference." in drawn
    assert dev_test((row("seed", "seed", 0.5, dev_accuracy=None),), "seed") == ""


def test_interval_bar_outside_the_scale_is_an_arrow() -> None:
    axis = interval_axis((row("seed", "seed", 0.5), row("sum", "expert", 0.1)))
    assert "◂" in interval_bar(row("sum", "expert", 0.1), axis, None)
    assert "▸" in interval_bar(row("sum", "expert", 0.9), axis, None)
    assert "circle" in interval_bar(row("seed", "seed", 0.5), axis, 0.5)


def test_axis_maps_ends_and_middle() -> None:
    axis = Axis(0.0, 2.0, 50, 450)
    assert [axis.at(v) for v in (0.0, 1.0, 2.0)] == [50.0, 250.0, 450.0]


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [([0.12, 0.57], 0.1, 0.6), ([3.0, 97.0], 0.0, 100.0), ([-0.4, 0.9], -0.4, 1.0), ([], 0.0, 1.0)],
)
def test_axis_ends_are_round(values: list[float], low: float, high: float) -> None:
    axis = axis_over(values, 0, 100)
    assert (axis.low, axis.high) == pytest.approx((low, high))


@pytest.mark.parametrize("value", [0.0, 0.5, -3.0, float("nan")])
def test_axis_of_one_value_has_a_width(value: float) -> None:
    axis = axis_over([value, value], 0, 100)
    assert axis.high > axis.low
    assert len(ticks(axis)) >= 2


def test_ticks_are_written_plainly() -> None:
    axis = axis_over([0.46, 0.62], 0, 100)
    assert [percent_tick(t) for t in ticks(axis, 4)] == ["50 %", "55 %", "60 %"]
    assert number_tick(-0.25) == "−0.25"
