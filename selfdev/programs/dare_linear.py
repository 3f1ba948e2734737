"""DARE: drop task vector values at random, rescale the rest, add them up (Yu et al., 2023, arXiv 2311.03099).

WEIGHT, DENSITY (chance that a value is kept): one number or one per expert. LAMBDA: scale of the sum.
RESCALE: True divides kept values by DENSITY, as in the paper; "norm" keeps the sum of magnitudes of the task
vector, as mergekit 0.1.5 does. NORMALIZE: divide the sum by the sum of weights.
Grid: WEIGHT 0.3, 0.6, 1.0; DENSITY 0.3, 0.7.
"""

import torch

WEIGHT = 0.3
DENSITY = 0.5
LAMBDA = 1.0
RESCALE = True
NORMALIZE = False


def draw(count, density, generator):
    """True with a chance of `density`, to 1/65536: four values from each random number of 64 bits."""
    numbers = torch.empty(-(-count // 4), dtype=torch.int64, device=generator.device)
    numbers.random_(-(2**63), None, generator=generator)
    return numbers.view(torch.int16)[:count] < min(round(density * 2**16), 2**16 - 1) - 2**15


def kept(seed, expert, density, generator):
    """Which values of a task vector are kept, and the factor that makes up for those that are not."""
    if density >= 1:
        return torch.ones(expert.numel(), dtype=torch.bool, device=generator.device), 1.0
    mask = draw(expert.numel(), density, generator)
    if str(RESCALE) == "norm":
        sizes = (expert.to(mask.device).float() - seed.to(mask.device).float()).abs()
        return mask, sizes.sum() / (sizes * mask).sum().clamp(min=1e-12)
    return mask, 1 / density if RESCALE and density > 0 else 1.0


def merge_models(models, device):
    seed = models["seed"]
    experts = [models[n] for n in models if n != "seed"]
    weights = WEIGHT if isinstance(WEIGHT, (list, tuple)) else [WEIGHT] * len(experts)
    densities = DENSITY if isinstance(DENSITY, (list, tuple)) else [DENSITY] * len(experts)
    if len(weights) != len(experts) or len(densities) != len(experts):
        raise ValueError(f"WEIGHT and DENSITY need one number or {len(experts)}, one per expert")
    scale = LAMBDA
    if NORMALIZE and abs(sum(weights)) >= 1e-8:
        scale = LAMBDA / sum(weights)
    chunk = 2**18 if device.type == "cpu" else 2**40  # values at a time, so that they stay in the cache
    start = torch.initial_seed()  # each tensor has numbers of its own, whatever comes before it
    generator = torch.Generator(device)
    merged = {}
    for name, first in seed.items():
        generator.manual_seed(start ^ int.from_bytes(name.encode(), "big") % 2**62)
        flat = [model[name].flatten() for model in (seed, *experts)]
        drawn = [kept(flat[0], e, d, generator) for e, d in zip(flat[1:], densities, strict=True)]
        merged[name] = torch.empty(first.shape, dtype=first.dtype, device=device)
        parts = zip(*(v.split(chunk) for v in (*flat, *(mask for mask, _ in drawn))), strict=True)
        for target, (base, *rest) in zip(merged[name].view(-1).split(chunk), parts, strict=True):
            base = base.to(device).float()
            others, masks = rest[: len(experts)], rest[len(experts) :]
            total = 0.0
            for other, mask, weight, (_, factor) in zip(others, masks, weights, drawn, strict=True):
                total = total + (other.to(device).float() - base) * mask * (weight * factor)
            target.copy_(base + scale * total)
    return merged
