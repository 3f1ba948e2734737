"""Task arithmetic: seed plus weighted task vectors (Ilharco et al., 2022, arXiv 2212.04089).

WEIGHT: one number or one per expert, or per expert a row of numbers for groups of LAYERS_EACH layers, the
last for all that are left. LAMBDA: scale of the sum. NORMALIZE: divide it by the sum of weights.
Grid: WEIGHT 0.2, 0.4, 0.6, also in every order over the experts, as in arXiv 2410.15639.
"""

import re

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
    merged = {}
    for name in seed:
        base = seed[name].to(device).float()
        here = weights_at(name, weights)
        scale = LAMBDA
        if NORMALIZE and abs(sum(here)) >= 1e-8:
            scale = LAMBDA / sum(here)
        total = 0.0
        for expert, weight in zip(experts, here, strict=True):
            total = total + weight * (expert[name].to(device).float() - base)
        merged[name] = base + scale * total
    return merged
