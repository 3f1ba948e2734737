"""DARE: drop task vector values at random, rescale the rest, add them up (Yu et al., 2023, arXiv 2311.03099).

WEIGHT, DENSITY (chance that a value is kept): one number or one per expert. LAMBDA: scale of the sum.
RESCALE: divide kept values by DENSITY. NORMALIZE: divide the sum by the sum of weights.
"""

import torch

WEIGHT = 0.3
DENSITY = 0.5
LAMBDA = 1.0
RESCALE = True
NORMALIZE = False


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
    merged = {}
    for name in seed:
        base = seed[name].to(device).float()
        total = 0.0
        for expert, weight, density in zip(experts, weights, densities, strict=True):
            vector = expert[name].to(device).float() - base
            if density < 1:
                vector = vector * torch.bernoulli(torch.full_like(vector, density))
                if RESCALE and density > 0:
                    vector = vector / density
            total = total + weight * vector
        merged[name] = base + scale * total
    return merged
