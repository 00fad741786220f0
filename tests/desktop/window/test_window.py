"""The window itself, on a display that nobody sees. Qt, its web view, the page and the server are real."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from qvl_local.desktop.window.folder_call import answer
from qvl_local.runtime.server.presence import find_server

FOLDER = "/photos of 'Anna' \u2028 and \"Ben\""

# The command, with a hand that does what a person would. Only the system's folder dialog is not real.
PERSON = """
import json, subprocess, sys, threading, time
from qvl_local.desktop import cli
from qvl_local.desktop.window import qt, window
from qtpy import QtCore

library, folder = sys.argv[1:]
told = {}

class Page(QtCore.QObject):
    asked = QtCore.Signal(str)

    def __init__(self, view):
        super().__init__()
        self.view = view
        self.answered = threading.Event()
        self.moveToThread(view.thread())
        self.asked.connect(self.run)

    def run(self, script):
        self.view.webview.page().runJavaScript(script, self.take)

    def take(self, value):
        self.value = value
        self.answered.set()

    def ask(self, script):
        self.answered.clear()
        self.asked.emit(script)
        assert self.answered.wait(30), script
        return self.value

    def wait_for(self, script):
        for _ in range(600):
            if self.ask(script):
                return True
            time.sleep(0.1)
        return False

def person(view):
    page = Page(view)
    told["pictures"] = page.wait_for("[...document.images].some((image) => image.naturalWidth > 0)")
    told["url"] = page.ask("location.href")
    page.ask("window.qvlWindow.pickFolder().then((path) => { window.picked = path; }); 1")
    told["has_answer"] = page.wait_for("'picked' in window")
    told["picked"] = page.ask("window.picked")
    page.ask("location.href = 'http://elsewhere.invalid/'; 1")
    told["stays"] = page.ask("location.href") == told["url"]
    second = [sys.executable, "-c", "import sys; from qvl_local.desktop.cli import main; main()"]
    again = subprocess.run([*second, "desktop", "--library", library], capture_output=True, text=True)
    told["second"] = [again.returncode, again.stderr]
    told["came_to_front"] = shown.wait(30)
    view.destroy_trigger.emit()

shown = threading.Event()
def show(self, original=qt.Shower._show):
    original(self)
    shown.set()

qt.Shower._show = show
qt._picked_folder = lambda view: folder
qt.webbrowser.open = lambda url: told.setdefault("opened_elsewhere", url)
keep_to = qt.keep_to
def keep_and_begin(view, netloc):
    keep_to(view, netloc)
    threading.Thread(target=person, args=(view,), daemon=True).start()
qt.keep_to = keep_and_begin

status = cli.run(["desktop", "--library", library, "--json"])
print(json.dumps({**told, "status": status}), flush=True)
"""


@pytest.fixture(scope="module")
def display() -> Iterator[str]:
    if shutil.which("Xvfb") is None:
        pytest.skip("Xvfb is not installed")
    reader, writer = os.pipe()
    command = ["Xvfb", "-displayfd", str(writer), "-screen", "0", "1280x900x24", "-nolisten", "tcp"]
    with subprocess.Popen(command, pass_fds=[writer], stderr=subprocess.DEVNULL) as server:
        os.close(writer)
        with os.fdopen(reader) as said:
            yield f":{said.readline().strip()}"
        server.terminate()


def environment(home: Path, display: str | None) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    # A sandbox within the sandbox of a build machine does not work, and there is no graphics card.
    more = {"QTWEBENGINE_CHROMIUM_FLAGS": "--no-sandbox --disable-gpu", "XDG_DATA_HOME": str(home / "data")}
    return {**kept, **more, "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")} | (
        {} if display is None else {"DISPLAY": display}
    )


@pytest.fixture(scope="module")
def told(sample: Any, display: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a person met who opened the window, used it, opened it once more, and closed it."""
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(sample.library, home / "library")
    done = subprocess.run(
        [sys.executable, "-c", PERSON, str(home / "library"), FOLDER],
        env=environment(home, display),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, last = done.stdout.splitlines()
    return {**json.loads(last), "line": json.loads(first), "library": home / "library", "log": done.stderr}


def test_the_window_shows_the_page_with_its_pictures(told: dict[str, Any]) -> None:
    assert told["pictures"]
    assert told["url"].startswith(told["line"]["url"])


def test_the_page_gets_the_folder_that_was_chosen(told: dict[str, Any]) -> None:
    assert told["has_answer"]
    assert told["picked"] == FOLDER


def test_the_window_shows_no_other_address(told: dict[str, Any]) -> None:
    assert told["stays"]
    assert told["opened_elsewhere"] == "http://elsewhere.invalid/"


def test_opened_twice_it_comes_to_the_front(told: dict[str, Any]) -> None:
    status, said = told["second"]
    assert status == 0
    assert "come to the front" in said
    assert told["came_to_front"]


def test_closing_it_stops_what_it_started(told: dict[str, Any]) -> None:
    assert told["status"] == 0
    assert find_server(told["library"]) is None
    assert "Traceback" not in told["log"]


def test_without_a_display_the_page_is_offered_to_the_browser(sample: Any, tmp_path: Path) -> None:
    shutil.copytree(sample.library, tmp_path / "library")
    command = [sys.executable, "-c", "import sys; from qvl_local.desktop.cli import main; main()"]
    with subprocess.Popen(
        [*command, "desktop", "--library", str(tmp_path / "library"), "--json"],
        env=environment(tmp_path, None),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        served = json.loads(process.stdout.readline())
        found = find_server(tmp_path / "library")
        assert found is not None
        assert found.url == served["url"]
        process.terminate()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "no display" in said
    assert "browser instead" in said


def test_an_answer_is_one_harmless_statement() -> None:
    script = answer("</script>\u2028'\"\\")
    assert script.isascii()
    assert script.count("\n") == 0
    assert json.loads(script[script.index("{") : script.rindex("}") + 1])["detail"] == "</script>\u2028'\"\\"
    assert '"detail": null' in answer(None)
