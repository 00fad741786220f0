"""Options that several commands share: one spelling, one help text, one environment variable each."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

import typer

Library = Annotated[
    str | None,
    typer.Option(
        "--library",
        metavar="DIR",
        envvar="QVL_LIBRARY",
        help="Folder of the library. [default: the user data folder]",
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="MODEL",
        envvar="QVL_MODEL",
        help="tiny, 2b, 8b, a Hugging Face id, a checkpoint or a bundle. [default: the library's own]",
    ),
]
Backend = Annotated[
    Literal["onnx", "tensorrt", "torch"] | None,
    typer.Option(
        "--backend",
        envvar="QVL_BACKEND",
        help="Run the model as exported, with ONNX Runtime or TensorRT, or the checkpoint, with PyTorch. "
        "[default: the library's own, else onnx]",
    ),
]
Device = Annotated[
    Literal["cpu", "cuda", "tensorrt"],
    typer.Option(
        "--device",
        envvar="QVL_DEVICE",
        help="Run the model on the CPU, or on an NVIDIA GPU by CUDA or (portable bundles) TensorRT.",
    ),
]
Precision = Annotated[
    str | None,
    typer.Option(
        "--precision",
        metavar="P",
        envvar="QVL_PRECISION",
        help="Of the model's weights. [default: the library's own, else what suits backend and device]",
    ),
]
NewFolders = Annotated[
    list[str] | None,
    typer.Argument(metavar="[PATH...]", help="Folders to index and watch, besides those known already."),
]
JsonWhenReady = Annotated[
    bool, typer.Option("--json", help="Print one line of JSON on stdout when the page can be opened.")
]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout; everything else goes to stderr.")
]
Debug = Annotated[
    bool, typer.Option("--debug", envvar="QVL_DEBUG", help="Show the traceback when something fails.")
]


class Kind(StrEnum):
    """What `--kind` may ask for."""

    PHOTO = "photo"
    VIDEO = "video"


Limit = Annotated[
    int, typer.Option("-k", "--limit", metavar="N", envvar="QVL_LIMIT", min=1, help="Show at most N results.")
]
Dims = Annotated[
    int | None,
    typer.Option(
        "--dims",
        metavar="N",
        envvar="QVL_DIMS",
        min=8,
        help="Compare the first N components only: faster, coarser. [default: the full width]",
    ),
]
KindFilter = Annotated[Kind | None, typer.Option("--kind", help="Only photos, or only videos.")]
After = Annotated[
    str | None,
    typer.Option("--after", metavar="DATE", help="Taken at DATE (2024, 2024-05, 2024-05-03) or later."),
]
Before = Annotated[
    str | None,
    typer.Option("--before", metavar="DATE", help="Taken before DATE, which is not included."),
]
Under = Annotated[str | None, typer.Option("--under", metavar="PATH", help="Only in this folder or below.")]
Camera = Annotated[
    str | None, typer.Option("--camera", metavar="NAME", help="Only this camera; part of its name is enough.")
]
Place = Annotated[
    str | None,
    typer.Option(
        "--place",
        metavar="NAME",
        help="Only taken there: part of the name of a town or country. Needs the extra [places].",
    ),
]
Bare = Annotated[bool, typer.Option("-f", "--files", help="Print paths only, one a line, for pipes.")]
Null = Annotated[
    bool, typer.Option("-0", "--null", help="As -f, each path ended by a NUL byte (for xargs -0).")
]
