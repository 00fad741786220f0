"""What a graph's weights take in memory once an engine has loaded it, counted from the graph itself."""

from __future__ import annotations

from math import prod

from .onnx_file import ElementType, Model


def resident_bytes(model: Model) -> int:
    """Bytes of the tensors that a session of this graph holds.

    A weight that nothing but a `Cast` reads is held as what it is cast to: engines do that once, when they
    load a graph, and drop the original. Copies that a kernel makes for itself, in an order of its own, are
    not counted.
    """
    readers: dict[str, list[ElementType | None]] = {}
    for node in model.nodes:
        target = node.attributes.get("to")
        cast = ElementType(target) if node.op == "Cast" and isinstance(target, int) else None
        for name in node.inputs:
            readers.setdefault(name, []).append(cast)
    total = 0
    for weight in model.weights:
        casts = readers.get(weight.name, [])
        held = casts[0] if len(casts) == 1 and casts[0] is not None else weight.type
        total += prod(weight.shape) * held.numpy.itemsize
    return total
