"""A user's folder as a dataset: photos and videos, and perhaps `queries.jsonl` with what answers what.

    {"id": "q1", "text": "two dogs on a beach", "relevant": {"2024/beach.jpg": 2, "2024/dune.jpg": 1}}
    {"id": "q2", "image": "examples/stairs.jpg", "relevant": {"trips/tower.mp4": 1}}

Paths are relative to the folder, grades above 0. Without `queries.jsonl` each photo asks for its neighbours,
and the first ten of the reference count as right.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from qvl_local.runtime.errors import InputError
from qvl_local.runtime.library.formats import kind_by_extension

from .dataset import Dataset, Labels, Question

QUERIES = "queries.jsonl"

# Without labels: enough photos and questions to tell models apart, few enough to wait for.
PHOTOS = 500
QUESTIONS = 100
_KEYS = ("id", "text", "image", "relevant")
_KINDS = {"photo": "image", "video": "video"}


def read_dataset(folder: Path, *, limit: int | None = None) -> Dataset:
    """A folder with `queries.jsonl`, or one of photos alone. `limit`: at most so many questions.

    Raises:
        InputError: no such folder, nothing to search in it, or a line of `queries.jsonl` that makes no
            sense; the message names file and line.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder. Give one with {QUERIES} and media, or with photos.")
    if (folder / QUERIES).is_file():
        return read_folder(folder, name=folder.name, source=str(folder), labels="given", limit=limit)
    return _neighbours(folder, limit=limit)


def read_folder(folder: Path, *, name: str, source: str, labels: Labels, limit: int | None = None) -> Dataset:
    """Media and `queries.jsonl`; errors as for `read_dataset`."""
    media = _media(folder)
    if not media:
        raise InputError(f"{folder}: holds no photos and no videos. Put them beside {QUERIES}.")
    places = {path: index for index, path in enumerate(media)}
    questions = []
    seen: dict[str, int] = {}
    for number, raw in _lines(folder / QUERIES):
        where = f"{folder / QUERIES}, line {number}"
        question = _question(raw, where, folder, places)
        if question.id in seen:
            raise InputError(
                f"{where}: the id {question.id!r} is that of line {seen[question.id]}. Rename one."
            )
        seen[question.id] = number
        questions.append(question)
    if not questions:
        raise InputError(f"{folder / QUERIES}: is empty. Write one query a line, as in docs/accuracy.md.")
    documents = tuple(_document(folder, path) for path in media)
    return Dataset(name, source, labels, documents, tuple(questions[:limit]))


def _neighbours(folder: Path, *, limit: int | None) -> Dataset:
    """Each of some photos as a question about all of them."""
    photos = [path for path in _media(folder) if kind_by_extension(path) == "photo"]
    photos = _spread(photos, PHOTOS)
    if len(photos) < 2:
        raise InputError(
            f"{folder}: has neither {QUERIES} nor two photos to compare. Choose a folder with photos."
        )
    asked = _spread(list(range(len(photos))), QUESTIONS if limit is None else limit)
    return Dataset(
        name=folder.name or str(folder),
        source=str(folder),
        labels="reference",
        documents=tuple(_document(folder, path) for path in photos),
        questions=tuple(
            Question(id=photos[i], input={"image": str(folder / photos[i])}, relevant={}, exclude=i)
            for i in asked
        ),
    )


def _media(folder: Path) -> list[str]:
    """Photos and videos below the folder, hidden ones left out, by relative path with forward slashes."""
    found = []
    for base, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            (Path(base) / file).relative_to(folder).as_posix()
            for file in files
            if not file.startswith(".") and kind_by_extension(file) is not None
        ]
    return sorted(found)


def _document(folder: Path, relative: str) -> Mapping[str, str]:
    kind = kind_by_extension(relative)
    return {_KINDS[str(kind)]: str(folder / relative)}


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Every line that is not blank, parsed, with its number from 1."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}). It must be UTF-8 text.") from error
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(
                f"{path}, line {number}: is not JSON ({error.msg}). Write one object a line."
            ) from error


def _question(raw: Any, where: str, folder: Path, places: Mapping[str, int]) -> Question:
    if not isinstance(raw, dict):
        raise InputError(f'{where}: is not an object. Write {{"id": ..., "text": ..., "relevant": {{...}}}}.')
    unknown = [key for key in raw if key not in _KEYS]
    if unknown:
        raise InputError(f"{where}: unknown key {unknown[0]!r}. Known keys: {', '.join(_KEYS)}.")
    identity = raw.get("id")
    if not isinstance(identity, (str, int)) or isinstance(identity, bool) or identity == "":
        raise InputError(f'{where}: needs an "id", a text or a number that no other query has.')
    text, image = raw.get("text"), raw.get("image")
    if text is None and image is None:
        raise InputError(f'{where}: has neither "text" nor "image". Say what is looked for.')
    given: dict[str, str] = {}
    exclude = None
    if text is not None:
        if not isinstance(text, str) or not text.strip():
            raise InputError(f'{where}: "text" must be words.')
        given["text"] = text
    if image is not None:
        relative = _inside(image, where)
        if not (folder / relative).is_file():
            raise InputError(f"{where}: {folder / relative} does not exist. Paths are relative to {folder}.")
        given["image"] = str(folder / relative)
        exclude = places.get(relative)
    return Question(
        str(identity), given, _relevant(raw.get("relevant"), where, folder, places, exclude), exclude
    )


def _relevant(
    raw: Any, where: str, folder: Path, places: Mapping[str, int], exclude: int | None
) -> dict[int, float]:
    if not isinstance(raw, dict) or not raw:
        raise InputError(f'{where}: "relevant" must map files to grades, such as {{"a.jpg": 1}}.')
    grades: dict[int, float] = {}
    for path, grade in raw.items():
        if isinstance(grade, bool) or not isinstance(grade, (int, float)) or not 0 <= grade < math.inf:
            raise InputError(f"{where}: the grade of {path!r} must be a number from 0 up, not {grade!r}.")
        index = places.get(_inside(path, where))
        if index is None:
            raise InputError(
                f"{where}: {folder / path} is no photo or video of this folder. "
                f"Paths are relative to {folder}."
            )
        if index == exclude:
            raise InputError(f"{where}: {path!r} is the query itself and cannot be its answer. Leave it out.")
        if grade > 0:
            grades[index] = float(grade)
    if not grades:
        raise InputError(f"{where}: no file has a grade above 0, so nothing answers the query. Leave it out.")
    return grades


def _inside(path: Any, where: str) -> str:
    """A relative path that stays in the folder, with forward slashes and without `.` parts."""
    if not isinstance(path, str) or not path.strip():
        raise InputError(f"{where}: a path must be text.")
    clean = os.path.normpath(path.replace("\\", "/")).replace("\\", "/")
    if clean.startswith("../") or clean in ("..", ".") or Path(clean).is_absolute():
        raise InputError(f"{where}: {path!r} lies outside the folder. Give paths relative to it.")
    return clean


def _spread(values: list[Any], count: int) -> list[Any]:
    """At most `count` of the values, evenly spread."""
    if len(values) <= count:
        return values
    picked = np.linspace(0, len(values) - 1, count).round().astype(int)
    return [values[i] for i in picked]
