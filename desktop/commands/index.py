"""`qvl-local index`: bring a library up to date with folders of photos and videos."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer
from qvl_local.runtime.errors import InputError, StoppedError

from .. import jsonout, options, paths
from ..console import note
from ..own_photos import caution
from ..settings import Settings
from ..text import count, home_relative

if TYPE_CHECKING:
    from qvl_local.runtime.library.records import Failure, IndexReport


def index(
    names: Annotated[list[str], typer.Argument(metavar="PATH...", help="Folders or files to index.")],
    library: options.Library = None,
    model: options.Model = None,
    backend: options.Backend = None,
    device: options.Device = "cpu",
    precision: options.Precision = None,
    as_json: options.Json = False,
    _debug: options.Debug = False,
) -> None:
    """Index photos and videos, or bring the index up to date.

    Only what is new or changed is read; what is gone is forgotten. Stop at any time with Ctrl-C: the next run
    goes on from there. Files that cannot be used are listed with their reason, everything else is indexed,
    and the exit status is then 1; a later run only counts them, until they change. Cameras' raw files with no
    photo beside them need the extra [raw].
    """
    settings = Settings.read(library=library, model=model)
    roots = [paths.absolute(name) for name in names]
    for name, root in zip(names, roots):
        if not root.exists():
            raise InputError(f"PATH {name}: no such file or folder. Nothing was indexed.")

    # Before anything heavy is loaded, so that the first seconds are not silent.
    note(f"Library: {home_relative(str(settings.library))}")

    from qvl_local.runtime import Library
    from qvl_local.runtime.library.records import IndexReport

    from ..progress import progress_view
    from ..termination import EXIT_STATUS, stop_on_sigterm

    with stop_on_sigterm() as stop, progress_view() as view:
        try:
            with Library.open(
                settings.library,
                model=settings.model,
                backend=backend,
                device=device,
                precision=precision,
                progress=view.model,
                stop=stop,
            ) as opened:
                note(f"Model: {opened.model}")
                if about := caution(opened, roots):
                    note(about)
                known = set(opened.failures())
                report = opened.index(roots, progress=view.index, stop=stop)
        except StoppedError:  # there is no library yet, and its model was not ready
            report, known = IndexReport(0, 0, 0, 0, 0, 0, 0, 0, (), 0.0), set()

    if as_json:
        jsonout.write(jsonout.index_report(report))
    else:
        from ..tables import print_index

        # Those of earlier runs are named by `status`; --json has all.
        print_index(replace(report, failed=_new_failures(report, known)))
    if stop.is_set():
        note("Stopped by SIGTERM. What was read is kept; the same command goes on from there.")
        raise typer.Exit(EXIT_STATUS)
    if report.failed:
        note(_about_failures(report, known))
    if _new_failures(report, known):
        raise typer.Exit(1)


def _new_failures(report: IndexReport, known: Collection[Failure]) -> tuple[Failure, ...]:
    """What failed for the first time, or for another reason than before."""
    return tuple(failure for failure in report.failed if failure not in known)


def _about_failures(report: IndexReport, known: Collection[Failure]) -> str:
    """What became of files that could not be used, and of the others. `known`: what failed before."""
    new = len(_new_failures(report, known))
    old = len(report.failed) - new
    others = ", all others are indexed" if report.added or report.updated or report.unchanged else ""
    said = [f"{count(new, 'file')} could not be used{others}: exit status 1."] if new else []
    if old:
        said.append(
            f"{count(old, 'file')} {'is' if old == 1 else 'are'} set aside as before; `qvl-local status` "
            "says which and why. What a .qvlignore names (patterns as in .gitignore) is not counted."
        )
    return " ".join(said)
