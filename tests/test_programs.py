"""The built-in algorithms against numbers worked out by hand, and the library that loads programs."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from selfdev.errors import SelfdevError
from selfdev.gate import gate
from selfdev.library import builtin_names, load_program

Models = dict[str, dict[str, Tensor]]
NAMES = builtin_names()


def run(program: str, models: Models, **parameters: object) -> dict[str, Tensor]:
    """Load as users do and run in this process: the built-in programs are our own."""
    space: dict[str, object] = {}
    exec(compile(load_program(program, parameters).code, program, "exec"), space)
    merge_models = space["merge_models"]
    assert callable(merge_models)
    result = merge_models(models, torch.device("cpu"))
    assert isinstance(result, dict)
    return result


def merged(program: str, seed: object, *experts: object, **parameters: object) -> Tensor:
    """The merge of one small tensor."""
    models = {"seed": {"w": torch.tensor(seed)}}
    models |= {f"e{i}": {"w": torch.tensor(e)} for i, e in enumerate(experts)}
    return run(program, models, **parameters)["w"]


def close(found: Tensor, expected: object) -> None:
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=1e-6)


SEED = [1.0, 1.0]
A, B = [2.0, 1.0], [1.0, 3.0]  # task vectors [1, 0] and [0, 2]


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, [4 / 3, 5 / 3]),
        ({"WEIGHT": [2, 1, 1]}, [1.25, 1.5]),
        ({"WEIGHT": [2, 1, 1], "NORMALIZE": False}, [5.0, 6.0]),
    ],
)
def test_linear(parameters: dict[str, object], expected: list[float]) -> None:
    close(merged("linear", SEED, A, B, **parameters), expected)


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"WEIGHT": 0.3}, [1.3, 1.6]),
        ({"WEIGHT": [0.5, 0.25]}, [1.5, 1.5]),
        ({"WEIGHT": (0.5, 0.25), "LAMBDA": 2.0}, [2.0, 2.0]),
        ({"WEIGHT": [0.5, 0.25], "NORMALIZE": True}, [1 + 0.5 / 0.75, 1 + 0.5 / 0.75]),
        ({"WEIGHT": [1, -1], "NORMALIZE": True}, [2.0, -1.0]),  # weights that cancel out divide nothing
    ],
)
def test_task_arithmetic(parameters: dict[str, object], expected: list[float]) -> None:
    close(merged("task_arithmetic", SEED, A, B, **parameters), expected)


ZERO = [0.0, 0.0, 0.0, 0.0]
P, Q = [4.0, -3.0, 2.0, 1.0], [-1.0, -2.0, 3.0, 0.5]


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        # Signs elected: + - + +. Only the first expert agrees on the first value.
        ({"DENSITY": 1.0}, [4.0, -2.5, 2.5, 0.75]),
        ({"DENSITY": 1.0, "NORMALIZE": False, "LAMBDA": 0.5}, [2.0, -2.5, 2.5, 0.75]),
        # Half of the values: [4, -3, 0, 0] and [0, -2, 3, 0]. A trimmed value does not vote.
        ({"DENSITY": 0.5}, [4.0, -2.5, 3.0, 0.0]),
        ({"DENSITY": 0.5, "WEIGHT": [1.0, 3.0]}, [4.0, -2.25, 3.0, 0.0]),
        # 0.7 of 4 values is 2.8: two are kept. Then at least one, unless the density is 0.
        ({"DENSITY": 0.7}, [4.0, -2.5, 3.0, 0.0]),
        ({"DENSITY": 0.01}, [4.0, 0.0, 3.0, 0.0]),
        ({"DENSITY": [0.01, 0]}, [4.0, 0.0, 0.0, 0.0]),
        # Weight 5 turns the first sign around: 4 against -5.
        ({"DENSITY": 1.0, "WEIGHT": [1, 5]}, [-1.0, -13 / 6, 17 / 6, 3.5 / 6]),
    ],
)
def test_ties(parameters: dict[str, object], expected: list[float]) -> None:
    close(merged("ties", ZERO, P, Q, **parameters), expected)


def test_ties_adds_to_the_seed() -> None:
    close(merged("ties", [1.0, 1.0], [3.0, 1.0], [1.0, 0.0], DENSITY=1.0, LAMBDA=0.5), [2.0, 0.5])


@pytest.mark.parametrize("program", ["dare_ties", "dare_linear"])
@pytest.mark.parametrize(("rescale", "kept"), [(True, 2 / 0.3), (False, 2.0)])
def test_dare_keeps_the_given_share(program: str, rescale: bool, kept: float) -> None:
    torch.manual_seed(0)
    models = {"seed": {"w": torch.ones(100, 200)}, "e": {"w": torch.full((100, 200), 3.0)}}
    change = run(program, models, WEIGHT=1.0, DENSITY=0.3, RESCALE=rescale)["w"] - 1
    # Standard error of the share: sqrt(0.3 * 0.7 / 20000) = 0.003.
    assert (change != 0).float().mean().item() == pytest.approx(0.3, abs=0.013)
    torch.testing.assert_close(change[change != 0], torch.full_like(change[change != 0], kept))


def test_dare_draws_one_mask_per_expert() -> None:
    torch.manual_seed(0)
    models = {n: {"w": torch.full((10000,), v)} for n, v in (("seed", 0.0), ("a", 1.0), ("b", 2.0))}
    values = run("dare_linear", models, WEIGHT=1.0, DENSITY=0.5, RESCALE=False)["w"]
    assert set(values.tolist()) == {0.0, 1.0, 2.0, 3.0}


@pytest.mark.parametrize("program", ["dare_ties", "dare_linear"])
def test_dare_repeats_with_the_random_seed(program: str) -> None:
    results = []
    for number in (1, 1, 2):
        torch.manual_seed(number)
        results.append(merged(program, [0.0] * 50, [1.0] * 50))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


@pytest.mark.parametrize("normalize", [True, False])
def test_dare_that_drops_nothing_is_ties_or_task_arithmetic(normalize: bool) -> None:
    same: dict[str, object] = {"WEIGHT": [0.5, 1.5], "LAMBDA": 0.7, "NORMALIZE": normalize}
    everything = same | {"DENSITY": 1.0}
    assert torch.equal(
        merged("dare_ties", ZERO, P, Q, **everything), merged("ties", ZERO, P, Q, **everything)
    )
    assert torch.equal(
        merged("dare_linear", ZERO, P, Q, **everything), merged("task_arithmetic", ZERO, P, Q, **same)
    )


@pytest.mark.parametrize("program", ["dare_ties", "dare_linear"])
def test_dare_that_drops_all_is_the_seed(program: str) -> None:
    close(merged(program, SEED, A, B, DENSITY=0), SEED)


COSINE = 1 / math.sqrt(2)
BETWEEN = 2 * COSINE / (1 + COSINE)


@pytest.mark.parametrize(
    ("experts", "expected"),
    [
        (([2.0, 1.0], [1.0, 3.0]), [1.0, 1.0]),  # at right angles: the seed
        (([2.0, 1.0], [4.0, 1.0]), [3.0, 1.0]),  # same direction: the average
        (([2.0, 1.0], [2.0, 2.0]), [1 + BETWEEN, 1 + BETWEEN / 2]),
        (([2.0, 1.0], [0.0, 1.0]), [1.0, 1.0]),  # opposed: t would be infinite
        # Cosines 1, 0, 0 of three pairs: mean 1/3, t = 1 / (1 + 2/3) = 0.6 of the average [2/3, 1/3].
        (([2.0, 1.0], [2.0, 1.0], [1.0, 2.0]), [1.4, 1.2]),
    ],
)
def test_model_stock(experts: tuple[list[float], ...], expected: list[float]) -> None:
    close(merged("model_stock", SEED, *experts), expected)


def test_model_stock_by_row() -> None:
    a, b = [[1.0, 0.0], [1.0, 0.0]], [[3.0, 0.0], [0.0, 1.0]]
    found = merged("model_stock", [[0.0, 0.0], [0.0, 0.0]], a, b, FILTER_WISE=True)
    close(found, [[2.0, 0.0], [0.0, 0.0]])


def test_model_stock_needs_two_experts() -> None:
    with pytest.raises(ValueError, match="at least two"):
        merged("model_stock", SEED, A)


@pytest.mark.parametrize(
    ("seed", "expert", "t", "expected"),
    [
        ([1.0, 0.0], [0.0, 1.0], 0.5, [COSINE, COSINE]),
        ([1.0, 0.0], [0.0, 1.0], 1 / 3, [math.cos(math.pi / 6), 0.5]),
        ([2.0, 0.0], [0.0, 1.0], 0.5, [2 * COSINE, COSINE]),  # lengths are kept as they are
        ([1.0, 0.0], [0.0, 1.0], 0, [1.0, 0.0]),
        ([1.0, 0.0], [0.0, 1.0], 1, [0.0, 1.0]),
        ([1.0, 0.0], [3.0, 0.0], 0.5, [2.0, 0.0]),  # parallel: straight line
        ([0.0, 0.0], [3.0, 0.0], 0.5, [3 * COSINE, 0.0]),  # zeros count as at right angles, as in mergekit
    ],
)
def test_slerp(seed: list[float], expert: list[float], t: float, expected: list[float]) -> None:
    close(merged("slerp", seed, expert, T=t), expected)


def test_slerp_with_the_chosen_expert() -> None:
    close(merged("slerp", SEED, A, B, T=1.0, EXPERT=1), B)
    with pytest.raises(ValueError, match="between 0 and 1"):
        merged("slerp", SEED, A, B, EXPERT=2)


def bf16_models() -> Models:
    """A seed and two experts with a matrix, a vector and a tensor of one value."""
    rng = torch.Generator().manual_seed(0)
    shapes = {"matrix": (6, 5), "vector": (7,), "one": (1,)}
    return {
        model: {n: torch.randn(s, generator=rng).to(torch.bfloat16) for n, s in shapes.items()}
        for model in ("seed", "a", "b")
    }


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_is_computed_as_float32_and_left_alone(name: str) -> None:
    models, before = bf16_models(), bf16_models()
    as_float32 = {m: {n: v.float() for n, v in values.items()} for m, values in models.items()}
    torch.manual_seed(0)
    from_bfloat16 = run(name, models)
    torch.manual_seed(0)
    from_float32 = run(name, as_float32)
    assert list(from_bfloat16) == list(models["seed"])
    for key, value in from_bfloat16.items():
        assert value.shape == models["seed"][key].shape
        assert torch.equal(value, from_float32[key].to(value.dtype))  # rounded once
        assert all(torch.equal(models[m][key], before[m][key]) for m in models)


@pytest.mark.parametrize("name", NAMES)
def test_result_shares_no_memory_with_a_model(name: str) -> None:
    models = {m: {n: v.float() for n, v in values.items()} for m, values in bf16_models().items()}
    owned = {v.data_ptr() for values in models.values() for v in values.values()}
    assert not owned & {v.data_ptr() for v in run(name, models).values()}


@pytest.mark.parametrize("name", ["linear", "task_arithmetic", "ties", "dare_ties", "dare_linear"])
def test_wrong_number_of_weights_says_how_many(name: str) -> None:
    count = 3 if name == "linear" else 2
    with pytest.raises(ValueError, match=f"one number or {count}"):
        merged(name, SEED, A, B, WEIGHT=[0.1])


@pytest.mark.parametrize("name", NAMES)
def test_docstring_cites_its_source(name: str) -> None:
    code = load_program(name, {}).code
    assert re.search(r"\(\D+,\s(19|20)\d\d,.*?(arXiv \d|doi \d|https://)", code, re.DOTALL)
    assert code.startswith('"""')


