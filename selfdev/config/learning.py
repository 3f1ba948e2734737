"""The settings of the factory's learning, pairs and training; other sections: `selfdev.config.settings`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from selfdev.config.task import Section

Objective = Literal["dpo", "rpo", "ipo", "f-dpo", "kto", "sft", "grpo"]
PairRule = Literal["paper", "same-prompt-halves", "score-weighted"]


class Pairs(Section):
    """How attempts become preference pairs. Shares are of the scored programs of an iteration."""

    rule: PairRule = Field(
        default="paper",
        description="Who is set against whom: paper, same-prompt-halves (EvoTune) or score-weighted."
        " PAPER.md: pair rule, best against worst (B2).",
    )
    top: float = Field(
        default=0.03,
        gt=0,
        le=0.5,
        description="Share chosen, best first (rule paper only). PAPER.md: preference pairs, 3 % (B2).",
    )
    bottom: float = Field(
        default=0.10,
        gt=0,
        le=0.5,
        description="Share rejected, worst first (rule paper only). PAPER.md: preference pairs, 10 % (B2).",
    )
    min_each: int = Field(
        default=8,
        ge=1,
        description="At least so many chosen and so many rejected (rule paper); at least so many of the"
        " earlier iterations' best set the bar of task.first_block (every rule). Ours.",
    )
    carry_over: int = Field(
        default=3,
        ge=0,
        description="Best of each earlier iteration that join the chosen. PAPER.md: carry-over, 3 (B2).",
    )
    max_pairs: int = Field(
        default=512, ge=1, description="Most pairs of one training, drawn at random. PAPER.md: not known."
    )
    failures_as_rejected: bool = Field(
        default=False,
        description="Programs that failed may be rejected examples too (same-prompt-halves always has them)."
        " The paper filters them out (B2).",
    )
    floor: float = Field(
        default=0.7,
        ge=0,
        lt=1,
        description="Share of the iteration's scored programs that a chosen one must at least equal"
        " (same-prompt-halves only). EvoTune: 0.7.",
    )
    sharpness: float = Field(
        default=1.0,
        gt=0,
        description="A pair's weight in the draw is its difference in accuracy to this power (score-weighted"
        " only). Ours.",
    )


class Dpo(Section):
    """The training of the factory, by Direct Preference Optimisation unless `objective` says otherwise."""

    objective: Objective = Field(
        default="dpo",
        description="What training minimises (factory/objectives.py): dpo, rpo, ipo, f-dpo, kto, sft or grpo."
        " PAPER.md: DPO objective, Direct Preference Optimization (A).",
    )
    divergence: Literal["forward_kl", "js_divergence"] = Field(
        default="forward_kl",
        description="Divergence from the reference (f-dpo only). EvoTune: forward KL, for diversity.",
    )
    method: Literal["lora", "full"] = Field(
        default="lora", description="Low-rank adapters or all weights. PAPER.md: DPO, LoRA (B1)."
    )
    lora_rank: int = Field(
        default=256, ge=1, description="Rank of the adapters (lora only). PAPER.md: DPO, 256 (B1)."
    )
    lora_alpha: float = Field(
        default=256.0,
        gt=0,
        description="Scale of the adapters is alpha / rank (lora only). PAPER.md: not known.",
    )
    learning_rate: float = Field(
        default=1e-6, gt=0, description="Peak learning rate. PAPER.md: DPO, 1e-6 (B1)."
    )
    beta: float = Field(
        default=0.01,
        gt=0,
        description="Strength of the tie to the reference; ipo's tau, grpo's weight of the KL, not used by"
        " sft. PAPER.md: DPO, 0.01 (B1).",
    )
    epochs: int = Field(default=1, ge=1, description="Passes over the pairs. PAPER.md: not known.")
    batch: int = Field(
        default=8,
        ge=1,
        description="Pairs per optimiser step (sft and grpo: programs). PAPER.md: not known.",
    )
    micro_batch: int | None = Field(
        default=None,
        ge=1,
        description="Pairs a process works on at once, `batch` being reached in several goes; changes memory"
        " and speed, and with full batches the result by rounding alone; by default all of its share. Ours.",
    )
    accelerate: str | None = Field(
        default=None,
        min_length=1,
        description="A config file of accelerate whose processes train together, on several GPUs (see"
        " configs/accelerate/ and docs/cluster.md); by default one process. Ours.",
    )
    sft_weight: float = Field(
        default=0.0,
        ge=0,
        description="Weight of the chosen programs' likelihood in the loss: above 0 it makes dpo rpo, and"
        " joins ipo and f-dpo; kto, sft and grpo have no such term. The paper's DPO has none, 0.0.",
    )
    restart: Literal["seed", "previous"] = Field(
        default="previous",
        description="Weights and reference that DPO starts from: seed or last factory. PAPER.md: not known.",
    )
    average: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Share of the trained weights in the next factory, the rest is those DPO started from"
        " (WiSE-FT, Wortsman et al. 2022). The paper mentions none, 1.0.",
    )
    held_out: float = Field(
        default=0.0,
        ge=0,
        le=0.5,
        description="Share of the iteration's paired programs that training never sees; pairs among them"
        " measure the trained factory, pairs of one of each are left out. The paper mentions none, 0.0.",
    )
    kl_programs: int = Field(
        default=64,
        ge=0,
        description="Programs each trained factory writes for the estimate of its divergence from the first"
        " one; they are not tried, and 0 measures none. Ours.",
    )
    threads: int = Field(
        default=1, ge=1, description="CPU threads of the training, during which the workers rest. Ours."
    )

    @model_validator(mode="after")
    def _keys_fit_the_objective(self) -> Dpo:
        if self.objective == "rpo" and self.sft_weight == 0:
            raise ValueError(
                "objective is rpo and sft_weight is 0, which leaves dpo; give sft_weight, for example 1"
            )
        if self.objective == "grpo" and self.restart == "seed":
            raise ValueError(
                "objective is grpo and restart is seed, but grpo learns from what the trained factory wrote"
                " itself; set restart to previous"
            )
        if self.objective in ("grpo", "kto") and (self.micro_batch or self.accelerate):
            key = "micro_batch" if self.micro_batch else "accelerate"
            raise ValueError(
                f"objective is {self.objective}, which compares the programs of a whole batch in one process,"
                f" and {key} is given; remove it"
            )
        if self.micro_batch and self.batch % self.micro_batch:
            raise ValueError(
                f"batch is {self.batch} and micro_batch {self.micro_batch}; make batch a multiple of it"
            )
        if self.objective == "grpo" and self.batch < 2:
            raise ValueError(f"batch is {self.batch} and grpo needs at least 2 programs a step; raise it")
        return self
