"""The values that travel between the parts of the library: files found, media described, hits returned.

Paths are `str` as the file system gives them (undecodable bytes become surrogate escapes, PEP 383);
times are milliseconds inside videos and naive local wall-clock `datetime` for when a picture was taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["photo", "video"]
State = Literal["indexed", "failed", "pending"]


@dataclass(frozen=True, slots=True)
class Folder:
    """A root that the user asked to index. `path` is absolute.

    Not `is_whole`: only files in it were named, one by one, and the folder itself is never walked.
    """

    id: int
    path: str
    is_whole: bool = True


@dataclass(frozen=True, slots=True)
class Mount:
    """A mount point at or below a root: a folder on another device than the folder that it lies in.

    `path` is absolute. `is_away`: nothing was mounted there, and nothing known to be seen, at the last look.
    """

    folder_id: int
    path: str
    is_away: bool = False


@dataclass(frozen=True, slots=True)
class FoundFile:
    """One media file met by the scanner. `name` is relative to its folder, with the system's separator."""

    folder_id: int
    name: str
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """What probing a file tells. Width and height in pixels as displayed, after EXIF orientation or rotation.

    `latitude` and `longitude` are degrees, south and west negative. `duration_s` is None for photos.
    """

    kind: Kind
    width: int
    height: int
    taken_at: datetime | None = None
    duration_s: float | None = None
    latitude: float | None = None
    longitude: float | None = None
    camera: str | None = None


@dataclass(frozen=True, slots=True)
class EncodedSegment:
    """One vector of an item: the whole photo (0, 0), or the stretch [t0_ms, t1_ms) of a video.

    `vector`: float32 [H], L2-normalised, full width.
    """

    t0_ms: int
    t1_ms: int
    vector: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class KnownFile:
    """A file as the library remembers it. `folder_id` and `name` as in `FoundFile`.

    `state` is that in the space that was asked about. "pending": it has neither vectors nor a failure there.
    """

    media_id: int
    folder_id: int
    name: str
    size: int
    mtime_ns: int
    content_hash: bytes
    state: State


@dataclass(frozen=True, slots=True)
class IndexedMedia:
    """A file that was read well: to be written with its vectors."""

    file: FoundFile
    content_hash: bytes
    info: MediaInfo
    segments: tuple[EncodedSegment, ...]


@dataclass(frozen=True, slots=True)
class FailedMedia:
    """A file that could not be used: quarantined with its reason until it changes.

    `is_models`: the file was read well but the model made nothing of it, which another one may. An empty
    `content_hash`: the system refused the file, and its content is not known.
    """

    file: FoundFile
    content_hash: bytes
    reason: str
    is_models: bool = False


@dataclass(frozen=True, slots=True)
class Failure:
    """One line of a report: which file, and why."""

    path: str
    error: str


@dataclass(frozen=True, slots=True)
class Counts:
    """What the library holds."""

    items: int
    photos: int
    videos: int
    segments: int
    failed: int


@dataclass(frozen=True, slots=True)
class IndexReport:
    """The outcome of one indexing run: the library's totals, the changes made by this run, failures."""

    items: int
    photos: int
    videos: int
    segments: int
    added: int
    updated: int
    unchanged: int
    removed: int
    failed: tuple[Failure, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Near:
    """Within so many kilometres of a point, in degrees; south and west are negative."""

    latitude: float
    longitude: float
    km: float


@dataclass(frozen=True, slots=True)
class Filters:
    """Which items a search may return; None means any.

    `after` is inclusive and `before` exclusive, both on `taken_at`; items without a date never match them.
    `under` is an absolute path: items in that folder or below. `camera` matches part of the name, any case.
    Of several folders, or names of cameras, any one may fit. `folders` are keys of folders as
    `Library.facets` gives them: items in any of these. `near`: items taken around a place.
    `place` matches part of the name of the town, region or country where it was taken, any case; it needs the
    extra `[places]`.
    """

    kind: Kind | None = None
    after: datetime | None = None
    before: datetime | None = None
    under: str | tuple[str, ...] | None = None
    camera: str | tuple[str, ...] | None = None
    folders: tuple[str, ...] = ()
    near: Near | None = None
    place: str | tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class SpaceIdentity:
    """What makes two vectors comparable. Vectors of different spaces never meet in a search.

    `revision` is the bundle's content hash, `precision` names the number formats of its graphs, `dims` is the
    full width, `pixels` describes resolution and sampling, `template` the prompt. `bundle` is a label for
    people and takes no part in the identity.
    """

    bundle: str
    revision: str
    precision: str
    dims: int
    pixels: str
    template: str


@dataclass(frozen=True, slots=True)
class Space:
    """A vector space of the library. The one `active` space serves the searches."""

    id: int
    identity: SpaceIdentity
    active: bool


@dataclass(frozen=True, slots=True)
class MediaItem:
    """Everything the library knows about one file. `path` is absolute. Fields as in `MediaInfo`.

    A file that failed has no kind; `error` says why it failed.
    """

    id: int
    path: str
    folder_id: int
    name: str
    size: int
    mtime_ns: int
    content_hash: bytes
    state: State
    error: str | None
    kind: Kind | None
    width: int
    height: int
    duration_s: float | None
    taken_at: datetime | None
    latitude: float | None
    longitude: float | None
    camera: str | None


@dataclass(frozen=True, slots=True)
class Segment:
    """One stretch [t0_ms, t1_ms) of an item that has its own vector; (0, 0) for a photo."""

    id: int
    media_id: int
    t0_ms: int
    t1_ms: int


@dataclass(frozen=True, slots=True)
class Companion:
    """A file that is shown with a photo: its raw file, or the film of a Live Photo.

    `name` is the file's own, without folders; `id` is None for a raw file, which is never read.
    """

    kind: Literal["raw", "live"]
    name: str
    id: int | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """An item with its best moment for a query, and their cosine in [-1, 1]."""

    item: MediaItem
    segment: Segment
    cosine: float
    companions: tuple[Companion, ...] = ()


@dataclass(frozen=True, slots=True)
class Hit:
    """One item of a result, best first. Scores are higher-is-better.

    `embedding_score` is the cosine in [-1, 1]; `reranker_score` the probability of "yes" in [0, 1], None when
    the item was not reranked; `score` is what the order follows. `start_s`, `end_s` bound a video's moment.
    """

    rank: int
    media_id: int
    path: str
    kind: Kind
    score: float
    embedding_score: float
    reranker_score: float | None
    start_s: float | None
    end_s: float | None
    taken_at: datetime | None
    width: int
    height: int
    companions: tuple[Companion, ...] = ()
    latitude: float | None = None
    longitude: float | None = None


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Hits and the milliseconds that each step took. `query` is None for a search by image alone."""

    query: str | None
    hits: tuple[Hit, ...]
    timings_ms: Mapping[str, float] = field(default_factory=dict)
