"""What people see: the tables of results, summaries and checks. Programs read `jsonout` instead.

Each function prints one answer on stdout. None of them decides anything: what they show is in the record
they are given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from qvl_local.runtime.library.no_match import NO_MATCH_BELOW, is_no_match

from .accuracy_tables import accuracy_facts
from .console import path_text, print_table, stdout_console
from .text import clock, count, duration, home_relative, printable, size

if TYPE_CHECKING:
    from qvl_local.runtime.hardware import Gpu
    from qvl_local.runtime.library.records import Failure, Hit, IndexReport, SearchResult
    from qvl_local.runtime.library.status import LibraryStatus
    from qvl_local.runtime.model.bundle import Bundle, Manifest
    from qvl_local.runtime.model.planner import Plan
    from qvl_local.runtime.model.verify import Finding
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from .checkup import Checkup, Place
    from .plans import ModelPlan

BAR_CELLS = 8
SHOWN_FAILURES = 20
_EIGHTHS = " ▏▎▍▌▋▊▉"


def print_search(result: SearchResult, *, console: Console | None = None) -> None:
    """Ranked hits with score, moment and date, then how long it took."""
    console = console or stdout_console()
    if not result.hits:
        console.print("Nothing was found.")
        return
    if is_no_match(result):
        # The scores below give the order and can be high: nobody shall take them for a yes.
        console.print("No good match. The closest are probably something else:", style="yellow")
    print_table(_hits_table(result.hits, is_ruled=console.is_terminal), console)
    if result.timings_ms:
        console.print(time_line(result.timings_ms), style="dim")


def time_line(timings_ms: Mapping[str, float]) -> str:
    """`in 2.4 s`: all steps together. Each by itself is for programs."""
    seconds = sum(timings_ms.values()) / 1000
    return "in less than 0.1 s" if seconds < 0.1 else f"in {duration(seconds)}"


def print_index(report: IndexReport, *, console: Console | None = None) -> None:
    """What a run changed, what the library holds now, and the files that failed."""
    console = console or stdout_console()
    changes = [
        f"{number:,} {word}"
        for number, word in (
            (report.added, "added"),
            (report.updated, "updated"),
            (report.unchanged, "unchanged"),
            (report.removed, "removed"),
        )
        if number
    ]
    idle = "No file could be used" if report.failed else "Nothing to do"
    console.print(f"{', '.join(changes) or idle} in {duration(report.seconds)}.")
    console.print(
        f"The library holds {count(report.items, 'item')}: {count(report.photos, 'photo')} and "
        f"{count(report.videos, 'video')}."
    )
    print_failures(report.failed, console)


def print_failures(failed: Sequence[Failure], console: Console) -> None:
    """The first files that could not be used, with their reasons."""
    if not failed:
        return
    console.print(f"\n{count(len(failed), 'file')} could not be used:", style="yellow")
    for failure in failed[:SHOWN_FAILURES]:
        line = path_text(failure.path)
        line.append(f"  {printable(failure.error)}", "red")
        console.print(line)
    if len(failed) > SHOWN_FAILURES:
        console.print(f"... and {len(failed) - SHOWN_FAILURES:,} more; --json lists them all.")


def print_status(folder: str, found: LibraryStatus, *, console: Console | None = None) -> None:
    """Where a library is, what it holds, and what could not be used."""
    console = console or stdout_console()
    held = found.counts
    facts = [
        ("library", f"{home_relative(folder)}, {size(found.size)}"),
        ("model", "none yet" if found.model is None else f"{found.model}, {found.dims} dimensions"),
        (
            "holds",
            ", ".join(
                count(number, noun)
                for number, noun in (
                    (held.photos, "photo"),
                    (held.videos, "video"),
                    (held.segments, "segment"),
                )
            ),
        ),
        ("last change", f"{datetime.fromtimestamp(found.changed_at):%Y-%m-%d %H:%M}"),
        *(("folder", home_relative(path)) for path in found.folders),
        *(("not connected", f"{home_relative(path)}; what it holds is kept") for path in found.away),
    ]
    print_facts(facts, console=console)
    print_failures(found.failures, console)


def print_exported(bundle: Bundle, seconds: float, *, console: Console | None = None) -> None:
    """Where a bundle is, how large, and how exactly it reproduces its checkpoints."""
    console = console or stdout_console()
    manifest = bundle.manifest
    total = sum(record.size for record in manifest.files.values())
    facts = [
        ("bundle", f"{home_relative(str(bundle.path))}, {size(total)}, made in {duration(seconds)}"),
        *((role, f"{part.source.name}, {part.decoder_precision}") for role, part in manifest.parts.items()),
        *([("layout", _layout(manifest))] if len(manifest.parts) == 2 else []),
        *_embedding_width(manifest),
        *(
            (
                f"{figure.role} parity",
                f"largest difference {figure.max_abs_diff:.2g} (allowed {figure.max_abs_diff_allowed:.2g}), "
                f"smallest cosine {figure.min_cosine:.7f}",
            )
            for figure in manifest.parity
        ),
    ]
    print_facts([*facts, *accuracy_facts(manifest)], console=console)


def _embedding_width(manifest: Manifest) -> list[tuple[str, str]]:
    """What `--dims` did, and what it did not do."""
    part = manifest.parts.get("embedder")
    if part is None or part.dims == part.table.columns:
        return []
    width = f"{part.dims} of {part.table.columns:,} dimensions for programs that embed with it"
    return [("embeddings", f"{width}; a library keeps them all (search --dims compares fewer)")]


def _layout(manifest: Manifest) -> str:
    """One decoder or two, and why."""
    adapters = manifest.adapters
    if adapters is not None:
        return (
            f"one decoder, with {size(adapters.bytes)} of adapters for the reranker "
            f"(rank {adapters.rank}, {adapters.error:.2g} of a weight lost, {adapters.noise:.2g} is rounding)"
        )
    if manifest.layout == "shared":
        return "one decoder: both models have the same"
    return "two decoders" + (f": {manifest.layout_reason}" if manifest.layout_reason else "")


def print_verification(findings: Sequence[Finding], *, remedy: str, console: Console | None = None) -> None:
    """One line a finding, then the verdict; with `remedy`, a command, when anything is wrong."""
    from rich.text import Text

    console = console or stdout_console()
    for finding in findings:
        mark, style = ("ok   ", "green") if finding.ok else ("wrong", "red")
        console.print(Text.assemble((mark, style), f"  {finding.subject:7} {printable(finding.text)}"))
    wrong = sum(not finding.ok for finding in findings)
    verdict = "The bundle is sound."
    if wrong:
        verdict = (
            f"{count(wrong, 'check')} failed: do not use this bundle. Export it again: {printable(remedy)}"
        )
    console.print(verdict, style="red" if wrong else "green")


def print_checkup(found: Checkup, *, console: Console | None = None) -> None:
    """The machine, the versions, the folders, the models, and what is wrong."""
    console = console or stdout_console()
    machine, engines = found.machine, found.engines
    memory = "unknown" if machine.memory_bytes is None else size(machine.memory_bytes)
    if machine.available_bytes is not None:
        memory += f", {size(machine.available_bytes)} available"
    features = (
        "unknown" if machine.cpu_features is None else ", ".join(machine.cpu_features) or "none that matter"
    )
    facts = [
        ("qvl-local", found.version),
        ("system", f"{machine.system}, {machine.architecture}"),
        ("processor", f"{machine.cpu or 'unknown'}, {count(machine.cores, 'core')} for this process"),
        ("instructions", features),
        ("memory", memory),
        *(("graphics card", _gpu(gpu)) for gpu in machine.gpus),
        ("Python", engines.python),
        ("ONNX Runtime", f"{engines.onnxruntime}, {', '.join(engines.providers)}"),
        ("SQLite", f"{engines.sqlite}, sqlite-vec {engines.sqlite_vec}, apsw {engines.apsw}"),
        ("library", _place(found.library)),
        ("model cache", _place(found.cache)),
        *([("not used", _outdated(found))] if found.outdated else []),
        *((f"model {model.name}", model.state) for model in found.models),
        ("one photo", _photo_cost(found)),
        (
            "place names",
            "GeoNames" if found.place_names else "none; pip install 'qvl-local[places]' has them",
        ),
        (
            "raw files",
            f"LibRaw {engines.libraw}"
            if engines.libraw
            else "left alone; pip install 'qvl-local[raw]' reads them",
        ),
    ]
    print_facts(facts, console=console)
    if found.plans:
        print_plans(found.plans, console=console)
    for problem in found.problems:
        console.print(f"Problem: {printable(problem)}", style="red")
    if not found.problems:
        lacking = dict.fromkeys(plan.model for plan in found.plans if not plan.recommended.fits)
        room = f", but not the room for {' and '.join(lacking)}" if lacking else ""
        console.print(f"Everything is in place{printable(room)}.", style="yellow" if room else "green")


def print_plans(found: Sequence[ModelPlan], *, console: Console) -> None:
    """What fits, then how the recommended ways add up; of one model every way, of several the main ones."""
    from rich.table import Table

    from .plans import LAYOUT_WORDS, PLACE_WORDS, arithmetic, disk_arithmetic, main_options, verdict

    workload = found[0].workload
    console.print(
        f"\nEmbedder and reranker together, {count(workload.photos, 'photo')} of {workload.tokens:,} visual "
        "tokens at once (by count, not measured):"
    )
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("model", "on", "precision", "layout"):
        table.add_column(heading, no_wrap=True)
    for heading in ("weights", "memory", "export", "download"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("fits")
    several = len({plan.model for plan in found}) > 1
    for plan in found:
        for option in main_options(plan) if several else plan.options:
            table.add_row(
                printable(plan.model),
                PLACE_WORDS[plan.budget.place],
                option.precision,
                LAYOUT_WORDS[option.layout],
                size(option.resident),
                size(option.memory),
                size(option.disk),
                size(option.download) if option.download else "-",
                _fits(option),
                style="bold" if option == plan.recommended and option.fits else None,
            )
    print_table(table, console)
    for plan in found:
        console.print(f"{printable(verdict(plan))}.", style="bold" if plan.recommended.fits else "yellow")
        console.print(f"  {arithmetic(plan)}.", style="dim")
        console.print(f"  {disk_arithmetic(plan)}.", style="dim")
    one = found[0]
    if any(plan.recommended.download for plan in found):
        console.print(
            f"Downloads go to {home_relative(one.hub_folder)} (HF_HOME), exports to "
            f"{home_relative(one.cache_folder)} (QVL_CACHE_DIR). A model is opened by its name only while "
            "its download is there. To free that: name the export's own folder from then on, --model "
            f"{home_relative(one.cache_folder)}/bundles/NAME, and delete the folders models--Qwen--*.",
            style="dim",
        )


def _fits(option: Plan) -> str:
    if option.fits_memory is None:
        return "unknown"
    missing = [
        word for word, fits in (("memory", option.fits_memory), ("disk", option.fits_disk)) if fits is False
    ]
    return f"no: {' and '.join(missing)}" if missing else "yes"


def _gpu(gpu: Gpu) -> str:
    memory = "memory unknown" if gpu.memory_bytes is None else size(gpu.memory_bytes)
    free = None if gpu.free_bytes is None else f"{size(gpu.free_bytes)} free"
    driver = None if gpu.driver is None else f"driver {gpu.driver}"
    capability = None if gpu.compute_capability is None else f"compute capability {gpu.compute_capability}"
    return ", ".join(filter(None, [gpu.name, memory, free, driver, capability]))


def _place(place: Place) -> str:
    state = "" if place.exists else ", not made yet"
    free = "" if place.free_bytes is None else f", {size(place.free_bytes)} free"
    return f"{home_relative(place.path)}{state}{free}"


def _outdated(found: Checkup) -> str:
    """Exports that take room for nothing, and how they go."""
    total = sum(bundle.size for bundle in found.outdated)
    return (
        f"{count(len(found.outdated), 'export')} of another version of qvl-local, {size(total)}: "
        "qvl-local doctor --clean removes what is not used"
    )


def _photo_cost(found: Checkup) -> str:
    photo = found.photo
    if photo is None:
        return "not measured: the model is not at hand"
    return (
        f"{photo.milliseconds:,.0f} ms with {photo.model}, at {photo.width}×{photo.height} "
        f"pixels ({photo.tokens} visual tokens)"
    )


def print_facts(facts: Sequence[tuple[str, str]], *, console: Console) -> None:
    """Names and values in two columns."""
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(name, Text(printable(value)))
    print_table(table, console)


def bar(fraction: float, cells: int = BAR_CELLS) -> str:
    """A bar of `cells` characters, filled in steps of an eighth of a cell."""
    eighths = round(min(max(fraction, 0.0), 1.0) * cells * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS[rest] if rest else "")).ljust(cells)


def moment(hit: Hit) -> str:
    """The stretch of a video that matched: `0:12–0:20`."""
    if hit.start_s is None or hit.end_s is None:
        return ""
    return f"{clock(hit.start_s)}–{clock(hit.end_s)}"


def _hits_table(hits: Sequence[Hit], *, is_ruled: bool) -> Table:
    """`is_ruled`: with a line below the head, which is as wide as the longest path."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD if is_ruled else None, pad_edge=False, header_style="bold")
    table.add_column("#", justify="right", style="dim", no_wrap=True)
    table.add_column("score", no_wrap=True)
    if any(hit.kind == "video" for hit in hits):
        table.add_column("moment", no_wrap=True)
    if any(hit.taken_at is not None for hit in hits):
        table.add_column("taken", no_wrap=True)
    table.add_column("file", overflow="fold")
    names = [column.header for column in table.columns]
    for hit in hits:
        cells: dict[str, str | Text] = {
            "#": str(hit.rank),
            "score": _score(hit),
            "moment": moment(hit),
            "taken": "" if hit.taken_at is None else f"{hit.taken_at:%Y-%m-%d %H:%M}",
            "file": path_text(hit.path),
        }
        table.add_row(*(cells[str(name)] for name in names))
    return table


def _score(hit: Hit) -> Text:
    """The score that the order follows, as a bar and a number, coloured by what the reranker says."""
    from rich.text import Text

    colour = "cyan"  # it was not asked
    if hit.reranker_score is not None:
        colour = "green" if hit.reranker_score >= NO_MATCH_BELOW else "yellow"
    text = Text()
    text.append(bar(hit.score), colour)
    text.append(f" {hit.score:.2f}")
    return text
