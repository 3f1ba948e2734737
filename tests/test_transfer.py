"""Transfer: what comes from home, how it fares away, and that an interruption costs and changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeWorkers, Killed, behaviour_of, of_accuracy, silent, small_config
from writing_family import PROGRAMS, build

from selfdev import api
from selfdev.checkpoints import Checkpoint
from selfdev.cli.answer import to_json
from selfdev.config.config import Config, dump
from selfdev.errors import SelfdevError
from selfdev.evidence.transfer import check_is_away, examine_away, read_home, settle_home
from selfdev.evidence.transfer_result import TransferResult, collect_transfer
from selfdev.library import load_program
from selfdev.records import Outcome, State
from selfdev.store.archive import Archive

HOME = small_config()
AWAY = small_config(name="away", models={"seed": "other", "experts": {"one": "1", "two": "2", "three": "3"}})
MODELS = [Checkpoint(name, Path(name), {}, {}) for name in ("seed", "one", "two", "three")]
DEV = {
    "program 1.0": 12,
    "program 1.1": 14,
    "program 1.2": 10,
    "task_arithmetic WEIGHT=[0.2, 0.4]": 11,
    "seed": 5,
}
BEST = "program 1.1"


def write_home(folder: Path, texts: list[str], config: Config = HOME, best: str | None = BEST) -> Path:
    """A run folder with these programs and two baselines, scored on dev and finalist_dev as in DEV."""
    folder.mkdir(parents=True)
    archive = Archive(folder / "archive.sqlite", create=True)
    sets = {"linear as it is": load_program("linear").code}
    sets["task_arithmetic WEIGHT=[0.2, 0.4]"] = load_program("task_arithmetic", {"WEIGHT": [0.2, 0.4]}).code
    archive.add_written("factory", 1, [""] * len(texts), texts, list(range(7, 7 + len(texts))))
    archive.add_written("baseline", 0, list(sets), list(sets.values()), [3, 3])
    for attempt in archive.attempts():
        archive.set_probe(replace(attempt, code=attempt.text, fingerprint=f"home {attempt.id}"))
        archive.set_result(attempt.id, Outcome(State.MERGED), of_accuracy(9))
    for name, correct in DEV.items():
        archive.add_examined(name, "discovered", "finalist_dev", None, of_accuracy(correct))
    archive.put("config", config.model_dump_json())
    if best:
        archive.put("best", best)
    archive.close()
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Three finalists; a fourth program had no second look."""
    return write_home(tmp_path / "home", [f"behave {n} x" for n in (8, 11, 10, 7)])


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    opened = Archive(tmp_path / "away.sqlite", create=True)
    yield opened
    opened.close()


class Away(FakeWorkers):
    """Models with three experts: a list of two weights does not fit, and `behave 10` takes too long."""

    def try_programs(self, jobs, bar=0.0, parents=None):  # type: ignore[no-untyped-def]
        jobs = list(jobs)
        for place, tried in super().try_programs(jobs, bar, parents):
            code = jobs[place][0]
            if "WEIGHT = [0.2, 0.4]" in code:
                yield place, replace(tried, outcome=Outcome(State.CRASHED, "two weights"), score=None)
            elif code.startswith("behave 10 "):
                yield place, replace(tried, outcome=Outcome(State.TIMED_OUT, "5 s"), score=None)
            else:
                yield place, tried


def go(run: Path, archive: Archive, workers: FakeWorkers, config: Config = AWAY) -> TransferResult:
    """The whole transfer with workers that stand for the away models."""
    sender = read_home(run)
    settle_home(sender, run, archive)
    examine_away(config, sender, MODELS[0], MODELS[1:], archive, workers, silent)
    return collect_transfer(config, run, sender.best, sender.dev, archive)


def by_name(result: TransferResult) -> Mapping[str, Any]:
    return {row.name: row for row in result.test}


def test_finalists_are_the_programs_that_had_a_second_look(home: Path) -> None:
    sender = read_home(home)
    assert list(sender.sent["discovered"]) == ["program 1.1", "program 1.0", "program 1.2"]
    assert sender.best == BEST
    assert sender.dev["program 1.0"] == of_accuracy(12)