@pytest.mark.parametrize("name", NAMES)
def test_docstring_tells_the_tuning_grid_of_its_constants(name: str) -> None:
    code = load_program(name).code
    (grid,) = re.findall(r"Grid: (.*?)\.\n\"\"\"", code, re.DOTALL)
    assert set(re.findall(r"\b[A-Z_]{2,}\b|\bT\b", grid)) <= set(gate.parameters(code)) | {"EXPERT"}


def test_builtin_names() -> None:
    assert builtin_names() == (
        "breadcrumbs", "breadcrumbs_ties", "dare_linear", "dare_ties", "della", "della_linear", "karcher",
        "linear", "model_stock", "multislerp", "nearswap", "sce", "slerp", "task_arithmetic", "ties",
    )  # fmt: skip


TEXT = "Here is a program:\n```python\n{}\n```\nIt copies the seed."
CODE = """SCALE = 2.0

def merge_models(models, device):
    return {n: v * SCALE for n, v in models["seed"].items()}
"""


@pytest.mark.parametrize("form", ["bare.py", "fenced.txt", "bare.txt"])
def test_program_from_a_file_with_a_parameter(tmp_path: Path, form: str) -> None:
    (tmp_path / form).write_text(TEXT.format(CODE) if "fenced" in form else CODE)
    close(run(str(tmp_path / form), {"seed": {"w": torch.ones(2)}}, SCALE=3.0)["w"], [3.0, 3.0])


