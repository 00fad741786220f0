"""Groups of what belongs together, each around its best member: a chain of small steps joins nothing."""

from __future__ import annotations

from collections.abc import Sequence

Edges = dict[tuple[int, int], float]
"""Which two, the lower number first, belong together, and how far they are apart."""


def grouped(best_first: Sequence[int], edges: Edges) -> tuple[set[int], list[tuple[tuple[int, ...], float]]]:
    """Groups of which every member is joined to the first one, and the set of first ones and loners."""
    neighbours: dict[int, dict[int, float]] = {}
    for (a, b), distance in edges.items():
        neighbours.setdefault(a, {})[b] = distance
        neighbours.setdefault(b, {})[a] = distance
    taken: set[int] = set()
    heads: dict[int, list[int]] = {}
    for at in best_first:
        if at not in taken:
            heads[at] = []
            taken |= neighbours.get(at, {}).keys()
    for at in best_first:
        if at not in heads:
            # A part can lie in two pictures that overlap: it goes to the one that it is most like.
            own = neighbours[at]
            heads[min((head for head in own if head in heads), key=lambda head: own[head])].append(at)
    groups = []
    for head, members in heads.items():
        if members:
            order = sorted(members, key=lambda at: (neighbours[head][at], at))
            groups.append(((head, *order), max(neighbours[head][at] for at in members)))
    return set(heads), groups
