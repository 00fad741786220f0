"""One training process a core, gradients added up once a step.

Two threads in one process wait for each other at every matrix product, which costs most of the second core as
soon as anything else runs on the machine; two processes wait once a step.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def launch(workers: int, target: Callable[..., None], *arguments: Any) -> None:
    """Run `target(rank, workers, *arguments)` in as many processes; with one worker, in this one."""
    if workers == 1:
        torch.set_num_threads(1)
        target(0, 1, *arguments)
        return
    with tempfile.TemporaryDirectory() as folder:
        meeting = Path(folder) / "meeting"
        torch.multiprocessing.start_processes(
            _enter, args=(workers, str(meeting), target, arguments), nprocs=workers, start_method="spawn"
        )


def _enter(
    rank: int, workers: int, meeting: str, target: Callable[..., None], arguments: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=workers)
    try:
        target(rank, workers, *arguments)
    finally:
        dist.destroy_process_group()


def add_up(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by its sum over all processes."""
    if not dist.is_initialized():
        return
    flat = torch.cat([t.reshape(-1) for t in tensors])
    dist.all_reduce(flat)
    for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))


def add_up_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """As `add_up` for gradients; a parameter that a process did not use counts as zero there."""
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    add_up([p.grad for p in parameters if p.grad is not None])


def agreed(value: float) -> float:
    """The largest value of any process, so that all of them stop and slow down together."""
    tensor = torch.tensor(value, dtype=torch.float64)
    if dist.is_initialized():
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return float(tensor)
