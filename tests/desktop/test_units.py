"""The units and the launcher that docs/server.md gives: their readers know them, and their options exist."""

from __future__ import annotations

import configparser
import os
import plistlib
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from qvl_local.desktop.cli import app
from typer.main import get_command

PAGE = Path(__file__).parents[2] / "docs" / "server.md"
UNIT_KEYS = {
    "Unit": {"Description"},
    "Service": {"ExecStart", "Environment", "Restart", "KillMode", "TimeoutStopSec", "Nice"},
    "Install": {"WantedBy"},
}


def example(name: str) -> str:
    """What docs/server.md says that a file holds."""
    found = re.search(rf"{re.escape(name)}`.*?\n```\w+\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert found, name
    return found[1]


def keys_of(text: str) -> dict[str, dict[str, str]]:
    parser = configparser.RawConfigParser(strict=True)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(text)
    return {name: dict(parser[name]) for name in parser.sections()}


def check_command(words: list[str]) -> None:
    """Nothing but a command, and options of it that need no value."""
    assert Path(words[0]).name == "qvl-local"
    command = get_command(app).commands[words[1]]  # type: ignore[attr-defined]
    flags = {name for one in command.params if getattr(one, "is_flag", False) for name in one.opts}
    assert set(words[2:]) <= flags


def checked_by(tool: str, *arguments: str, **options: Any) -> None:
    """What the system's own reader says, where there is one: nothing, if all is well."""
    if shutil.which(tool) is None:
        return
    done = subprocess.run([tool, *arguments], capture_output=True, text=True, check=False, **options)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_systemd_unit(tmp_path: Path) -> None:
    text = example("qvl-local.service")
    unit = keys_of(text)
    assert {name: set(keys) for name, keys in unit.items()} == UNIT_KEYS
    service = unit["Service"]
    check_command(service["ExecStart"].split())
    assert service["KillMode"] == "mixed", "its workers are ended by itself, once it has written"
    name, _, value = service["Environment"].partition("=")
    params = get_command(app).commands["serve"].params  # type: ignore[attr-defined]
    (option,) = [one for one in params if getattr(one, "envvar", None) == name]
    assert option.type.convert(value, option, None) == float(value)
    # The command must be there, and systemd looks for its user's folder.
    command = tmp_path / ".local" / "bin" / "qvl-local"
    command.parent.mkdir(parents=True)
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    (tmp_path / "qvl-local.service").write_text(text)
    where = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    checked_by(
        "systemd-analyze", "--user", "verify", "./qvl-local.service", cwd=tmp_path, env=os.environ | where
    )


def test_the_launch_agent() -> None:
    agent = plistlib.loads(example("local.qvl.serve.plist").encode())
    assert set(agent) == {
        *("Label", "ProgramArguments", "RunAtLoad", "KeepAlive", "ProcessType", "StandardErrorPath")
    }
    check_command(agent["ProgramArguments"])
    assert agent["Label"] == "local.qvl.serve"
    assert agent["KeepAlive"] == {"SuccessfulExit": False}
    assert agent["ProcessType"] == "Background"
    assert agent["StandardErrorPath"].startswith("/Users/")


@pytest.mark.parametrize("command", ["serve", "desktop"])
def test_the_launcher(command: str, tmp_path: Path) -> None:
    text = example("qvl-local.desktop").replace("qvl-local serve", f"qvl-local {command}")
    (entry,) = keys_of(text).values()
    assert {"Type", "Name", "Exec", "Icon", "Categories", "Terminal"} <= set(entry)
    check_command(entry["Exec"].split())
    assert entry["Categories"].endswith(";")
    (tmp_path / "qvl-local.desktop").write_text(text)
    checked_by("desktop-file-validate", str(tmp_path / "qvl-local.desktop"))
