"""TIES: trim task vectors, elect signs, merge what agrees (Yadav et al., 2023, arXiv 2306.01708).

WEIGHT, DENSITY (share of largest values kept): one number or one per expert; WEIGHT also per expert a row of
numbers for groups of LAYERS_EACH layers, the last for all that are left. LAMBDA: scale of the merged task
vector. NORMALIZE: divide each value by the weights of the experts that agreed on it.
Grid: LAMBDA 0.5, 1.0, 1.5; DENSITY 0.2, 0.5, 0.8.
"""

import re

import torch

WEIGHT = 1.0
LAYERS_EACH = 1
DENSITY = 0.2
LAMBDA = 1.0
NORMALIZE = True


def weights_at(name, weights):
    layer = re.search(r"\.(\d+)\.", name)
    group = int(layer[1]) // LAYERS_EACH if layer else 0
    return [w[min(group, len(w) - 1)] if isinstance(w, (list, tuple)) else w for w in weights]


def merge_models(models, device):
    seed = models["seed"]
    experts = [models[n] for n in models if n != "seed"]
    weights = WEIGHT if isinstance(WEIGHT, (list, tuple)) else [WEIGHT] * len(experts)
    densities = DENSITY if isinstance(DENSITY, (list, tuple)) else [DENSITY] * len(experts)
    if len(weights) != len(experts) or len(densities) != len(experts):
        raise ValueError(f"WEIGHT and DENSITY need one number or {len(experts)}, one per expert")
    merged = {}
    for name in seed:
        base = seed[name].to(device).float()
        here = weights_at(name, weights)
        vectors = []
        for expert, weight, density in zip(experts, here, densities, strict=True):
            vector = (expert[name].to(device).float() - base).flatten()
            if density < 1:
                kept = max(1, int(density * vector.numel())) if density > 0 else 0
                largest = vector.abs().topk(kept, sorted=False).indices
                vector = torch.zeros_like(vector).index_copy(0, largest, vector[largest])
            vectors.append(weight * vector)
        stacked = torch.stack(vectors)
        elected = torch.where(stacked.sum(0) >= 0, 1.0, -1.0)
        agrees = stacked.sign() == elected
        total = (stacked * agrees).sum(0)
        if NORMALIZE:
            share = (torch.tensor(here, device=device).unsqueeze(1) * agrees).sum(0)
            total = total / torch.where(share == 0, 1.0, share)
        merged[name] = base + LAMBDA * total.view_as(base)
    return merged
