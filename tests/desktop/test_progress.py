import io
import time

import pytest
from qvl_local.desktop.progress import (
    MAKING_READY,
    BarView,
    LineView,
    View,
    first_model_step,
    progress_view,
)
from qvl_local.runtime.library.tally import IndexProgress

STEPS = (
    IndexProgress("renew", 0, 12, 0),
    IndexProgress("scan", 120, None, 0),
    IndexProgress("embed", 10, 40, 1, "/a.jpg", 5.5, 6.0),
    IndexProgress("remove", 0, 3, 1),
)


def test_lines_say_how_far_how_fast_and_how_long(capsys: pytest.CaptureFixture[str]) -> None:
    with LineView(every_s=0) as view:
        for step in STEPS:
            view.index(step)
        view.model("writing", 0.25)
        view.model("writing", 0.5)
        view.files(3, 340)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines() == [
        "The library was indexed with another model: 12 items will be embedded anew, which takes as long as "
        "the first time. Until then the old model still serves.",
        "Looking for files: 120",
        "Indexing: 10 of 40, 5.5 files/s, 1 failed, 6.0 s left",
        "Forgetting what is gone: 0 of 3, 1 failed",
        "Making the model ready. This happens once and may take a while.",
        "Model: writing: 25 of 100",
        "Model: writing: 50 of 100",
        "Making sample pictures: 3 of 340",
    ]


def test_news_of_a_model_stays_to_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    """A sentence is no step that the next one replaces: it is told at once, also where no steps are shown."""
    told = [("int8 is made anew.", 0.0), ("reading", 0.1), ("Another precision is tried.", 0.0)]
    with LineView(every_s=1000) as view:
        for step, fraction in told:
            view.model(step, fraction)
    tell = first_model_step()
    for step, fraction in told:
        tell(step, fraction)
    assert capsys.readouterr().err.splitlines() == 2 * ["int8 is made anew.", MAKING_READY, told[2][0]]


def test_a_step_of_a_model_says_how_long_it_will_take(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[float | None] = []

    class Listener(View):
        def show(
            self,
            label: str,
            done: float,
            total: float | None,
            *,
            speed: str = "",
            left_s: float | None = None,
        ) -> None:
            shown.append(left_s)

    view = Listener()
    told = [(0.0, "reading", 0.2), (2.0, "reading", 0.3), (10.0, "reading", 0.6), (11.0, "writing", 0.5)]
    for now, step, fraction in told:
        monkeypatch.setattr(time, "monotonic", lambda now=now: now)
        view.model(step, fraction)
    # 0.4 took ten seconds, so the rest takes as long; before three seconds nothing is foretold.
    assert shown == [None, None, pytest.approx(10.0), None]


def test_lines_are_rare(capsys: pytest.CaptureFixture[str]) -> None:
    with LineView(every_s=1000) as view:
        for _ in range(1000):
            view.index(STEPS[2])
    assert capsys.readouterr().err == ""


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr("sys.stderr", screen)
    view = progress_view()
    assert isinstance(view, BarView)
    with view:
        for step in STEPS:
            view.index(step)
            view._progress.refresh()
    printed = screen.getvalue()
    for part in ("Looking for files", "Indexing", "10/40", "5.5 files/s, 1 failed, 6.0 s left", "Forgetting"):
        assert part in printed
