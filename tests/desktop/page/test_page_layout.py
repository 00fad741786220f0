"""The arithmetic of the grid: a module that knows no document, run on an empty page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from playwright.sync_api import Browser

LAYOUT = Path(__file__).parents[3] / "desktop" / "page" / "layout.js"
FUNCTIONS = "{ aspect, justify, rowsBetween, neighbour, months }"
WIDTH, ROW, GAP, HEADING = 1000, 200, 6, 40

Run = Callable[[str, Any], Any]


@pytest.fixture(scope="module")
def run(browser: Browser) -> Iterator[Run]:
    """Runs a function of JavaScript, which finds the module's functions in `layout`."""
    source = LAYOUT.read_text(encoding="utf-8").replace("\nexport ", "\n")
    page = browser.new_page()
    page.evaluate(f"() => {{ {source}; window.layout = {FUNCTIONS}; }}")
    yield page.evaluate
    page.close()


def justified(run: Run, sizes: list[tuple[int, int]], sections: list[dict[str, Any]] | None = None) -> Any:
    items = [{"width": width, "height": height} for width, height in sizes]
    options = {"width": WIDTH, "rowHeight": ROW, "gap": GAP, "heading": HEADING, "sections": sections or []}
    return run(
        """([items, options]) => {
          const { rows, x, width, rowOf, height } = layout.justify(items, options);
          return { rows, x: [...x], width: [...width], rowOf: [...rowOf], height };
        }""",
        [items, options],
    )


@given(st.lists(st.tuples(st.integers(0, 9000), st.integers(0, 9000)), max_size=60))
def test_rows_fill_the_width_in_order_and_none_but_the_last_is_short(
    run: Run, sizes: list[tuple[int, int]]
) -> None:
    found = justified(run, sizes)
    rows = found["rows"]
    assert [i for row in rows for i in range(row["from"], row["to"])] == list(range(len(sizes)))
    y = 0.0
    for n, row in enumerate(rows):
        last = row["to"] - 1
        end = found["x"][last] + found["width"][last]
        assert row["y"] == pytest.approx(y)
        assert found["x"][row["from"]] == 0
        assert end <= WIDTH + 0.01
        assert all(found["rowOf"][i] == n for i in range(row["from"], row["to"]))
        if n < len(rows) - 1:
            assert end == pytest.approx(WIDTH)
        else:
            assert end == pytest.approx(WIDTH) or row["height"] == ROW
        y += row["height"] + GAP
    assert found["height"] == pytest.approx(max(0.0, y - GAP))


def test_boxes_keep_the_shape_of_their_pictures(run: Run) -> None:
    found = justified(run, [(400, 300), (300, 400), (1600, 900)])
    (row,) = found["rows"]
    assert found["width"] == pytest.approx([row["height"] * shape for shape in (4 / 3, 3 / 4, 16 / 9)])
    assert run("() => [layout.aspect({width: 9000, height: 1}), layout.aspect({})]", None) == [3.2, 1]


def test_sections_begin_with_their_heading(run: Run) -> None:
    sections = [{"at": 0, "title": "May"}, {"at": 3, "title": "April"}]
    rows = justified(run, [(400, 300)] * 5, sections)["rows"]
    assert [(row["heading"], row["from"], row["to"]) for row in rows] == [
        ("May", 0, 0),
        ("", 0, 3),
        ("April", 3, 3),
        ("", 3, 5),
    ]
    assert rows[1]["y"] == HEADING


def test_a_window_holds_the_rows_that_it_meets(run: Run) -> None:
    window = "([rows, top, bottom]) => layout.rowsBetween(rows, top, bottom)"
    rows = [{"y": 100 * i, "height": 90} for i in range(100)]
    assert run(window, [rows, 250, 410]) == [2, 5]
    assert run(window, [rows, -500, 0]) == [0, 0]
    assert run(window, [rows, 9_995, 20_000]) == [100, 100]
    assert run(window, [[], 0, 1000]) == [0, 0]


def test_up_and_down_lead_to_the_nearest_across_headings(run: Run) -> None:
    step = """([sizes, sections, from, by]) => {
      const items = sizes.map(([width, height]) => ({ width, height }));
      const found = layout.justify(items, { width: 1000, rowHeight: 200, gap: 6, heading: 40, sections });
      return layout.neighbour(found, from, by);
    }"""
    sizes = [[400, 300]] * 8
    sections = [{"at": 0, "title": "May"}, {"at": 4, "title": "April"}]
    assert run(step, [sizes, sections, 1, 1]) == 5
    assert run(step, [sizes, sections, 5, -1]) == 1
    assert run(step, [sizes, sections, 0, -1]) == 0
    assert run(step, [sizes, sections, 6, 1]) == 6


def test_months_with_few_items_share_a_heading(run: Run) -> None:
    sections = "(dates) => layout.months(dates.map((taken_at) => ({ taken_at })), (a, b) => `${a}..${b}`)"
    dates = ["2023-05-02"] * 7 + ["2023-04-01"] * 2 + ["2023-02-01"] * 5 + ["2022-12-24"] + [None] * 2
    assert run(sections, dates) == [
        {"at": 0, "title": "2023-05..2023-05"},
        {"at": 7, "title": "2023-02..2023-04"},
        {"at": 14, "title": "2022-12..2022-12"},
        {"at": 15, "title": "Without a date"},
    ]
    assert run(sections, []) == []