def test_code_and_random_seed_come_unchanged(home: Path, archive: Archive) -> None:
    go(home, archive, FakeWorkers())
    sent = {a.name: (a.code, a.seed) for a in archive.attempts("discovered")}
    assert sent["program 1.1"] == ("behave 11 x", 8)
    baselines = {a.name: a.seed for a in archive.attempts("home baseline")}
    assert baselines == {"task_arithmetic WEIGHT=[0.2, 0.4] (home)": 3, "linear as it is (home)": 3}


def test_baselines_are_tuned_again_with_the_away_grid(home: Path, archive: Archive) -> None:
    result = go(home, archive, FakeWorkers())
    assert [a.name for a in archive.attempts("baseline")] == [
        "linear as it is", "task_arithmetic WEIGHT=0.3", "task_arithmetic WEIGHT=0.5",
    ]  # fmt: skip
    assert set(archive.examined("finalist_dev")) == {a.name for a in archive.attempts("baseline")}
    assert result.parameter_sets == 3


def test_the_table_has_all_that_was_tested(home: Path, archive: Archive) -> None:
    result = go(home, archive, FakeWorkers())
    kinds = [row.kind for row in result.test]
    assert kinds == [
        "seed", *["expert"] * 3, *["baseline"] * 2, *["home baseline"] * 2, *["discovered"] * 3,
    ]  # fmt: skip
    row = by_name(result)["program 1.1"]
    assert (row.n, row.correct, row.dev_accuracy) == (20, 11, 14 / 20)
    assert row.p_vs_seed == pytest.approx(2 / 2**6)  # right alone on six questions
    assert by_name(result)["linear as it is (home)"].dev_accuracy is None


def test_the_rival_is_tuned_away_not_at_home(home: Path, archive: Archive) -> None:
    result = go(home, archive, FakeWorkers())
    again = [row for row in result.test if row.kind == "baseline"]
    (rival,) = [row for row in again if row.p_vs_best_baseline is None]
    assert rival.correct == max(row.correct for row in again)
    assert all(row.p_vs_best_baseline is not None for row in result.test if row.kind == "home baseline")


def test_what_does_not_fit_or_fails_away_is_a_row_with_its_reason(home: Path, archive: Archive) -> None:
    result = go(home, archive, Away())
    assert [(f.name, f.kind, f.state, f.reason) for f in result.failed] == [
        ("task_arithmetic WEIGHT=[0.2, 0.4] (home)", "home baseline", State.CRASHED, "two weights"),
        ("program 1.2", "discovered", State.TIMED_OUT, "5 s"),
    ]
    assert not {f.name for f in result.failed} & set(by_name(result))


def test_a_method_without_a_set_that_works_is_told(home: Path, archive: Archive) -> None:
    grid = {"task_arithmetic": ({"WEIGHT": [0.2, 0.4]},), "linear": ({},)}
    result = go(home, archive, Away(), AWAY.model_copy(update={"baselines": grid}))
    assert [f.name for f in result.failed if f.kind == "baseline"] == ["task_arithmetic WEIGHT=[0.2, 0.4]"]


def test_a_home_winner_that_fails_is_said(tmp_path: Path, archive: Archive) -> None:
    run = write_home(tmp_path / "home", ["behave 8 x", "behave 10 x"])
    claim = go(run, archive, Away()).claim
    assert (claim.verdict, claim.headline) == ("empty", "The home winner, program 1.1, made no model away.")
    assert claim.detail == "TIMED_OUT: 5 s."


def best_baseline(archive: Archive) -> int:
    """Right answers, of 20, of the best baseline tuned away; with the fake workers a matter of its text."""
    found = max(behaviour_of(a.code) for a in archive.attempts("baseline", 0))
    assert 4 <= found <= 6
    return found


def test_a_winner_level_with_the_best_baseline_is_no_gain(tmp_path: Path, archive: Archive) -> None:
    run = write_home(tmp_path / "home", ["behave 8 x", "behave 10 x"])
    claim = go(run, archive, FakeWorkers()).claim
    assert claim.over_baseline is not None
    best = best_baseline(archive)
    assert claim.over_baseline.difference == pytest.approx((10 - best) / 20)
    assert claim.over_baseline.p == pytest.approx(2 / 2 ** (10 - best))
    assert claim.headline.startswith(f"No gain over the best re-tuned baseline (+{5 * (10 - best)}.0 points")


