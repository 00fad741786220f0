"""From files to pieces and descriptions: photos and videos of every kind, whole and broken."""

from __future__ import annotations

import struct
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from qvl_local.runtime.errors import MediaAccessError, MediaError, MediaLimitError
from qvl_local.runtime.library.decode import DecodeLimits, DecodeTask, Description, Piece, decode_file
from qvl_local.runtime.library.thumbnails import split_strip
from qvl_local.runtime.model.image import read_image
from qvl_local.runtime.model.pixels import PixelBudget, load_budget

TINY = Path(__file__).parents[3] / "models" / "tiny" / "embedding"
RED, BLUE = (200, 30, 30), (30, 30, 200)


@pytest.fixture(scope="module")
def budget() -> PixelBudget:
    return load_budget(TINY)


def decode(path: Path, budget: PixelBudget, **limits: Any) -> tuple[list[Piece], Description]:
    *pieces, description = decode_file(DecodeTask(str(path), budget, DecodeLimits(**limits)))
    assert isinstance(description, Description)
    assert all(isinstance(piece, Piece) for piece in pieces)
    return pieces, description  # type: ignore[return-value]


def photo(path: Path, budget: PixelBudget) -> tuple[np.ndarray[Any, Any], Description]:
    (piece,), description = decode(path, budget)
    assert isinstance(piece.pixels, np.ndarray)
    assert (piece.t0_ms, piece.t1_ms, piece.strip) == (0, 0, None)
    assert description.info.kind == "photo"
    return piece.pixels, description


def colour_of(pixels: Any) -> Any:
    return np.asarray(pixels).reshape(-1, 3).mean(axis=0)


@pytest.mark.parametrize("extension", ["jpg", "png", "webp", "gif", "bmp", "tiff", "heic", "avif"])
def test_photos_of_every_format(tmp_path: Path, media: Any, budget: PixelBudget, extension: str) -> None:
    pixels, description = photo(media.photo(tmp_path / f"a.{extension}", RED, size=(360, 270)), budget)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (96, 128, 3)
    assert np.allclose(colour_of(pixels), RED, atol=8)
    assert (description.info.width, description.info.height) == (360, 270)
    with Image.open(BytesIO(description.thumbnail)) as thumbnail:
        # Of formats that take long to decode again, a larger one is kept.
        assert thumbnail.size == ((320, 240) if extension == "jpg" else (360, 270))
        assert np.allclose(colour_of(thumbnail), RED, atol=8)


