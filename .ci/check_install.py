"""Check a fresh environment after `pip install .`: what came onto the disk, and that no torch came along."""

from __future__ import annotations

import sys
from pathlib import Path

LIMIT_MIB = 400

# What a new environment brings by itself: pip, and before Python 3.12 setuptools.
_ITS_OWN = ("pip", "setuptools", "pkg_resources", "_distutils_hack", "distutils")


def main() -> int:
    """Exit status 0 when what was installed takes at most LIMIT_MIB."""
    [site] = Path(sys.argv[1]).glob("lib/python3*/site-packages")
    # Blocks, not lengths: what the files take on disk, as `du` counts it.
    taken = {
        entry.name: sum(path.lstat().st_blocks * 512 for path in [entry, *entry.rglob("*")]) / 2**20
        for entry in site.iterdir()
    }
    own = sum(size for name, size in taken.items() if name.partition("-")[0] in _ITS_OWN)
    size = sum(taken.values()) - own
    print(f"installed: {size:.0f} MiB (limit {LIMIT_MIB}); the environment's own: {own:.0f} MiB")
    heavy = [name for name in ("torch", "transformers", "sympy") if (site / name).exists()]
    for name in heavy:
        print(f"{name} must not be part of the core install")
    return 1 if size > LIMIT_MIB or heavy else 0


if __name__ == "__main__":
    sys.exit(main())
