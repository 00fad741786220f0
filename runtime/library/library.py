"""`Library`: a folder that remembers photos and videos by what is in them.

The facade over store, indexer and models.

    library = Library.open("~/library")
    library.index(["~/Pictures", "~/Videos"])
    library.search("two dogs on a beach", limit=20).hits

Opening reads a few kilobytes; models, decoders and the vector index load when they are first needed.
"""

from __future__ import annotations

import shlex
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, LibraryError, MediaError, StoppedError
from .home import DATABASE
from .models import Models, ModelState
from .previews import PREVIEWS, Previews
from .query import checked_query, fitted
from .query_memory import QueryMemory, key_of
from .records import (
    Candidate,
    Companion,
    Failure,
    Filters,
    Folder,
    IndexReport,
    MediaItem,
    SearchResult,
    Segment,
)
from .renewal import is_filled, switch
from .roots import absolute
from .running import Asked, Running, check_comparable, identity_of, lasting_name
from .search import RERANKED, Found, check_limit, find, rerank
from .status import LibraryStatus, library_status, nothing_done
from .store import Store

if TYPE_CHECKING:
    from ..model.backends import BackendName
    from ..model.embedder import Embedder
    from ..model.ort_providers import Device
    from ..model.precedence import Precedence
    from ..model.reranker import Reranker
    from ..model.session import Interruption
    from .browse import Entry, Order, Page
    from .duplicates import DuplicateFinder, DuplicateGroup, DuplicateProgress
    from .facets import Facets
    from .indexer import Embed, IndexProgress, IndexSettings
    from .moments import Moment
    from .renditions import Side

QUERY_INSTRUCTION = "Retrieve images or text relevant to the user's query."
"""What the reference code of Qwen3-VL-Embedding tells the model about a query in words."""

_CACHE_PATIENCE_MS = 500

DEFAULT_FUSION_WEIGHT = 15.0
"""The cosine's part in the fused score for bundles that carry no measured one."""