def test_a_turned_photo_is_upright_in_every_respect(tmp_path: Path, budget: PixelBudget) -> None:
    pixels = np.full((400, 800, 3), 255, np.uint8)
    pixels[:, :400] = (200, 0, 0)  # left half red: the top half when turned clockwise
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif)
    fitted, description = photo(tmp_path / "a.jpg", budget)
    assert (description.info.width, description.info.height) == (400, 800)
    assert fitted.shape[0] > fitted.shape[1]
    assert colour_of(fitted[: len(fitted) // 3])[1] < 30 < 200 < colour_of(fitted[-len(fitted) // 3 :])[1]
    with Image.open(BytesIO(description.thumbnail)) as thumbnail:
        assert thumbnail.size == (160, 320)


@pytest.mark.parametrize(
    ("mode", "fill"),
    [
        ("CMYK", (0, 255, 255, 0)),
        ("L", 120),
        ("P", 3),
        ("RGBA", (200, 0, 0, 128)),
        ("LA", (90, 200)),
        ("1", 1),
    ],
)
def test_unusual_modes(tmp_path: Path, budget: PixelBudget, mode: str, fill: Any) -> None:
    name = "a.jpg" if mode == "CMYK" else "a.png"
    Image.new(mode, (100, 80), fill).save(tmp_path / name)
    with Image.open(tmp_path / name) as image:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        expected = colour_of(Image.alpha_composite(white, rgba).convert("RGB"))
    pixels, _ = photo(tmp_path / name, budget)
    assert np.allclose(colour_of(pixels), expected, atol=3)


def test_sixteen_bits_keep_their_brightness(tmp_path: Path, budget: PixelBudget) -> None:
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    pixels, _ = photo(tmp_path / "a.png", budget)
    assert abs(pixels.mean() - 127.5) < 3
    assert len(np.unique(pixels)) > 50


def test_the_first_frame_of_an_animation_counts(tmp_path: Path, budget: PixelBudget) -> None:
    frames = [Image.new("RGB", (60, 60), colour) for colour in ("red", "blue", "green")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=100)
    pixels, _ = photo(tmp_path / "a.gif", budget)
    assert np.allclose(colour_of(pixels), (255, 0, 0), atol=3)


@pytest.mark.parametrize("size", [(1, 1), (20_000, 20), (20, 20_000), (3, 5)])
def test_extreme_shapes(tmp_path: Path, budget: PixelBudget, size: tuple[int, int]) -> None:
    Image.new("RGB", size, RED).save(tmp_path / "a.png")
    pixels, description = photo(tmp_path / "a.png", budget)
    assert (description.info.width, description.info.height) == size
    assert np.allclose(colour_of(pixels), RED, atol=3)
    # The short side cannot be less than one token: such shapes come no nearer to the budget.
    assert pixels.shape[0] * pixels.shape[1] <= 4 * budget.image_max_pixels


def test_the_content_decides_what_a_file_is(tmp_path: Path, media: Any, budget: PixelBudget) -> None:
    media.photo(tmp_path / "a.png", RED).rename(tmp_path / "a.jpg")
    assert np.allclose(colour_of(photo(tmp_path / "a.jpg", budget)[0]), RED, atol=8)
    media.video(tmp_path / "b.mp4").rename(tmp_path / "b.jpg")
    assert decode(tmp_path / "b.jpg", budget)[1].info.kind == "video"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"\0" * 4096, "only zeros"),
        (b"just some text", "no photo or video of a known format"),
        (b"\xff\xd8\xff\xe0 not a picture", "damaged|cut short"),
        (b"\x89PNG\r\n\x1a\n" + b"?" * 100, "cut short"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + b"?" * 500, "the video is cut short"),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "no photo or video of a known format"),
        (b"\x1a\x45\xdf\xa3" + b"\xff" * 300, "damaged"),
    ],
)
def test_what_is_no_media_is_named(tmp_path: Path, budget: PixelBudget, content: bytes, reason: str) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(MediaError, match=reason) as caught:
        decode(path, budget)
    assert caught.value.path == str(path)
    assert "\n" not in caught.value.reason


@pytest.mark.parametrize("kept", [30, 900])
def test_a_broken_photo_has_one_wording(tmp_path: Path, media: Any, budget: PixelBudget, kept: int) -> None:
    path = media.photo(tmp_path / "a.jpg")
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(MediaError) as as_query:
        read_image(path)
    with pytest.raises(MediaError) as as_file:
        list(decode_file(DecodeTask(str(path), budget)))
    assert as_file.value.reason == as_query.value.reason
    assert "copy it again from where it came from" in as_query.value.reason


def test_a_photo_cut_short_is_said_to_be(tmp_path: Path, media: Any, budget: PixelBudget) -> None:
    path = media.photo(tmp_path / "a.jpg", size=(800, 600))
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(MediaError, match="cut short"):
        decode(path, budget)


@pytest.mark.parametrize("name", ["gone.jpg", "folder.jpg"])
def test_files_that_cannot_be_opened(tmp_path: Path, budget: PixelBudget, name: str) -> None:
    (tmp_path / "folder.jpg").mkdir()
    with pytest.raises(MediaAccessError, match="cannot be read"):
        decode(tmp_path / name, budget)


def test_a_decompression_bomb_is_refused_by_its_header(tmp_path: Path, budget: PixelBudget) -> None:
    import struct
    import zlib

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" * 1_000_000)
    path = tmp_path / "bomb.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )
    with pytest.raises(MediaLimitError, match="50000x50000 pixels are more than the limit of 200 million"):
        decode(path, budget)