def test_a_winner_far_above_the_best_baseline_is_a_gain(tmp_path: Path, archive: Archive) -> None:
    run = write_home(tmp_path / "home", ["behave 8 x", "behave 20 x"])
    claim = go(run, archive, FakeWorkers()).claim
    points = 5 * (20 - best_baseline(archive))
    words = f"The home winner, program 1.1, beats the best re-tuned baseline by {points}.0"
    assert claim.headline.startswith(words)


def test_the_best_baseline_as_tuned_at_home_is_a_rival_too(home: Path, archive: Archive) -> None:
    class Better(FakeWorkers):
        """The home-tuned list of weights is better here than all that is tuned again."""

        def try_programs(self, jobs, bar=0.0, parents=None):  # type: ignore[no-untyped-def]
            jobs = list(jobs)
            for place, tried in super().try_programs(jobs, bar, parents):
                mine = "WEIGHT = [0.2, 0.4]" in jobs[place][0]
                yield place, replace(tried, score=of_accuracy(15)) if mine else tried

    claim = go(home, archive, Better()).claim
    assert claim.over_home_baseline is not None
    assert claim.over_home_baseline.difference == pytest.approx(-4 / 20)
    assert claim.over_home_baseline.p == pytest.approx(2 / 2**4)
    assert "no gain over the best home-tuned baseline (−20.0 points" in claim.detail


def test_rank_correlation_is_between_home_dev_and_away_test(home: Path, archive: Archive) -> None:
    # Home 14, 12, 10 right of 20 and away 11, 8, 10: ranks 3 2 1 and 3 1 2, so 1 - 6 * 2 / (3 * 8).
    found = go(home, archive, FakeWorkers()).correlation
    assert found is not None
    assert found.n == 3
    assert found.rho == pytest.approx(0.5)
    assert -1 <= found.low <= found.rho <= found.high <= 1


def test_two_finalists_have_no_rank_correlation(home: Path, archive: Archive) -> None:
    assert go(home, archive, Away()).correlation is None  # the third failed


def test_the_same_behaviour_is_asked_once_and_has_its_own_row(home: Path, archive: Archive) -> None:
    workers = FakeWorkers()
    rows = by_name(go(home, archive, workers))
    asked = [code for code, _, exam in workers.tried if exam == "test"]
    assert asked.count(load_program("linear").code) == 1
    assert rows["linear as it is"].accuracy == rows["linear as it is (home)"].accuracy


@pytest.mark.parametrize("lives", [0, 2, 5, 9, 13, 16, 19, 21])
def test_a_killed_transfer_goes_on_with_what_is_missing(home: Path, archive: Archive, lives: int) -> None:
    whole = FakeWorkers()
    other = Archive(home / "whole.sqlite", create=True)
    expected = go(home, other, whole)
    other.close()
    first, second = FakeWorkers(lives=lives), FakeWorkers()
    with pytest.raises(Killed):
        go(home, archive, first)
    assert go(home, archive, second) == expected
    for done in ("probed", "tried", "examined"):
        assert sorted(getattr(first, done) + getattr(second, done)) == sorted(getattr(whole, done))
    assert len(archive.events("test opened")) == 1


def test_the_test_set_is_opened_once_for_all_that_is_tested(home: Path, archive: Archive) -> None:
    go(home, archive, FakeWorkers())
    again = FakeWorkers()
    go(home, archive, again)
    assert (again.probed, again.tried, again.examined) == ([], [], [])
    (event,) = archive.events("test opened")
    assert set(event["for_"]) == set(archive.examined("test"))


def test_other_programs_in_the_same_folder_are_refused(home: Path, tmp_path: Path, archive: Archive) -> None:
    settle_home(read_home(home), tmp_path, archive)
    other = read_home(write_home(tmp_path / "other", ["behave 8 x", "behave 9 x"]))
    with pytest.raises(
        SelfdevError, match=r"the transfer of other programs than .*other's; give another --out"
    ):
        settle_home(other, tmp_path, archive)


def test_a_run_is_no_place_for_a_transfer(home: Path) -> None:
    run = Archive(home / "archive.sqlite")
    with pytest.raises(SelfdevError, match="holds a run and not a transfer"):
        settle_home(read_home(home), home, run)
    run.close()


