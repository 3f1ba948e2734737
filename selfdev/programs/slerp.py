"""SLERP: spherical interpolation between the seed and one expert (Shoemake, 1985, doi 10.1145/325165.325242).

T: 0 is the seed, 1 the expert. EXPERT: which expert, counted from 0. Nearly parallel tensors are
interpolated linearly.
Grid: EXPERT each; T 0.3, 0.6.
"""

import torch

T = 0.5
EXPERT = 0


def merge_models(models, device):
    seed = models["seed"]
    experts = [models[n] for n in models if n != "seed"]
    if not 0 <= EXPERT < len(experts):
        raise ValueError(f"EXPERT is {EXPERT}; it must be between 0 and {len(experts) - 1}")
    chunk = 2**18 if device.type == "cpu" else 2**40  # values at a time, so that they stay in the cache
    expert = experts[EXPERT]
    merged = {}
    for name, first in seed.items():
        parts = list(zip(*(m[name].flatten().split(chunk) for m in (seed, expert)), strict=True))
        squares = torch.zeros(3, dtype=torch.float64, device=device)  # of seed, of expert, and their product
        for a, b in parts:
            a, b = a.to(device).float(), b.to(device).float()
            squares += torch.stack([a.dot(a), b.dot(b), a.dot(b)])
        cosine = (squares[2] / (squares[0] * squares[1]).sqrt().clamp(min=1e-16)).clamp(-1, 1)
        angle = torch.acos(cosine)
        parallel = cosine.abs() > 0.9995
        from_seed = torch.where(parallel, 1 - T, torch.sin((1 - T) * angle) / torch.sin(angle)).item()
        from_expert = torch.where(parallel, T, torch.sin(T * angle) / torch.sin(angle)).item()
        merged[name] = torch.empty(first.shape, dtype=first.dtype, device=device)
        for target, (a, b) in zip(merged[name].view(-1).split(chunk), parts, strict=True):
            target.copy_(from_seed * a.to(device).float() + from_expert * b.to(device).float())
    return merged