@pytest.mark.parametrize("extension", ["mp4", "mov", "mkv", "webm", "avi", "mts"])
def test_videos_of_every_container(tmp_path: Path, media: Any, budget: PixelBudget, extension: str) -> None:
    path = tmp_path / f"a.{extension}"
    made = tmp_path / "a.ts" if extension == "mts" else path
    media.video(made, [(RED, 3), (BLUE, 3)]).rename(path)
    pieces, description = decode(path, budget)
    assert [(round(p.t0_ms, -2), round(p.t1_ms, -2)) for p in pieces] == [(0, 3000), (3000, 6000)]
    for piece, colour in zip(pieces, (RED, BLUE)):
        frames = piece.pixels.frames  # type: ignore[union-attr]
        assert frames.dtype == np.uint8
        assert len(frames) == 6
        assert np.allclose(colour_of(frames), colour, atol=25)
        assert piece.strip is not None
        assert split_strip(piece.strip, len(frames)).shape == frames.shape
    info = description.info
    assert (info.kind, info.width, info.height) == ("video", 160, 120)
    assert info.duration_s == pytest.approx(6, abs=0.15)
    with Image.open(BytesIO(description.thumbnail)) as thumbnail:
        assert thumbnail.size == (160, 120)


def test_frames_carry_their_times_in_the_scene(tmp_path: Path, media: Any, budget: PixelBudget) -> None:
    pieces, _ = decode(media.video(tmp_path / "a.mp4", [(RED, 4)]), budget)
    times = pieces[0].pixels.times_s  # type: ignore[union-attr]
    assert len(times) == 8
    assert np.allclose(np.diff(times), np.diff(times).mean(), atol=0.13)
    assert times[0] == 0
    assert 3.4 <= times[-1] < 4


@pytest.mark.parametrize("seconds", [1 / 12, 0.5])
def test_very_short_videos(tmp_path: Path, media: Any, budget: PixelBudget, seconds: float) -> None:
    (piece,), description = decode(media.video(tmp_path / "a.mp4", [(RED, seconds)]), budget)
    assert piece.t0_ms == 0
    assert piece.t1_ms >= 80
    assert np.allclose(colour_of(piece.pixels.frames), RED, atol=30)  # type: ignore[union-attr]
    assert description.info.duration_s == pytest.approx(seconds, abs=0.05)


def test_a_long_video_by_its_key_frames(tmp_path: Path, media: Any, budget: PixelBudget) -> None:
    # A key frame every half second is as often as the model looks: nothing else need be decoded.
    path = media.video(tmp_path / "a.mp4", [(RED, 24), (BLUE, 16)], keyframe_every=6)
    pieces, _ = decode(path, budget)
    assert [(round(p.t0_ms, -3), round(p.t1_ms, -3)) for p in pieces] == [
        (0, 20000),
        (20000, 24000),
        (24000, 40000),
    ]
    assert [len(p.pixels.frames) for p in pieces] == [16, 8, 16]  # type: ignore[union-attr]


def test_a_turned_video_is_upright(tmp_path: Path, media: Any, budget: PixelBudget) -> None:
    path = media.video(tmp_path / "a.mp4", [(RED, 1)])
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 44
    quarter = [0, 0x10000, 0, -0x10000, 0, 0, 120 << 16, 0, 0x40000000]
    content[matrix : matrix + 36] = b"".join((value & 0xFFFFFFFF).to_bytes(4, "big") for value in quarter)
    path.write_bytes(content)
    pieces, description = decode(path, budget)
    assert (description.info.width, description.info.height) == (120, 160)
    frames = pieces[0].pixels.frames  # type: ignore[union-attr]
    assert frames.shape[1] > frames.shape[2]


def test_tags_of_a_video(tmp_path: Path, media: Any, budget: PixelBudget) -> None:
    tags = {"creation_time": "2023-07-08T09:10:11Z", "location": "+48.5000-002.2500/"}
    info = decode(media.video(tmp_path / "a.mp4", metadata=tags), budget)[1].info
    assert info.taken_at == datetime.fromisoformat(tags["creation_time"]).astimezone().replace(tzinfo=None)
    assert (info.latitude, info.longitude) == (48.5, -2.25)


def test_sound_alone_is_no_video(tmp_path: Path, media: Any, budget: PixelBudget) -> None:
    with pytest.raises(MediaError, match="only sound"):
        decode(media.sound(tmp_path / "a.mp4"), budget)


def test_damage_in_the_middle_costs_what_it_hits(tmp_path: Path, media: Any, budget: PixelBudget) -> None:
    path = media.video(tmp_path / "a.mkv", [(RED, 6), (BLUE, 6)], keyframe_every=12)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle - 3000 : middle + 3000] = np.random.default_rng(0).bytes(6000)
    path.write_bytes(content)
    pieces, description = decode(path, budget)
    assert np.allclose(colour_of(pieces[0].pixels.frames), RED, atol=40)  # type: ignore[union-attr]
    assert description.info.kind == "video"


