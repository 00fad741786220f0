"""Pictures and clips: the same at every size, where the boxes say, and drawn from the atlas alone."""

from __future__ import annotations

import json
import random
from importlib import resources

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from qvl_local.runtime.world.backgrounds import draw_background
from qvl_local.runtime.world.render import CLIP_UNITS, IMAGE_UNITS, Renderer, SpriteBox
from qvl_local.runtime.world.scenes import Scene, sample
from qvl_local.runtime.world.sprites import Sprites
from qvl_local.runtime.world.vocabulary import (
    COLOURS,
    OBJECT_CODES,
    OBJECTS,
    PLACES,
    WORDS,
    Kind,
    Motion,
    Position,
    Relation,
    Slot,
    Time,
    Weather,
)


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer()


def scenes(seed: int, kind: Kind, count: int) -> list[Scene]:
    rng = random.Random(seed)
    return [sample(rng, held_out=None, kind=kind) for _ in range(count)]


def shrink(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC))


def difference(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


def test_the_atlas_holds_every_thing_and_word_and_its_licences() -> None:
    assets = resources.files("qvl_local.runtime.world") / "assets"
    index = json.loads((assets / "atlas.json").read_text(encoding="utf-8"))
    assert list(index["objects"]) == [thing.name for thing in OBJECTS]
    assert list(index["words"]) == list(WORDS)
    assert "SIL OPEN FONT LICENSE" in (assets / "LICENSE-NotoColorEmoji.txt").read_text(encoding="utf-8")
    assert "Bitstream" in (assets / "LICENSE-DejaVuSans.txt").read_text(encoding="utf-8")
    sprites = Sprites()
    for code in range(len(OBJECTS)):
        picture = np.asarray(sprites.thing(code, 0, 64, scale=1.0, light=Time.DAY, flipped=False, degrees=0))
        assert max(picture.shape[:2]) == 64
        assert (picture[..., 3] > 200).mean() > 0.1
    for code in range(1, len(WORDS) + 1):
        ink = np.asarray(sprites.word(code, scale=4.0))
        assert 0.2 < (ink > 128).mean() < 0.9


@pytest.mark.parametrize("colour", range(1, len(COLOURS) + 1))
def test_recoloured_things_have_the_colour(colour: int) -> None:
    picture = Sprites().thing(
        OBJECT_CODES["balloon"], colour, 64, scale=1.0, light=Time.DAY, flipped=False, degrees=0
    )
    rgba = np.asarray(picture)
    red, green, blue = rgba[rgba[..., 3] > 250][:, :3].mean(0)
    expected = {
        "red": red > green + 60 and red > blue + 60,
        "orange": red > green + 30 and green > blue + 30,
        "yellow": abs(red - green) < 60 and green > blue + 60,
        "green": green > red + 60 and green > blue + 60,
        "blue": blue > red + 60 and blue > green + 30,
        "purple": blue > green + 60 and red > green + 40 and blue > red,
        "pink": red > green + 40 and blue > green + 20 and red > 200,
        "black": max(red, green, blue) < 80,
        "white": min(red, green, blue) > 210,
    }
    assert expected[COLOURS[colour - 1]], (red, green, blue)


@pytest.mark.parametrize("size", [512, 640, 768])
def test_a_large_picture_scaled_down_is_the_small_picture(renderer: Renderer, size: int) -> None:
    for i, scene in enumerate(scenes(1, Kind.PHOTO, 12)):
        small, boxes = renderer.image_with_boxes(scene, i)
        large, large_boxes = renderer.image_with_boxes(scene, i, size)
        assert small.shape == (IMAGE_UNITS, IMAGE_UNITS, 3)
        assert large.shape == (size, size, 3)
        assert large.dtype == np.uint8
        assert boxes == large_boxes
        alike = difference(small, shrink(large, IMAGE_UNITS))
        other = difference(small, shrink(renderer.image(scene, f"other{i}", size), IMAGE_UNITS))
        assert alike < 10
        assert alike < other / 1.5


@pytest.mark.parametrize("size", [96, 384])
def test_clips_are_alike_at_every_size(renderer: Renderer, size: int) -> None:
    for i, scene in enumerate(scenes(2, Kind.CLIP, 6)):
        clip, boxes = renderer.clip_with_boxes(scene, i, size)
        assert clip.shape == (8, size, size, 3)
        assert len(boxes) == 8
        small = renderer.clip(scene, i)
        assert difference(small[3], shrink(clip[3], CLIP_UNITS)) < 8


def test_the_same_seed_gives_the_same_pixels(renderer: Renderer) -> None:
    fresh = Renderer()
    for i, scene in enumerate(scenes(3, Kind.PHOTO, 5)):
        first = renderer.image(scene, f"seed{i}", 256)
        assert (first == renderer.image(scene, f"seed{i}", 256)).all()  # from the caches
        assert (first == fresh.image(scene, f"seed{i}", 256)).all()  # from nothing
        assert (first != renderer.image(scene, f"seed{i + 1}", 256)).any()


def test_everything_drawn_is_inside_the_boxes(renderer: Renderer) -> None:
    """Outside the boxes of things and signs there is background, and nothing else."""
    covered = []
    for i, scene in enumerate(scenes(4, Kind.PHOTO, 40)):
        scene[Slot.WEATHER] = Weather.NONE
        pixels, boxes = renderer.image_with_boxes(scene, i)
        variant = random.Random(i).randrange(40)
        empty = draw_background(int(scene[Slot.PLACE]), int(scene[Slot.TIME]), variant, IMAGE_UNITS)
        changed = (pixels != np.asarray(empty)).any(-1)
        for box in boxes:
            inside = changed[box.y : box.y + box.height + 1, box.x : box.x + box.width + 1]
            covered.append(inside.mean())
            inside[:] = False
        assert not changed.any(), scene
    assert np.mean(covered) > 0.4
    assert min(covered) > 0.1


def test_boxes_tell_what_the_scene_holds(renderer: Renderer) -> None:
    for i, scene in enumerate(scenes(5, Kind.PHOTO, 200)):
        _, boxes = renderer.image_with_boxes(scene, i)
        a, b, word = (int(scene[slot]) for slot in (Slot.A_OBJECT, Slot.B_OBJECT, Slot.WORD))
        signs = [box for box in boxes if box.object < 0]
        assert [-sign.object for sign in signs] == ([word] if word else [])
        group_a = [box for box in boxes if (box.object, box.colour) == (a, scene[Slot.A_COLOUR])]
        group_b = [box for box in boxes if (box.object, box.colour) == (b, scene[Slot.B_COLOUR])]
        assert len(group_a) == scene[Slot.A_COUNT]
        if b >= 0:
            assert len(group_b) == scene[Slot.B_COUNT]
            assert relation_holds(Relation(int(scene[Slot.RELATION])), group_a, group_b)
        elif scene[Slot.A_POSITION]:
            assert position_holds(Position(int(scene[Slot.A_POSITION])), group_a[0])
        assert all(
            box.y + box.height <= sign.y + 3 or box.y >= sign.y + 19 for sign in signs for box in group_a
        )


def centre(boxes: list[SpriteBox]) -> tuple[float, float]:
    x = np.mean([box.x + box.width / 2 for box in boxes])
    y = np.mean([box.y + box.height / 2 for box in boxes])
    return float(x), float(y)


def relation_holds(relation: Relation, a: list[SpriteBox], b: list[SpriteBox]) -> bool:
    (ax, ay), (bx, by) = centre(a), centre(b)
    return {
        Relation.LEFT_OF: ax < bx - 10,
        Relation.RIGHT_OF: ax > bx + 10,
        Relation.ABOVE: ay < by - 10,
        Relation.BELOW: ay > by + 10,
    }[relation]


def position_holds(position: Position, box: SpriteBox) -> bool:
    x, y = centre([box])
    return {
        Position.LEFT: x < 50,
        Position.RIGHT: x > 78,
        Position.TOP: y < 50,
        Position.BOTTOM: y > 78,
        Position.MIDDLE: 44 < x < 84 and 44 < y < 90,
    }[position]


@pytest.mark.parametrize("motion", list(Motion)[1:])
@pytest.mark.parametrize("smooth", [False, True])
def test_clips_move_as_the_scene_says(renderer: Renderer, motion: Motion, smooth: bool) -> None:
    rng = random.Random(int(motion))
    while (scene := sample(rng, kind=Kind.CLIP))[Slot.MOTION] != motion:
        pass
    _, boxes = renderer.clip_with_boxes(scene, "m", frames=12, smooth=smooth)
    x, y, side = (np.array(v) for v in zip(*((b.x, b.y, max(b.width, b.height)) for b in boxes), strict=True))
    things = [box.object for box in boxes]
    moves = {
        Motion.LEFT: x[0] - x[-1] > 40 and (np.diff(x) <= 0).all(),
        Motion.RIGHT: x[-1] - x[0] > 40 and (np.diff(x) >= 0).all(),
        Motion.UP: y[0] - y[-1] > 40 and (np.diff(y) <= 0).all(),
        Motion.DOWN: y[-1] - y[0] > 40 and (np.diff(y) >= 0).all(),
        Motion.NEARER: side[-1] > 2 * side[0] and (np.diff(side) >= 0).all(),
        Motion.FARTHER: side[0] > 2 * side[-1] and (np.diff(side) <= 0).all(),
        Motion.THEN: things == [int(scene[Slot.A_OBJECT])] * 6 + [int(scene[Slot.B_OBJECT])] * 6,
    }
    assert moves[motion]


def test_a_stage_composes_and_crops(renderer: Renderer) -> None:
    rng = random.Random(6)
    whole = renderer.stage(rng, PLACES.index(PLACES[2]), Time.DAY, 256)
    part = whole.crop(32, 0, 64)
    assert part.image.size == (128, 128)
    assert part.scale == whole.scale == 2
    assert (part.pixels() == whole.pixels()[:128, 64:192]).all()
    part.put(OBJECT_CODES["dog"], 0, 30, 60, 60)
    assert part.boxes[0].x + part.boxes[0].width <= 64
    assert whole.boxes == []
    whole.weather(Weather.RAIN)
    before = part.pixels()
    part.weather(Weather.NONE)
    assert (before == part.pixels()).all()


def test_small_caches_change_nothing(renderer: Renderer) -> None:
    tight = Sprites(cache_pixels=1)
    roomy = Sprites()
    for code in (0, 5, 0):
        options = {"scale": 2.0, "light": Time.NIGHT, "flipped": True, "degrees": 8}
        one = tight.thing(code, 0, 40, **options)
        assert (np.asarray(one) == np.asarray(roomy.thing(code, 0, 40, **options))).all()
