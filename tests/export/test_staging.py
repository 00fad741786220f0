"""Folders that appear whole or not at all: exceptions, signals, kill -9, full disks, two processes."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from qvl_local.export import bundle_writer
from qvl_local.export.pipeline import export_bundle
from qvl_local.export.recipe import Recipe
from qvl_local.export.staging import check_target, locked, staged
from qvl_local.runtime.errors import BundleError, InputError
from qvl_local.runtime.model.bundle import MANIFEST, Role, holds_bundle, open_bundle
from qvl_local.runtime.model.checkpoints import Checkpoint as Source

EXPORT = """
import sys
from pathlib import Path
from qvl_local.export.cache import export_into_cache

checkpoint, output = map(Path, sys.argv[1:])
export_into_cache({"embedder": checkpoint}, output, names={"embedder": "e"}, precision="fp32")
"""

# Exports into argv[2] and stops inside, in the middle of writing, until it is killed.
STOPPED_EXPORT = """
import sys, time
from pathlib import Path
from qvl_local.export.cache import export_into_cache

def progress(stage, done):
    if stage == "writing" and done > 0.3:
        print("half way", flush=True)
        time.sleep(120)

checkpoint, output = map(Path, sys.argv[1:])
export_into_cache({"embedder": checkpoint}, output, names={"embedder": "e"}, precision="fp32",
                  progress=progress)
"""


# Replaces the bundle at argv[1] by number two; killed before the step of the file system number argv[2].
KILLED_REPLACEMENT = """
import os, shutil, signal, sys
from pathlib import Path
from qvl_local.export.staging import locked, staged

output, steps = Path(sys.argv[1]), int(sys.argv[2])

def counted(real):
    def step(*args, **options):
        global steps
        steps -= 1
        if steps == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **options)
    return step

with locked(output), staged(output) as stage:
    (stage / "qvl.json").write_text('{"files": {"weights": {}}, "number": 2}')
    (stage / "weights").write_text("of number 2")
    for name in ("rename", "unlink", "rmdir"):
        setattr(os, name, counted(getattr(os, name)))
