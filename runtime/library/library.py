"""`Library`: a folder that remembers photos and videos by what is in them.

What is seen of it from outside; how it is searched and kept up to date say `searcher` and `indexing`.

    library = Library.open("~/library")
    library.index(["~/Pictures", "~/Videos"])
    library.search("two dogs on a beach", limit=20).hits

Opening reads a few kilobytes; models, decoders and the vector index load when they are first needed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from .current_models import CurrentModels
from .files import Files
from .home import DATABASE
from .models import ModelState
from .records import Companion, Failure, Filters, Folder, IndexReport, MediaItem, SearchResult, Segment
from .roots import absolute
from .running import Asked, lasting_name
from .search import RERANKED, Found
from .searcher import Searcher, Wanted
from .status import LibraryStatus, library_status
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
    from .indexer import IndexSettings
    from .moments import Moment
    from .renditions import Side
    from .tally import IndexProgress


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
        self._settings = settings
        self._files = Files(path)
        self._models = CurrentModels(asked, self._files, progress=progress)
        self._searcher = Searcher(self._files, self._models)
        self._duplicates: DuplicateFinder | None = None
        self._lock = threading.Lock()

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
            library._models.now.embedder(stop)
            Store.create(home)
        library._files.reader()
        return library

    @property
    def model(self) -> str:
        """The model in use: the one asked for, else the one that the library was indexed with."""
        return self._models.running().model

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

        What is not there any more is forgotten, unless its root or its disk is away; what lies outside of the
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
        from .indexer import IndexSettings
        from .indexing import index_library

        return index_library(
            self.path,
            self._models.now,
            given,
            changes=changes,
            precedence=self.precedence,
            settings=self._settings or IndexSettings(),
            progress=progress,
            stop=stop,
        )

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
        return self._searcher.find(query, image, Wanted(limit=limit, filters=filters, top=top, dims=dims))

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
        return self._searcher.find_like(
            media_id, query, Wanted(limit=limit, filters=filters, top=top, dims=dims)
        )

    def rerank(self, found: Found, *, stop: Interruption | None = None) -> SearchResult:
        """The slow step of `search`: let the reranker read the best of `found`.

        An item that can neither be read nor seen in the previews keeps the embedder's score.

        Raises:
            StoppedError: `stop` was set meanwhile.
        """
        return self._searcher.rerank(found, stop=stop)

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
        wanted = Wanted(limit=limit, filters=filters, top=0, dims=dims)
        return self._searcher.find_similar(path, wanted).result()

    def embedder(self) -> Embedder:
        """The library's embedder, loaded when it is first needed; errors as for `Embedder.open`.

        Use it inside `using_models`.
        """
        return self._models.now.embedder(wait=False)

    def reranker(self) -> Reranker:
        """The library's reranker, loaded when it is first needed; errors as for `Reranker.open`.

        Use it inside `using_models`.
        """
        return self._models.now.reranker(wait=False)

    def using_models(self) -> AbstractContextManager[None]:
        """For so long the models are kept; indexing and searching do so themselves."""
        return self._models.now.use()

    def model_state(self) -> ModelState:
        """Whether the models are loaded, and how far that is; loads nothing."""
        return self._models.now.state()

    def release_models(self, *, idle_s: float = 0.0) -> bool:
        """Free the models' memory unless they were used in the last `idle_s` seconds.

        Their next use loads them again. Returns whether there was something to free.
        """
        return self._models.now.release(idle_s=idle_s)

    def index_behind(self, other: Library) -> None:
        """Let the searches of another open library go first: the same folder, opened with another model."""
        self._models.run_behind(other._models)

    @property
    def precedence(self) -> Precedence:
        """Who goes first: searches mark themselves here, indexing waits for them."""
        return self._models.precedence

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
        return library_status(self._files.reader())

    def folders(self) -> tuple[Folder, ...]:
        """The roots: folders that were indexed as a whole, and folders of single files."""
        return self._files.lister().folders()

    def failures(self) -> tuple[Failure, ...]:
        """The files in quarantine and why, by path."""
        return self._files.reader().failures()

    def knows(self, path: str | Path) -> bool:
        """Whether the library knows a file at `path` or below, on disk or gone, also in quarantine."""
        return self._files.reader().knows(absolute(path))

    def media(self, media_id: int) -> MediaItem | None:
        """What the library knows about an item, None when there is none of this id."""
        return self._files.lister().media(media_id)

    def thumbnail(self, media_id: int, *, side: Side = 320, t0_ms: int | None = None) -> bytes | None:
        """A small JPEG of an item, None when there is none.

        Args:
            media_id: a photo or a video.
            side: the longer side in pixels, 320 or 640; a picture is never enlarged. 640 of a photo is made
                of its file the first time, and falls back to 320 where that cannot be read any more.
            t0_ms: milliseconds into a video, for a picture of that moment instead of the cover.
        """
        from .renditions import rendition

        item = self._files.lister().media(media_id)
        if item is None:
            return None
        return rendition(item, self._files.pictures(), side=side, t0_ms=t0_ms, cache=self._files.cache())

    def browse(
        self, *, order: Order = "newest", offset: int = 0, limit: int = 100, filters: Filters | None = None
    ) -> Page:
        """Items in order of date, a page at a time; those without a date come last.

        Raises:
            InputError: an order that is neither newest nor oldest, a negative offset or limit, or a filter
                that makes no sense.
        """
        from .browse import browse

        return browse(self._files.lister(), order=order, offset=offset, limit=limit, filters=filters)

    def facets(self, *, filters: Filters | None = None) -> Facets:
        """How many items there are of each kind, month, camera, folder and place, as far as `filters` allow.

        Raises:
            InputError: a filter that makes no sense.
        """
        from .facets import facets
        from .place_names import cell_name, has_place_names

        name_of = cell_name if has_place_names() else None
        return facets(self._files.lister(), filters=filters, name_of=name_of)

    def moments(self, media_id: int, vector: NDArray[np.float32]) -> tuple[Moment, ...]:
        """How well each stretch of an item fits a query vector, float32 [d], as in `Found.vector`.

        Raises:
            InputError: the vector does not fit the library's.
        """
        from .moments import moments

        return moments(self._files.lister(), media_id, vector)

    def items(self, media_ids: Iterable[int]) -> tuple[Entry, ...]:
        """These items as lists show them, in this order; those that are gone are left out."""
        from .browse import entries

        return entries(self._files.lister(), list(media_ids))

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
        files, finder = self._files, self._duplicates
        return finder.find(
            files.lister(), files.pictures(), cache=files.cache(), progress=progress, stop=stop
        )

    def segments(self, media_id: int) -> tuple[Segment, ...]:
        """The stretches of an item that have vectors of their own, in order of time."""
        return self._files.lister().segments(media_id)

    def companions(self, media_id: int) -> tuple[Companion, ...]:
        """The files that are shown with an item: its raw files, the film of a Live Photo."""
        return self._files.lister().companions([media_id]).get(media_id, ())

    def close(self) -> None:
        """Close the files and free the models; one that is just being loaded is waited for."""
        self._models.close(wait=True)
        self._files.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self._models.close(wait=error is None)
        self._files.close()
