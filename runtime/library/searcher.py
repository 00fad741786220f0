"""Searching an open library: a query becomes a vector, the vector hits, and the reranker looks once more.

Knows which models and files there are from `CurrentModels` and `Files`; the two steps themselves are those of
`search`.
"""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, LibraryError, MediaError
from .current_models import CurrentModels
from .files import Files
from .query import checked_query, fitted
from .query_memory import QueryMemory, key_of
from .records import Candidate, Filters, SearchResult, Space
from .roots import absolute
from .search import Found, check_limit, find, rerank

if TYPE_CHECKING:
    from ..model.embedder import Embedder
    from ..model.session import Interruption
    from .models import Models

QUERY_INSTRUCTION = "Retrieve images or text relevant to the user's query."
"""What the reference code of Qwen3-VL-Embedding tells the model about a query in words."""

DEFAULT_FUSION_WEIGHT = 15.0
"""The cosine's part in the fused score for bundles that carry no measured one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What may be hits, how many, and how they are compared: fields as for `Library.find`.

    `exclude`: the id of an item that shall be none.
    """

    limit: int
    filters: Filters | None
    top: int
    dims: int | None
    exclude: int | None = None


class Searcher:
    """Searches one library. Safe between threads. Arguments and errors as for `Library`'s own."""

    def __init__(self, files: Files, models: CurrentModels) -> None:
        self._files = files
        self._models = models
        self._queries = QueryMemory()

    def find(self, query: str | None, image: str | Path | NDArray[np.uint8] | None, wanted: Wanted) -> Found:
        """By words, by a picture, or by both."""
        text = checked_query(query, has_image=image is not None)
        given = _said(text)
        if image is not None:
            given["image"] = image
        return self._find(given, text, wanted)

    def find_like(self, media_id: int, query: str | None, wanted: Wanted) -> Found:
        """By an item of the library, and by words to add to it."""
        from .documents import document

        wanted = replace(wanted, exclude=media_id)
        store = self._files.reader()
        item, vectors = store.media(media_id), store.vectors(media_id)
        if item is None or not len(vectors):
            raise InputError(f"There is no item {media_id} to compare with.")
        text = None if query is None or not query.strip() else checked_query(query, has_image=True)
        if text is None:
            return self._find_near(vectors, wanted)
        segments = store.segments(media_id)
        models = self._models.now
        with models.use():
            budget = models.embedder(wait=False).budget
            middle = Candidate(item, segments[len(segments) // 2], 1.0)
            shown = document(middle, self._files.pictures(), budget)
            if shown is None:
                raise MediaError(item.path, "it cannot be read any more, and there is no preview of it")
            return self._find({**_said(text), **shown}, text, wanted)

    def find_similar(self, path: str | Path, wanted: Wanted) -> Found:
        """By a file, which the library may hold or not."""
        from .formats import kind_by_extension

        store = self._files.reader()
        full = absolute(path)
        item = store.media_by_path(full)
        vectors = np.empty((0, 0), np.float32) if item is None else store.vectors(item.id)
        if item is None or not len(vectors):
            key = "video" if kind_by_extension(full) == "video" else "image"
            return self._find({key: full}, None, wanted)
        return self._find_near(vectors, replace(wanted, exclude=item.id))

    def rerank(self, found: Found, *, stop: Interruption | None) -> SearchResult:
        """Let the reranker read the best of `found`."""
        from .documents import logits

        models = self._models.now
        with models.use(), self._models.precedence.searching():
            reranker = models.reranker(wait=False)
            query: dict[str, Any] = {} if found.query is None else {"text": found.query}
            query |= found.shown
            weight = reranker.fusion.get("cosine_weight", DEFAULT_FUSION_WEIGHT)
            if stop is not None:
                reranker = reranker.until(stop)
            pictures = self._files.pictures()
            with models.first_run():
                return rerank(
                    found, lambda best: logits(reranker, query, best, previews=pictures), weight=weight
                )

    def _find_near(self, vectors: NDArray[np.float32], wanted: Wanted) -> Found:
        """By the mean of an item's vectors, float32 [n, d]: no model runs, and there is nothing to rerank."""
        mean = _narrowed(vectors.mean(axis=0), wanted.dims)
        return find(
            self._files.reader(),
            mean,
            limit=wanted.limit,
            filters=wanted.filters,
            top=0,
            exclude=wanted.exclude,
        )

    def _find(self, given: dict[str, Any], text: str | None, wanted: Wanted) -> Found:
        """By what is `given` to the embedder; `text` are the words in it, for the reranker."""
        store = self._files.reader()
        space = store.active_space()
        if space is None:
            raise LibraryError(
                f"{store.folder}: nothing was indexed yet. Index something first: "
                f"qvl-local index PATH --library {shlex.quote(str(store.folder))}"
            )
        self._models.check_names(space)
        start = time.perf_counter()
        models = self._models.now
        with models.use(), self._models.precedence.searching():
            embedder = models.embedder(wait=False)
            loaded = time.perf_counter()
            if not self._models.is_comparable(models, embedder, space):
                return self._find(given, text, wanted)
            width = embedder.width(embedder.max_dims if wanted.dims is None else wanted.dims)
            check_limit(wanted.limit, wanted.top)
            if "image" in given:
                given = {**given, "image": fitted(given["image"], embedder.budget)}
            if wanted.top:
                models.load_reranker_ahead()  # the last thing before the work: an error must not wait for it
            vector = self._vector(given, models, embedder, space, width)
            done = time.perf_counter()
            return find(
                store,
                vector,
                limit=wanted.limit,
                filters=wanted.filters,
                top=wanted.top,
                query=text,
                exclude=wanted.exclude,
                timings_ms={"load": (loaded - start) * 1000, "embed": (done - loaded) * 1000},
                shown={name: given[name] for name in ("image", "video") if name in given},
            )

    def _vector(
        self, given: dict[str, Any], models: Models, embedder: Embedder, space: Space, dims: int
    ) -> NDArray[np.float32]:
        """The query's vector, float32 [dims], of which the last ones are remembered."""
        key = key_of(given, space_id=space.id, dims=dims)
        vector = None if key is None else self._queries.get(key)
        if vector is None:
            with models.first_run():
                (vector,) = embedder.embed([given], dims=dims)
            if key is not None:
                self._queries.put(key, vector)
        return vector


def _said(text: str | None) -> dict[str, Any]:
    """Words as the embedder takes those of a query."""
    return {} if text is None else {"text": text, "instruction": QUERY_INSTRUCTION}


def _narrowed(vector: NDArray[np.float32], dims: int | None) -> NDArray[np.float32]:
    """The first `dims` components of a stored vector, float32 [d]."""
    if dims is None:
        return vector
    if not 0 < dims <= len(vector):
        raise InputError(f"dims must be a whole number from 1 to {len(vector)}, not {dims!r}.")
    return vector[:dims]
