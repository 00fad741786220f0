"""`qvl-local bench`: measures bundles. What there is to measure so far: `accuracy`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from qvl_local.runtime.errors import InputError

from .. import jsonout, options, paths

if TYPE_CHECKING:
    from qvl_local.quant.accuracy.dataset import Dataset
    from qvl_local.quant.accuracy.report import Report
    from qvl_local.runtime.model.bundle import Bundle

    from ..progress import View


class Bench(StrEnum):
    """What `bench` can measure."""

    ACCURACY = "accuracy"


def bench(
    _what: Annotated[Bench, typer.Argument(metavar="accuracy", help="What to measure.")],
    bundles: Annotated[
        list[str], typer.Argument(metavar="BUNDLE...", help="Folders of bundles, as `export` makes them.")
    ],
    against: Annotated[
        str | None,
        typer.Option(
            "--against", metavar="BUNDLE", help="What to compare with. [default: fp32 of the same source]"
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="DIR",
            help="A folder with queries.jsonl and media, or of photos. [default: the sample world]",
        ),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            "--max-drop", metavar="X", help="Exit with 1 when nDCG@10 falls by more than X, such as 0.01."
        ),
    ] = None,
    dims: Annotated[
        str | None,
        typer.Option(
            "--dims", metavar="N,N,...", help="Widths to try. [default: the bundle's, and halves down to 64]"
        ),
    ] = None,
    vectors: Annotated[
        str | None,
        typer.Option("--vectors", metavar="KIND,KIND,...", help="Of: float32, int8, binary. [default: all]"),
    ] = None,
    no_rerank: Annotated[
        bool, typer.Option("--no-rerank", help="Leave the reranker out: faster, and half the figures.")
    ] = False,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", metavar="N", min=2, help="At most N questions of each gallery, for a quick look."
        ),
    ] = None,
    update_card: Annotated[
        bool, typer.Option("--update-card", help="Write the figures into the bundles' cards and manifests.")
    ] = False,
    output: Annotated[
        str | None,
        typer.Option(
            "-o", "--output", metavar="DIR", help="A folder for accuracy.json, accuracy.svg and cards."
        ),
    ] = None,
    as_json: options.Json = False,
    _debug: options.Debug = False,
) -> None:
    """Measure how well bundles find things, and what quantization cost.

    Every bundle is tried at every width, with every kind of vector, with and without reranking, and compared
    with the reference, question by question. Exit status 1 when --max-drop is exceeded.
    """
    folders = [_bundle_folder(name, "BUNDLE") for name in bundles]
    widths = None if dims is None else _widths(dims)
    kinds = None if vectors is None else tuple(word.strip() for word in vectors.split(",") if word.strip())
    reference_folder = None if against is None else _bundle_folder(against, "--against")
    target = None if output is None else _output_folder(output)
    if max_drop is not None and not 0 <= max_drop <= 1:
        raise InputError(f"--max-drop {max_drop}: must be a number from 0 to 1, such as 0.01.")

    from qvl_local.quant.accuracy.bench import Plan, measure_accuracy
    from qvl_local.quant.accuracy.card import write_into_bundle
    from qvl_local.quant.accuracy.reference import choose_reference
    from qvl_local.quant.accuracy.vectors import VECTORS, checked_vectors
    from qvl_local.runtime.model.bundle import open_bundle

    from ..progress import progress_view

    plan = Plan(
        dims=widths,
        vectors=VECTORS if kinds is None else checked_vectors(kinds),
        rerank=not no_rerank,
        max_drop=max_drop,
    )
    opened = [open_bundle(folder) for folder in dict.fromkeys(folders)]
    with progress_view() as view:
        named = None if reference_folder is None else open_bundle(reference_folder)
        reference = choose_reference(opened, named=named, progress=view.model)
        datasets = _datasets(opened, data, limit, view)
        report = measure_accuracy(opened, reference, datasets, plan=plan, progress=view.measure)
    if update_card:
        for bundle in opened:
            write_into_bundle(bundle, report)

    printed = jsonout.accuracy_report(report)
    if target is not None:
        _write(report, printed, target)
    if as_json:
        jsonout.write(printed)
    else:
        from ..accuracy_tables import print_accuracy

        print_accuracy(report, target)
    if not report.ok:
        raise typer.Exit(1)


def _datasets(
    bundles: Sequence[Bundle], data: str | None, limit: int | None, view: View
) -> Sequence[Dataset]:
    """The user's folder, or the sample world.

    All of it and its exact answers for qvl-tiny, which was made for it; a little for models that are a
    thousand times as large, and what the reference finds.
    """
    from qvl_local.quant.accuracy.folder import read_dataset
    from qvl_local.quant.accuracy.reference import is_tiny
    from qvl_local.quant.accuracy.world import BRIEF, FULL, world_datasets

    if data is not None:
        return [read_dataset(paths.absolute(data), limit=limit)]
    tiny = all(is_tiny(bundle) for bundle in bundles)
    size = FULL if tiny else BRIEF
    datasets = world_datasets(size if limit is None else FULL.limited(limit), progress=view.files)
    return datasets if tiny else [dataset.by_reference() for dataset in datasets]


def _write(report: Report, printed: jsonout.Json, folder: Path) -> None:
    """The report's files: for programs, for eyes, and a card's section for each bundle."""
    from qvl_local.quant.accuracy.card import card_section
    from qvl_local.quant.accuracy.plot import plot

    texts = {
        "accuracy.json": json.dumps(printed, indent=2, ensure_ascii=False) + "\n",
        "accuracy.svg": plot(report),
        "accuracy.md": "\n".join(
            f"# {bundle.subject.label}\n\n{card_section(report, bundle)}" for bundle in report.bundles
        ),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"-o {folder}: cannot be written ({error.strerror}). Choose another folder."
        ) from error


def _widths(text: str) -> tuple[int, ...]:
    """ "64,256" -> (256, 64)."""
    try:
        return tuple(sorted({int(word) for word in text.split(",") if word.strip()}, reverse=True))
    except ValueError:
        raise InputError(f"--dims {text}: give whole numbers with commas, such as 256,128,64.") from None


def _bundle_folder(name: str, option: str) -> Path:
    folder = paths.absolute(name)
    if not name.strip() or not folder.is_dir():
        raise InputError(f"{option} {name}: no such folder. Make one: qvl-local export MODEL -o DIR")
    return folder


def _output_folder(name: str) -> Path:
    folder = paths.absolute(name)
    if not name.strip() or (folder.exists() and not folder.is_dir()):
        raise InputError(f"-o {name}: is no folder. Name one for the report.")
    return folder
