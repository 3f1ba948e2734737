"""Random merge programs built from simple, known blocks: what the seed is taught to write.

Every constant is drawn from a wide range that knows nothing of the lab's models or questions.
"""

from __future__ import annotations

import random

HEAD = """def merge_models(models, device):
    seed = models["seed"]
    experts = [models[n] for n in models if n != "seed"]
"""


def _number(rng: random.Random, low: float, high: float) -> str:
    return f"{rng.uniform(low, high):.{rng.choice((1, 1, 2))}f}"


def _numbers(rng: random.Random, n: int, low: float, high: float) -> str:
    return "[" + ", ".join(_number(rng, low, high) for _ in range(n)) + "]"


def _prepare(rng: random.Random) -> list[str]:
    """Lines that change the task vectors of one parameter before they are combined."""
    blocks = [
        [],
        [],
        [
            f"k = max(1, int({_number(rng, 0.1, 0.9)} * base.numel()))",
            "cuts = [d.abs().flatten().kthvalue(base.numel() - k + 1)[0] for d in deltas]",
            "deltas = [d * (d.abs() >= c) for d, c in zip(deltas, cuts)]",
        ],
        [
            "norms = [d.norm() + 1e-8 for d in deltas]",
            "size = sum(norms) / len(norms)",
            "deltas = [d * size / n for d, n in zip(deltas, norms)]",
        ],
        [f"limit = {_number(rng, 0.5, 3)} * base.std()", "deltas = [d.clamp(-limit, limit) for d in deltas]"],
        [
            f"keep = {_number(rng, 0.3, 0.9)}",
            "deltas = [d * (torch.rand_like(d) < keep) / keep for d in deltas]",
        ],
        [
            "sign = torch.sign(sum(deltas))",
            "deltas = [d * (torch.sign(d) == sign) for d in deltas]",
        ],
        [f"deltas = [d - {_number(rng, 0.1, 1)} * d.mean(dim=0, keepdim=True) for d in deltas]"],
        ["deltas = [d / (1 + d.abs() / (base.abs() + 1e-4)) for d in deltas]"],
    ]
    return rng.choice(blocks)


def _combine(rng: random.Random, experts: int) -> list[str]:
    """Lines that make one `delta` of the list `deltas`."""
    listed = [
        f"weights = {_numbers(rng, experts, 0, 1)}",
        "delta = sum(w * d for w, d in zip(weights, deltas))",
    ]
    blocks = [
        listed,
        listed,
        listed,
        listed,
        ["delta = sum(deltas)"],
        ["delta = sum(deltas) / len(deltas)"],
        ["delta = torch.stack(deltas).median(dim=0)[0]"],
        [
            "mean = sum(deltas) / len(deltas)",
            "near = [torch.cosine_similarity(d.flatten(), mean.flatten(), dim=0) for d in deltas]",
            "delta = sum(c * d for c, d in zip(near, deltas))",
        ],
        [
            "stacked = torch.stack(deltas)",
            "best = stacked.abs().argmax(dim=0, keepdim=True)",
            "delta = stacked.gather(0, best)[0]",
        ],
        [
            "sizes = torch.stack([d.norm() for d in deltas])",
            f"shares = torch.softmax({_number(rng, -2, 2)} * sizes / sizes.mean(), dim=0)",
            "delta = sum(s * d for s, d in zip(shares, deltas))",
        ],
        [
            "delta = deltas[0]",
            "for d in deltas[1:]:",
            f"    delta = {_number(rng, 0.3, 1)} * delta + {_number(rng, 0.1, 1)} * d",
        ],
    ]
    return rng.choice(blocks)


def _scale(rng: random.Random) -> list[str]:
    """Lines that set the factor of the combined task vector."""
    low, high = 0.1, 1.5
    kind, value, other = rng.choice(("up", "down", "gate")), _number(rng, low, high), _number(rng, low, high)
    blocks = [
        [f"scale = {value}"],
        [f"scale = {value}"],
        [f'scale = {value} if "{kind}_proj" in name else {other}'],
        ['depth = int(name.split(".")[2])', f"scale = {value} if depth < {rng.randint(1, 3)} else {other}"],
        ['depth = int(name.split(".")[2])', f"scale = {value} + {_number(rng, -0.3, 0.3)} * depth"],
        ['depth = int(name.split(".")[2])', f"scale = {_numbers(rng, 4, low, high)}[depth % 4]"],
        [f"scale = {value} * base.norm() / (delta.norm() + base.norm())"],
        [f"scale = {value} * deltas[0].norm() / (delta.norm() + 1e-8)"],
    ]
    return rng.choice(blocks)


def make_program(rng: random.Random, experts: int = 6) -> str:
    """One random program in the contract, for models with about `experts` experts."""
    body = [
        "base = seed[name]",
        "deltas = [e[name] - base for e in experts]",
        *_prepare(rng),
        *_combine(rng, experts),
        *_scale(rng),
        "merged[name] = base + scale * delta",
    ]
    lines = [
        "    merged = {}",
        "    for name in seed:",
        *(f"        {line}" for line in body),
        "    return merged",
    ]
    return HEAD + "\n".join(lines) + "\n"
