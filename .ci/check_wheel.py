"""Compare a built wheel with the tree: every module and data file of the packages, and nothing else."""

from __future__ import annotations

import sys
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA_FOLDERS = (
    "desktop/page",
    "export/recipes",
    "models/tiny/embedding",
    "models/tiny/reranker",
    "runtime/world/assets",
)


def expected() -> set[str]:
    """Files that the wheel must hold, as paths inside it."""
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = setuptools["package-dir"]
    files = set()
    for package in setuptools["packages"]:
        folder = ROOT / folders[package]
        inside = package.replace(".", "/")
        files |= {f"{inside}/{path.name}" for path in folder.glob("*.py")}
        files |= {f"{inside}/{path.name}" for path in folder.glob("py.typed")}
    for data in DATA_FOLDERS:
        files |= {f"qvl_local/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / data).iterdir()}
    return files | {"qvl_local/models/tiny/README.md", "qvl_local/models/tiny/figures.json"}


def unlisted() -> list[str]:
    """Folders with modules that no package of pyproject.toml covers."""
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    covered = {ROOT / folder for folder in setuptools["package-dir"].values()}
    found = {
        path.parent
        for top in ("runtime", "quant", "export", "desktop")
        for path in (ROOT / top).rglob("*.py")
    }
    return sorted(str(path.relative_to(ROOT)) for path in found - covered)


def main() -> int:
    """Exit status 0 when the wheel is complete."""
    wheel = sys.argv[1]
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
    missing, extra, loose = sorted(expected() - inside), sorted(inside - expected()), unlisted()
    for title, names in (
        ("missing from the wheel", missing),
        ("not in the tree", extra),
        ("no package for", loose),
    ):
        for name in names:
            print(f"{title}: {name}")
    print(f"{Path(wheel).name}: {len(inside)} files, {Path(wheel).stat().st_size / 1e6:.1f} MB")
    return 1 if missing or extra or loose else 0


if __name__ == "__main__":
    sys.exit(main())
