"""The house rules that a tool can check: direction of imports, light imports, one list of packages."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("runtime", "quant", "export", "desktop")


def test_imports_point_one_way() -> None:
    run = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout


def test_every_folder_with_modules_is_a_listed_package() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"]
    found = {
        str(path.parent.relative_to(ROOT).as_posix())
        for top in FOLDERS
        for path in (ROOT / top).rglob("*.py")
    }
    assert found <= set(listed.values())


def test_links_for_type_checkers_point_at_the_folders() -> None:
    for folder in FOLDERS:
        assert (ROOT / ".dev" / "qvl_local" / folder).resolve() == ROOT / folder


def test_importing_the_runtime_is_free() -> None:
    code = "import sys, qvl_local.runtime; print(' '.join(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    assert not loaded & {"numpy", "onnxruntime", "PIL", "av", "apsw", "torch", "jinja2", "tokenizers"}


def test_nothing_but_the_docs_knows_torch_outside_export_and_tests() -> None:
    for path in (ROOT / "runtime").rglob("*.py"):
        assert "import torch" not in path.read_text(encoding="utf-8"), path
