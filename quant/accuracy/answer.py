"""What the measuring process brings back, as plain files: a JSON header and the raw numbers of its arrays.

The measuring process decodes pictures and films of anybody's, and loads graphs of anybody's: one of them may
have taken it over. So nothing of its answer is unpickled, and every field is checked before it is used.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qvl_local.runtime import errors
from qvl_local.runtime.errors import ModelError, QvlError

from .dataset import Dataset
from .measured import Cost, GalleryRun, Measured

_HEADER, _NUMBERS = "answer.json", "answer.bin"
_LARGEST_HEADER = 1 << 26
_LARGEST_WIDTH = 1 << 16
_LARGEST_TEXT = 10_000
# Kinds of errors whose message is all that there is to them.
_KINDS = ("InputError", "ModelError", "BundleError", "CheckpointError", "ModelMemoryError", "QvlError")
_COSTS = ("document_ms", "question_ms", "pair_ms", "peak_bytes")


def write_result(folder: Path, result: Measured) -> None:
    """Write what was measured into a folder, in the measuring process."""
    with (folder / _NUMBERS).open("wb") as stream:
        for run in result.galleries:
            for array in (run.documents, run.queries, run.pairs, run.logits):
                stream.write(np.ascontiguousarray(array).data)
    header = {
        "weight": result.weight,
        "cost": {name: getattr(result.cost, name) for name in _COSTS},
        "galleries": [
            {
                "width": run.documents.shape[1],
                "pairs": len(run.pairs),
                "unreadable": {str(row): reason[:_LARGEST_TEXT] for row, reason in run.unreadable.items()},
            }
            for run in result.galleries
        ],
    }
    (folder / _HEADER).write_text(json.dumps(header), encoding="utf-8")


def write_error(folder: Path, error: QvlError) -> None:
    """Write why nothing could be measured."""
    kind = next((name for name in _KINDS if type(error).__name__ == name), "ModelError")
    said = {"error": kind, "message": str(error)[:_LARGEST_TEXT]}
    (folder / _HEADER).write_text(json.dumps(said), encoding="utf-8")


def read_answer(folder: Path, datasets: Sequence[Dataset]) -> Measured | QvlError | None:
    """What the measuring process of these galleries wrote: a result or an error; None when it wrote nothing.

    Raises:
        ModelError: what it wrote makes no sense.
    """
    header = folder / _HEADER
    if not header.is_file():
        return None
    try:
        if header.stat().st_size > _LARGEST_HEADER:
            raise ValueError("a header larger than any")
        raw = json.loads(header.read_text(encoding="utf-8"))
        if "error" in raw:
            return _error(raw)
        with (folder / _NUMBERS).open("rb") as stream:
            numbers = _Numbers(stream.read(sum(_size(one, of) for one, of in _matched(raw, datasets)) + 1))
        galleries = tuple(_gallery(one, dataset, numbers) for one, dataset in _matched(raw, datasets))
        numbers.check_end()
        weight = _number(raw["weight"])
        if weight < 0:
            raise ValueError("a weight that is none")
        return Measured(galleries, weight, _cost(raw["cost"]))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ModelError(
            f"The measuring process answered what makes no sense ({error}). "
            "One of the files that it read may be made to attack it."
        ) from error


def _error(raw: dict[str, Any]) -> QvlError:
    kind, message = raw["error"], raw["message"]
    if kind not in _KINDS or not isinstance(message, str) or len(message) > _LARGEST_TEXT:
        raise ValueError("an error that is none")
    made: QvlError = getattr(errors, kind)(message)
    return made


def _matched(raw: dict[str, Any], datasets: Sequence[Dataset]) -> list[tuple[dict[str, Any], Dataset]]:
    return list(zip(raw["galleries"], datasets, strict=True))


def _size(raw: dict[str, Any], dataset: Dataset) -> int:
    """Bytes of a gallery's arrays."""
    width, pairs = _shape(raw, dataset)
    return 4 * width * (len(dataset.documents) + len(dataset.questions)) + (16 + 4) * pairs


def _shape(raw: dict[str, Any], dataset: Dataset) -> tuple[int, int]:
    """The width of the vectors, and how many pairs were judged."""
    width, pairs = raw["width"], raw["pairs"]
    if type(width) is not int or not 0 < width <= _LARGEST_WIDTH:
        raise ValueError("a width that is none")
    if type(pairs) is not int or not 0 <= pairs <= len(dataset.questions) * len(dataset.documents):
        raise ValueError("more pairs than there are")
    return width, pairs


def _gallery(raw: dict[str, Any], dataset: Dataset, numbers: _Numbers) -> GalleryRun:
    width, count = _shape(raw, dataset)
    documents, questions = len(dataset.documents), len(dataset.questions)
    found = GalleryRun(
        documents=numbers.floats(documents, width),
        queries=numbers.floats(questions, width),
        pairs=numbers.pairs(count),
        logits=numbers.floats(count, 1)[:, 0],
        unreadable={_row(row, documents): _text(reason) for row, reason in raw["unreadable"].items()},
    )
    pairs = found.pairs
    if pairs.size and (pairs.min() < 0 or pairs[:, 0].max() >= questions or pairs[:, 1].max() >= documents):
        raise ValueError("a pair of what is not there")
    return found


def _row(text: str, documents: int) -> int:
    row = int(text)
    if not 0 <= row < documents:
        raise ValueError("a document that is not there")
    return row


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > _LARGEST_TEXT:
        raise ValueError("a reason that is none")
    return value


def _cost(raw: dict[str, Any]) -> Cost:
    found = {name: None if raw[name] is None else _number(raw[name]) for name in _COSTS}
    peak = found.pop("peak_bytes")
    return Cost(**found, peak_bytes=None if peak is None else int(peak))


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("a number that is none")
    return float(value)


class _Numbers:
    """The raw numbers behind a header, taken from front to back."""

    def __init__(self, content: bytes) -> None:
        self._content = memoryview(content)
        self._at = 0

    def floats(self, rows: int, columns: int) -> NDArray[np.float32]:
        return np.frombuffer(self._take(4 * rows * columns), np.float32).reshape(rows, columns).copy()

    def pairs(self, count: int) -> NDArray[np.int64]:
        return np.frombuffer(self._take(16 * count), np.int64).reshape(count, 2).copy()

    def check_end(self) -> None:
        if self._at != len(self._content):
            raise ValueError("more numbers than were announced")

    def _take(self, count: int) -> memoryview:
        if count > len(self._content) - self._at:
            raise ValueError("fewer numbers than were announced")
        self._at += count
        return self._content[self._at - count : self._at]
