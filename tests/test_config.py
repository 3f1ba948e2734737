"""The config: what is read, what is refused and in which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from selfdev.config.config import Config, config_schema, dump, lab_model, load_config, parse_config
from selfdev.errors import SelfdevError

CONFIGS = Path(__file__).parents[1] / "configs"
SMALLEST = """
name: small
models: {seed: "lab:a/seed", experts: {sum: "lab:a/sum"}}
task: {name: lab}
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALLEST)
    return path


def refusal(path: Path, *overrides: str) -> str:
    with pytest.raises(SelfdevError) as caught:
        load_config(path, overrides)
    return str(caught.value)


@pytest.mark.parametrize("name", ["lab.yaml", "lab_b.yaml", "paper.yaml"])
def test_shipped_configs_are_valid(name: str) -> None:
    assert load_config(CONFIGS / name).task.name in ("lab", "gsm8k")


def test_the_other_lab_family_has_the_same_questions_and_grids() -> None:
    a, b = load_config(CONFIGS / "lab.yaml"), load_config(CONFIGS / "lab_b.yaml")
    assert (a.task, a.baselines, a.sandbox) == (b.task, b.baselines, b.sandbox)
    assert a.models.seed.replace(":a/", ":b/") == b.models.seed
    assert list(a.models.experts) == list(b.models.experts)


def test_paper_config_holds_the_papers_settings() -> None:
    paper = load_config(CONFIGS / "paper.yaml")
    assert paper.models.seed == "openchat/openchat-3.5-1210"
    assert list(paper.models.experts.values()) == [
        "GAIR/Abel-7B-002",
        "teknium/OpenHermes-2.5-Mistral-7B",
        "SciPhi/SciPhi-Mistral-7B-32k",
    ]
    assert (paper.factory.programs, paper.factory.iterations) == (3000, 3)
    assert (paper.factory.temperature, paper.factory.decay) == (1.2, 0.2)
    assert (paper.pairs.top, paper.pairs.bottom, paper.pairs.carry_over) == (0.03, 0.10, 3)
    assert (paper.dpo.method, paper.dpo.lora_rank) == ("lora", 256)
    assert (paper.dpo.learning_rate, paper.dpo.beta, paper.dpo.sft_weight) == (1e-6, 0.01, 0.0)
    assert (paper.task.shots, paper.task.dev, paper.finalists) == (5, 100, 15)
    assert paper.models.scope == "mlp"


def test_defaults_are_the_papers(small: Path) -> None:
    ours, paper = load_config(small), load_config(CONFIGS / "paper.yaml")
    assert ours.factory == paper.factory
    assert ours.pairs == paper.pairs
    assert ours.dpo == paper.dpo
    assert ours.finalists == paper.finalists


def test_experts_keep_the_order_of_the_file() -> None:
    assert list(load_config(CONFIGS / "paper.yaml").models.experts) == ["abel", "openhermes", "sciphi"]


def test_dump_is_read_back_equal(small: Path, tmp_path: Path) -> None:
    config = load_config(small, ["baselines.ties=[{DENSITY: 0.5, WEIGHT: [0.1]}]"])
    again = tmp_path / "again.yaml"
    again.write_text(dump(config))
    assert load_config(again) == config


def test_config_cannot_be_changed(small: Path) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_config(small).factory.programs = 3


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("factory.programs=64", "factory", "programs", 64),
        ("dpo.learning_rate=3e-5", "dpo", "learning_rate", 3e-5),
        ("dpo.beta=1", "dpo", "beta", 1.0),
        ("models.scope='self_attn|mlp'", "models", "scope", "self_attn|mlp"),
        ("task.name=my/questions.jsonl", "task", "name", "my/questions.jsonl"),
        ("pairs.failures_as_rejected=true", "pairs", "failures_as_rejected", True),
        (
            "models.experts.times=lab:a/times",
            "models",
            "experts",
            {"sum": "lab:a/sum", "times": "lab:a/times"},
        ),
    ],
)
def test_set_reads_the_value_as_yaml(
    small: Path, override: str, section: str, key: str, value: object
) -> None:
    assert load_config(small, [override]).model_dump()[section][key] == value


def test_set_reaches_keys_without_a_section(small: Path) -> None:
    assert load_config(small, ["seed=7", "name=other"]).model_dump(include={"seed", "name"}) == {
        "seed": 7,
        "name": "other",
    }


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("factory.program=1", "factory.programs"),
        ("factory.temprature=1", "factory.temperature"),
        ("programs=1", "factory.programs"),
        ("dpo.top=0.1", "pairs.top"),
        ("wokers=2", "workers"),
        ("pairs.topp=0.1", "pairs.top"),
        ("models.dtype=float32", "models.show_dtype"),
        ("factory.zzz=3", "factory.model"),
    ],
)
def test_unknown_key_names_the_nearest(small: Path, override: str, nearest: str) -> None:
    key = override.split("=")[0]
    assert f"unknown key {key}, the nearest valid key is {nearest}." in refusal(small, override)


