"""TIES: trim task vectors, elect signs, merge what agrees (Yadav et al., 2023, arXiv 2306.01708).

WEIGHT, DENSITY (share of largest values kept): one number or one per expert; WEIGHT also per expert a row of
numbers for groups of LAYERS_EACH layers, the last for all that are left. Values as large as the smallest one
that is kept are all kept, as in the authors' code. LAMBDA: scale of the merged task vector. NORMALIZE: divide
each value by the weights of the experts that agreed on it.
Grid: LAMBDA 0.5, 1.0, 1.5; DENSITY 0.2, 0.5, 0.8.
"""

import re

import torch
from torch.nn.functional import hardshrink

WEIGHT = 1.0
LAYERS_EACH = 1
DENSITY = 0.2
LAMBDA = 1.0
NORMALIZE = True


def weights_at(name, weights):
    layer = re.search(r"\.(\d+)\.", name)
    group = int(layer[1]) // LAYERS_EACH if layer else 0
    return [w[min(group, len(w) - 1)] if isinstance(w, (list, tuple)) else w for w in weights]


def dropped(seed, expert, density, chunk, device):
    """A magnitude just below the smallest one of a task vector that is kept."""
    if density >= 1:
        return 0.0
    if density <= 0 or expert.numel() == 0:
        return float("inf")
    sizes = torch.empty(expert.numel(), device=device)
    for target, a, b in zip(sizes.split(chunk), expert.split(chunk), seed.split(chunk), strict=True):
        torch.sub(a.to(device).float(), b.to(device).float(), out=target).abs_()
    kept = max(1, int(density * len(sizes)))
    if device.type == "cpu":
        sizes.numpy().partition(len(sizes) - kept)  # a tenth of the time of topk
        least = sizes[len(sizes) - kept]
    else:
        least = sizes.topk(kept).values[-1]
    return float(torch.nextafter(least, torch.zeros_like(least)))


def merge_models(models, device):
    seed = models["seed"]
    experts = [models[n] for n in models if n != "seed"]
    weights = WEIGHT if isinstance(WEIGHT, (list, tuple)) else [WEIGHT] * len(experts)
    densities = DENSITY if isinstance(DENSITY, (list, tuple)) else [DENSITY] * len(experts)
    if len(weights) != len(experts) or len(densities) != len(experts):
        raise ValueError(f"WEIGHT and DENSITY need one number or {len(experts)}, one per expert")
    chunk = 2**18 if device.type == "cpu" else 2**40  # values at a time, so that they stay in the cache
    merged = {}
    for name, first in seed.items():
        here = weights_at(name, weights)
        flat = [model[name].flatten() for model in (seed, *experts)]
        limits = [dropped(flat[0], e, d, chunk, device) for e, d in zip(flat[1:], densities, strict=True)]
        merged[name] = torch.empty(first.shape, dtype=first.dtype, device=device)
        parts = zip(*(values.split(chunk) for values in flat), strict=True)
        for target, (base, *others) in zip(merged[name].view(-1).split(chunk), parts, strict=True):
            base = base.to(device).float()
            vectors = []
            for other, weight, limit in zip(others, here, limits, strict=True):
                vectors.append(hardshrink(other.to(device).float() - base, limit).mul_(weight))
            elected = torch.copysign(torch.ones_like(base), sum(vectors))
            total, share, part = torch.zeros_like(base), torch.zeros_like(base), torch.empty_like(base)
            for weight, vector in zip(here, vectors, strict=True):
                total.add_(vector.mul_(elected).relu_())
                if NORMALIZE:
                    share.add_(torch.sign(vector, out=part), alpha=weight)
            total.mul_(elected)
            if NORMALIZE:  # masks as numbers: choices by truth values are slow
                total.div_(share.add_(torch.eq(share, 0, out=part)))
            target.copy_(total.mul_(LAMBDA).add_(base))
    return merged
