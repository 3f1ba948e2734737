"""Task arithmetic: seed plus weighted task vectors (Ilharco et al., 2022, arXiv 2212.04089).

WEIGHT: one number or one per expert, or per expert a row of numbers for groups of LAYERS_EACH layers, the
last for all that are left. LAMBDA: scale of the sum. NORMALIZE: divide it by the sum of weights.
Grid: WEIGHT 0.2, 0.4, 0.6, also in every order over the experts, as in arXiv 2410.15639.
"""

import re

import torch

WEIGHT = 0.3
LAYERS_EACH = 1
LAMBDA = 1.0
NORMALIZE = False


def weights_at(name, weights):
    layer = re.search(r"\.(\d+)\.", name)
    group = int(layer[1]) // LAYERS_EACH if layer else 0
    return [w[min(group, len(w) - 1)] if isinstance(w, (list, tuple)) else w for w in weights]


def merge_models(models, device):
    seed = models["seed"]
    experts = [models[n] for n in models if n != "seed"]
    weights = WEIGHT if isinstance(WEIGHT, (list, tuple)) else [WEIGHT] * len(experts)
    if len(weights) != len(experts):
        raise ValueError(f"WEIGHT needs one number or {len(experts)}, one per expert")
    chunk = 2**18 if device.type == "cpu" else 2**40  # values at a time, so that they stay in the cache
    merged = {}
    for name, first in seed.items():
        here = weights_at(name, weights)
        scale = LAMBDA
        if NORMALIZE and abs(sum(here)) >= 1e-8:
            scale = LAMBDA / sum(here)
        merged[name] = torch.empty(first.shape, dtype=first.dtype, device=device)
        parts = zip(*(model[name].flatten().split(chunk) for model in (seed, *experts)), strict=True)
        for target, (base, *others) in zip(merged[name].view(-1).split(chunk), parts, strict=True):
            base = base.to(device).float()
            total = torch.zeros_like(base)
            for other, weight in zip(others, here, strict=True):
                total.add_(other.to(device).float() - base, alpha=weight)
            target.copy_(total.mul_(scale).add_(base))
    return merged
