"""`qvl-local export`: checkpoints in, one bundle out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from qvl_local.runtime.errors import InputError

from .. import jsonout, options, paths
from ..console import note

if TYPE_CHECKING:
    from qvl_local.runtime.model.bundle import Role
    from qvl_local.runtime.model.checkpoints import Checkpoint

UNASKED = (
    "The bundle is made. Now its accuracy is measured, about as long again: --no-report skips this step."
)


def export(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL [MODEL]", help="tiny, 2b, 8b, a Hugging Face id, or a folder."),
    ],
    output: Annotated[str, typer.Option("-o", "--output", metavar="DIR", help="The folder to make.")],
    precision: Annotated[
        str | None,
        typer.Option(
            "--precision",
            metavar="fp32|fp16|int8|int8-safe|int8-weight|int4|nf4|int8-dynamic",
            envvar="QVL_PRECISION",
            help="Of the weights. int8-safe for programs that hold the reranker's scores against a fixed "
            "threshold. [default: fp32]",
        ),
    ] = None,
    recipe_file: Annotated[
        str | None,
        typer.Option("--recipe", metavar="FILE", help="A TOML file that says it part by part."),
    ] = None,
    calibrate: Annotated[
        str | None,
        typer.Option(
            "--calibrate",
            metavar="DIR",
            help="Pictures that layers are tuned to. [default: the sample world's for int8, none for nf4 and "
            "int4]",
        ),
    ] = None,
    flavour: Annotated[
        str,
        typer.Option(
            "--flavour",
            metavar="ort|portable",
            envvar="QVL_FLAVOUR",
            help="For ONNX Runtime, or with standard operators only (TensorRT).",
        ),
    ] = "ort",
    opset: Annotated[
        int,
        typer.Option(
            "--opset", metavar="23|20", envvar="QVL_OPSET", help="Operators of the portable flavour."
        ),
    ] = 23,
    tensorrt: Annotated[
        bool,
        typer.Option(
            "--tensorrt",
            help="Build TensorRT engines for this machine's GPU too. MODEL may be a portable bundle, with -o "
            "the same.",
        ),
    ] = False,
    dims: Annotated[
        int | None,
        typer.Option(
            "--dims",
            metavar="N",
            min=1,
            help="Width of the embeddings for programs; a library keeps the full width, and `search --dims` "
            "compares less of it. [default: the full width]",
        ),
    ] = None,
    layout: Annotated[
        str,
        typer.Option(
            "--layout",
            metavar="auto|shared|separate",
            envvar="QVL_LAYOUT",
            help="One decoder for both models with adapters where they differ, or two. auto shares quantized "
            "ones whose difference is small.",
        ),
    ] = "auto",
    report: Annotated[
        bool | None,
        typer.Option(
            "--report/--no-report",
            help="Measure what the export cost, for card and manifest. [default: with --data, and for tiny "
            "at less than fp32]",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="DIR", help="What the report asks: see `bench accuracy`."),
    ] = None,
    as_json: options.Json = False,
    _debug: options.Debug = False,
) -> None:
    """Turn checkpoints into a bundle that runs without torch.

    One name stands for the pair of embedder and reranker; two name them one by one. The graphs are compared
    with the checkpoints before the bundle appears.
    """
    if len(models) > 2:
        raise InputError(f"MODEL: {len(models)} were given. Give one name for the pair, or two.")
    if not output.strip():
        raise InputError("-o: is empty. Name a folder for the bundle.")
    folder = paths.absolute(output)
    questions = None if data is None else _data_folder(data, report)

    from qvl_local.export.calibration import folder_examples
    from qvl_local.export.layout import known_layout
    from qvl_local.export.pipeline import export_bundle
    from qvl_local.export.recipe import Recipe
    from qvl_local.export.report import report_bundle, wants_report
    from qvl_local.export.tensorrt_engine import build_engines
    from qvl_local.runtime.model.bundle import open_bundle
    from qvl_local.runtime.model.tensorrt_session import import_tensorrt

    from ..progress import progress_view

    if recipe_file is not None and precision is not None:
        raise InputError("--precision and --recipe: give one of them.")
    if tensorrt:
        flavour, precision = "portable", precision or ("fp16" if recipe_file is None else None)
        import_tensorrt()  # what is missing is better said before the export than after it
    if recipe_file is not None:
        recipe = Recipe.read(paths.absolute(recipe_file), dims=dims, flavour=flavour, opset=opset)
    else:
        recipe = Recipe.of(precision or "fp32", dims=dims, flavour=flavour, opset=opset)
    decoders = known_layout(layout)
    examples = None
    if calibrate is not None:
        recipe = recipe.tuning_to_pictures()
        examples = folder_examples(paths.absolute(calibrate), recipe.pictures)
    start = time.monotonic()
    with progress_view() as view:
        if tensorrt and _is_bundle(models, folder):
            report = False
        else:
            sources = sources_of(models, view.model)
            export_bundle(
                sources, folder, recipe=recipe, layout=decoders, examples=examples, progress=view.model
            )
        bundle = open_bundle(folder)
        if tensorrt:
            build_engines(bundle, progress=view.model)
        is_asked = report or questions is not None
        if is_asked or (report is None and wants_report(bundle)):
            if not is_asked:
                note(UNASKED)
            bundle = report_bundle(folder, data=questions, progress=view.model)
    seconds = time.monotonic() - start

    if as_json:
        jsonout.write(jsonout.exported(bundle, seconds))
    else:
        from ..tables import print_exported

        print_exported(bundle, seconds)


def _is_bundle(models: Sequence[str], folder: Path) -> bool:
    """Is the one model that is named the very bundle that is to be made?"""
    from qvl_local.runtime.model.bundle import holds_bundle

    return len(models) == 1 and paths.absolute(models[0]) == folder and holds_bundle(folder)


def _data_folder(name: str, report: bool | None) -> Path:
    """The folder of `--data`, which is of no use without a report."""
    if report is False:
        raise InputError("--data and --no-report: give one of them.")
    folder = paths.absolute(name)
    if not name.strip() or not folder.is_dir():
        raise InputError(f"--data {name}: no such folder. Give one with queries.jsonl and media, or photos.")
    return folder


def sources_of(models: Sequence[str], progress: Callable[[str, float], None]) -> dict[Role, Checkpoint]:
    """The checkpoints by role: the pair that one name stands for, or two named one by one, in any order."""
    from qvl_local.runtime.model.checkpoints import find_checkpoints

    if len(models) == 1:
        return find_checkpoints(models[0], progress=progress)
    (first, one), (second, other) = (
        _own(model, find_checkpoints(model, pair=False, progress=progress)) for model in models
    )
    if first == second == "reranker":
        raise InputError(f"MODEL: {models[0]} and {models[1]} are both rerankers. Give one embedder.")
    if one.path == other.path:
        raise InputError(
            f"MODEL: {models[0]} and {models[1]} are one checkpoint. Give one name for the pair."
        )
    if first == "reranker":
        return {"embedder": other, "reranker": one}
    return {"embedder": one, "reranker": other}


def _own(model: str, found: dict[Role, Checkpoint]) -> tuple[Role, Checkpoint]:
    """The checkpoint that a name means when it does not stand for the pair."""
    from qvl_local.runtime.model.storage import folder_named

    folder = folder_named(model)
    for role, checkpoint in found.items():
        if checkpoint.name == model or checkpoint.path == folder:
            return role, checkpoint
    return next(iter(found.items()))
