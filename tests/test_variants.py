"""Programs with one thing changed, and what simplifying takes out, without running any of them."""

from __future__ import annotations

import pytest

from selfdev.explain.simplify import count, deletions, simplify
from selfdev.explain.variants import (
    change_constants,
    change_experts,
    change_layers,
    delete_each,
    layer_groups,
    plain,
    simpler,
)
from selfdev.gate import gate
from selfdev.library import builtin_names, load_program

PROGRAM = '''"""A text."""
SCALE = 0.25


def merge_models(models, device):
    """Another text."""
    seed = models["seed"]  # a comment
    merged = {}
    for name in seed:
        pass
        if SCALE > 1:
            merged[name] = seed[name]
        else:
            merged[name] = seed[name] * SCALE + 1e-8 * 3
    return merged
'''
NAMES = [f"model.layers.{i}.mlp.up_proj.weight" for i in range(6)]


def run(code: str) -> dict[str, float]:
    """What a program that needs no tensors makes of numbers."""
    names: dict[str, object] = {}
    exec(code, names)
    merge = names["merge_models"]
    assert callable(merge)
    made: dict[str, float] = merge(
        {
            "seed": {"model.layers.0.a": 1.0, "b": 2.0},
            "one": {"model.layers.0.a": 10.0, "b": 20.0},
            "two": {"model.layers.0.a": 100.0, "b": 200.0},
        },
        "cpu",
    )
    return made


SUM = """def merge_models(models, device):
    return {n: sum(models[m][n] for m in models) for n in models["seed"]}
"""


def test_each_statement_is_deleted_alone_in_the_order_of_the_text() -> None:
    found = delete_each(PROGRAM)
    assert [(v.line, v.what) for v in found] == [
        (2, "SCALE = 0.25"),
        (7, "seed = models['seed']"),
        (8, "merged = {}"),
        (9, "for name in seed:"),
        (11, "if SCALE > 1:"),
        (12, "merged[name] = seed[name]"),
        (14, "merged[name] = seed[name] * SCALE + 1e-08 * 3"),
        (15, "return merged"),
    ]
    assert "SCALE > 1" not in found[4].code
    assert "for name in seed:\n        pass" in found[4].code
    assert count(PROGRAM) == len(found)


def test_numbers_are_made_simpler_one_by_one() -> None:
    found = [(v.line, v.what) for v in change_constants(PROGRAM)]
    assert found == [
        (2, "0.25 → 0.0"),
        (2, "0.25 → 0.2"),
        (2, "0.25 → 1.0"),
        (11, "1 → 0"),
        (14, "1e-08 (1 of 2) → 0.0"),
        (14, "1e-08 (1 of 2) → 1.0"),
        (14, "3 (2 of 2) → 0"),
        (14, "3 (2 of 2) → 1"),
    ]
    assert "SCALE = 0.2\n" in change_constants(PROGRAM)[1].code


@pytest.mark.parametrize(
    ("value", "options"),
    [(0.0, []), (1, [0]), (0.456, [0.0, 0.5, 0.46, 1.0]), (123, [0, 100, 120, 1]), (0.97, [0.0, 1.0])],
)
def test_simpler_numbers(value: float, options: list[float]) -> None:
    assert simpler(value) == options


def test_sizes_dimensions_and_truths_are_no_constants() -> None:
    code = "def merge_models(models, device):\n    x = True\n    return models[0].sum(dim=1).topk(3)[2:]\n"
    assert change_constants(code) == []


def test_an_expert_is_replaced_by_the_seed() -> None:
    made = {v.what: run(v.code) for v in change_experts(SUM, ["one", "two"])}
    assert made == {
        "without one": {"model.layers.0.a": 102.0, "b": 204.0},
        "one alone": {"model.layers.0.a": 12.0, "b": 24.0},
        "without two": {"model.layers.0.a": 12.0, "b": 24.0},
        "two alone": {"model.layers.0.a": 102.0, "b": 204.0},
    }


def test_a_group_of_layers_is_left_at_the_seed() -> None:
    made = {v.what: run(v.code) for v in change_layers(SUM, ["model.layers.0.a", "b"])}
    assert made["without layer 0"] == {"model.layers.0.a": 1.0, "b": 222.0}
    assert made["layer 0 alone"] == {"model.layers.0.a": 111.0, "b": 2.0}
    assert made["without what is in no layer"] == made["layer 0 alone"]


def test_layers_are_cut_into_four_groups() -> None:
    assert layer_groups(NAMES) == {"layers 0 to 1": [0, 1], "layers 2 to 3": [2, 3], "layers 4 to 5": [4, 5]}
    assert layer_groups(NAMES[:1]) == {"layer 0": [0]}
    assert change_layers(SUM, NAMES[:1]) == []


def test_a_program_that_calls_itself_still_does() -> None:
    code = """def merge_models(models, device, whole_merge=1, again=True):
    if again:
        return merge_models(models, device, 1, False)
    return dict(models["one"])
"""
    made = {v.what: run(v.code) for v in change_experts(code, ["one"])}
    assert made == {"without one": {"model.layers.0.a": 1.0, "b": 2.0}}


@pytest.mark.parametrize("name", builtin_names())
def test_variants_around_built_in_programs_pass_the_gate(name: str) -> None:
    code = load_program(name).code
    for variant in (*change_experts(code, ["one", "two"]), *change_layers(code, NAMES)):
        gate.check(variant.code)
    gate.check(plain(code))


def test_texts_comments_and_pass_go_first() -> None:
    assert plain(PROGRAM) == (
        "SCALE = 0.25\n\ndef merge_models(models, device):\n    seed = models['seed']\n    merged = {}\n"
        "    for name in seed:\n        if SCALE > 1:\n            merged[name] = seed[name]\n"
        "        else:\n            merged[name] = seed[name] * SCALE + 1e-08 * 3\n    return merged\n"
    )


def test_simplified_is_what_the_check_lets_go() -> None:
    code = """def merge_models(models, device):
    total = 0
    unused = []
    for name in models:
        unused.append(name)
        total = total + len(unused) * 0
    if device == "nowhere":
        return {}
    else:
        return dict(models["one"])
"""
    expected = run(code)

    def same(text: str) -> bool:
        try:
            return run(text) == expected
        except Exception:
            return False

    simple, steps = simplify(code, same)
    assert simple == "def merge_models(models, device):\n    return models['one']\n" or simple == (
        "def merge_models(models, device):\n    return dict(models['one'])\n"
    )
    assert steps[-1].code == simple
    assert count(simple) == 1


def test_nothing_goes_that_the_check_keeps() -> None:
    code = plain(PROGRAM)
    assert simplify(code, lambda text: text == code) == (code, [])


def test_a_program_that_changes_when_written_anew_is_left_alone() -> None:
    assert simplify(PROGRAM, lambda _: False) == (PROGRAM, [])


def test_a_move_to_the_device_stays() -> None:
    code = """def merge_models(models, where):
    base = models["seed"]["b"]
    base = base.to(where)
    other = base.to(where)
    return {"b": base}
"""
    words = [step.words for step in deletions(code)]
    assert "deleted `other = base.to(where)`" in words
    assert "deleted `base = base.to(where)`" not in words
