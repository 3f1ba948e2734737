"""Probes and fingerprints: the same behaviour is the same print, another behaviour another one."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Family

from selfdev.checkpoints import ModelView, tensor, views
from selfdev.fingerprint import change, fingerprint, make_probes, nearest


@pytest.fixture(scope="module")
def shown(family: Family) -> tuple[ModelView, ...]:
    return views(*family.open())


@pytest.fixture(scope="module")
def probes(shown: tuple[ModelView, ...], tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelView, ...]:
    return make_probes(shown, tmp_path_factory.mktemp("probes"))


def values(view: ModelView) -> dict[str, torch.Tensor]:
    return {slot.name: tensor(slot) for slot in view.slots}


def test_probes_have_the_names_of_models_and_parameters(
    shown: tuple[ModelView, ...], probes: tuple[ModelView, ...]
) -> None:
    assert [p.name for p in probes] == [v.name for v in shown]
    for probe, view in zip(probes, shown, strict=True):
        assert [s.name for s in probe.slots] == [s.name for s in view.slots]


def test_probes_are_small_and_not_square(probes: tuple[ModelView, ...]) -> None:
    # The tiny family's MLP weights are 48x32 and 32x48.
    assert {slot.shape for slot in probes[0].slots} == {(8, 7)}


def test_short_sides_stay_short(shown: tuple[ModelView, ...], tmp_path: Path) -> None:
    from dataclasses import replace

    slot = replace(shown[0].slots[0], shape=(3,))
    (probe,) = make_probes([ModelView("seed", (slot,))], tmp_path)
    assert tensor(probe.slots[0]).shape == (3,)


def test_probes_are_the_same_every_time(
    shown: tuple[ModelView, ...], probes: tuple[ModelView, ...], tmp_path: Path
) -> None:
    again = make_probes(shown, tmp_path)
    for old, new in zip(probes, again, strict=True):
        for slot, other in zip(old.slots, new.slots, strict=True):
            assert torch.equal(tensor(slot), tensor(other))


def test_experts_are_near_the_seed_and_differ(probes: tuple[ModelView, ...]) -> None:
    seed, *experts = (values(probe) for probe in probes)
    for name, base in seed.items():
        deltas = [expert[name] - base for expert in experts]
        assert all(0 < d.norm() < base.norm() for d in deltas)
        assert len({float(d.norm()) for d in deltas}) == len(deltas)


def test_change_is_merged_minus_seed_in_order(probes: tuple[ModelView, ...]) -> None:
    seed = values(probes[0])
    names = list(seed)
    merged = {**seed, names[1]: seed[names[1]] + 1}
    moved = change(probes, merged)
    size = seed[names[0]].numel()
    assert moved.shape == (size * len(names),)
    assert not moved[:size].any()
    np.testing.assert_allclose(moved[size : 2 * size], 1, rtol=1e-6)
    assert not moved[2 * size :].any()


def test_another_order_of_sums_is_the_same_behaviour(probes: tuple[ModelView, ...]) -> None:
    seed, *experts = (values(probe) for probe in probes)
    forward = {n: sum((e[n] - seed[n] for e in experts), torch.zeros(())) * 0.3 + seed[n] for n in seed}
    backward = {n: seed[n] + sum(0.3 * e[n] for e in experts[::-1]) - 0.9 * seed[n] for n in seed}
    assert any(not torch.equal(forward[n], backward[n]) for n in seed)
    assert fingerprint(change(probes, forward)) == fingerprint(change(probes, backward))


def test_another_coefficient_is_another_behaviour(probes: tuple[ModelView, ...]) -> None:
    seed, expert = values(probes[0]), values(probes[1])
    prints = set()
    for weight in (0.3, 0.31, -0.3, 0.6):
        merged = {n: seed[n] + weight * (expert[n] - seed[n]) for n in seed}
        prints.add(fingerprint(change(probes, merged)))
    assert len(prints) == 4


def test_one_layer_treated_differently_is_another_behaviour() -> None:
    plain = np.linspace(1, 2, 50)
    bent = plain.copy()
    bent[7] *= 1.01
    assert fingerprint(plain) != fingerprint(bent)


def test_rounding_noise_is_not_seen() -> None:
    # Multiples of 1/1000 of the largest value lie far from where rounding to four digits would flip.
    change = np.arange(-1000, 1001) / 1000 * 0.123
    assert fingerprint(change * (1 + 1e-9)) == fingerprint(change)


def test_doing_nothing_has_a_print_of_its_own() -> None:
    assert fingerprint(np.zeros(4)) == fingerprint(np.zeros(4))
    assert fingerprint(np.zeros(4)) != fingerprint(np.array([0, 0, 0, 1e-9]))


def test_nearest_is_the_sine_of_the_angle() -> None:
    known = {"right": np.array([1.0, 0.0]), "up": np.array([0.0, 1.0])}
    angle = math.radians(30)
    found = nearest(np.array([math.cos(angle), math.sin(angle)]), known)
    assert found is not None
    assert found.name == "right"
    assert found.distance == pytest.approx(0.5)


@pytest.mark.parametrize("factor", [0.1, 1.0, -3.0])
def test_nearest_does_not_look_at_the_size(factor: float) -> None:
    found = nearest(factor * np.array([3.0, 4.0]), {"same": np.array([3.0, 4.0])})
    assert found is not None
    assert found.distance == pytest.approx(0, abs=1e-7)


def test_nothing_in_common_is_one() -> None:
    found = nearest(np.array([1.0, 0.0]), {"up": np.array([0.0, 2.0])})
    assert found is not None
    assert found.distance == pytest.approx(1)


@pytest.mark.parametrize(
    ("moved", "known"),
    [([0.0, 0.0], {"up": [0.0, 1.0]}), ([1.0, 0.0], {"idle": [0.0, 0.0]}), ([1.0, 0.0], {})],
    ids=["program", "known", "none"],
)
def test_what_does_nothing_is_near_nothing(moved: list[float], known: dict[str, list[float]]) -> None:
    assert nearest(np.array(moved), {name: np.array(value) for name, value in known.items()}) is None
