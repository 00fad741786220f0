"""What `qvl-local` does before a command begins: help, versions, wrong usage, and how little it loads."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from qvl_local.desktop.cli import app, run
from qvl_local.desktop.commands import COMMANDS
from typer.main import get_command

DOCS = Path(__file__).parents[2] / "docs"
HEAVY = (
    "numpy",
    "onnxruntime",
    "onnx_ir",
    "av",
    "PIL",
    "torch",
    "transformers",
    "rich",
    "apsw",
    "tokenizers",
)
SERVER = (
    "fastapi",
    "starlette",
    "uvicorn",
    "h11",
    "pydantic",
    "watchfiles",
    "webview",
    "qvl_local.runtime.server",
    "qvl_local.desktop.window",
)
UNUSED_BY_A_SEARCH = ("av", "torch", "transformers", "onnx", "onnx_ir", "huggingface_hub", *SERVER)
LOADED = """
import sys
from qvl_local.desktop.cli import run
status = run({arguments!r})
print("status", status, *sorted(sys.modules), file=sys.stderr)
"""


def loaded_by(arguments: list[str]) -> set[str]:
    """The modules that a run of the command line leaves loaded, and "status" with the status."""
    script = LOADED.format(arguments=arguments)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["search", "--help"],
        ["serve", "--help"],
        ["desktop", "--help"],
        ["--version"],
        ["search", ""],
    ],
)
def test_help_and_refusals_load_nothing_heavy(arguments: list[str]) -> None:
    loaded = loaded_by(arguments)
    assert "qvl_local.desktop.commands.search" in loaded
    assert not [module for module in (*HEAVY, *SERVER) if module in loaded]


def test_a_search_loads_nothing_of_the_server(sample: Any) -> None:
    loaded = loaded_by(["search", "a dog", "--json", "--library", str(sample.library)])
    assert {"status", "0", "onnxruntime", "apsw"} <= loaded
    assert not [module for module in UNUSED_BY_A_SEARCH if module in loaded]


def test_every_command_and_option_has_help_and_every_command_a_page_section() -> None:
    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    group = get_command(app)
    assert set(group.commands) == set(COMMANDS)  # type: ignore[attr-defined]
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        assert command.help, f"{name} has no help text"
        assert f"\n## {name}\n" in page, f"docs/cli.md has no section on {name}"
        section = page.split(f"\n## {name}\n")[1].split("\n## ")[0]
        common = page.split("\n## Options of every command\n")[1].split("\n## ")[0]
        for parameter in command.params:
            if parameter.name == "help":
                continue
            assert parameter.help, f"{name}: {parameter.name} has no help text"
            if parameter.param_type_name == "option":
                described = section + common
                assert parameter.opts[-1] in described, (
                    f"docs/cli.md, {name}: {parameter.opts[-1]} is missing"
                )
        assert {"--json", "--debug"} <= {name for parameter in command.params for name in parameter.opts}


FILTERS = {"--kind", "--after", "--before", "--under", "--camera", "--place"}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_synopsis_of_a_command_has_all_its_options(name: str) -> None:
    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    synopsis = page.split(f"\n## {name}\n\n`")[1].split("`\n")[0]
    command = get_command(app).commands[name]  # type: ignore[attr-defined]
    named = set(re.findall(r"(?<![\w-])--?[\w-]+", synopsis))
    if "[filters]" in synopsis:
        named |= FILTERS
    missing = [
        parameter.opts[-1]
        for parameter in command.params
        if parameter.param_type_name == "option"
        and not {"--help", "--json", "--debug"} & set(parameter.opts)
        and not named & {*parameter.opts, *parameter.secondary_opts}
    ]
    assert missing == []
    assert (
        named
        <= {option for parameter in command.params for option in [*parameter.opts, *parameter.secondary_opts]}
        | FILTERS
    )


def test_every_command_has_a_schema() -> None:
    page = (DOCS / "json.md").read_text(encoding="utf-8")
    for name in [*COMMANDS, "error"]:
        schema = json.loads((DOCS / "json" / f"{name}.schema.json").read_text(encoding="utf-8"))
        assert schema["additionalProperties"] is False
        for field in _fields(schema):
            assert f"`{field}`" in page, f"docs/json.md does not explain {name}'s {field}"


def _fields(schema: Any) -> Iterator[str]:
    """Every field that a schema names, at any depth."""
    if isinstance(schema, dict):
        yield from schema.get("properties", {})
        for part in schema.values():
            yield from _fields(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from _fields(part)


def test_a_misspelt_command_is_told_in_one_sentence_after_the_other(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["serch"]) == 2
    said = capsys.readouterr().err
    assert "Did you mean" in said
    assert "? See: qvl-local --help\n" in said


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("qvl-local 0.")


def test_no_command_shows_the_help_and_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "Commands:" in printed.err


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["frobnicate"], "frobnicate"),
        (["search", "dogs", "--jason"], "--jason"),
        (["search", "dogs", "-k", "0"], "-k"),
        (["search", "dogs", "-k", "many"], "-k"),
        (["search", "dogs", "--kind", "sound"], "--kind"),
        (["index"], "PATH"),
        (["search"], "QUERY"),
        (["search", "   "], "QUERY"),
        (["search", "caf\udce9"], "QUERY"),
        (["search", "dogs", "--after", "soon"], "--after"),
        (["search", "dogs", "--after", "2025", "--before", "2024"], "--before"),
        (["search", "dogs", "--camera", ""], "--camera"),
        (["search", "dogs", "--place", " "], "--place"),
        (["search", "dogs", "--under", ""], "--under"),
        (["search", "--image", "/nowhere/a.jpg"], "/nowhere/a.jpg"),
        (["search", "dogs", "-f", "--json"], "-f"),
        (["search", "dogs", "--model", " "], "--model"),
        (["similar", "/nowhere/a.jpg"], "/nowhere/a.jpg"),
        (["index", "/nowhere"], "/nowhere"),
        (["index", "."], "--library"),
        (["verify", "/nowhere"], "/nowhere"),
        (["export", "tiny"], "-o"),
        (["export", "tiny", "tiny", "-o", "x"], "one checkpoint"),
        (["export", "tiny", "--precision", "int3", "-o", "x"], "int3"),
    ],
)
def test_wrong_usage_names_the_culprit(
    arguments: list[str], names: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if names == "--library":
        monkeypatch.setenv("QVL_LIBRARY", __file__)
    assert run(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == "" or "--json" in arguments
    assert names in printed.err
    assert "Traceback" not in printed.err

    if "-f" not in arguments:
        assert run([*arguments, "--json"]) == 2
        error = json.loads(capsys.readouterr().out)["error"]
        assert error["type"] in ("InputError", "UsageError")
        assert names in error["message"]


@pytest.mark.parametrize(
    ("command", "entry", "expected"),
    [
        ("search", "main", "1"),
        ("similar", "main", "1"),
        ("demo", "main", "1"),
        ("export", "main", "None"),
        ("search", "run", "None"),
    ],
)
def test_numpy_is_kept_to_one_thread_in_searches_of_our_own_process(
    command: str, entry: str, expected: str
) -> None:
    script = (
        "import os, sys\n"
        "from qvl_local.desktop import cli\n"
        f"sys.argv = ['qvl-local', {command!r}]\n"
        "cli._dispatch = lambda _arguments: print(os.environ.get('OPENBLAS_NUM_THREADS')) or 0\n"
        f"cli.{entry}(*([sys.argv[1:]] if {entry!r} == 'run' else []))\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, env=environment
    )
    assert done.stdout == f"{expected}\n", done.stderr