def test_a_video_without_its_end_is_indexed_so_far(tmp_path: Path, media: Any, budget: PixelBudget) -> None:
    path = media.video(tmp_path / "a.mkv", [(RED, 6)], keyframe_every=12)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    pieces, _ = decode(path, budget)
    assert np.allclose(colour_of(pieces[0].pixels.frames), RED, atol=40)  # type: ignore[union-attr]


def test_a_video_without_its_index_is_cut_short(tmp_path: Path, media: Any, budget: PixelBudget) -> None:
    path = media.video(tmp_path / "a.mp4", [(RED, 3)])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(MediaError, match="cut short"):
        decode(path, budget)


def test_limits_of_videos(tmp_path: Path, media: Any, budget: PixelBudget) -> None:
    path = media.video(tmp_path / "a.mp4", [(RED, 3), (BLUE, 3)])
    with pytest.raises(MediaLimitError, match="160x120"):
        decode(path, budget, frame_pixels=10_000)
    with pytest.raises(MediaLimitError, match="more than 1 scenes"):
        decode(path, budget, scenes=1)
    with pytest.raises(MediaLimitError, match="over the limit"):
        decode(path, budget, film_s=0.0, film_pace=0.0)


def test_a_film_cannot_name_another_file(tmp_path: Path, media: Any, budget: PixelBudget) -> None:
    media.video(tmp_path / "real.mp4")
    script = tmp_path / "a.mp4"
    script.write_text("ffconcat version 1.0\nfile 'real.mp4'\n")
    with pytest.raises(MediaError, match="known format"):
        decode(script, budget)


def test_a_film_that_memory_does_not_suffice_for_is_not_called_damaged(
    tmp_path: Path, media: Any, budget: PixelBudget, monkeypatch: pytest.MonkeyPatch
) -> None:
    import av
    from qvl_local.runtime.model.video import read_video

    path = media.video(tmp_path / "a.mp4")

    def short_of_memory(*_: object) -> object:
        raise av.error.MemoryError(12, "Cannot allocate memory")

    monkeypatch.setattr("qvl_local.runtime.library.film.decoded_frames", short_of_memory)
    monkeypatch.setattr("qvl_local.runtime.model.video.decoded_frames", short_of_memory)
    with pytest.raises(MemoryError):
        decode(path, budget)
    with pytest.raises(MediaLimitError, match="more memory than there is"):
        read_video(path, budget=budget)


def test_a_film_that_says_it_lasts_less_than_nothing_is_measured(
    tmp_path: Path, media: Any, budget: PixelBudget
) -> None:
    content = bytearray(media.video(tmp_path / "a.mp4").read_bytes())
    at = content.index(b"mdhd") - 4
    # A media header of version 1, 12 bytes longer, with a duration that is negative as FFmpeg reads it.
    size, made, changed, scale = struct.unpack(">I8xIII4x", content[at : at + 28])
    header = struct.pack(">I4sIQQIQ", size + 12, b"mdhd", 1 << 24, made, changed, scale, 2**64 - 20_000)
    content[at : at + 28] = header
    for box in (b"moov", b"trak", b"mdia"):
        begin = content.index(box) - 4
        content[begin : begin + 4] = struct.pack(
            ">I", struct.unpack(">I", content[begin : begin + 4])[0] + 12
        )
    (tmp_path / "b.mp4").write_bytes(content)
    pieces, description = decode(tmp_path / "b.mp4", budget)
    assert description.info.duration_s == pytest.approx(3.0, abs=0.2)
    assert [(piece.t0_ms, piece.t1_ms) for piece in pieces] == [(0, 3000)]


def test_a_codec_that_nobody_knows_is_named_as_that(tmp_path: Path, media: Any, budget: PixelBudget) -> None:
    from qvl_local.runtime.model.video import read_video

    content = media.video(tmp_path / "a.mp4").read_bytes()
    (tmp_path / "b.mp4").write_bytes(content.replace(b"avc1", b"zzzz"))
    for read in (
        lambda: decode(tmp_path / "b.mp4", budget),
        lambda: read_video(tmp_path / "b.mp4", budget=budget),
    ):
        with pytest.raises(MediaError, match="nothing here can decode its pictures; save it anew"):
            read()
