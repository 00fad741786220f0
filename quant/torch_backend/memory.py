"""How torch says that memory ran out."""

from __future__ import annotations

import torch

# What is said beside its own class for GPUs: by the allocator of the CPU, by CUDA's libraries.
_WORDS = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch failed for want of memory, on whatever device."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _WORDS)


def first_line(error: BaseException) -> str:
    """What an error says, without the pages that torch may add."""
    return (str(error).splitlines() or [type(error).__name__])[0]