class Library:
    """An open library. Made by `Library.open`; a context manager. Searching is safe from several threads."""

    def __init__(
        self,
        path: Path,
        *,
        asked: Asked,
        settings: IndexSettings | None,
        progress: Callable[[str, float], None] | None,
    ) -> None:
        """Use `Library.open`."""
        self.path = path
        self._asked = asked
        self._settings = settings
        self._model_progress = progress
        self._lock = threading.RLock()
        self._store: Store | None = None
        self._lists: Store | None = None
        self._duplicates: DuplicateFinder | None = None
        self._previews: Previews | None = None
        self._written_previews: Previews | None = None
        self._previews_identity: tuple[int, int] | None = None
        self._precedence: Precedence | None = None
        self._models = Models(self._running, progress=progress)
        self._queries = QueryMemory()

    @classmethod
    def open(
        cls,
        folder: str | Path,
        *,
        model: str | Path | None = None,
        backend: BackendName | None = None,
        device: Device = "cpu",
        precision: str | None = None,
        brief: bool = False,
        create: bool = True,
        settings: IndexSettings | None = None,
        progress: Callable[[str, float], None] | None = None,
        stop: threading.Event | None = None,
    ) -> Self:
        """Open the library in `folder`, made when missing unless `create` is False.

        Args:
            folder: where the library lies or shall lie; never among the photos themselves.
            model: name, Hugging Face id, checkpoint or bundle folder; None is the one that the library was
                indexed with, "tiny" for a new one. Another model than that takes effect with the next
                `index`.
            backend: "onnx", "tensorrt" for engines that were built of a bundle, or "torch" to run a
                checkpoint as it lies; see `Embedder.open`.
            device: where models run.
            precision: of the weights; see `Embedder.open`. Backend and precision make the vectors, as the
                model does: None is what the library was indexed with, and another one takes effect with the
                next `index`.
            brief: this process makes a search or two and ends; see `Embedder.open`.
            create: whether a missing library is made; its model is then fetched first.
            settings: how to index; None is the default.
            progress: told a step and its fraction done while a model is fetched and exported.
            stop: set it from elsewhere to end the fetching and exporting of a new library's model early.

        Raises:
            StoppedError: `stop` was set before the model was ready; nothing was created.
            ModelNotFoundError: there is no such model; nothing was created.
            LibraryStorageError: there is no library and `create` is False, the folder is something else, or
                it cannot be used.
            LibraryVersionError: it was made by a newer qvl-local.
        """
        home = Path(absolute(folder))
        library = cls(
            home,
            asked=Asked(None if model is None else lasting_name(model), backend, device, precision, brief),
            settings=settings,
            progress=progress,
        )
        if create and not (home / DATABASE).is_file():
            library._models.embedder(stop)
            Store.create(home)
        library._reader()
        return library

    @property
    def model(self) -> str:
        """The model in use: the one asked for, else the one that the library was indexed with."""
        return self._running().model

    def index(
        self,
        paths: Iterable[str | Path] | None = None,
        *,
        progress: Callable[[IndexProgress], None] | None = None,
        stop: threading.Event | None = None,
    ) -> IndexReport:
        """Bring the library up to date with folders and files.

        New and changed files are read, moved ones only renamed, those that are gone forgotten; a file that
        cannot be used is quarantined with its reason and tried again when it changes. With another model than
        before, everything is embedded anew, and the old vectors serve until that is done.

        Args:
            paths: folders and files; None means all folders of the library.
            progress: told about every step, from this thread.
            stop: set it from elsewhere to end early; what was read by then is kept and reported.

        Raises:
            InputError: a path does not exist; nothing was indexed.
            LibraryBusyError: another process is indexing into this library.
            LibraryStorageError: the disk is full, or the library cannot be written; it stays intact.
        """
        from .survey import check_paths

        given = None if paths is None else check_paths([paths] if isinstance(paths, (str, Path)) else paths)
        return self._index(given, changes=False, progress=progress, stop=stop)

    def update(
        self,
        paths: Iterable[str | Path],
        *,
        progress: Callable[[IndexProgress], None] | None = None,
        stop: threading.Event | None = None,
    ) -> IndexReport:
        """Look again at places below the library's folders where something has happened, and only there.

        What is not there any more is forgotten, unless its whole folder is away; what lies outside of the
        library's folders, or is hidden or ignored in them, is passed over. A library that was never indexed,
        or with another model, gets a whole `index` instead. Arguments and errors as for `index`.
        """
        return self._index(tuple(map(absolute, paths)), changes=True, progress=progress, stop=stop)

    def _index(
        self,
        given: tuple[str, ...] | None,
        *,
        changes: bool,
        progress: Callable[[IndexProgress], None] | None,
        stop: threading.Event | None,
    ) -> IndexReport:
        from .indexer import Indexer, IndexProgress, IndexSettings
        from .survey import known_places

        models, settings = self._models, self._settings or IndexSettings()
        with models.use(counts=False):
            try:
                embedder = models.embedder(stop)
            except StoppedError:
                return nothing_done(self._reader())
            identity = identity_of(embedder, models.running().model)
            with Store.open(self.path, mode="write") as store:
                space = store.space(identity)
                if given is None or not space.active:
                    # A new space can only serve once it holds all that the old one does.
                    named = () if given is None or changes else given
                    given, changes = tuple(dict.fromkeys((*named, *known_places(store, space)))), False
                left = 0 if space.active else store.counts().items - store.counts(space).items
                if left > 0 and progress is not None:
                    progress(IndexProgress("renew", 0, left, 0))
                with Previews.open(self.path, mode="write") as previews:
                    report = Indexer(
                        store,
                        previews,
                        space,
                        embed=self._embed_behind(models, embedder, is_background=settings.is_background),
                        budget=embedder.budget,
                        settings=settings,
                        progress=progress,
                        stop=stop,
                    ).run(given, changes=changes)
                if not space.active and is_filled(store, space):
                    switch(store, space)
        return report

    def search(
        self,
        query: str | None = None,
        *,
        image: str | Path | NDArray[np.uint8] | None = None,
        limit: int = 20,
        filters: Filters | None = None,
        rerank: bool = True,
        rerank_top: int = RERANKED,
        dims: int | None = None,
    ) -> SearchResult:
        """Find photos and moments of videos by words, by a picture, or by both.

        Args:
            query: what to look for.
            image: a picture file, or uint8 [h, w, 3].
            limit: how many hits.
            filters: which items may be hits.
            rerank: whether the reranker reads the best hits once more, together with the query.
            rerank_top: how many it reads.
            dims: compare so many leading components only (MRL). Vectors are kept at full width, so nothing
                is embedded anew. None is the full width.

        Raises:
            InputError: neither words nor picture, a text of more than 10,000 characters, a limit below 1, or
                a width that the model does not have.
            MediaError: the picture cannot be read.
            LibraryError: nothing was indexed yet, or only with another model.
        """
        top = rerank_top if rerank else 0
        found = self.find(query, image=image, limit=limit, filters=filters, top=top, dims=dims)
        return self.rerank(found) if top else found.result()

    def find(
        self,
        query: str | None = None,
        *,
        image: str | Path | NDArray[np.uint8] | None = None,
        limit: int = 20,
        filters: Filters | None = None,
        top: int = RERANKED,
        dims: int | None = None,
    ) -> Found:
        """The fast step of `search` alone: `result()` of what it returns is the embedder's order.

        Arguments and errors as for `search`; `top` is `rerank_top`; above 0 the reranker loads meanwhile.
        """
        text = checked_query(query, has_image=image is not None)
        given: dict[str, Any] = {} if text is None else {"text": text, "instruction": QUERY_INSTRUCTION}
        if image is not None:
            given["image"] = image
        return self._find(given, query=text, limit=limit, filters=filters, top=top, dims=dims)

    def find_like(
        self,
        media_id: int,
        query: str | None = None,
        *,
        limit: int = 20,
        filters: Filters | None = None,
        top: int = RERANKED,
        dims: int | None = None,
    ) -> Found:
        """What resembles an item of the library, or would with the words of `query` added; it is left out.

        Without words it costs no model run, and there is nothing to rerank.

        Raises:
            InputError: there is no such item, or as for `find`.
            MediaError: words are to be added, and there is nothing to see of the item any more.
        """
        from .documents import document

        store = self._reader()
        item, vectors = store.media(media_id), store.vectors(media_id)
        if item is None or not len(vectors):
            raise InputError(f"There is no item {media_id} to compare with.")
        text = None if query is None or not query.strip() else checked_query(query, has_image=True)
        if text is None:
            mean = _narrowed(vectors.mean(axis=0), dims)
            return find(store, mean, limit=limit, filters=filters, top=0, exclude=media_id)
        segments = store.segments(media_id)
        with self._models.use():
            budget = self._models.embedder(wait=False).budget
            middle = Candidate(item, segments[len(segments) // 2], 1.0)
            shown = document(middle, self._pictures(), budget)
            if shown is None:
                raise MediaError(item.path, "it cannot be read any more, and there is no preview of it")
            given = {"text": text, "instruction": QUERY_INSTRUCTION, **shown}
            return self._find(
                given, query=text, limit=limit, filters=filters, top=top, dims=dims, exclude=media_id
            )

    def rerank(self, found: Found, *, stop: Interruption | None = None) -> SearchResult:
        """The slow step of `search`: let the reranker read the best of `found`.

        An item that can neither be read nor seen in the previews keeps the embedder's score.

        Raises:
            StoppedError: `stop` was set meanwhile.
        """
        from .documents import logits

        models = self._models
        with models.use(), self.precedence.searching():
            reranker = models.reranker(wait=False)
            query: dict[str, Any] = {} if found.query is None else {"text": found.query}
            query |= found.shown
            weight = reranker.fusion.get("cosine_weight", DEFAULT_FUSION_WEIGHT)
            if stop is not None:
                reranker = reranker.until(stop)
            pictures = self._pictures()
            with models.first_run():
                return rerank(
                    found, lambda best: logits(reranker, query, best, previews=pictures), weight=weight
                )

    def similar(
        self, path: str | Path, *, limit: int = 20, filters: Filters | None = None, dims: int | None = None
    ) -> SearchResult:
        """Find what resembles a photo or video.

        One that is in the library costs no model run and is left out.

        Raises:
            InputError: a width that the model does not have.
            MediaError: the file is not in the library and cannot be read.
            LibraryError: nothing was indexed yet.
        """
        store = self._reader()
        full = absolute(path)
        item = store.media_by_path(full)
        vectors = np.empty((0, 0)) if item is None else store.vectors(item.id)
        if item is None or not len(vectors):
            from .formats import kind_by_extension

            key = "video" if kind_by_extension(full) == "video" else "image"
            found = self._find({key: full}, query=None, limit=limit, filters=filters, top=0, dims=dims)
            return found.result()
        mean = _narrowed(vectors.mean(axis=0), dims)
        return find(store, mean, limit=limit, filters=filters, top=0, exclude=item.id).result()

    def embedder(self) -> Embedder:
        """The library's embedder, loaded when it is first needed; errors as for `Embedder.open`.

        Use it inside `using_models`.
        """
        return self._models.embedder(wait=False)

    def reranker(self) -> Reranker:
        """The library's reranker, loaded when it is first needed; errors as for `Reranker.open`.

        Use it inside `using_models`.
        """
        return self._models.reranker(wait=False)

    def using_models(self) -> AbstractContextManager[None]:
        """For so long the models are kept; indexing and searching do so themselves."""
        return self._models.use()

    def model_state(self) -> ModelState:
        """Whether the models are loaded, and how far that is; loads nothing."""
        return self._models.state()

    def release_models(self, *, idle_s: float = 0.0) -> bool:
        """Free the models' memory unless they were used in the last `idle_s` seconds.

        Their next use loads them again. Returns whether there was something to free.
        """
        return self._models.release(idle_s=idle_s)

    def index_behind(self, other: Library) -> None:
        """Let the searches of another open library go first: the same folder, opened with another model."""
        precedence = other.precedence
        with self._lock:
            self._precedence = precedence

    @property
    def precedence(self) -> Precedence:
        """Who goes first: searches mark themselves here, indexing waits for them."""
        from ..model.precedence import Precedence

        with self._lock:
            if self._precedence is None:
                self._precedence = Precedence()
            return self._precedence

    def remove(self, paths: Iterable[str | Path]) -> int:
        """Forget files and folders, on disk or gone, and return how many items went.

        The files are not touched. Those in quarantine are forgotten, too, and are no items.

        Raises:
            InputError: the library knows nothing at one of the paths; nothing was forgotten.
            LibraryBusyError: another process is indexing into this library.
        """
        from .removal import remove_paths

        with Store.open(self.path, mode="write") as store:
            return remove_paths(store, [paths] if isinstance(paths, (str, Path)) else paths)

    def status(self) -> LibraryStatus:
        """What the library holds."""
        return library_status(self._reader())

    def folders(self) -> tuple[Folder, ...]:
        """The roots: folders that were indexed as a whole, and folders of single files."""
        return self._lister().folders()

    def failures(self) -> tuple[Failure, ...]:
        """The files in quarantine and why, by path."""
        return self._reader().failures()

    def knows(self, path: str | Path) -> bool:
        """Whether the library knows a file at `path` or below, on disk or gone, also in quarantine."""
        return self._reader().knows(absolute(path))

    def media(self, media_id: int) -> MediaItem | None:
        """What the library knows about an item, None when there is none of this id."""
        return self._lister().media(media_id)

    def thumbnail(self, media_id: int, *, side: Side = 320, t0_ms: int | None = None) -> bytes | None:
        """A small JPEG of an item, None when there is none.

        Args:
            media_id: a photo or a video.
            side: the longer side in pixels, 320 or 640; a picture is never enlarged. 640 of a photo is made
                of its file the first time, and falls back to 320 where that cannot be read any more.
            t0_ms: milliseconds into a video, for a picture of that moment instead of the cover.
        """
        from .renditions import rendition

        item = self._lister().media(media_id)
        if item is None:
            return None
        return rendition(item, self._pictures(), side=side, t0_ms=t0_ms, cache=self._cache())

    def browse(
        self, *, order: Order = "newest", offset: int = 0, limit: int = 100, filters: Filters | None = None
    ) -> Page:
        """Items in order of date, a page at a time; those without a date come last.

        Raises:
            InputError: an order that is neither newest nor oldest, a negative offset or limit, or a filter
                that makes no sense.
        """
        from .browse import browse

        return browse(self._lister(), order=order, offset=offset, limit=limit, filters=filters)

    def facets(self, *, filters: Filters | None = None) -> Facets:
        """How many items there are of each kind, month, camera, folder and place, as far as `filters` allow.

        Raises:
            InputError: a filter that makes no sense.
        """
        from .facets import facets
        from .place_names import cell_name, has_place_names

        return facets(self._lister(), filters=filters, name_of=cell_name if has_place_names() else None)

    def moments(self, media_id: int, vector: NDArray[np.float32]) -> tuple[Moment, ...]:
        """How well each stretch of an item fits a query vector, float32 [d], as in `Found.vector`.

        Raises:
            InputError: the vector does not fit the library's.
        """
        from .moments import moments

        return moments(self._lister(), media_id, vector)

    def items(self, media_ids: Iterable[int]) -> tuple[Entry, ...]:
        """These items as lists show them, in this order; those that are gone are left out."""
        from .browse import entries

        return entries(self._lister(), list(media_ids))

    def duplicates(
        self,
        *,
        progress: Callable[[DuplicateProgress], None] | None = None,
        stop: threading.Event | None = None,
    ) -> tuple[DuplicateGroup, ...]:
        """Items that are one picture or film in several files, and those that look nearly alike.

        The first time takes a while (one to two milliseconds an item, and more where much is alike); what was
        found is remembered until the library changes, and what was compared for longer.

        Args:
            progress: told how far it is.
            stop: set it from elsewhere to end early.

        Raises:
            StoppedError: `stop` was set.
        """
        with self._lock:
            if self._duplicates is None:
                from .duplicates import DuplicateFinder

                self._duplicates = DuplicateFinder()
        found = self._duplicates
        return found.find(self._lister(), self._pictures(), cache=self._cache(), progress=progress, stop=stop)

    def segments(self, media_id: int) -> tuple[Segment, ...]:
        """The stretches of an item that have vectors of their own, in order of time."""
        return self._lister().segments(media_id)

    def companions(self, media_id: int) -> tuple[Companion, ...]:
        """The files that are shown with an item: its raw files, the film of a Live Photo."""
        return self._lister().companions([media_id]).get(media_id, ())

    def close(self) -> None:
        """Close the files and free the models; one that is just being loaded is waited for."""
        self._close(wait=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self._close(wait=error is None)

    def _running(self) -> Running:
        """The model in use and how it is run, as asked for and as the library remembers."""
        is_there = (self.path / DATABASE).is_file()
        return self._asked.running(self._reader().active_space() if is_there else None)

    def _close(self, *, wait: bool) -> None:
        with self._lock:
            models = self._models
            files = (self._store, self._lists, self._previews, self._written_previews)
            self._models = Models(self._running, progress=self._model_progress)
            self._store = self._lists = self._previews = self._written_previews = None
        models.close(wait=wait)
        for file in files:
            if file is not None:
                file.close()

    # The parts, opened when they are first needed

    def _reader(self) -> Store:
        with self._lock:
            if self._store is None:
                self._store = Store.open(self.path)
            return self._store

    def _lister(self) -> Store:
        """A reader of its own for lists and counts, which no search shall wait for."""
        with self._lock:
            if self._lists is None:
                self._lists = Store.open(self.path)
            return self._lists

    def _pictures(self) -> Previews:
        with self._lock:
            # The cache may be deleted at any time, and made anew by another process.
            identity = _identity_of(self.path / PREVIEWS)
            if self._previews is None or identity != self._previews_identity:
                for opened in (self._previews, self._written_previews):
                    if opened is not None:
                        opened.close()
                self._written_previews = None
                self._previews = Previews.open(self.path)
                self._previews_identity = identity
            return self._previews

    def _cache(self) -> Previews | None:
        """The same pictures for writing down what was made on request; None where that cannot be."""
        with self._lock:
            self._pictures()
            if self._written_previews is None:
                self._written_previews = _open_cache(self.path)
            return self._written_previews

    def _find(
        self,
        given: dict[str, Any],
        *,
        query: str | None,
        limit: int,
        filters: Filters | None,
        top: int,
        dims: int | None,
        exclude: int | None = None,
    ) -> Found:
        store = self._reader()
        space = store.active_space()
        if space is None:
            raise LibraryError(
                f"{self.path}: nothing was indexed yet. Index something first: "
                f"qvl-local index PATH --library {shlex.quote(str(self.path))}"
            )
        start = time.perf_counter()
        models = self._models
        with models.use(), self.precedence.searching():
            embedder = models.embedder(wait=False)
            loaded = time.perf_counter()
            try:
                check_comparable(store, self._asked, identity_of(embedder, models.running().model))
            except LibraryError:
                if self._asked.running(space) == models.running():
                    raise
                # Indexed with another model by now: by another process, or by a run that has just ended.
                self._change_models(models)
                return self._find(
                    given,
                    query=query,
                    limit=limit,
                    filters=filters,
                    top=top,
                    dims=dims,
                    exclude=exclude,
                )
            width = embedder.width(embedder.max_dims if dims is None else dims)
            check_limit(limit, top)
            if "image" in given:
                given = {**given, "image": fitted(given["image"], embedder.budget)}
            if top:
                models.load_reranker_ahead()  # the last thing before the work: an error must not wait for it
            key = key_of(given, space_id=space.id, dims=width)
            vector = None if key is None else self._queries.get(key)
            if vector is None:
                with models.first_run():
                    (vector,) = embedder.embed([given], dims=width)
                if key is not None:
                    self._queries.put(key, vector)
            done = time.perf_counter()
            return find(
                store,
                vector,
                limit=limit,
                filters=filters,
                top=top,
                query=query,
                exclude=exclude,
                timings_ms={"load": (loaded - start) * 1000, "embed": (done - loaded) * 1000},
                shown={name: given[name] for name in ("image", "video") if name in given},
            )

    def _change_models(self, old: Models) -> None:
        """Choose the models anew, unless another thread has done so; those in use go with their last user."""
        with self._lock:
            if self._models is not old:
                return
            self._models = Models(self._running, progress=self._model_progress)
        old.close(wait=False)

    def _embed_behind(self, models: Models, embedder: Embedder, *, is_background: bool) -> Embed:
        """How an indexing run embeds: behind searches, and in a thread that others go before."""
        from .priority import lower_thread

        behind = embedder.behind(self.precedence)
        is_lowered = not is_background

        def embed(inputs: Sequence[dict[str, Any]]) -> NDArray[np.float32]:
            nonlocal is_lowered
            with models.first_run():
                if not is_lowered:
                    embedder.load()  # first: the graphs' threads inherit what this thread has
                    lower_thread()
                    is_lowered = True
                return behind.embed(inputs, dims=behind.max_dims)

        return embed


def _open_cache(folder: Path) -> Previews | None:
    """The previews for writing; None where nothing can be written, or somebody else does for long."""
    try:
        cache = Previews.open(folder, mode="write")
    except LibraryError:
        return None
    cache.be_quick(_CACHE_PATIENCE_MS)
    return cache


def _narrowed(vector: NDArray[np.float32], dims: int | None) -> NDArray[np.float32]:
    """The first `dims` components of a stored vector, float32 [d]."""
    if dims is None:
        return vector
    if not 0 < dims <= len(vector):
        raise InputError(f"dims must be a whole number from 1 to {len(vector)}, not {dims!r}.")
    return vector[:dims]


def _identity_of(file: Path) -> tuple[int, int] | None:
    """What tells a file from another one of its name; None where there is none."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
