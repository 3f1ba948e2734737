"""DARE with TIES: drop task vector values at random and rescale (Yu et al., 2023, arXiv 2311.03099),
then elect signs and merge what agrees (Yadav et al., 2023, arXiv 2306.01708).

WEIGHT, DENSITY (chance that a value is kept): one number or one per expert. LAMBDA: scale of the merged task
vector. RESCALE: True divides kept values by DENSITY, as in the paper; "norm" keeps the sum of magnitudes of
the task vector, as mergekit 0.1.5 does. NORMALIZE: divide by the weights of the experts that agreed.
Grid: WEIGHT 0.2, 0.5, 1.0; DENSITY 0.3, 0.7.
"""

import torch

WEIGHT = 1.0
DENSITY = 0.5
LAMBDA = 1.0
RESCALE = True
NORMALIZE = False


def draw(count, generator):
    """Random numbers of 16 bits, four from each of 64 bits."""
    numbers = torch.empty(-(-count // 4), dtype=torch.int64, device=generator.device)
    return numbers.random_(-(2**63), None, generator=generator).view(torch.int16)[:count]


def kept(seed, expert, density, generator):
    """A random number for each value of a task vector, the bound below which it is kept (a chance of
    `density`, to 1/65536), and the factor that makes up for values that are not."""
    if density >= 1:
        return torch.zeros(expert.numel(), dtype=torch.int16, device=generator.device), 1, 1.0
    numbers, bound = draw(expert.numel(), generator), min(round(density * 2**16), 2**16 - 1) - 2**15
    if str(RESCALE) == "norm":
        sizes = (expert.to(numbers.device).float() - seed.to(numbers.device).float()).abs()
        return numbers, bound, sizes.sum() / (sizes * (numbers < bound)).sum().clamp(min=1e-12)
    return numbers, bound, 1 / density if RESCALE and density > 0 else 1.0


def merge_models(models, device):
    seed = models["seed"]
    experts = [models[n] for n in models if n != "seed"]
    weights = WEIGHT if isinstance(WEIGHT, (list, tuple)) else [WEIGHT] * len(experts)
    densities = DENSITY if isinstance(DENSITY, (list, tuple)) else [DENSITY] * len(experts)
    if len(weights) != len(experts) or len(densities) != len(experts):
        raise ValueError(f"WEIGHT and DENSITY need one number or {len(experts)}, one per expert")
    chunk = 2**18 if device.type == "cpu" else 2**40  # values at a time, so that they stay in the cache
    start = torch.initial_seed()  # each tensor has numbers of its own, whatever comes before it
    generator = torch.Generator(device)
    merged = {}
    for name, first in seed.items():
        generator.manual_seed(start ^ int.from_bytes(name.encode(), "big") % 2**62)
        flat = [model[name].flatten() for model in (seed, *experts)]
        drawn = [kept(flat[0], e, d, generator) for e, d in zip(flat[1:], densities, strict=True)]
        merged[name] = torch.empty(first.shape, dtype=first.dtype, device=device)
        parts = zip(*(v.split(chunk) for v in (*flat, *(numbers for numbers, _, _ in drawn))), strict=True)
        for target, (base, *rest) in zip(merged[name].view(-1).split(chunk), parts, strict=True):
            base = base.to(device).float()
            part = torch.empty_like(base)  # masks as numbers: choices by truth values are slow
            vectors = []
            for other, numbers, weight, (_, bound, factor) in zip(
                rest, rest[len(experts) :], weights, drawn, strict=False
            ):
                vector = other.to(device).float() - base
                vectors.append(vector.mul_(torch.lt(numbers, bound, out=part)).mul_(weight * factor))
            elected = torch.copysign(torch.ones_like(base), sum(vectors))
            total, share = torch.zeros_like(base), torch.zeros_like(base)
            for weight, vector in zip(weights, vectors, strict=True):
                total.add_(vector.mul_(elected).relu_())
                if NORMALIZE:
                    share.add_(torch.sign(vector, out=part), alpha=weight)
            total.mul_(elected)
            if NORMALIZE:
                total.div_(share.add_(torch.eq(share, 0, out=part)))
            target.copy_(total.mul_(LAMBDA).add_(base))
    return merged
