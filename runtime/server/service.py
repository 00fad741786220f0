"""`Service`: the only thing that routes talk to. It owns the library, its models, and what a search keeps.

Its methods block and are safe between threads; routes call them through `searches` or `reads`, whose threads
and queues are bounded.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import MediaError, StoppedError
from ..library.folder_keys import parse_folder_key
from ..library.library import Library
from ..library.query import checked_query
from ..library.records import Filters, MediaItem, SearchResult
from ..library.search import RERANKED, Found
from ..library.store import Store
from ..model.pixels import OFFICIAL_MAX_TOKENS, PixelBudget
from ..model.raw_photo import is_raw
from .decoders import Decoders
from .events import Broker
from .folders import Places, checked_folder
from .inputs import Inputs
from .jobs import Jobs, background_settings
from .keeper import Keeper
from .limits import Gate
from .media_file import OpenMedia, open_media
from .memory import keep_memory_steady
from .metrics import Labels, Metrics, resident_bytes
from .pictures import Pictures
from .problems import NotFoundError
from .remote import Remote
from .renderings import Renderings, encode_jpeg
from .settings import ServerSettings
from .sources import Sources
from .status import StatusBoard, Teller
from .watch import Watch

if TYPE_CHECKING:
    from ..model.embedder import Embedder
    from ..model.reranker import Reranker
    from ..model.session import Interruption

_READS, _WAITING_READS = 8, 256
_PROGRAMS, _DECODES = 2, 2

# Query pictures are kept at the most that any model looks at; the model's own budget follows.
_QUERY_PIXELS = OFFICIAL_MAX_TOKENS * 32 * 32
_SHOWN_PIXELS = 8_000_000


@dataclass(frozen=True, slots=True)
class Query:
    """What somebody looks for: words, a picture (uint8 [h, w, 3]), an item like this one, or words with one.

    `like` is a media id.
    """

    text: str | None = None
    picture: NDArray[np.uint8] | None = None
    like: int | None = None
    limit: int = 20
    filters: Filters | None = None
    rerank: bool = True

    @property
    def is_reranked(self) -> bool:
        """Whether there is a slow step: what is only like an item has no question to judge it by."""
        has_words = bool(self.text and self.text.strip())
        return self.rerank and (has_words or self.picture is not None)


@dataclass(frozen=True, slots=True)
class Search:
    """A search after its fast step. Both results may be asked for, in any thread."""

    query: Query
    found: Found
    _library: Library

    @property
    def has_second_step(self) -> bool:
        """Whether the reranker is to look at something."""
        return self.query.is_reranked and bool(self.found.candidates)

    def result(self) -> SearchResult:
        """The hits in the embedder's order."""
        return self.found.result()

    def rerank(self, stop: Interruption | None = None) -> SearchResult:
        """The hits in the final order; the slow step, which ends with StoppedError once `stop` is set."""
        return self._library.rerank(self.found, stop=stop)


