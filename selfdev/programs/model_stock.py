"""Model Stock: towards the experts' average, as far as their task vectors agree (Jang et al., 2024,
arXiv 2403.19522).

Per tensor, with cos the mean cosine between two experts' task vectors and k experts, the result lies at
t = k cos / (1 + (k - 1) cos) between seed and average. FILTER_WISE: one t per row instead of per tensor.
Grid: nothing to tune.
"""

import torch

FILTER_WISE = False


def task_vectors(base, experts, device):
    """Part of the task vectors [experts, rows, columns]; `base` is the seed's part [rows, columns]."""
    vectors = torch.empty(len(experts), *base.shape, device=device)
    for vector, expert in zip(vectors, experts, strict=True):
        vector.copy_(expert).sub_(base)
    return vectors


def average(base, experts, device):
    """The mean of the task vectors, without making them."""
    total = torch.zeros_like(base)
    for expert in experts:
        total.add_(expert.to(device))
    return total.div_(len(experts)).sub_(base)


def dots(vectors):
    """Products of each two task vectors, by row: [rows, experts, experts]."""
    by_row = vectors.transpose(0, 1)
    return by_row @ by_row.transpose(1, 2)


def step(products):
    """How far to go from seed to average, by row: [rows, 1]."""
    count = products.shape[1]
    lengths = products.diagonal(dim1=1, dim2=2).sqrt()
    cosines = products / (lengths.unsqueeze(2) * lengths.unsqueeze(1)).clamp(min=1e-6)
    first, second = torch.triu_indices(count, count, 1)
    cosine = cosines.clamp(-1, 1)[:, first, second].mean(dim=1, keepdim=True)
    below = 1 + (count - 1) * cosine
    # Task vectors that cancel out leave no direction to move in: stay at the seed.
    return torch.where(below.abs() < 1e-6, 0.0, count * cosine / below)


def merge_models(models, device):
    seed = models["seed"]
    experts = [models[n] for n in models if n != "seed"]
    count = len(experts)
    if count < 2:
        raise ValueError("Model Stock compares experts; it needs at least two")
    chunk = 2**18 if device.type == "cpu" else 2**40  # values at a time, so that they stay in the cache
    merged = {}
    for name, first in seed.items():
        wise = FILTER_WISE and first.dim() > 1
        merged[name] = torch.empty(first.shape, dtype=first.dtype, device=device)
        values = [merged[name], *(model[name] for model in (seed, *experts))]
        rows = [v.reshape(len(v) if wise else 1, -1) for v in values]
        if wise:
            split = [v.split(max(1, chunk // v.shape[1])) for v in rows]
        else:
            split = [v.split(chunk, dim=1) for v in rows]
        parts = list(zip(*split, strict=True))
        lengths = [len(part[0]) for part in parts]
        products = torch.zeros(len(rows[0]), count, count, device=device)
        totals = products.split(lengths) if wise else [products] * len(parts)
        for total, (_, base, *others) in zip(totals, parts, strict=True):
            total += dots(task_vectors(base.to(device).float(), others, device))
        steps = step(products).split(lengths) if wise else [step(products)] * len(parts)
        for (target, base, *others), t in zip(parts, steps, strict=True):
            base = base.to(device).float()
            target.copy_(average(base, others, device).mul_(t).add_(base))
    return merged
