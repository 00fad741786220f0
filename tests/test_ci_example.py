"""The workflow in docs: YAML of the right form, and every `qvl-local` line in it one that the CLI takes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from qvl_local.desktop.cli import app
from typer.main import get_command

DOCS = Path(__file__).resolve().parents[1] / "docs"
WORKFLOW = DOCS / "examples" / "export-pipeline.yml"
PAGES = ("accuracy.md",)


@pytest.fixture(scope="module")
def workflow() -> dict[str, Any]:
    # YAML 1.1 reads a bare `on` as true; GitHub does not.
    loaded: dict[Any, Any] = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))
    return {"on" if key is True else str(key): value for key, value in loaded.items()}


def steps(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def cells(workflow: dict[str, Any]) -> list[dict[str, str]]:
    (job,) = workflow["jobs"].values()
    found: list[dict[str, str]] = job["strategy"]["matrix"]["include"]
    return found


def command_lines(workflow: dict[str, Any]) -> Iterator[list[str]]:
    """The arguments of every qvl-local call, with the workflow's values filled in, for each cell."""
    for cell in cells(workflow):
        for step in steps(workflow):
            for line in str(step.get("run", "")).splitlines():
                if line.strip().startswith("qvl-local"):
                    yield arguments(fill(line, workflow["env"], cell))


def fill(line: str, variables: dict[str, str], cell: dict[str, str]) -> str:
    line = re.sub(r"\$\{\{ matrix\.([\w-]+) \}\}", lambda found: str(cell[found.group(1)]), line)
    return re.sub(r"\$([A-Z_]+)", lambda found: variables[found.group(1)], line)


def arguments(line: str) -> list[str]:
    words = shlex.split(line)
    end = next((i for i, word in enumerate(words) if word in ("||", "|", "&&", ">", ">>")), len(words))
    return words[1:end]


def parse(words: list[str]) -> dict[str, Any]:
    """What the command line makes of the words; wrong ones raise what typer raises."""
    command = get_command(app).commands[words[0]]  # type: ignore[attr-defined]
    values: dict[str, Any] = command.make_context(words[0], words[1:]).params
    return values


def test_it_is_a_workflow(workflow: dict[str, Any]) -> None:
    assert {"name", "on", "jobs", "env"} <= set(workflow)
    for job in workflow["jobs"].values():
        assert job["runs-on"]
    for step in steps(workflow):
        assert ("uses" in step) != ("run" in step), step
        if "uses" in step:
            assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+", step["uses"])
    used = {step["uses"].split("@")[0] for step in steps(workflow) if "uses" in step}
    assert {"actions/cache", "actions/upload-artifact"} <= used
    assert {cell["precision"] for cell in cells(workflow)} >= {"int8", "nf4"}


def test_every_expression_names_something_that_is_there(workflow: dict[str, Any]) -> None:
    text = WORKFLOW.read_text(encoding="utf-8")
    for expression in re.findall(r"\$\{\{ (.*?) \}\}", text):
        kind, _, name = expression.partition(".")
        if kind == "matrix":
            assert all(name in cell for cell in cells(workflow)), expression
        elif kind == "env":
            assert name in workflow["env"], expression
        else:
            assert kind in ("github", "runner") or expression.startswith("hashFiles("), expression


def test_its_command_lines_are_real(workflow: dict[str, Any]) -> None:
    from qvl_local.export.recipe import PRECISIONS

    lines = list(command_lines(workflow))
    assert {words[0] for words in lines} == {"doctor", "export", "verify", "bench"}
    for words in lines:
        values = parse(words)
        if words[0] == "export":
            assert values["precision"] in PRECISIONS
        if words[0] == "bench":
            assert 0 < values["max_drop"] < 1
            assert values["output"] == "report"


@pytest.mark.parametrize("page", PAGES)
def test_command_lines_of_a_page_are_real(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    blocks = re.findall(r"```\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("qvl-local")]
    assert lines
    for line in lines:
        parse(arguments(line))


def test_links_of_the_page_lead_somewhere() -> None:
    text = (DOCS / "accuracy.md").read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#:]+)\)", text)
    assert "examples/export-pipeline.yml" in targets
    for target in targets:
        assert (DOCS / target).is_file(), target


def test_wrong_lines_would_be_noticed() -> None:
    for line in (
        "qvl-local bench accuracy b --max-dorp 0.1",
        "qvl-local bench speed b",
        "qvl-local export tiny",
    ):
        with pytest.raises(Exception, match=r"max-dorp|speed|output"):
            parse(arguments(line))
