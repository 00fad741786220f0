"""The page opens in the browser of who sits here, and in none where nobody can see it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from qvl_local.desktop.browser import can_open

pytestmark = pytest.mark.skipif("sys.platform != 'linux'", reason="displays and browsers as Linux has them")


def test_the_page_opens_in_the_chosen_browser(tmp_path: Path) -> None:
    browser = tmp_path / "browser"
    browser.write_text(
        f'#!/bin/sh\nprintf %s "$1" > {tmp_path}/asked.part\nmv {tmp_path}/asked.part {tmp_path}/asked\n'
    )
    browser.chmod(browser.stat().st_mode | stat.S_IXUSR)
    script = (
        "import sys, threading\n"
        "from qvl_local.desktop.browser import open_page\n"
        "open_page(sys.argv[1])\n"
        "for thread in threading.enumerate():\n"
        "    if thread.name == 'opening the browser': thread.join()\n"
    )
    subprocess.run(
        [sys.executable, "-c", script, "http://127.0.0.1:8377/"],
        check=True,
        env={**os.environ, "BROWSER": f"{browser} %s", "DISPLAY": ":7"},
    )
    assert (tmp_path / "asked").read_text() == "http://127.0.0.1:8377/"


def test_without_a_display_there_is_no_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert not can_open()
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    assert can_open()
