"""Progress: results pass unchanged, seconds are told however a stage ends, stdout stays clean."""

from __future__ import annotations

import pytest

from selfdev.progress import Bars


@pytest.fixture
def spent() -> list[tuple[str, float]]:
    return []


@pytest.fixture
def bars(spent: list[tuple[str, float]]) -> Bars:
    return Bars(lambda stage, seconds: spent.append((stage, seconds)))


def test_results_pass_in_order(bars: Bars, spent: list[tuple[str, float]]) -> None:
    assert list(bars(iter("abc"), "write", 3)) == ["a", "b", "c"]
    ((stage, seconds),) = spent
    assert stage == "write"
    assert seconds > 0


def test_an_empty_stage_is_no_stage(bars: Bars, spent: list[tuple[str, float]]) -> None:
    assert list(bars(iter(()), "write", 0)) == []
    assert spent == []


def test_seconds_of_an_interrupted_stage_are_told(bars: Bars, spent: list[tuple[str, float]]) -> None:
    def results() -> object:
        yield 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(bars(results(), "score", 2))  # type: ignore[arg-type]
    assert [stage for stage, _ in spent] == ["score"]


def test_steps_give_the_works_result(bars: Bars, spent: list[tuple[str, float]]) -> None:
    def work(tell: object) -> str:
        assert callable(tell)
        tell(1, 2)
        tell(2, 2)
        return "done"

    assert bars.steps("train", work) == "done"
    assert [stage for stage, _ in spent] == ["train"]


def test_seconds_of_failed_steps_are_told(bars: Bars, spent: list[tuple[str, float]]) -> None:
    def work(_: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        bars.steps("train", work)
    assert [stage for stage, _ in spent] == ["train"]


def test_bars_are_on_stderr_and_name_their_stage(bars: Bars, capsys: pytest.CaptureFixture[str]) -> None:
    list(bars(iter("ab"), "iteration 1: write", 2))
    out, err = capsys.readouterr()
    assert out == ""
    assert "iteration 1: write" in err
    assert "2/2" in err
