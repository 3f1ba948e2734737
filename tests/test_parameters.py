"""A program's parameters: read from its text, and replaced in it without touching the rest."""

from __future__ import annotations

import pytest

from selfdev.errors import SelfdevError
from selfdev.gate import gate

PLAIN = "def merge_models(models, device):\n    return dict(models['seed'])"
PARAMETERS = (
    'A = 0.5  # the weight\nB_2: list = [1, 2]\nlower = 3\nC = D = 1\nE = f(2)\nÄ = "ö"; F = "ä"\n' + PLAIN
)


def test_parameters_are_the_plain_upper_case_constants() -> None:
    assert gate.parameters(PARAMETERS) == {"A": 0.5, "B_2": [1, 2], "F": "ä"}


def test_parameters_are_replaced_in_the_text_and_nothing_else_is() -> None:
    changed = gate.set_parameters(PARAMETERS, {"F": "ü", "A": [0.1, 2], "B_2": None})
    assert changed == PARAMETERS.replace("0.5", "[0.1, 2]").replace("[1, 2]", "None", 1).replace('"ä"', "'ü'")
    assert gate.parameters(changed) == {"A": [0.1, 2], "B_2": None, "F": "ü"}


def test_a_value_may_span_lines() -> None:
    assert gate.set_parameters("A = [\n  1,\n]\nB = 2\n", {"A": 5, "B": True}) == "A = 5\nB = True\n"


def test_two_parameters_may_share_a_line() -> None:
    assert gate.set_parameters("A = 1; B = 2\n", {"A": 12345, "B": 7}) == "A = 12345; B = 7\n"


def test_an_unknown_parameter_names_those_there_are() -> None:
    with pytest.raises(SelfdevError, match="WEIGTH is no parameter of this program; it has A, B_2, F"):
        gate.set_parameters(PARAMETERS, {"WEIGTH": 1})


@pytest.mark.parametrize("value", [10**4100, float("inf"), object(), {1: 2}, [float("nan")]])
def test_a_value_must_be_plain_and_finite(value: object) -> None:
    with pytest.raises(SelfdevError, match="finite"):
        gate.set_parameters("A = 1", {"A": value})