def test_all_problems_are_told_at_once(small: Path) -> None:
    said = refusal(small, "factory.program=1", "dpo.beta=0", "task.name=gsm", "models.seed=lab:x")
    assert "4 problems" in said
    assert "dpo.beta is 0 and must be greater than 0" in said
    assert "the nearest is gsm8k" in said
    assert "lab:FAMILY/NAME" in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("factory.programs=true", "factory.programs is True and must be a valid integer"),
        ("factory.programs='64'", "factory.programs is '64' and must be a valid integer"),
        ("factory=3", "factory is 3 and must be a section of its own keys"),
        ("dpo.method=qlora", "'lora' or 'full'"),
        ("task.finalist_dev=5", "finalist_dev is 5 and must be at least dev, 100"),
        ("models.scope=(", "regular expression"),
        ("models.seed=' '", "a model is empty"),
        ("models.experts={}", "models.experts is empty"),
        ("models.experts={seed: here}", "not 'seed'"),
        ("models.experts={a/b: here}", "'a/b'"),
        ("baselines.ties=[]", "baselines.ties is empty"),
        ("baselines.tis=[{}]", "baselines.tis is not a built-in program, the nearest is ties"),
        ("baselines.ties=[{WIGHT: 1}]", "WIGHT is no parameter of this program"),
        ("pairs.top=0.9", "less than or equal to 0.5"),
        ("sandbox.seconds=.inf", "sandbox.seconds is inf and must be"),
        ("sandbox.memory_gb=1e300", "sandbox.memory_gb is 1e+300 and must be less than or equal to 1000000"),
        ("dpo.learning_rate=.inf", "dpo.learning_rate is inf and must be a finite number"),
        ("baselines.ties=[{WEIGHT: &a [*a]}]", "nested at most 20 times"),
    ],
)
def test_bad_values_are_refused_with_the_rule(small: Path, override: str, words: str) -> None:
    assert words in refusal(small, override)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("factory.programs", "section.key=value"),
        ("=3", "section.key=value"),
        ("name.first=3", "name is a value, not a section"),
        ("factory.programs=[", "not valid YAML"),
        ("factory.programs=2001-99-99", "not valid YAML"),
        ("factory.programs=" + "[" * 5000, "nested too deeply"),
    ],
)
def test_bad_overrides_are_refused(small: Path, override: str, words: str) -> None:
    said = refusal(small, override)
    assert said.startswith(f"--set {override}")
    assert words in said


def test_missing_sections_are_named(tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text("name: x\n")
    assert "models is missing and has no default, add it; task is missing" in refusal(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- a list", "must hold keys"),
        ("name: [", "not valid YAML"),
        ("models: {experts: {a: x, a: y}}", "line 1 has the key 'a' a second time"),
        ("name: \x00", "not valid YAML"),
        ("? [a, b]\n: c", "line 1 has the key ['a', 'b'], and a key must be a word"),
        ("name: " + "[" * 100_000, "not valid YAML: it is nested too deeply"),
        ("name: 2001-99-99", "not valid YAML: it has a value that cannot be read (month must be in 1..12)"),
        ("name: !!bool x", "not valid YAML: it has a value that cannot be read"),
        ("name: !!timestamp x", "not valid YAML: it has a value that cannot be read"),
    ],
)
def test_files_that_are_no_config(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    assert words in refusal(path)


def test_missing_file_and_folder_and_bytes(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in refusal(tmp_path / "none.yaml")
    assert "cannot be read: Is a directory" in refusal(tmp_path)
    (tmp_path / "bytes.yaml").write_bytes(b"name: \xff")
    assert "not valid YAML" in refusal(tmp_path / "bytes.yaml")


def test_parse_config_names_its_source() -> None:
    with pytest.raises(SelfdevError, match=r"^config here: .*name is missing"):
        parse_config({"models": {"seed": "s", "experts": {"e": "x"}}, "task": {"name": "lab"}}, "here")


def test_lab_model() -> None:
    assert lab_model("lab:a/two_step") == ("a", "two_step")
    assert lab_model("org/model") is None
    assert lab_model("lab:a") is None


def leaves(schema: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    sections = [schema, *schema["$defs"].values()]
    found = [(name, leaf) for section in sections for name, leaf in section["properties"].items()]
    return [(name, leaf) for name, leaf in found if "$ref" not in leaf]


def test_every_key_is_described() -> None:
    undescribed = [name for name, leaf in leaves(config_schema()) if len(leaf.get("description", "")) < 20]
    assert undescribed == []


def test_schema_refuses_unknown_keys_and_lists_every_section() -> None:
    schema = config_schema()
    assert schema["additionalProperties"] is False
    assert list(schema["properties"]) == list(Config.model_fields)
    assert schema["required"] == ["name", "models", "task"]