class Service:
    """An open library that is served. Made by `Service.open`; a context manager."""

    def __init__(self, settings: ServerSettings, library: Library, *, renewal: Library | None = None) -> None:
        """Use `Service.open`."""
        self.settings = settings
        self.library = library
        # The same library opened with the model that was asked for, while it still has another one.
        self.renewal = renewal
        self.metrics = Metrics()
        self.searches = Gate("searches", running=settings.max_searches, waiting=settings.max_waiting)
        # Apart, so that the slow step of some searches does not keep others from their fast one.
        self.reranks = Gate(
            "closer looks", running=max(1, settings.max_searches // 2), waiting=settings.max_waiting
        )
        self.reads = Gate("reads", running=_READS, waiting=_WAITING_READS)
        # A piece of a file each, for as many clients as there are.
        self.files = Gate("pieces of files", running=_READS, waiting=4096)
        # Apart from searches, so that a program with thousands of inputs keeps nobody from finding things.
        self.programs = Gate("requests", running=_PROGRAMS, waiting=settings.max_waiting)
        # Apart from those in turn: what people drop on the page, or look at.
        self.decodes = Gate("pictures", running=_DECODES, waiting=settings.max_waiting)
        self.decoders = Decoders()
        self.inputs = Inputs(
            Sources(
                roots=(lambda: self.library.status().folders) if settings.allow_local_paths else None,
                remote=Remote() if settings.allow_remote_urls else None,
            ),
            decoders=self.decoders,
        )
        self.pictures = Pictures()
        self._rendered = Renderings()
        self.events = Broker()
        self.jobs = Jobs(renewal or library)
        self.watch = Watch(self.jobs.changed, outside=str(library.path))
        self.board = StatusBoard(settings, library, self.jobs, self.watch, renewal=renewal)
        self.places = Places()
        opened = (library,) if renewal is None else (library, renewal)
        self._keeper = Keeper(*opened, ttl_s=settings.model_ttl_s)
        self._teller = Teller(self.board, self.events, self.watch)
        self.stopping = threading.Event()
        self._running_searches = 0
        self._lock = threading.Lock()
        self._describe()

    @classmethod
    def open(cls, settings: ServerSettings) -> Self:
        """Open the library of `settings`, made when missing. No model is loaded yet.

        One that was indexed with another model than is asked for is searched with its own until everything
        is embedded anew in the background.

        Raises:
            LibraryError: as `Library.open`.
        """
        keep_memory_steady()
        Store.create(settings.library)
        library = Library.open(
            settings.library,
            model=settings.model,
            backend=settings.backend,
            device=settings.device,
            precision=settings.precision,
            create=False,
            settings=background_settings(),
        )
        held = library.status().model
        if held is None or held == library.model:
            return cls(settings, library)
        searched = Library.open(settings.library, device=settings.device, create=False)
        library.index_behind(searched)
        return cls(settings, searched, renewal=library)

    def start(self, paths: Iterable[str] = ()) -> None:
        """Bring the library up to date in the background, `paths` first, and watch its folders from now on.

        `paths` are absolute, folders or files that exist.
        """
        self._teller.open()
        self._keeper.open()
        self.watch.open()
        self.watch.follow(self.board.watched())
        self.jobs.add(paths)
        self.jobs.start()
        self.jobs.open()

    def add_folder(self, text: str) -> str:
        """Let a folder be indexed; what is known already is looked at again. Returns its path.

        Raises:
            InputError: it cannot be one; see `checked_folder`.
        """
        known = [folder.path for folder in self.library.folders() if folder.is_whole]
        path = checked_folder(text, library=self.library.path, known=known)
        self.jobs.add_folder(path)
        return path

    def find(self, query: Query) -> Search:
        """The fast step of a search.

        Raises:
            InputError: nothing to look for, or a limit or filter that makes no sense.
            NotFoundError: there is no item to compare with.
        """
        top = RERANKED if query.is_reranked else 0
        if query.like is not None:
            self._check_comparable(query.like)
        if not self.board.counts().items:
            # Nothing is there yet, which is no error of whoever looks; nor does it take a model.
            checked_query(query.text, has_image=query.picture is not None or query.like is not None)
            for key in query.filters.folders if query.filters is not None else ():
                parse_folder_key(key)
            return Search(
                query, Found(query.text, (), query.limit, top, {}, np.empty(0, np.float32)), self.library
            )
        if query.like is None:
            found = self.library.find(
                query.text, image=query.picture, limit=query.limit, filters=query.filters, top=top
            )
        else:
            found = self.library.find_like(
                query.like, query.text, limit=query.limit, filters=query.filters, top=top
            )
        return Search(query, found, self.library)

    def item(self, media_id: int) -> MediaItem:
        """The item of an id.

        Raises:
            NotFoundError: there is none.
        """
        item = self.library.media(media_id)
        if item is None:
            raise NotFoundError(f"The library holds no item {media_id}.")
        return item

    def _check_comparable(self, media_id: int) -> None:
        item = self.item(media_id)
        if not self.library.segments(media_id):
            why = f": {item.error}" if item.error else ", since it was not indexed yet"
            raise NotFoundError(f"There is nothing to compare item {media_id} by{why}.")

    def thumbnail(self, media_id: int, side: Literal[320, 640], t0_ms: int | None) -> bytes:
        """A small JPEG of an item, or of the moment of a video that begins at `t0_ms`.

        Raises:
            NotFoundError: there is no such item, or no picture of it.
        """
        jpeg = self.library.thumbnail(media_id, side=side, t0_ms=t0_ms)
        if jpeg is None:
            raise NotFoundError(f"There is no picture of an item {media_id}.")
        return jpeg

    def open_file(self, item: MediaItem) -> OpenMedia:
        """An item's file for reading; errors as for `open_media`."""
        roots = {folder.id: folder.path for folder in self.library.folders()}
        if item.folder_id not in roots:
            raise NotFoundError("The folder of this file was forgotten meanwhile.")
        return open_media(item, roots[item.folder_id])

    def render(self, source: BinaryIO, name: str, path: str) -> bytes:
        """A photo of any format as JPEG of up to 8 megapixels. `name`: of its content, for doing it once.

        `path` is that of the file, of which the extension says whether it is raw.

        Raises:
            MediaError: it cannot be read, or is over a limit.
        """
        extension = Path(path).suffix.lower() if is_raw(path) else ""
        return self._rendered.get(
            name, lambda: encode_jpeg(self.read_picture(source, _SHOWN_PIXELS, extension=extension))
        )

    def read_picture(
        self, source: BinaryIO, pixels: int = _QUERY_PIXELS, *, extension: str = ""
    ) -> NDArray[np.uint8]:
        """A picture of `pixels` at most, decoded in a process that it can take nothing from: uint8 [h, w, 3].

        Raises:
            MediaError: it is none, or over a limit.
        """
        with tempfile.TemporaryDirectory(prefix="qvl-picture-") as folder:  # readable by its owner alone
            path = Path(folder) / f"picture{extension}"
            with path.open("wb") as file:
                while piece := source.read(1 << 20):
                    file.write(piece)
            try:
                return self.decoders.picture(path, _budget(pixels), go_on=self.go_on)
            except MediaError as error:
                raise type(error)("The picture", error.reason) from error

    def go_on(self) -> None:
        """Called in the middle of long work.

        Raises:
            StoppedError: the server is stopping.
        """
        if self.stopping.is_set():
            raise StoppedError("The server is stopping.")

    @contextmanager
    def searching(self) -> Iterator[None]:
        """Mark a search while it runs: indexing makes room for it."""
        with self._lock:
            self._running_searches += 1
        try:
            with self.library.precedence.searching():
                yield
        finally:
            with self._lock:
                self._running_searches -= 1

    @property
    def is_searching(self) -> bool:
        """Whether a search runs now."""
        return self._running_searches > 0

    def embedder(self) -> Embedder:
        """The library's embedder, loaded when it is first needed."""
        return self.library.embedder()

    def reranker(self) -> Reranker:
        """The library's reranker, loaded when it is first needed."""
        return self.library.reranker()

    def _describe(self) -> None:
        """What `/metrics` asks for whenever somebody reads it."""
        gauge = self.metrics.gauge

        def one_of(name: str) -> dict[Labels, float]:
            return {(("state", name),): 1.0}

        def items() -> dict[Labels, float]:
            counts = self.board.counts()
            return {(("kind", "photo"),): counts.photos, (("kind", "video"),): counts.videos}

        gauge("qvl_items", "Photos and videos that can be found.", items)
        gauge("qvl_failed_files", "Files that cannot be used.", lambda: self.board.counts().failed)
        gauge("qvl_model", "The state of the models.", lambda: one_of(self.library.model_state().state))
        gauge("qvl_indexing", "What indexing is doing.", lambda: one_of(self.jobs.state().state))
        gauge(
            "qvl_indexing_done", "Files that the indexing run is done with.", lambda: self.jobs.state().done
        )
        gauge("qvl_indexing_total", "Files of the indexing run.", lambda: self.jobs.state().total)
        gauge("qvl_searches_running", "Searches that run now.", lambda: self._running_searches)
        gauge("qvl_listeners", "Pages that listen to events.", lambda: self.events.listeners)
        gauge("qvl_query_pictures_bytes", "Memory of query pictures.", lambda: self.pictures.held_bytes)
        gauge("qvl_resident_bytes", "Memory held by the server.", resident_bytes)

    def stop(self) -> None:
        """End event streams and begin nothing new; called when the server is told to stop."""
        self.stopping.set()
        self.events.close()
        self.jobs.end()

    def close(self) -> None:
        """Finish what runs, drop what waits, and close the library."""
        self.stop()
        self._teller.close()
        self.watch.close()
        self.jobs.close()
        self._keeper.close()
        for gate in (self.searches, self.reranks, self.reads, self.files):
            gate.close()
        self.programs.close()
        self.decodes.close()
        self.inputs.close()
        self.decoders.close()
        self.board.close()
        if self.renewal is not None:
            self.renewal.close()
        self.library.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _budget(pixels: int) -> PixelBudget:
    """Any shape of at most so many pixels, and never enlarged."""
    return PixelBudget(
        patch_size=1,
        merge_size=1,
        temporal_patch_size=1,
        image_min_pixels=1,
        image_max_pixels=pixels,
        video_min_pixels=1,
        video_max_pixels=pixels,
        fps=1.0,
        min_frames=1,
        max_frames=1,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )
