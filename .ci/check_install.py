"""Check a fresh environment after `pip install .`: its size on disk, and that no torch came along."""

from __future__ import annotations

import sys
from pathlib import Path

LIMIT_MB = 400


def main() -> int:
    """Exit status 0 when site-packages is at most LIMIT_MB, everything in it counted."""
    [site] = Path(sys.argv[1]).glob("lib/python3*/site-packages")
    # Blocks, not lengths: what the files take on disk, as `du` counts it.
    size = sum(path.lstat().st_blocks * 512 for path in site.rglob("*")) / 2**20
    print(f"site-packages: {size:.0f} MiB (limit {LIMIT_MB})")
    heavy = [name for name in ("torch", "transformers", "sympy") if (site / name).exists()]
    for name in heavy:
        print(f"{name} must not be part of the core install")
    return 1 if size > LIMIT_MB or heavy else 0


if __name__ == "__main__":
    sys.exit(main())
