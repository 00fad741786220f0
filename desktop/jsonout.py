"""What `--json` prints: one object a command, described by the schemas in docs/json.

JSON text must be Unicode, and file names need not be. A path is always given as text, its undecodable bytes
replaced by U+FFFD; when there were such bytes, a second field `path_base64` carries the exact name.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from .console import write_bytes
from .text import is_valid_unicode, valid_unicode

if TYPE_CHECKING:
    from qvl_local.quant.accuracy.report import Report
    from qvl_local.runtime.library.records import Counts, Failure, Hit, IndexReport, SearchResult
    from qvl_local.runtime.library.status import LibraryStatus
    from qvl_local.runtime.model.bundle import Bundle
    from qvl_local.runtime.model.planner import Plan
    from qvl_local.runtime.model.verify import Finding

    from .checkup import Checkup
    from .plans import ModelPlan

Json = dict[str, Any]


def write(value: Mapping[str, Any]) -> None:
    """Print one object on stdout as UTF-8, whatever the locale says. Raises as `console.write_bytes`."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    # A message may hold a file's name as the system gives it.
    write_bytes(valid_unicode(text).encode("utf-8"))


def path_fields(path: str) -> Json:
    """`path`, and `path_base64` where the text alone cannot name the file."""
    fields: Json = {"path": valid_unicode(path)}
    if not is_valid_unicode(path):
        fields["path_base64"] = base64.b64encode(os.fsencode(path)).decode("ascii")
    return fields


def search_result(result: SearchResult) -> Json:
    """The object of `search` and `similar`."""
    return {
        "query": None if result.query is None else valid_unicode(result.query),
        "results": [_hit(hit) for hit in result.hits],
        "timings_ms": {step: round(float(spent), 3) for step, spent in result.timings_ms.items()},
    }


def index_report(report: IndexReport) -> Json:
    """The object of `index`."""
    return {
        "items": report.items,
        "photos": report.photos,
        "videos": report.videos,
        "segments": report.segments,
        "added": report.added,
        "updated": report.updated,
        "unchanged": report.unchanged,
        "removed": report.removed,
        "failed": failures(report.failed),
        "seconds": round(report.seconds, 3),
    }


def failures(failed: Iterable[Failure]) -> list[Json]:
    """Files that could not be used, each with its reason."""
    return [{**path_fields(failure.path), "error": valid_unicode(failure.error)} for failure in failed]


def counts(held: Counts) -> Json:
    """What a library holds, as part of `status` and `remove`."""
    return {"items": held.items, "photos": held.photos, "videos": held.videos, "segments": held.segments}


def library_status(folder: str, found: LibraryStatus) -> Json:
    """The object of `status`."""
    changed = datetime.fromtimestamp(found.changed_at, UTC)
    return {
        **path_fields(folder),
        "model": None if found.model is None else valid_unicode(found.model),
        "dims": found.dims,
        **counts(found.counts),
        "folders": [path_fields(folder) for folder in found.folders],
        "away": [path_fields(path) for path in found.away],
        "failed": failures(found.failures),
        "bytes": found.size,
        "changed_at": changed.isoformat(timespec="seconds"),
    }


def exported(bundle: Bundle, seconds: float) -> Json:
    """The object of `export`."""
    manifest = bundle.manifest
    embedder = manifest.parts.get("embedder")
    return {
        **path_fields(str(bundle.path)),
        "models": {role: part.source.name for role, part in manifest.parts.items()},
        "precision": {role: part.decoder_precision for role, part in manifest.parts.items()},
        **({} if embedder is None else {"dims": embedder.dims}),
        "layout": manifest.layout,
        **({} if manifest.adapters is None else {"adapters": asdict(manifest.adapters)}),
        **({} if manifest.layout_reason is None else {"layout_reason": manifest.layout_reason}),
        "parity": [asdict(figure) for figure in manifest.parity],
        **({"accuracy": manifest.accuracy} if manifest.accuracy else {}),
        "bytes": sum(record.size for record in manifest.files.values()),
        "seconds": round(seconds, 3),
    }


def verification(bundle: str, findings: Sequence[Finding]) -> Json:
    """The object of `verify`."""
    return {
        "ok": all(finding.ok for finding in findings),
        **path_fields(bundle),
        "findings": [asdict(finding) for finding in findings],
    }


def accuracy_report(report: Report) -> Json:
    """The object of `bench accuracy`."""
    from qvl_local.quant.accuracy.report import report_object

    printed = report_object(report)
    for bundle in printed["bundles"]:
        bundle |= path_fields(bundle["path"])
    for dataset in printed["datasets"]:
        dataset |= {"name": valid_unicode(dataset["name"]), "source": valid_unicode(dataset["source"])}
        unreadable = dataset["unreadable"].items()
        dataset["unreadable"] = [{**path_fields(path), "error": reason} for path, reason in unreadable]
    return printed


def checkup(found: Checkup) -> Json:
    """The object of `doctor`."""
    facts = asdict(found)
    for place in ("library", "cache"):
        facts[place] = {**facts[place], **path_fields(facts[place]["path"])}
    facts["outdated"] = [
        {**path_fields(str(bundle.folder)), "bytes": bundle.size} for bundle in found.outdated
    ]
    facts["plans"] = [_model_plan(plan) for plan in found.plans]
    return {"ok": not found.problems, **facts}


def _model_plan(found: ModelPlan) -> Json:
    return {
        "model": found.model,
        "place": found.budget.place,
        "tokens": found.workload.tokens,
        "photos": found.workload.photos,
        "memory_bytes": found.budget.memory,
        "usable_bytes": found.budget.usable,
        "disk_free_bytes": found.budget.disk,
        "download_free_bytes": found.budget.hub_disk,
        "is_one_disk": found.budget.is_one_disk,
        "options": [_plan(option, found) for option in found.options],
    }


def _plan(option: Plan, found: ModelPlan) -> Json:
    return {
        "precision": option.precision,
        "layout": option.layout,
        "recommended": option == found.recommended,
        "vision_bytes": option.vision,
        "decoder_bytes": option.decoder,
        "table_bytes": option.table,
        "adapters_bytes": option.adapters,
        "vision_held_bytes": option.vision_held,
        "decoder_held_bytes": option.decoder_held,
        "adapters_held_bytes": option.adapters_held,
        "resident_bytes": option.resident,
        "work_bytes": option.work,
        "process_bytes": option.process,
        "total_bytes": option.memory,
        "disk_bytes": option.disk,
        "download_bytes": option.download,
        "fits_memory": option.fits_memory,
        "fits_disk": option.fits_disk,
    }


def _hit(hit: Hit) -> Json:
    from qvl_local.runtime.library.hit_fields import hit_fields
    from qvl_local.runtime.library.place_names import place_name

    folder = os.path.dirname(hit.path)  # noqa: PTH120 - keeps surrogate escapes
    return {
        "rank": hit.rank,
        **path_fields(hit.path),
        **hit_fields(hit),
        "place": place_name(hit.latitude, hit.longitude),
        "companions": [
            {"kind": one.kind, **path_fields(os.path.join(folder, one.name))}  # noqa: PTH118
            for one in hit.companions
        ],
    }
