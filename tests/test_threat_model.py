"""Every row of the threat model names tests, and they are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).resolve().parent
PAGE = TESTS.parent / "docs" / "threat-model.md"
NAMED = re.compile(r"`([\w/]+\.py)::(test_\w+)`")


def rows() -> list[list[str]]:
    """The cells of every row of every table, without headings."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [row for row in cells if row[0].strip("|- ") not in ("", "threat")]


def test_every_row_names_a_test() -> None:
    found = rows()
    assert len(found) > 40
    for row in found:
        assert len(row) == 3, row
        assert all(row), row
        assert NAMED.search(row[2]), f"no test: {row[0]}"
        assert not NAMED.sub("", row[2]).strip(), f"more than tests: {row[2]}"


def test_every_test_that_is_named_is_there() -> None:
    defined: dict[str, set[str]] = {}
    for row in rows():
        for file, name in NAMED.findall(row[2]):
            if file not in defined:
                tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
                defined[file] = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
            assert name in defined[file], f"{file}::{name}"


def test_no_threat_stands_there_twice() -> None:
    threats = [row[0] for row in rows()]
    assert len(threats) == len(set(threats))
