"""What is searched: a user's folder with queries.jsonl, one without, and the sample world."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from qvl_local.quant.accuracy.dataset import document_path
from qvl_local.quant.accuracy.folder import QUERIES, read_dataset
from qvl_local.quant.accuracy.world import WorldSize, world_datasets
from qvl_local.runtime.errors import InputError, LibraryStorageError

SMALL = WorldSize(images=6, image_questions=3, families=1, family_questions=2, clips=2, clip_questions=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two photos, a film's name, something hidden and something else."""
    root = tmp_path / "album"
    (root / "2024").mkdir(parents=True)
    for name in ("2024/beach.jpg", "stairs.png"):
        Image.new("RGB", (40, 30), (90, 120, 200)).save(root / name)
    (root / "film.mp4").write_bytes(b"not looked at")
    (root / ".trash").mkdir()
    (root / ".trash" / "old.jpg").write_bytes(b"")
    (root / "notes.txt").write_text("no medium")
    return root


def ask(folder: Path, *lines: Any) -> None:
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    (folder / QUERIES).write_text(text, encoding="utf-8")


GOOD = {"id": "q1", "text": "a beach", "relevant": {"2024/beach.jpg": 2, "film.mp4": 1, "stairs.png": 0}}


def test_a_folder_with_queries(folder: Path) -> None:
    ask(folder, GOOD, "", {"id": 2, "image": "stairs.png", "relevant": {"2024/beach.jpg": 0.5}})
    dataset = read_dataset(folder)
    names = [Path(document_path(d)).relative_to(folder).as_posix() for d in dataset.documents]
    assert names == ["2024/beach.jpg", "film.mp4", "stairs.png"]
    assert [set(document) for document in dataset.documents] == [{"image"}, {"video"}, {"image"}]
    assert dataset.labels == "given"
    assert [question.id for question in dataset.questions] == ["q1", "2"]
    assert dataset.questions[1].input == {"image": str(folder / "stairs.png")}
    assert dataset.grades().tolist() == [[2, 1, 0], [0.5, 0, 0]]
    # A picture that is its own question cannot be its own answer.
    assert dataset.hidden().tolist() == [[False, False, False], [False, False, True]]
    assert len(read_dataset(folder, limit=1).questions) == 1


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "is not JSON"),
        ("[1]", "is not an object"),
        ({**GOOD, "txt": "a beach"}, "'txt'"),
        ({"text": "a beach", "relevant": {"2024/beach.jpg": 1}}, '"id"'),
        ({"id": "b", "relevant": {"2024/beach.jpg": 1}}, '"text" nor "image"'),
        ({"id": "b", "text": " ", "relevant": {"2024/beach.jpg": 1}}, '"text"'),
        ({"id": "b", "image": "gone.jpg", "relevant": {"2024/beach.jpg": 1}}, "gone.jpg"),
        ({"id": "b", "text": "x"}, '"relevant"'),
        ({"id": "b", "text": "x", "relevant": ["2024/beach.jpg"]}, '"relevant"'),
        ({"id": "b", "text": "x", "relevant": {}}, '"relevant"'),
        ({"id": "b", "text": "x", "relevant": {"2024/beach.jpg": 0}}, "above 0"),
        ({"id": "b", "text": "x", "relevant": {"2024/beach.jpg": -1}}, "2024/beach.jpg"),
        ({"id": "b", "text": "x", "relevant": {"2024/beach.jpg": True}}, "True"),
        ({"id": "b", "text": "x", "relevant": {"nowhere.jpg": 1}}, "nowhere.jpg"),
        ({"id": "b", "text": "x", "relevant": {"notes.txt": 1}}, "notes.txt"),
        ({"id": "b", "text": "x", "relevant": {"../secret.jpg": 1}}, "outside"),
        ({"id": "b", "text": "x", "relevant": {"/etc/passwd": 1}}, "outside"),
        ({"id": "b", "image": "stairs.png", "relevant": {"stairs.png": 1}}, "query itself"),
        (GOOD, "line 1"),
    ],
)
def test_errors_name_file_and_line(folder: Path, line: Any, says: str) -> None:
    ask(folder, GOOD, "", line)
    with pytest.raises(InputError) as caught:
        read_dataset(folder)
    assert f"{folder / QUERIES}, line 3" in str(caught.value)
    assert says in str(caught.value)


def test_folders_that_cannot_be_used(folder: Path, tmp_path: Path) -> None:
    ask(folder)
    with pytest.raises(InputError, match="is empty"):
        read_dataset(folder)
    (folder / QUERIES).write_bytes(b"\xff\xfe\xff")
    with pytest.raises(InputError, match="UTF-8"):
        read_dataset(folder)
    with pytest.raises(InputError, match="no such folder"):
        read_dataset(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="two photos"):
        read_dataset(tmp_path / "empty")
    (tmp_path / "empty" / QUERIES).write_text("{}")
    with pytest.raises(InputError, match="no photos and no videos"):
        read_dataset(tmp_path / "empty")


def test_photos_alone_ask_for_their_neighbours(folder: Path) -> None:
    dataset = read_dataset(folder)
    assert dataset.labels == "reference"
    assert [set(document) for document in dataset.documents] == [{"image"}, {"image"}]
    assert [question.exclude for question in dataset.questions] == [0, 1]
    assert not dataset.grades().any()


def test_fewer_questions_are_spread_over_all_photos(tmp_path: Path) -> None:
    for number in range(7):
        (tmp_path / f"{number}.jpg").write_bytes(b"not looked at")
    asked = [question.exclude for question in read_dataset(tmp_path, limit=3).questions]
    assert asked == [0, 3, 6]


def test_the_sample_world_is_drawn_once_and_knows_its_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QVL_CACHE_DIR", str(tmp_path))
    told: list[tuple[int, int]] = []
    first = world_datasets(SMALL, progress=lambda done, total: told.append((done, total)))
    assert [(d.name, len(d.documents), len(d.questions)) for d in first] == [
        ("images", 6, 3),
        ("clips", 2, 1),
        ("siblings", 4, 2),
    ]
    assert told == [(done, 12) for done in range(1, 13)]
    assert all((dataset.grades() > 0).any(axis=1).all() for dataset in first)
    assert {next(iter(document)) for document in first[1].documents} == {"video"}
    stamps = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.*") if file.is_file()}
    again = world_datasets(SMALL)
    assert [dataset.digest() for dataset in again] == [dataset.digest() for dataset in first]
    assert stamps == {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.*") if file.is_file()}
    assert not list(tmp_path.rglob("*.part"))


def test_drawn_answers_are_those_of_the_scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from qvl_local.runtime.world.galleries import held_out_galleries

    monkeypatch.setenv("QVL_CACHE_DIR", str(tmp_path))
    size = WorldSize(images=12, image_questions=6, families=0, family_questions=0, clips=0, clip_questions=0)
    (dataset,) = world_datasets(size)
    gallery = held_out_galleries(images=12, clips=1, families=1, queries=6)[0]
    texts = {question.text: question for question in gallery.questions}
    asked = [texts[question.input["text"]] for question in dataset.questions]
    np.testing.assert_array_equal(dataset.grades() > 0, gallery.relevance(asked))


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("QVL_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(LibraryStorageError, match="QVL_CACHE_DIR"):
        world_datasets(SMALL)


def test_fewer_questions_mean_smaller_galleries() -> None:
    small = WorldSize().limited(4)
    assert (small.image_questions, small.family_questions, small.clip_questions) == (4, 4, 4)
    assert small.images < WorldSize().images
    assert WorldSize().limited(10_000) == WorldSize()