"""


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def sources(random_checkpoint: Callable[..., Path]) -> dict[Role, Source]:
    return {"embedder": Source(path=random_checkpoint(), name="random")}


def start_and_stop(checkpoint: Path, output: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", STOPPED_EXPORT, str(checkpoint), str(output)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "half way\n"
    return process


def finish(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    process.stdout.close()
    return process.wait(timeout=60)


# ---- nothing half done ----


def test_an_exception_leaves_nothing(
    sources: dict[Role, Source], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise RuntimeError("in the middle")

    monkeypatch.setattr("qvl_local.export.contents.write_table", fail)
    with pytest.raises(RuntimeError, match="in the middle"):
        export_bundle(sources, tmp_path / "bundle", recipe=Recipe())
    assert entries(tmp_path) == []


def test_an_exception_keeps_the_bundle_that_was_there(
    sources: dict[Role, Source], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_bundle(sources, tmp_path / "bundle", recipe=Recipe())
    before = open_bundle(tmp_path / "bundle").manifest

    def stop(stage: str, done: float) -> None:
        if stage == "checking":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_bundle(sources, tmp_path / "bundle", recipe=Recipe.of("fp16"), progress=stop)
    assert entries(tmp_path) == ["bundle"]
    assert open_bundle(tmp_path / "bundle").manifest == before


@pytest.mark.parametrize(
    ("code", "message"), [(errno.ENOSPC, "disk is full"), (errno.EROFS, "another folder")]
)
def test_a_failing_disk_is_told_and_leaves_nothing(
    sources: dict[Role, Source], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, message: str
) -> None:
    real = bundle_writer.write_graph

    def fail(*args: Any, **options: Any) -> None:
        real(*args, **options)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("qvl_local.export.contents.write_graph", fail)
    with pytest.raises(BundleError, match=message) as caught:
        export_bundle(sources, tmp_path / "bundle", recipe=Recipe())
    assert str(tmp_path / "bundle") in str(caught.value)
    assert entries(tmp_path) == []


def test_a_disk_that_fills_up_while_models_are_compared_is_told(
    random_checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    pair: dict[Role, Source] = {
        "embedder": Source(path=random_checkpoint(), name="one"),
        "reranker": Source(path=random_checkpoint(role="reranker", seed=3), name="other"),
    }
    monkeypatch.setattr("qvl_local.export.layout.find_adapters", fail)
    with pytest.raises(BundleError, match="disk is full"):
        export_bundle(pair, tmp_path / "bundle", recipe=Recipe.of("nf4"))
    assert entries(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_nothing(number: int, random_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    process = start_and_stop(random_checkpoint(), tmp_path / "bundle")
    assert len(entries(tmp_path)) == 2  # the work and its lock
    process.send_signal(number)
    assert finish(process) != 0
    assert entries(tmp_path) == []


def test_the_next_export_clears_what_a_killed_one_left(
    random_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    killed = start_and_stop(random_checkpoint(), tmp_path / "first")
    killed.kill()
    finish(killed)
    assert [name for name in entries(tmp_path) if ".tmp-" in name]
    alive = start_and_stop(random_checkpoint(), tmp_path / "second")
    working = [name for name in entries(tmp_path) if name.startswith(".second.tmp-")]
    try:
        assert entries(tmp_path) == sorted([".second.lock", *working])
        sources: dict[Role, Source] = {"embedder": Source(path=random_checkpoint(), name="random")}
        export_bundle(sources, tmp_path / "third", recipe=Recipe())
        assert entries(tmp_path) == sorted([".second.lock", *working, "third"])
    finally:
        alive.kill()
        finish(alive)


# ---- one bundle in the place of another ----


def write_numbered(folder: Path, number: int) -> None:
    (folder / MANIFEST).write_text(f'{{"files": {{"weights": {{}}}}, "number": {number}}}')
    (folder / "weights").write_text(f"of number {number}")


def number_of(folder: Path) -> int:
    number = int(json.loads((folder / MANIFEST).read_text())["number"])
    assert (folder / "weights").read_text() == f"of number {number}"
    return number


def test_a_kill_at_any_step_of_replacing_a_bundle_leaves_one_that_opens(tmp_path: Path) -> None:
    found = []
    for step in range(1, 50):
        output = tmp_path / str(step) / "bundle"
        output.mkdir(parents=True)
        write_numbered(output, 1)
        command = [sys.executable, "-c", KILLED_REPLACEMENT, str(output), str(step)]
        status = subprocess.run(command, check=False).returncode
        was_missing = not output.exists()
        assert holds_bundle(output)
        found.append((number_of(output), was_missing))
        assert not [name for name in entries(output.parent) if ".qvl-" in name and was_missing]
        # Whatever is left goes with the next export into the same folder.
        with locked(output.parent / "other"), staged(output.parent / "other"):
            pass
        # Of one that was killed as it let go of its lock, the empty file stays.
        assert [name for name in entries(output.parent) if name != ".bundle.lock"] == ["bundle", "other"]
        if status == 0:
            break
        assert status == -signal.SIGKILL
    numbers = [number for number, _ in found]
    assert numbers == sorted(numbers)  # the old one up to some step, then the new one
    assert numbers[0] == 1
    assert numbers[-1] == 2
    assert (2, True) in found  # the moment in which there was none of that name
    assert numbers.count(2) > 2


def test_what_cannot_be_put_into_place_leaves_the_old_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "bundle"
    output.mkdir()
    write_numbered(output, 1)
    real = os.rename

    def rename(source: Any, target: Any) -> None:
        if Path(target) == output and ".qvl-new" in str(source):
            raise PermissionError(errno.EACCES, "somebody has a file of it open")
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(BundleError, match="cannot be written"), locked(output), staged(output) as stage:
        write_numbered(stage, 2)
    assert number_of(output) == 1
    assert entries(tmp_path) == ["bundle"]


def test_who_opens_a_bundle_while_it_is_replaced_gets_one_of_the_two(tmp_path: Path) -> None:
    output = tmp_path / "bundle"
    output.mkdir()
    write_numbered(output, 1)
    over = threading.Event()
    failed: list[BaseException] = []

    def read() -> None:
        while not over.is_set():
            try:
                assert holds_bundle(output)
            except BaseException as error:
                failed.append(error)
                return

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(2, 30):
        with locked(output), staged(output) as stage:
            write_numbered(stage, number)
        time.sleep(0.02)  # two replacements within one look are beyond what is promised
    over.set()
    reader.join()
    assert failed == []
    assert number_of(output) == 29


def test_a_bundle_that_cannot_be_brought_back_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = tmp_path / ".bundle.qvl-old"
    left.mkdir()
    write_numbered(left, 1)

    def refuse(*_args: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(BundleError, match=rf"{left}"):
        open_bundle(tmp_path / "bundle")
    monkeypatch.undo()
    assert not holds_bundle(tmp_path / "another")
    assert holds_bundle(tmp_path / "bundle")
    assert entries(tmp_path) == ["bundle"]


# ---- two at once ----


def test_two_processes_make_one_bundle(random_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    command = [sys.executable, "-c", EXPORT, str(random_checkpoint()), str(tmp_path / "bundle")]
    both = [subprocess.Popen(command) for _ in "ab"]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    assert entries(tmp_path) == ["bundle"]
    open_bundle(tmp_path / "bundle")


def test_who_comes_second_waits_and_says_so(tmp_path: Path) -> None:
    order: list[str] = []
    entered = threading.Event()

    def first() -> None:
        with locked(tmp_path / "bundle"):
            entered.set()
            time.sleep(0.3)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    entered.wait()
    with locked(tmp_path / "bundle", waiting=lambda: order.append("waiting")):
        order.append("second")
    thread.join()
    assert order == ["waiting", "first", "second"]
    assert entries(tmp_path) == []


# ---- where a bundle may go ----


def test_a_folder_of_something_else_is_never_replaced(sources: dict[Role, Source], tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "dog.jpg").write_bytes(b"dog")
    with pytest.raises(InputError, match="photos: exists and is not a bundle"):
        export_bundle(sources, tmp_path / "photos", recipe=Recipe())
    assert entries(tmp_path / "photos") == ["dog.jpg"]


def test_a_file_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "bundle").write_text("notes")
    with pytest.raises(InputError):
        check_target(tmp_path / "bundle")


def test_an_empty_folder_and_an_old_bundle_are_replaced(tmp_path: Path) -> None:
    output = tmp_path / "bundle"
    output.mkdir()
    for content in ("one", "two"):
        check_target(output)
        with locked(output), staged(output) as stage:
            (stage / MANIFEST).write_text(f'{{"files": {{}}, "number": "{content}"}}')
        assert content in (output / MANIFEST).read_text()
    assert entries(tmp_path) == ["bundle"]


def test_a_bundle_with_something_of_the_user_in_it_is_not_replaced(
    sources: dict[Role, Source], tmp_path: Path
) -> None:
    output = tmp_path / "bundle"
    export_bundle(sources, output, recipe=Recipe())
    (output / "engines").mkdir()
    (output / "engines" / "rtx.plan").write_bytes(b"can be built again")
    export_bundle(sources, output, recipe=Recipe())
    (output / "onnx" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"notes\.txt: is not part of the bundle"):
        export_bundle(sources, output, recipe=Recipe())
    assert (output / "onnx" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("manifest", ["", "[]", "{}"])
def test_a_damaged_manifest_is_not_a_bundle(tmp_path: Path, manifest: str) -> None:
    (tmp_path / MANIFEST).write_text(manifest)
    with pytest.raises(InputError, match="not a bundle"):
        check_target(tmp_path)


def test_what_appears_during_an_export_is_kept(tmp_path: Path) -> None:
    output = tmp_path / "bundle"

    def export_meanwhile() -> None:
        with locked(output), staged(output):
            output.mkdir()
            (output / "dog.jpg").write_bytes(b"dog")

    with pytest.raises(InputError, match="not a bundle"):
        export_meanwhile()
    assert entries(tmp_path) == ["bundle"]
    assert entries(output) == ["dog.jpg"]


def test_a_parent_that_is_a_file_is_told(sources: dict[Role, Source], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="could not be written"):
        export_bundle(sources, tmp_path / "file" / "bundle", recipe=Recipe())


def test_a_handler_of_the_application_is_left_alone(tmp_path: Path) -> None:
    def own(number: int, frame: object) -> None:
        raise AssertionError("not called")

    before = signal.signal(signal.SIGTERM, own)
    try:
        with locked(tmp_path / "bundle"), staged(tmp_path / "bundle"):
            assert signal.getsignal(signal.SIGTERM) is own
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, before)
    with locked(tmp_path / "other"), staged(tmp_path / "other"):
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