def test_the_models_and_task_of_the_run_itself_are_refused(home: Path) -> None:
    with pytest.raises(SelfdevError, match=r"has the models and the task of .* itself"):
        check_is_away(read_home(home), small_config(name="again", task={"test": 10}))
    check_is_away(read_home(home), small_config(task={"name": "other.jsonl"}))
    check_is_away(read_home(home), small_config(task={"skills": ["times"]}))


@pytest.mark.parametrize(
    ("texts", "best", "words"),
    [
        (["behave 8 x"], None, "holds an unfinished run; give its selfdev run command again"),
        ([], "seed", "has no discovered finalist to transfer"),
    ],
    ids=["unfinished", "nothing found"],
)
def test_a_run_with_nothing_to_send_is_refused(
    tmp_path: Path, texts: list[str], best: str | None, words: str
) -> None:
    run = write_home(tmp_path / "home", texts, best=best)
    with pytest.raises(SelfdevError, match=words):
        read_home(run)


def test_a_missing_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SelfdevError, match="is not a run folder"):
        read_home(tmp_path / "nowhere")


@dataclass(frozen=True)
class Real:
    """A transfer with real models: where it was started, with what, and what it gave."""

    run: Path
    config: Path
    result: TransferResult


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Real:
    """Three programs of another run: far from the good expert, near to it, and one that crashes."""
    root = build(tmp_path_factory.mktemp("writing"))
    (root / "away.yaml").write_text(dump(away_config(root)))
    run = write_home(root / "home", [PROGRAMS[i] for i in (6, 0, 10)])
    return Real(run, root / "away.yaml", api.transfer(run, root / "away.yaml"))


def away_config(root: Path) -> Config:
    return small_config(
        name="away",
        models={"seed": str(root / "seed"), "experts": {n: str(root / n) for n in ("good", "bad")}},
        task={
            "name": str(root / "questions.jsonl"),
            "shots": 0, "dev": 10, "finalist_dev": 20, "test": 30, "max_new_tokens": 2, "batch": 30,
        },
        workers=1,
    )  # fmt: skip


def test_real_programs_meet_real_models(real: Real) -> None:
    rows = by_name(real.result)
    assert {row.n for row in rows.values()} == {30}
    assert rows["good"].accuracy == 1.0  # the gold answers are this expert's
    assert rows["program 1.1"].accuracy > rows["program 1.0"].accuracy
    (failed,) = real.result.failed
    assert (failed.name, failed.state) == ("program 1.2", State.CRASHED)
    assert "nothing" in failed.reason


def test_the_result_is_written_beside_the_archive(real: Real) -> None:
    out = real.run / "transfer" / "away"
    names = {"archive.sqlite", "config.yaml", "environment.json", "lock", "transfer.json"}
    assert {path.name for path in out.iterdir()} == names
    assert json.loads((out / "transfer.json").read_text()) == json.loads(to_json(real.result))


def test_the_json_has_the_promised_keys(real: Real) -> None:
    written = json.loads(to_json(real.result))
    assert set(written) == {
        "run", "name", "config", "environment", "best_name", "test", "failed", "claim", "correlation",
        "parameter_sets", "notes", "seconds",
    }  # fmt: skip
    row = {"name", "kind", "n", "accuracy", "low", "high", "flexible_accuracy"}
    assert row | {"p_vs_best_baseline", "p_vs_seed", "dev_accuracy"} <= set(written["test"][0])
    assert set(written["failed"][0]) == {"name", "kind", "state", "reason"}
    assert set(written["claim"]) == {
        "verdict",
        "headline",
        "detail",
        "over_baseline",
        "over_home_baseline",
        "over_seed",
    }


def test_a_finished_transfer_is_read_back(real: Real) -> None:
    assert api.transfer(real.run, real.config) == real.result


def test_a_changed_config_is_refused(real: Real) -> None:
    with pytest.raises(SelfdevError, match=r"task.test = 30 and the config now says 20"):
        api.transfer(real.run, real.config, overrides=["task.test=20"])


def test_nothing_is_written_where_the_models_are_missing(real: Real, tmp_path: Path) -> None:
    with pytest.raises(SelfdevError, match="nowhere does not exist"):
        api.transfer(real.run, real.config, tmp_path / "out", ["models.seed=nowhere"])
    assert not (tmp_path / "out").exists()
