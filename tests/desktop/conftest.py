"""One small real library for all tests of the command line: rendered pictures, a broken file, odd names."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import pytest
from qvl_local.desktop.cli import run
from qvl_local.runtime.world.demo import make_sample_library

SCHEMAS = Path(__file__).parents[2] / "docs" / "json"
ODD_NAME = "two\nlines \x1b[31mred\x1b[0m.jpg"
# Names need not be UTF-8 on Linux; macOS and Windows refuse such files.
RAW_NAME = "caf\udce9.jpg" if sys.platform == "linux" else "café.jpg"


class Outcome(NamedTuple):
    status: int
    out: str
    err: str


Cli = Callable[..., Outcome]


class Sample(NamedTuple):
    """A library, the folder it was made from, and what the first `index --json` printed."""

    library: Path
    pictures: Path
    broken: Path
    strangers: Path
    first_index: dict[str, Any]
    first_status: int


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    root = tmp_path_factory.mktemp("cli")
    items = make_sample_library(root / "pictures", photos=24, clips=4, seed=3)
    photos = sorted(str(item.path) for item in items if item.path.suffix.lower() in (".jpg", ".jpeg"))
    odd = root / "pictures" / "odd"
    odd.mkdir()
    # Other pictures than those of the library: one content is one item.
    strangers = make_sample_library(root / "strangers", photos=2, clips=1, seed=4)
    jpegs = [item.path for item in strangers if item.path.suffix.lower() in (".jpg", ".jpeg")]
    shutil.copy(jpegs[0], odd / ODD_NAME)
    shutil.copy(photos[0], os.fsencode(odd / RAW_NAME))
    broken = odd / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QVL_LIBRARY", str(root / "library"))
        status, printed = _run_json(["index", str(root / "pictures")], root / "index.json")
    return Sample(root / "library", root / "pictures", broken, root / "strangers", printed, status)


def _run_json(arguments: list[str], capture: Path) -> tuple[int, dict[str, Any]]:
    """A run outside of any test, where capsys does not reach."""
    with capture.open("w+b") as stream:
        saved = sys.stdout
        sys.stdout = open(stream.fileno(), "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        try:
            status = run([*arguments, "--json"])
        finally:
            sys.stdout.close()
            sys.stdout = saved
        stream.seek(0)
        return status, json.loads(stream.read())


@pytest.fixture
def cli(sample: Sample, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run one command line on the sample library and return what it printed."""
    monkeypatch.setenv("QVL_LIBRARY", str(sample.library))

    def call(*arguments: str) -> Outcome:
        capfdbinary.readouterr()
        status = run(arguments)
        sys.stdout.flush()
        out, err = capfdbinary.readouterr()
        return Outcome(status, out.decode("utf-8", "surrogateescape"), err.decode("utf-8"))

    return call


@pytest.fixture
def cli_json(cli: Cli) -> Callable[..., dict[str, Any]]:
    """Run a command with `--json`, check status and schema, and return the object."""

    def call(command: str, *arguments: str, status: int = 0) -> dict[str, Any]:
        outcome = cli(command, *arguments, "--json")
        assert outcome.status == status, outcome.err
        printed: dict[str, Any] = json.loads(outcome.out.encode("utf-8"))
        validate(command if "error" not in printed else "error", printed)
        return printed

    return call


def validate(name: str, printed: dict[str, Any]) -> None:
    schema = json.loads((SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(printed, schema, jsonschema.Draft202012Validator)
