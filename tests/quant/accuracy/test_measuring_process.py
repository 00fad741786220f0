"""What the measuring process brings back: whole and unharmed, or refused; never run."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qvl_local.quant.accuracy import child
from qvl_local.quant.accuracy.answer import read_answer, write_error, write_result
from qvl_local.quant.accuracy.dataset import Dataset, Question
from qvl_local.quant.accuracy.measured import Cost, GalleryRun, Job, Measured
from qvl_local.runtime.errors import BundleError, InputError, MediaError, ModelError, QvlError

WIDTH = 8


def gallery(documents: int, questions: int) -> Dataset:
    asked = tuple(Question(f"q{i}", {"text": f"number {i}"}, {i: 1.0}) for i in range(questions))
    return Dataset("g", "here", "exact", tuple({"image": f"/{i}.jpg"} for i in range(documents)), asked)


DATASETS = (gallery(5, 2), gallery(3, 1))


def result() -> Measured:
    generator = np.random.default_rng(1)
    runs = []
    for dataset, pairs in zip(DATASETS, ([[0, 1], [1, 4]], np.empty((0, 2)))):
        rows = np.array(pairs, np.int64)
        runs.append(
            GalleryRun(
                generator.standard_normal((len(dataset.documents), WIDTH)).astype(np.float32),
                generator.standard_normal((len(dataset.questions), WIDTH)).astype(np.float32),
                rows,
                np.array([np.nan, 1.5][: len(rows)], np.float32),
                {2: "no picture"} if len(rows) else {},
            )
        )
    return Measured(tuple(runs), 15.0, Cost(1.5, 2.5, None, 1 << 33))


def test_a_result_comes_back_as_it_was(tmp_path: Path) -> None:
    assert read_answer(tmp_path, DATASETS) is None
    sent = result()
    write_result(tmp_path, sent)
    got = read_answer(tmp_path, DATASETS)
    assert isinstance(got, Measured)
    assert (got.weight, got.cost) == (sent.weight, sent.cost)
    for one, other in zip(got.galleries, sent.galleries, strict=True):
        for name in ("documents", "queries", "pairs", "logits"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name), strict=True)
        assert one.unreadable == other.unreadable


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (BundleError("b: damaged"), BundleError),
        (InputError("no"), InputError),
        (QvlError("memory"), QvlError),
        (MediaError("a.jpg", "is odd"), ModelError),
    ],
)
def test_an_error_comes_back_with_its_words(tmp_path: Path, error: QvlError, kind: type[QvlError]) -> None:
    write_error(tmp_path, error)
    got = read_answer(tmp_path, DATASETS)
    assert type(got) is kind
    assert str(got) == str(error)


class Attack:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("exit 7",)


@pytest.mark.parametrize("name", ["result", "error", "answer.json", "answer.bin"])
def test_no_answer_is_ever_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A process that a file has taken over leaves pickles wherever one may be read."""
    evil = tmp_path / "evil.pickle"
    evil.write_bytes(pickle.dumps(Attack()))
    ran: list[str] = []
    monkeypatch.setattr(os, "system", ran.append)
    script = f"import shutil, sys; shutil.copy({str(evil)!r}, sys.argv[1] + '/{name}')"
    real = subprocess.Popen

    def taken_over(command: tuple[str, ...], **options: Any) -> Any:
        return real([sys.executable, "-c", script, command[-1]], **options)

    monkeypatch.setattr(child.subprocess, "Popen", taken_over)
    job = Job("bundle", DATASETS, None, ("float32",), False, (), None)
    with pytest.raises(ModelError, match=r"makes no sense|ended with"):
        child.measure_in_process(job, lambda *_: None)
    assert ran == []


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h.pop("weight"),
        lambda h: h.update(weight="15"),
        lambda h: h.update(weight=float("nan")),
        lambda h: h.update(galleries=h["galleries"][:1]),
        lambda h: h.update(galleries=7),
        lambda h: h["galleries"][0].update(width=-8),
        lambda h: h["galleries"][0].update(width=10**12),
        lambda h: h["galleries"][0].update(width=True),
        lambda h: h["galleries"][0].update(width=9),
        lambda h: h["galleries"][0].update(pairs=1),
        lambda h: h["galleries"][0].update(pairs=10**15),
        lambda h: h["galleries"][0].update(unreadable={"9": "not there"}),
        lambda h: h["galleries"][0].update(unreadable={"x": "no row"}),
        lambda h: h["galleries"][0].update(unreadable={"1": ["no", "text"]}),
        lambda h: h["galleries"][0].update(unreadable=[]),
        lambda h: h.update(cost=None),
        lambda h: h["cost"].update(peak_bytes="many"),
        lambda h: h.update(error="SystemExit", message="0"),
        lambda h: h.update(error="__builtins__", message="0"),
        lambda h: h.update(error="QvlError", message=7),
    ],
)
def test_odd_headers_are_refused(tmp_path: Path, change: Any) -> None:
    write_result(tmp_path, result())
    file = tmp_path / "answer.json"
    header = json.loads(file.read_text(encoding="utf-8"))
    change(header)
    file.write_text(json.dumps(header), encoding="utf-8")
    with pytest.raises(ModelError, match="makes no sense"):
        read_answer(tmp_path, DATASETS)


def test_odd_numbers_are_refused(tmp_path: Path) -> None:
    write_result(tmp_path, result())
    file = tmp_path / "answer.bin"
    whole = file.read_bytes()
    # Pairs come behind the vectors of five documents and two questions.
    at = 4 * WIDTH * 7
    for content in (b"", whole[:-1], whole + b"0", whole[:at] + b"\xff" * 8 + whole[at + 8 :]):
        file.write_bytes(content)
        with pytest.raises(ModelError, match="makes no sense"):
            read_answer(tmp_path, DATASETS)
