"""The server's side of the inputs: models mapped read-only, every library used once before the first fork."""

from __future__ import annotations

import contextlib
import copy
import importlib
import mmap
import os
import sys
import types
import warnings
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from selfdev.sandbox import layout

View = dict[str, Any]  # name, dtype, slots: [[name, dtype, shape, file, offset, nbytes], ...]


def map_models(views: list[View]) -> dict[str, dict[str, torch.Tensor]]:
    """Each view as name -> tensor on read-only pages, as stored or as float32."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that the memory is not writable: that is the point
        files: dict[str, mmap.mmap] = {}
        return {view["name"]: _map_view(view, files) for view in views}


def _map_view(view: View, files: dict[str, mmap.mmap]) -> dict[str, torch.Tensor]:
    stored = {slot[0]: _map_slot(slot, files) for slot in view["slots"]}
    wanted = view["dtype"]
    converted = {n: t for n, t in stored.items() if wanted and t.dtype != layout.torch_dtype(wanted)}
    return {**stored, **_convert(converted, wanted)} if converted else stored


def _map_slot(slot: list[Any], files: dict[str, mmap.mmap]) -> torch.Tensor:
    _, dtype, shape, file, offset, _ = slot
    if file not in files:
        handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        # Private: even a program that changes the protection of these pages changes its own copy only.
        files[file] = mmap.mmap(handle, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
        os.close(handle)
    return layout.tensor(files[file], dtype, shape, offset)


def _convert(tensors: dict[str, torch.Tensor], dtype: str) -> dict[str, torch.Tensor]:
    """Converted once into memory of their own, which is then mapped again read-only."""
    wanted = layout.torch_dtype(dtype)
    sizes = {name: t.numel() * wanted.itemsize for name, t in tensors.items()}
    places = layout.arrange((n, dtype, tuple(t.shape), sizes[n]) for n, t in tensors.items())
    handle = layout.shared_memory(layout.size(places))
    writable = mmap.mmap(handle, layout.size(places))
    for place in places:
        layout.tensor(writable, place.dtype, place.shape, place.offset).copy_(tensors[place.name])
    writable.close()
    area = mmap.mmap(handle, layout.size(places), flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
    os.close(handle)
    return {place.name: layout.tensor(area, place.dtype, place.shape, place.offset) for place in places}


def knows_gpus() -> bool:
    """Whether this torch looks for a GPU when a gradient is first computed, also where none is to be seen.

    The driver then starts a thread of its own, and a process of several threads cannot be forked.
    """
    return bool(torch.backends.cuda.is_built())  # type: ignore[no-untyped-call]


def leave_out_gpus() -> None:
    """Let torch find no GPU without asking the driver."""
    if knows_gpus():
        vars(torch._C)["_cuda_getDeviceCount"] = lambda: 0


def exercise(autograd: bool = True) -> None:
    """Touch what initialises itself on first use: afterwards it could not open the files it needs.

    Without `autograd` no gradient is computed: where torch sees a GPU that starts threads and the driver.
    """
    torch.set_num_threads(1)
    np.random.default_rng(0).normal(size=3)
    generator = torch.Generator().manual_seed(0)
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        square = torch.randn(8, 8, generator=generator).to(dtype)
        torch.einsum("ij,jk->ik", square @ square, square)
        F.cosine_similarity(square, square)
        F.softmax(square, dim=-1).topk(2)
        square.flatten().kthvalue(3)
        torch.where(square > 0, square, -square).sort()
    matrix = torch.randn(8, 8, generator=generator)
    torch.linalg.svd(matrix)
    torch.linalg.qr(matrix)
    torch.linalg.eigh(matrix @ matrix.T)
    torch.linalg.solve(matrix, matrix)
    torch.fft.rfft(matrix)
    torch.quantile(matrix, 0.5)
    torch.median(torch.stack([matrix, matrix]), dim=0)
    torch.bernoulli(torch.full((4,), 0.5), generator=generator)
    torch.svd_lowrank(matrix)
    torch.distributions.Normal(0.0, 1.0)
    torch.func.vmap(torch.square)(matrix)
    np.linalg.svd(matrix.numpy())
    _exercise_python(matrix, autograd)


def _exercise_python(matrix: torch.Tensor, autograd: bool) -> None:
    """The lazy imports of printing, copying and optimising."""
    _leave_out_the_compiler()
    repr(matrix)
    copy.deepcopy(matrix)
    weight = torch.nn.Parameter(torch.zeros(3))
    optimizers = torch.optim.SGD([weight], lr=0.1), torch.optim.Adam([weight])
    for optimizer in optimizers:
        optimizer.zero_grad()
        weight.grad = torch.ones(3)
        if autograd:
            ((weight - 1) ** 2).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    if autograd:
        torch.func.grad(lambda x: (x * x).sum())(matrix)
    for name in (
        "numpy.ma",
        "numpy.polynomial",
        "numpy.fft",
        "numpy.lib.stride_tricks",
        "statistics",
        "heapq",
        "bisect",
        "cmath",
        "numbers",
        "typing_extensions",
    ):
        importlib.import_module(name)


def _leave_out_the_compiler() -> None:
    """Optimizers import torch._dynamo only to keep it out of their steps: 3 seconds, 70 MB for nothing."""
    stand_in = types.ModuleType("torch._dynamo")
    vars(stand_in).update(
        disable=lambda function, *_, **__: function,
        graph_break=lambda *_, **__: None,
        compiled_autograd=types.SimpleNamespace(_disable=contextlib.nullcontext),
    )
    sys.modules["torch._dynamo"] = stand_in
    vars(torch)["_dynamo"] = stand_in
