"""Linear average of weights, "model soup" (Wortsman et al., 2022, arXiv 2203.05482).

WEIGHT: one number for all models, or one per model, the seed's first. NORMALIZE: divide by their sum.
Grid: nothing to tune with equal weights.
"""

import torch

WEIGHT = 1.0
NORMALIZE = True


def merge_models(models, device):
    weights = WEIGHT if isinstance(WEIGHT, (list, tuple)) else [WEIGHT] * len(models)
    if len(weights) != len(models):
        raise ValueError(f"WEIGHT needs one number or {len(models)}, the seed's first")
    scale = 1.0 / sum(weights) if NORMALIZE else 1.0
    chunk = 2**18 if device.type == "cpu" else 2**40  # values at a time, so that they stay in the cache
    merged = {}
    for name, first in models["seed"].items():
        merged[name] = torch.empty(first.shape, dtype=first.dtype, device=device)
        parts = zip(*(model[name].flatten().split(chunk) for model in models.values()), strict=True)
        for target, values in zip(merged[name].view(-1).split(chunk), parts, strict=True):
            total = torch.zeros(target.shape, device=device)
            for value, weight in zip(values, weights, strict=True):
                total.add_(value.to(device).float(), alpha=weight)
            target.copy_(total.mul_(scale))
    return merged
