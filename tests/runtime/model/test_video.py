"""Films as real files made on the spot: which frames are taken, when, and what damage costs."""

import os
import shutil
import sys
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest
from qvl_local.runtime.errors import InputError, MediaError, MediaLimitError
from qvl_local.runtime.model import video as video_module
from qvl_local.runtime.model.pixels import load_budget
from qvl_local.runtime.model.resample import resample
from qvl_local.runtime.model.video import VideoFrames, fit_frames, from_list, read_video, thin_out
from transformers import Qwen3VLVideoProcessor
from transformers.video_utils import VideoMetadata


@pytest.fixture
def budget(tiny_folder):
    return load_budget(tiny_folder / "embedding")


@pytest.fixture
def film(tmp_path):
    """Make a film whose frame i is a grey of its own, brighter frame by frame."""

    def make(name="film.mp4", *, frames=60, rate=10, size=(96, 128), codec="mpeg4", gop=12, rotation=0):
        path = tmp_path / name
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=Fraction(rate))
            stream.height, stream.width = size
            stream.pix_fmt = "yuv420p"
            stream.gop_size = gop
            stream.bit_rate = 4_000_000
            for i in range(frames):
                pixels = np.full((*size, 3), 20 + 200 * i // frames, np.uint8)
                pixels[: size[0] // 4, : size[1] // 4] = (255, 0, 0)  # red at the top left
                for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                    container.mux(packet)
            for packet in stream.encode():
                container.mux(packet)
        if rotation:
            rotate(path, rotation)
        return path

    return make


def rotate(path, degrees):
    """Write the display matrix into the track header of an MP4, as phones do."""
    data = bytearray(path.read_bytes())
    at = data.find(b"tkhd") + 4 + 40  # version 0: the matrix lies 40 bytes into the box
    one = 1 << 16
    matrix = {
        90: (0, one, 0, -one, 0, 0),
        180: (-one, 0, 0, 0, -one, 0),
        270: (0, -one, 0, one, 0, 0),
    }[degrees]
    values = [*matrix[:2], 0, *matrix[3:5], 0, 0, 0, 1 << 30]
    data[at : at + 36] = b"".join(int(value).to_bytes(4, "big", signed=True) for value in values)
    path.write_bytes(bytes(data))


def all_frames(path):
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_frames_and_times_are_those_of_the_processor(film, budget):
    for name, frames, rate in (("a.mp4", 60, 10), ("b.mp4", 7, 25), ("c.mkv", 90, 30), ("d.avi", 33, 8)):
        path = film(name, frames=frames, rate=rate)
        whole = all_frames(path)
        processor = Qwen3VLVideoProcessor(min_frames=4, max_frames=16)
        indices = processor.sample_frames(VideoMetadata(total_num_frames=len(whole), fps=float(rate)), fps=2)
        got = read_video(path, budget=budget)
        expected = fit_frames(
            VideoFrames(np.stack([whole[i] for i in indices]), np.array(indices) / rate), budget
        )
        assert np.allclose(got.times_s, expected.times_s, atol=1e-3)
        assert np.array_equal(got.frames, expected.frames), name


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mov", "mpeg4"), ("a.webm", "libvpx"), ("a.mp4", "libx264"), ("a.mkv", "libx265")]
)
def test_containers_and_codecs(film, budget, name, codec):
    got = read_video(film(name, codec=codec, frames=30), budget=budget)
    assert len(got.frames) == 6
    brightness = got.frames[:, 60:].mean(axis=(1, 2, 3))
    assert (np.diff(brightness) > 5).all()


@pytest.mark.parametrize("name", ["a.ts", "a.h264", "a.flv"])
def test_streams_without_a_table_of_frames(film, budget, name):
    path = film(name, codec="libx264" if name != "a.flv" else "flv1", frames=50, rate=10)
    whole = all_frames(path)
    got = read_video(path, budget=budget)
    assert 4 <= len(got.frames) <= 16
    fitted = np.stack([resample(frame, got.frames.shape[1:3]) for frame in whole])
    for time, frame in zip(got.times_s, got.frames, strict=True):
        # A raw stream does not even know its rate; ffmpeg then assumes 25 a second.
        rate = 25 if name == "a.h264" else 10
        best = np.abs(fitted.astype(int) - frame).mean(axis=(1, 2, 3)).argmin()
        assert abs(best / rate - time) <= 1 / rate


def test_a_stretch_is_sampled_as_if_it_were_a_film(film, budget):
    path = film(frames=100, rate=10)
    whole = all_frames(path)
    got = read_video(path, budget=budget, start_s=4.0, end_s=7.0)
    assert len(got.frames) == 6
    indices = np.linspace(0, 29, 6).round().astype(int)
    assert np.allclose(got.times_s, indices / 10, atol=1e-3)
    expected = fit_frames(VideoFrames(np.stack([whole[40 + i] for i in indices]), got.times_s), budget)
    assert np.array_equal(got.frames, expected.frames)


def test_seeking_gives_the_same_frames(film, budget, monkeypatch):
    path = film(frames=240, rate=10, gop=10)
    plain = read_video(path, budget=budget, start_s=8.0)
    monkeypatch.setattr(video_module, "_SEEK_GAP_S", 0.5)
    sought = read_video(path, budget=budget, start_s=8.0)
    assert np.array_equal(plain.frames, sought.frames)
    assert np.array_equal(plain.times_s, sought.times_s)
    assert len(plain.frames) == 16


def test_a_stretch_beyond_the_end_gives_the_last_frame(film, budget):
    path = film(frames=20, rate=10)
    got = read_video(path, budget=budget, start_s=50.0, end_s=60.0)
    assert len(got.frames) == 1
    assert np.array_equal(
        got.frames[0], fit_frames(VideoFrames(all_frames(path)[-1][None], np.zeros(1)), budget).frames[0]
    )


def test_rate_and_number_of_frames_can_be_chosen(film, budget):
    path = film(frames=60, rate=10)
    assert len(read_video(path, budget=budget, fps=1.0).frames) == 6
    assert len(read_video(path, budget=budget, fps=5.0).frames) == 16
    assert len(read_video(path, budget=budget, fps=5.0, max_frames=20).frames) == 20
    assert len(read_video(path, budget=budget, max_frames=1).frames) == 1
    assert len(read_video(path, budget=replace(budget, max_frames=8)).frames) == 8


def test_one_frame_is_a_film(film, budget):
    got = read_video(film(frames=1), budget=budget)
    assert got.frames.shape[0] == 1
    assert got.times_s.tolist() == [0.0]


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_is_applied(film, budget, degrees):
    plain = read_video(film("plain.mp4"), budget=budget).frames[0].astype(int)
    turned = read_video(film("turned.mp4", rotation=degrees), budget=budget).frames[0].astype(int)
    # The matrix turns clockwise as shown on a screen.
    expected = np.rot90(plain, -degrees // 90)
    assert turned.shape == expected.shape
    assert np.abs(turned - expected).mean() < 3


def test_damage_in_the_middle_costs_the_frames_it_hits(film, budget):
    path = film(frames=100, rate=10, gop=5)
    whole = read_video(path, budget=budget)
    data = bytearray(path.read_bytes())
    third = len(data) // 3
    data[third : third + third // 2] = os.urandom(third // 2)
    path.write_bytes(bytes(data))
    hurt = read_video(path, budget=budget)
    assert 4 <= len(hurt.frames) <= len(whole.frames)
    assert hurt.frames.shape[1:] == whole.frames.shape[1:]
    assert set(hurt.times_s) <= set(whole.times_s)
    assert hurt.times_s[0] == 0.0
    assert np.abs(hurt.frames[0].astype(int) - whole.frames[0]).mean() < 3


def test_a_cut_off_film_gives_what_is_there(film, budget):
    path = film("cut.mkv", frames=100, rate=10, gop=5)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    got = read_video(path, budget=budget)
    assert 4 <= len(got.frames) < 16


def test_what_is_no_film_says_so_by_name(film, budget, tmp_path):
    data = film().read_bytes()
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_bytes(b"this is no film")
    (tmp_path / "headless.mp4").write_bytes(data[: len(data) // 2])  # MP4 keeps its index at the end
    shutil.copy(__file__, tmp_path / "code.mkv")
    for name in ("empty.mp4", "text.mp4", "headless.mp4", "code.mkv"):
        with pytest.raises(MediaError, match="not a video that can be read") as caught:
            read_video(tmp_path / name, budget=budget)
        assert caught.value.path == str(tmp_path / name)
    with pytest.raises(MediaError, match="no such file"):
        read_video(tmp_path / "missing.mp4", budget=budget)
    with pytest.raises(MediaError, match="not a file"):
        read_video(tmp_path, budget=budget)


def test_sound_alone_is_no_film(budget, tmp_path):
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44_100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44_100
        for packet in [*stream.encode(frame), *stream.encode()]:
            container.mux(packet)
    with pytest.raises(MediaError, match="holds no video stream"):
        read_video(path, budget=budget)


@pytest.mark.parametrize(
    "content",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{path}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '{path}'\n",
    ],
)
def test_playlists_cannot_name_other_files(film, budget, tmp_path, content):
    path = film("real.mp4")
    for name in ("list.mp4", "list.m3u8", "list.ffconcat"):
        (tmp_path / name).write_text(content.format(path=path.name), encoding="utf-8")
        with pytest.raises(MediaError):
            read_video(tmp_path / name, budget=budget)


def test_any_file_name_will_do(film, budget, tmp_path):
    content = film().read_bytes()
    names = ["\U0001f415.mp4".encode(), b"-i.mp4", b"100%d.mp4"]
    if os.name == "posix":
        names += [b"new\nline.mp4", b"concat:a.mp4"]
    if sys.platform == "linux":
        names.append(b"invalid-\xff.mp4")
    for name in names:
        path = tmp_path / os.fsdecode(name)
        path.write_bytes(content)
        assert len(read_video(str(path), budget=budget).frames) == 12


def test_giant_frames_are_refused(film, budget, monkeypatch):
    monkeypatch.setattr(video_module, "MAX_FRAME_PIXELS", 96 * 128 - 1)
    with pytest.raises(MediaLimitError, match=r"film\.mp4: frames of 128x96 are more than"):
        read_video(film(), budget=budget)


def test_fitted_frames_pass_unchanged(clip, budget):
    for count in (1, 2, 5, 7, 16):
        fitted = fit_frames(VideoFrames(clip(count, 180, 320), np.arange(count) / 2), budget)
        assert fit_frames(fitted, budget) is fitted


def test_lists_take_the_first_frames_size_and_two_a_second(clip):
    frames = clip(5, 64, 96)
    made = from_list([frames[0], frames[1][:32], *frames[2:]], max_frames=3)
    assert made.frames.shape == (3, 64, 96, 3)
    assert made.times_s.tolist() == [0.0, 0.5, 1.0]
    assert np.array_equal(made.frames[1], frames[2])
    assert from_list(list(frames), fps=4.0, max_frames=16).times_s.tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]
    with pytest.raises(InputError, match="at least one frame"):
        from_list([], max_frames=3)


def test_thinning_out_keeps_times(clip):
    film = VideoFrames(clip(10, 32, 32), np.arange(10.0))
    assert thin_out(film, 10) is film
    assert thin_out(film, 4).times_s.tolist() == [0.0, 3.0, 6.0, 9.0]