@pytest.mark.parametrize("name", ["OTHER", "scale"])
def test_unknown_parameter_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "p.py").write_text(CODE)
    with pytest.raises(SelfdevError, match=f"{name} is no parameter of this program; it has SCALE"):
        load_program(str(tmp_path / "p.py"), {name: 1})


def test_unknown_program_lists_the_built_in_ones() -> None:
    with pytest.raises(SelfdevError, match="neither a file nor built in; there are breadcrumbs"):
        load_program("tie", {})


def test_program_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SelfdevError, match="cannot be read"):
        load_program(str(tmp_path), {})
    (tmp_path / "p.py").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SelfdevError, match="not text in UTF-8"):
        load_program(str(tmp_path / "p.py"), {})


def test_gate_refuses_what_is_no_program(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("I cannot write programs.")
    with pytest.raises(gate.Rejected):
        load_program(str(tmp_path / "p.txt"), {})


def layered(program: str, **parameters: object) -> list[float]:
    """First value of the merge in layers 0 to 3 and outside of them; task vectors are 1 and 10 everywhere."""
    names = [*(f"model.layers.{i}.mlp.up_proj.weight" for i in range(4)), "lm_head.weight"]
    models = {
        m: {n: torch.full((2, 2), v) for n in names} for m, v in (("seed", 0.0), ("a", 1.0), ("b", 10.0))
    }
    done = run(program, models, **parameters)
    return [float(done[name][0, 0]) for name in names]


def test_a_row_of_weights_goes_over_groups_of_layers() -> None:
    rows = {"WEIGHT": [[0.1, 0.2], [0.3, 0.4]], "LAYERS_EACH": 2}
    assert layered("task_arithmetic", **rows) == pytest.approx([3.1, 3.1, 4.2, 4.2, 3.1])
    rows = {"WEIGHT": [[0.1, 0.2], [0.3, 0.4]], "LAYERS_EACH": 1}  # the last group has all that are left
    assert layered("task_arithmetic", **rows) == pytest.approx([3.1, 4.2, 4.2, 4.2, 3.1])


def test_rows_of_weights_in_ties() -> None:
    rows = {"WEIGHT": [[0.1, 0.2], 0.5], "LAYERS_EACH": 2, "DENSITY": 1.0, "NORMALIZE": False}
    assert layered("ties", **rows) == pytest.approx([5.1, 5.1, 5.2, 5.2, 5.1])
