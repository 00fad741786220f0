"""A report as an SVG picture: quality against the size of bundles, and of vectors.

Written by hand, without a plotting library: two panels of points with 95 % intervals, readable in a browser,
in a README and in print. Colour is never the only sign: every point has its name or its shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from .gate import METRIC
from .report import BundleReport, Report, Row
from .vectors import Vectors

WIDTH, HEIGHT = 980, 450
_PANEL_WIDTH, _PANEL_HEIGHT = 380, 280
_TOP = 70
_LEFTS = (70, 560)
# Okabe and Ito's colours, told apart by colour-blind readers too.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
_INK, _FAINT = "#333333", "#dddddd"


@dataclass(frozen=True, slots=True)
class _Point:
    """One mark. `interval` is drawn where there is one; `aside` moves the mark by so many pixels."""

    x: float
    value: float
    interval: tuple[float, float] | None
    name: str
    hint: str
    colour: str
    filled: bool
    shape: Vectors
    aside: float


@dataclass(frozen=True, slots=True)
class _Panel:
    """One diagram. `lines` join points; `heads` are words over places on the x axis."""

    left: float
    title: str
    x_label: str
    points: tuple[_Point, ...]
    lines: tuple[tuple[_Point, ...], ...]
    heads: tuple[tuple[str, float], ...]
    x_text: Callable[[float], str]


def plot(report: Report) -> str:
    """The SVG text."""
    panels = (_bundle_panel(report), _vector_panel(report))
    shown = [point for panel in panels for point in panel.points]
    low, high = _range([end for point in shown for end in (point.value, *(point.interval or ()))])
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" font-family="system-ui, Helvetica, Arial, sans-serif" font-size="12" '
        f'fill="{_INK}" role="img">',
        f"<title>{escape(_title(report))}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{_LEFTS[0]}" y="24" font-size="15" font-weight="600">{escape(_title(report))}</text>',
    ]
    for panel in panels:
        parts += _draw(panel, low, high)
    parts += _legend(report)
    return "\n".join([*parts, "</svg>", ""])


def _title(report: Report) -> str:
    labels = {gallery.labels for gallery in report.galleries}
    what = "Agreement with the reference" if labels == {"reference"} else "Search quality"
    questions = sum(gallery.questions for gallery in report.galleries)
    return f"{what}: nDCG@10 over {questions} questions, with 95 % intervals"


def _bundle_panel(report: Report) -> _Panel:
    points = []
    for bundle, colour in zip(report.bundles, _cycle(len(report.bundles))):
        for rerank in (False, True):
            row = bundle.headline(rerank=rerank)
            if row is not None:
                points.append(_bundle_point(bundle, row, colour))
    return _Panel(_LEFTS[0], "Bundles", "size on disk, MB", tuple(points), (), (), lambda x: f"{x:,.3g}")


def _bundle_point(bundle: BundleReport, row: Row, colour: str) -> _Point:
    mean = row.figures[METRIC].mean
    return _Point(
        x=bundle.subject.size / 1e6,
        value=mean.value,
        interval=(mean.low, mean.high),
        name=bundle.subject.label if row == bundle.rows[-1] or row.rerank else "",
        hint=f"{bundle.subject.label} {mean.value:.4f} [{mean.low:.4f}, {mean.high:.4f}]",
        colour=colour,
        filled=row.rerank,
        shape="float32",
        aside=2.0 if row.rerank else -2.0,
    )


def _vector_panel(report: Report) -> _Panel:
    """Without reranking, where vectors differ most; every bundle a little aside of the others."""
    points: list[_Point] = []
    lines: list[tuple[_Point, ...]] = []
    places: dict[Vectors, list[float]] = {}
    middle = (len(report.bundles) - 1) / 2
    for number, (bundle, colour) in enumerate(zip(report.bundles, _cycle(len(report.bundles)))):
        for kind in dict.fromkeys(row.vectors for row in bundle.rows):
            own = [
                _vector_point(bundle, row, colour, 4 * (number - middle))
                for row in bundle.rows
                if row.vectors == kind and not row.rerank
            ]
            points += own
            lines.append(tuple(own))
            places.setdefault(kind, []).extend(point.x for point in own)
    heads = tuple((kind, math.sqrt(min(xs) * max(xs))) for kind, xs in places.items())
    return _Panel(
        _LEFTS[1],
        "Vectors, without reranking",
        "bytes a vector",
        tuple(points),
        tuple(lines),
        heads,
        lambda x: f"{x:,.0f}",
    )


def _vector_point(bundle: BundleReport, row: Row, colour: str, aside: float) -> _Point:
    mean = row.figures[METRIC].mean
    hint = f"{bundle.subject.label}, {row.dims} {row.vectors}: {mean.value:.4f}"
    return _Point(row.bytes_per_vector, mean.value, None, "", hint, colour, False, row.vectors, aside)


def _draw(panel: _Panel, low: float, high: float) -> list[str]:
    bottom, right = _TOP + _PANEL_HEIGHT, panel.left + _PANEL_WIDTH
    xs = [point.x for point in panel.points]
    first, last = min(xs) / 1.35, max(xs) * 1.35

    def at_x(x: float) -> float:
        return panel.left + _PANEL_WIDTH * math.log(x / first) / math.log(last / first)

    def at_y(y: float) -> float:
        return bottom - _PANEL_HEIGHT * (y - low) / (high - low)

    parts = [f'<text x="{panel.left}" y="{_TOP - 12}" font-weight="600">{escape(panel.title)}</text>']
    for tick in _ticks(low, high):
        y = at_y(tick)
        parts.append(f'<line x1="{panel.left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="{_FAINT}"/>')
        parts.append(f'<text x="{panel.left - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:.2f}</text>')
    for tick in _log_ticks(first, last, xs):
        x = at_x(tick)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 5}" stroke="{_INK}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{panel.x_text(tick)}</text>')
    parts.append(f'<line x1="{panel.left}" x2="{right}" y1="{bottom}" y2="{bottom}" stroke="{_INK}"/>')
    middle = panel.left + _PANEL_WIDTH / 2
    parts.append(f'<text x="{middle}" y="{bottom + 36}" text-anchor="middle">{escape(panel.x_label)}</text>')
    for word, place in panel.heads:
        parts.append(
            f'<text x="{at_x(place):.1f}" y="{bottom - 8}" text-anchor="middle" fill="#777777">{word}</text>'
        )
    for line in panel.lines:
        path = " ".join(f"{at_x(point.x) + point.aside:.1f},{at_y(point.value):.1f}" for point in line)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{line[0].colour}" opacity="0.6"/>')
    return [*parts, *_names(panel.points, at_x, bottom), *_marks(panel.points, at_x, at_y)]


def _marks(
    points: Sequence[_Point], at_x: Callable[[float], float], at_y: Callable[[float], float]
) -> list[str]:
    parts = []
    for point in points:
        x, y = at_x(point.x) + point.aside, at_y(point.value)
        if point.interval is not None:
            low, high = (at_y(end) for end in point.interval)
            parts.append(
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}" stroke="{point.colour}" '
                'opacity="0.55"/>'
            )
        parts.append(_mark(point, x, y))
    return parts


def _names(points: Sequence[_Point], at_x: Callable[[float], float], bottom: float) -> list[str]:
    """Upright above the axis, each beside its point and clear of the one before."""
    parts = []
    free = -math.inf
    for point in sorted((point for point in points if point.name), key=lambda point: point.x):
        x = max(at_x(point.x) + 4, free)
        free = x + 13
        parts.append(
            f'<text x="{x:.1f}" y="{bottom - 6:.1f}" transform="rotate(-90 {x:.1f} {bottom - 6:.1f})" '
            f'font-size="11" fill="{point.colour}" dy="4">{escape(point.name)}</text>'
        )
    return parts


def _mark(point: _Point, x: float, y: float) -> str:
    """A circle for float32, a diamond for int8, a square for binary, with its figures as a tooltip."""
    fill = point.colour if point.filled else "#ffffff"
    look = f'fill="{fill}" stroke="{point.colour}" stroke-width="1.8"'
    hint = f"<title>{escape(point.hint)}</title>"
    if point.shape == "float32":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" {look}>{hint}</circle>'
    turn = f' transform="rotate(45 {x:.1f} {y:.1f})"' if point.shape == "int8" else ""
    return f'<rect x="{x - 3.8:.1f}" y="{y - 3.8:.1f}" width="7.6" height="7.6" {look}{turn}>{hint}</rect>'


def _legend(report: Report) -> list[str]:
    """Names of bundles and what filled marks mean, in as many lines as they take."""
    entries = [
        (bundle.subject.label, colour, colour)
        for bundle, colour in zip(report.bundles, _cycle(len(report.bundles)))
    ]
    entries += [("reranked", "#777777", "#777777"), ("embedder alone", "#ffffff", "#777777")]
    parts = []
    x, y = float(_LEFTS[0]), _TOP + _PANEL_HEIGHT + 62
    for text, fill, stroke in entries:
        width = 30 + 7 * len(text)
        if x + width > WIDTH and x > _LEFTS[0]:
            x, y = float(_LEFTS[0]), y + 18
        parts.append(f'<circle cx="{x + 5:.1f}" cy="{y - 4}" r="4.5" fill="{fill}" stroke="{stroke}"/>')
        parts.append(f'<text x="{x + 15:.1f}" y="{y}">{escape(text)}</text>')
        x += width
    return parts


def _cycle(count: int) -> list[str]:
    return [_COLOURS[number % len(_COLOURS)] for number in range(count)]


def _range(values: Sequence[float]) -> tuple[float, float]:
    """A range that holds all values, in steps of 0.05, within [0, 1]."""
    low = max(0.0, math.floor(min(values) * 20) / 20)
    high = min(1.0, math.ceil(max(values) * 20) / 20)
    return (low, high) if high > low else (max(0.0, low - 0.05), low or 0.05)


def _ticks(low: float, high: float) -> list[float]:
    step = next(step for step in (0.01, 0.02, 0.05, 0.1, 0.2) if (high - low) / step <= 8)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(first: float, last: float, values: Sequence[float]) -> list[float]:
    """Powers of two where the values are such, else 1, 2, 5 of each decade; none too many."""
    exact = sorted(set(values))
    if len(exact) <= 6 and all(b / a > 1.3 for a, b in pairwise(exact)):
        return exact
    if all(math.log2(value).is_integer() for value in exact):
        ticks = [2.0**power for power in range(math.ceil(math.log2(first)), math.floor(math.log2(last)) + 1)]
        return ticks[:: -(-len(ticks) // 8)]
    decades = range(math.floor(math.log10(first)), math.ceil(math.log10(last)) + 1)
    ticks = [digit * 10.0**decade for decade in decades for digit in (1, 2, 5)]
    return [tick for tick in ticks if first <= tick <= last]
