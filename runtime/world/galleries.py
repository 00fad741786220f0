"""Held-out galleries and probes: what accuracy reports are measured on.

Every scene shows a pair of object and place that training never showed. Records hold scenes, texts and
exact relevance, no pixels: a report renders `gallery.scenes[i]` with `gallery.seeds[i]`. The same arguments
give the same records for ever.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .queries import Query, Style, query
from .relevance import match
from .scenes import Scene, sample, sibling
from .vocabulary import (
    COLOURS,
    OBJECTS,
    PLACES,
    RECOLOURABLE,
    WORDS,
    Kind,
    Motion,
    Position,
    Relation,
    Size,
    Slot,
    Time,
    Weather,
)

FAMILY = 4
"""Scenes in a family: one, and three siblings that differ from it in one attribute each."""

_FREE_STYLES = (Style.PARTIAL, Style.PARTIAL, Style.SHORT, Style.TERSE, Style.TERSE)


@dataclass(frozen=True, slots=True)
class Question:
    """One query of a gallery. `source` is the index of the scene it was written about."""

    text: str
    style: Style
    source: int
    constraints: NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class Gallery:
    """Scenes to search (int16 [N, 17], each with the seed to render it with), and questions about them."""

    name: str
    kind: Kind
    scenes: NDArray[np.int16]
    seeds: tuple[str, ...]
    questions: tuple[Question, ...]

    def asked(self, *styles: Style) -> tuple[Question, ...]:
        """The questions of these styles, in order."""
        return tuple(question for question in self.questions if question.style in styles)

    def relevance(self, questions: Iterable[Question]) -> NDArray[np.bool_]:
        """bool [Q, N]: which scenes answer which of the questions."""
        return match(np.stack([question.constraints for question in questions]), self.scenes)


@dataclass(frozen=True, slots=True)
class Probe:
    """One scene and captions of which only the first is true; the others differ from it in one attribute."""

    attribute: str
    scene: Scene
    seed: str
    texts: tuple[str, ...]


def held_out_galleries(
    *, seed: int = 7070, images: int = 1000, clips: int = 200, families: int = 250, queries: int = 500
) -> tuple[Gallery, Gallery, Gallery]:
    """Galleries "images", "clips" and "siblings" (families of four).

    Each has one FULL caption a scene, and up to `queries` PARTIAL, SHORT and TERSE questions about scenes
    spread evenly.
    """
    rng = random.Random(f"galleries{seed}")
    photographs = [sample(rng, held_out=True, kind=Kind.PHOTO) for _ in range(images)]
    moving = [sample(rng, held_out=True, kind=Kind.CLIP) for _ in range(clips)]
    related: list[Scene] = []
    for _ in range(families):
        scene = sample(rng, held_out=True, kind=Kind.PHOTO)
        related += [scene, *(sibling(rng, scene, held_out=None) for _ in range(FAMILY - 1))]
    return (
        _gallery("images", Kind.PHOTO, photographs, seed, queries),
        _gallery("clips", Kind.CLIP, moving, seed, queries),
        _gallery("siblings", Kind.PHOTO, related, seed, queries),
    )


def _gallery(name: str, kind: Kind, scenes: list[Scene], seed: int, queries: int) -> Gallery:
    rng = random.Random(f"questions{seed}{name}")
    questions = [_ask(rng, scenes, source, Style.FULL) for source in range(len(scenes))]
    for i in range(min(queries, len(scenes))):
        source = i * len(scenes) // min(queries, len(scenes))
        questions.append(_ask(rng, scenes, source, _FREE_STYLES[i % len(_FREE_STYLES)]))
    seeds = tuple(f"{name}{seed}-{i}" for i in range(len(scenes)))
    return Gallery(name, kind, np.stack(scenes), seeds, tuple(questions))


def _ask(rng: random.Random, scenes: list[Scene], source: int, style: Style) -> Question:
    text, constraints = query(rng, scenes[source], style)
    return Question(text, style, source, constraints)


_ATTRIBUTES: dict[str, tuple[Slot, tuple[int, ...]]] = {
    "object": (Slot.A_OBJECT, tuple(range(len(OBJECTS)))),
    "count": (Slot.A_COUNT, (1, 2, 3, 4, 5)),
    "colour": (Slot.A_COLOUR, tuple(range(1, len(COLOURS) + 1))),
    "size": (Slot.A_SIZE, tuple(Size)),
    "position": (Slot.A_POSITION, tuple(Position)[1:]),
    "relation": (Slot.RELATION, tuple(Relation)[1:]),
    "place": (Slot.PLACE, tuple(range(len(PLACES)))),
    "time": (Slot.TIME, tuple(Time)),
    "weather": (Slot.WEATHER, tuple(Weather)[1:]),
    "word": (Slot.WORD, tuple(range(1, len(WORDS) + 1))),
    "motion": (Slot.MOTION, tuple(Motion)[1 : Motion.THEN]),
}
ATTRIBUTES: tuple[str, ...] = tuple(_ATTRIBUTES)


def attribute_probes(*, seed: int = 5, each: int = 150, options: int = 4) -> tuple[Probe, ...]:
    """`each` probes of every attribute in `ATTRIBUTES`, with up to `options` captions.

    Fewer captions where the world has fewer values (time 3, weather 2, size 2 or 3). All captions of a
    probe say the same but for the attribute, and by `match` only the first is true.
    """
    rng = random.Random(f"probes{seed}")
    probes: list[Probe] = []
    for attribute in ATTRIBUTES:
        found = 0
        while found < each:
            probe = _probe(rng, attribute, options, f"probe{seed}-{attribute}{found}")
            if probe is not None:
                probes.append(probe)
                found += 1
    return tuple(probes)


def _probe(rng: random.Random, attribute: str, options: int, seed: str) -> Probe | None:
    slot, values = _ATTRIBUTES[attribute]
    kind = Kind.CLIP if attribute == "motion" else Kind.PHOTO
    scene = sample(rng, held_out=True, kind=kind)
    value = int(scene[slot])
    alone = scene[Slot.B_OBJECT] < 0
    if value not in values or (attribute in ("count", "size") and not alone):
        return None
    if attribute == "count" and scene[Slot.A_SIZE] != Size.NORMAL:
        return None
    others = [other for other in values if other != value]
    if attribute == "object":
        # A caption with a colour cannot become one about a thing that has none.
        others = [other for other in others if (other in RECOLOURABLE) == (value in RECOLOURABLE)]
    rng.shuffle(others)

    wording = rng.random()
    right = _caption(scene, slot, value, wording)
    if not match(right.constraints[None], scene[None])[0, 0]:
        return None
    texts = [right.text]
    for other in others:
        wrong = _caption(scene, slot, other, wording)
        same = np.delete(wrong.constraints, slot) == np.delete(right.constraints, slot)
        if same.all() and wrong.text not in texts and not match(wrong.constraints[None], scene[None])[0, 0]:
            texts.append(wrong.text)
        if len(texts) == options:
            break
    enough = min(options, len(values)) if attribute != "size" else 2
    return Probe(attribute, scene, seed, tuple(texts)) if len(texts) >= enough else None


def _caption(scene: Scene, slot: Slot, value: int, wording: float) -> Query:
    """A FULL caption of the scene with one value changed; one `wording` gives one choice of other words."""
    changed = scene.copy()
    changed[slot] = value
    if slot == Slot.A_COUNT:
        changed[Slot.A_POSITION] = Position.NONE  # only single things have one
    return query(random.Random(wording), changed, Style.FULL)
