"""The engine on vLLM against the plain one, with a stand-in that has vLLM's signatures and a real model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fakes import small_config
from test_engine import lively_model, prompts
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from selfdev.engine.batches import Answering
from selfdev.engine.engine import Engine
from selfdev.engine.scorer import prepare, score
from selfdev.engine.vllm import VllmEngine
from selfdev.errors import SelfdevError
from selfdev.tasks.questions import Question

LIMIT = 12


@dataclass
class SamplingParams:
    """Those of vLLM's that are used."""

    temperature: float = 1.0
    max_tokens: int | None = 16
    stop: str | list[str] | None = None


class Model:
    """A model inside vLLM: it takes weights by their names in the checkpoint."""

    def __init__(self, path: str) -> None:
        self.inner: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        parameters = dict(self.inner.named_parameters())
        with torch.no_grad():
            return {name for name, value in weights if parameters[name].copy_(value) is not None}


@dataclass
class LLM:
    """Greedy answers one by one; a prefix that was not forgotten after new weights is an error."""

    model: str
    tokenizer: str
    dtype: str
    seed: int
    enable_prefix_caching: bool
    gpu_memory_utilization: float
    disable_log_stats: bool
    stale: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self.held = Model(self.model)
        self.words = AutoTokenizer.from_pretrained(self.tokenizer)
        self.model_config = SimpleNamespace(max_model_len=128)

    def apply_model(self, func: Callable[[Any], Any]) -> list[Any]:
        self.stale = True
        return [func(self.held)]

    def reset_prefix_cache(self) -> bool:
        self.stale = False
        return True

    def generate(
        self, prompts: Sequence[Any], sampling_params: SamplingParams, *, use_tqdm: bool = True
    ) -> list[Any]:
        assert not self.stale
        assert not use_tqdm
        assert sampling_params.temperature == 0.0
        return [self._reply(prompt["prompt_token_ids"], sampling_params) for prompt in prompts]

    def _reply(self, ids: list[int], params: SamplingParams) -> Any:
        out = self.held.inner.generate(
            torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            max_new_tokens=params.max_tokens, do_sample=False,
        )[0, len(ids) :].tolist()  # fmt: skip
        text = self.words.decode(out, skip_special_tokens=True)
        cut = min((text.find(stop) for stop in params.stop or () if stop in text), default=len(text))
        written = [token for token in out if token != self.held.inner.config.eos_token_id]
        return SimpleNamespace(outputs=[SimpleNamespace(text=text[:cut], token_ids=written)])


LIBRARY = SimpleNamespace(LLM=LLM, SamplingParams=SamplingParams)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("vllm")
    return [lively_model(folder, seed) for seed in (0, 1)]


@pytest.fixture(scope="module")
def engines(models: list[Path]) -> tuple[Engine, VllmEngine]:
    return Engine(models[0]), VllmEngine(models[0], LIBRARY)


def answers(engine: Answering, stops: Sequence[str] = ()) -> list[str]:
    return engine.answer(engine.prepare(prompts(), [None] * 16, 5), LIMIT, stops)


def weights(path: Path, part: str) -> dict[str, Tensor]:
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    return {name: value.detach() for name, value in model.named_parameters() if part in name}


def test_answers_are_those_of_the_plain_engine(engines: tuple[Engine, VllmEngine]) -> None:
    plain, vllm = engines
    assert answers(vllm) == answers(plain)
    assert len(set(answers(plain))) > 8


def test_stop_strings_cut_alike(engines: tuple[Engine, VllmEngine]) -> None:
    plain, vllm = engines
    stop = answers(plain)[0].split()[1]
    assert answers(vllm, [stop]) == answers(plain, [stop]) != answers(plain)


def test_weights_are_swapped_and_the_seed_comes_back(
    engines: tuple[Engine, VllmEngine], models: list[Path]
) -> None:
    plain, vllm = engines
    before = answers(vllm)
    for part in ("mlp.up_proj", "self_attn", "mlp.up_proj"):
        for engine in engines:
            engine.swap(weights(models[1], part))
        assert answers(vllm) == answers(plain) != before
    vllm.swap({})
    assert answers(vllm) == before
    plain.swap({})


def test_an_exam_has_the_same_score_and_as_many_tokens(engines: tuple[Engine, VllmEngine]) -> None:
    plain, vllm = engines
    questions = [Question(prompt, "7") for prompt in prompts()]
    scores = [score(engine, prepare(engine, questions, LIMIT, 4), {}) for engine in engines]
    assert scores[0] == scores[1]
    assert scores[0].tokens > 16
    assert (vllm.room, vllm.names >= plain.names) == (128, True)


def test_the_engine_has_what_every_engine_has() -> None:
    for name in ("swap", "prepare", "answer"):
        assert signature(getattr(VllmEngine, name)) == signature(getattr(Engine, name))


def test_without_vllm_one_sentence_says_what_to_do(models: list[Path]) -> None:
    with pytest.raises(SelfdevError, match=r"vLLM is not installed; pip install 'selfdev\[vllm\]'"):
        VllmEngine(models[0])


@pytest.mark.parametrize(
    ("sections", "problem"),
    [
        ({"task": {"sanity": 4}}, "task.sanity reads a model's own numbers; set it to 0"),
        ({"task": {"name": "lm-eval:arc"}}, "lm-eval:arc needs transformers"),
        ({"besides": ["lm-eval:toxigen"]}, "lm-eval:toxigen needs transformers"),
    ],
)
def test_what_vllm_cannot_ask_is_refused(sections: dict[str, Any], problem: str) -> None:
    with pytest.raises(SelfdevError, match=problem):
        small_config(engine="vllm", **sections)
