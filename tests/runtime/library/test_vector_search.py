"""The staged search of a large library against brute force: recall, filters, deletions, growth."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from qvl_local.runtime.library import codes, vector_search
from qvl_local.runtime.library.records import Filters
from qvl_local.runtime.library.store import Store

DIMS = 256
VIDEOS = 2200
SCENES = 10


class Large:
    """A library of 22,000 segments, its vectors, and brute force over them."""

    def __init__(self, store: Store, vectors: NDArray[np.float32], make: Any) -> None:
        self.store = store
        self.vectors = vectors  # [VIDEOS, SCENES, DIMS]
        self.make = make

    def queries(self, count: int) -> NDArray[np.float32]:
        """Noisy relatives of stored vectors: what a search for something that exists looks like."""
        rng = np.random.default_rng(11)
        base = self.vectors[rng.integers(0, VIDEOS, count), rng.integers(0, SCENES, count)]
        noisy = base + 0.6 * self.make.clustered(count, DIMS)
        return noisy / np.linalg.norm(noisy, axis=1, keepdims=True)

    def exact(self, query: NDArray[np.float32], wanted: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
        """Video numbers by their best scene, best first."""
        rows = self.vectors[..., : len(query)]
        cosines = (rows @ query / np.linalg.norm(rows, axis=-1)).max(axis=1)
        order = np.argsort(-cosines)
        return order if wanted is None else order[wanted[order]]

    def found(self, query: NDArray[np.float32], limit: int, filters: Filters | None = None) -> list[int]:
        hits = self.store.nearest(query, limit=limit, filters=filters)
        return [int(hit.item.name.split(".")[0]) for hit in hits]

    def recall(self, limit: int, dims: int = DIMS, queries: int = 60) -> float:
        shares = []
        for query in self.queries(queries)[:, :dims]:
            exact = set(self.exact(query)[:limit].tolist())
            shares.append(len(exact & set(self.found(query, limit))) / limit)
        return float(np.mean(shares))


def write_videos(store: Store, make: Any, vectors: NDArray[np.float32], first: int = 0) -> None:
    """Video number n was taken in the year 2000 + n % 20; one in four has a camera."""
    (folder,) = store.folders()
    (space,) = store.spaces()
    for start in range(0, len(vectors), 100):
        store.write(
            [
                make.video(
                    folder.id,
                    f"{first + n}.mp4",
                    vectors[n],
                    taken_at=datetime(2000 + (first + n) % 20, 5, 1),
                )
                for n in range(start, min(start + 100, len(vectors)))
            ],
            space,
        )


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory, maker: Any) -> Iterator[Large]:
    make = maker()
    home = tmp_path_factory.mktemp("large") / "library"
    vectors = make.clustered(VIDEOS * SCENES, DIMS).reshape(VIDEOS, SCENES, DIMS)
    with Store.open(home, mode="write") as store:
        store.add_folder("/videos")
        store.space(make.identity(dims=DIMS))
        write_videos(store, make, vectors)
    with Store.open(home) as store:
        yield Large(store, vectors, make)


def chunks(store: Store) -> list[tuple[int, int]]:
    """(generation, rows) of every persisted chunk."""
    rows = store._connection.execute("SELECT generation, length(ids) / 8 FROM code ORDER BY chunk").fetchall()
    return [(int(generation), int(count)) for generation, count in rows]  # type: ignore[arg-type]


def test_codes_are_persisted_in_whole_chunks(large: Large) -> None:
    assert chunks(large.store) == [(1, 4096)] * 5


@pytest.mark.parametrize(("limit", "least"), [(10, 0.96), (100, 0.96)])
def test_recall_is_close_to_brute_force(large: Large, limit: int, least: float) -> None:
    assert large.recall(limit) >= least


def test_a_truncated_query_is_answered_by_the_truncated_vectors(large: Large) -> None:
    assert large.recall(10, dims=128, queries=40) >= 0.9


def test_scores_are_the_cosines_of_the_best_scene(large: Large) -> None:
    for query in large.queries(20):
        for hit in large.store.nearest(query, limit=5):
            rows = large.vectors[int(hit.item.name.split(".")[0])]
            cosines = rows @ query
            assert hit.cosine == pytest.approx(float(cosines.max()), abs=5e-3)
            assert cosines[hit.segment.t0_ms // 2000] == pytest.approx(float(cosines.max()), abs=5e-3)


def test_cosines_stay_within_their_range(large: Large) -> None:
    # Exact multiples of stored vectors: rounding alone would carry some past 1.
    stored = [large.store.vectors(media_id)[0] for media_id in range(1, 60)]
    best = [
        hit.cosine for sign in (1, -1) for row in stored for hit in large.store.nearest(sign * row, limit=1)
    ]
    assert max(best) <= 1.0
    assert max(best) > 0.9999
    assert min(best) >= -1.0


def test_hits_are_items_best_first_without_doubles(large: Large) -> None:
    hits = large.store.nearest(large.queries(1)[0], limit=300)
    assert len({hit.item.id for hit in hits}) == len(hits) == 300
    assert [hit.cosine for hit in hits] == sorted((hit.cosine for hit in hits), reverse=True)


def test_all_items_can_be_asked_for(large: Large) -> None:
    assert sorted(large.found(large.queries(1)[0], VIDEOS + 5)) == list(range(VIDEOS))


@pytest.mark.parametrize(
    ("filters", "share"),
    [
        # Staged over a part of the library, and exact over a narrow one.
        (Filters(before=datetime(2010, 1, 1)), 0.5),
        (Filters(after=datetime(2019, 1, 1)), 0.05),
    ],
)
def test_a_filter_never_costs_recall(large: Large, filters: Filters, share: float) -> None:
    years = 2000 + np.arange(VIDEOS) % 20
    after = filters.after.year if filters.after else 0
    before = filters.before.year if filters.before else 9999
    wanted = (years >= after) & (years < before)
    assert wanted.mean() == share
    shares = []
    for query in large.queries(30):
        # The very query whose nearest items the filter excludes: all of its best hits are elsewhere.
        found = large.found(query, 20, filters)
        assert len(found) == 20
        assert wanted[found].all()
        shares.append(len(set(found) & set(large.exact(query, wanted)[:20].tolist())) / 20)
    assert np.mean(shares) >= 0.95


def test_every_process_gives_the_same_answer(large: Large) -> None:
    query = large.queries(1)[0]
    with Store.open(large.store.folder) as fresh:
        assert fresh.nearest(query, limit=50) == large.store.nearest(query, limit=50)


def test_a_few_long_videos_do_not_crowd_out_the_others(home: Path, make: Any, small_stages: None) -> None:
    with Store.open(home, mode="write") as store:
        folder, space = store.add_folder("/videos"), store.space(make.identity())
        topic = make.vectors(1)[0]
        near = topic + 0.05 * make.vectors(400)
        far = topic + 0.8 * make.vectors(40)
        near, far = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (near, far))
        store.write(
            [make.video(folder.id, f"{n}.mp4", near[200 * n : 200 * n + 200]) for n in range(2)], space
        )
        store.write([make.photo(folder.id, f"{n}.jpg", row) for n, row in enumerate(far)], space)
        hits = store.nearest(topic, limit=12)
    assert len(hits) == 12
    assert {hit.item.name for hit in hits[:2]} == {"0.mp4", "1.mp4"}


@pytest.fixture
def small_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large library in miniature: the same code, from 100 rows on and in chunks of 64."""
    monkeypatch.setattr(codes, "CODED_FROM_ROWS", 100)
    monkeypatch.setattr(vector_search, "CODED_FROM_ROWS", 100)
    monkeypatch.setattr(codes, "CHUNK_ROWS", 64)
    monkeypatch.setattr(vector_search, "EXACT_CANDIDATES", 5)
    monkeypatch.setattr(vector_search, "FIRST", 40)
    monkeypatch.setattr(vector_search, "SECOND", 20)
    monkeypatch.setattr(vector_search, "_SECOND_PER_HIT", 1)
    monkeypatch.setattr(vector_search, "_NARROW_FACTOR", 1)


@pytest.mark.parametrize("seed", range(3))
def test_a_changing_library_is_searched_as_it_is(
    home: Path, make: Any, small_stages: None, seed: int
) -> None:
    """Writes, replacements, removals, moves in random order: a search finds what is there, nothing else."""
    rng = np.random.default_rng(seed)
    present: dict[str, NDArray[np.float32]] = {}
    with Store.open(home, mode="write") as store, Store.open(home) as reader:
        folder = store.add_folder("/pictures")
        space = store.space(make.identity())
        for _ in range(25):
            action = rng.choice(["write", "write", "replace", "remove", "move", "failed"])
            names = sorted(present)
            if action == "write" or len(names) < 20:
                batch = {
                    f"{rng.integers(1 << 40)}.jpg": row for row in make.vectors(int(rng.integers(1, 90)))
                }
                store.write([make.photo(folder.id, name, row) for name, row in batch.items()], space)
                present |= batch
            elif action == "replace":
                batch = {str(name): make.vectors(1)[0] for name in rng.choice(names, 10, replace=False)}
                content = str(rng.integers(1 << 40))
                store.write(
                    [make.photo(folder.id, n, row, content=content) for n, row in batch.items()], space
                )
                present |= batch
            elif action == "remove":
                gone = {str(name) for name in rng.choice(names, len(names) // 3, replace=False)}
                store.remove(k.media_id for k in list(store.known(folder.id, space)) if k.name in gone)
                present = {name: row for name, row in present.items() if name not in gone}
            elif action == "move":
                item = store.media_by_path(f"/pictures/{names[0]}")
                assert item is not None
                store.rename(item.id, make.file(folder.id, f"moved {names[0]}"))
                present[f"moved {names[0]}"] = present.pop(names[0])
            else:
                store.write([make.failed(folder.id, names[0])], space)
                del present[names[0]]
            for open_store in (store, reader):
                everything = open_store.nearest(make.vectors(1)[0], limit=10_000)
                assert sorted(hit.item.name for hit in everything) == sorted(present)
                for name in list(present)[:: max(1, len(present) // 5)]:
                    (hit,) = open_store.nearest(present[name], limit=1)
                    assert (hit.item.name, hit.cosine) == (name, pytest.approx(1, abs=2e-3))
        generations = {generation for generation, _ in chunks(store)}
        assert len(generations) <= 1
    with Store.open(home) as fresh:
        hits = fresh.nearest(make.vectors(1)[0], limit=10_000)
        assert sorted(hit.item.name for hit in hits) == sorted(present)


def test_the_mean_is_taken_again_when_the_library_has_grown(
    home: Path, make: Any, small_stages: None
) -> None:
    with Store.open(home, mode="write") as store:
        folder, space = store.add_folder("/pictures"), store.space(make.identity())

        def grow(count: int) -> None:
            rows = make.vectors(count)
            offset = store.counts().items
            store.write(
                [make.photo(folder.id, f"{offset + n}.jpg", row) for n, row in enumerate(rows)], space
            )

        grow(99)
        assert chunks(store) == []
        grow(1)
        assert chunks(store) == [(1, 64)]
        grow(200)
        assert chunks(store) == [(1, 64)] * 4
        grow(100)
        assert chunks(store) == [(2, 64)] * 6
        assert store.remove(range(1, 60)) == 59
        grow(1)
        assert chunks(store) == [(3, 64)] * 5
        assert store._connection.execute("SELECT count(*) FROM dropped").fetchall() == [(0,)]


def test_codes_are_made_in_memory_when_there_are_none(home: Path, make: Any, small_stages: None) -> None:
    with Store.open(home, mode="write") as store:
        folder, space = store.add_folder("/pictures"), store.space(make.identity())
        rows = make.vectors(150)
        store.write([make.photo(folder.id, f"{n}.jpg", row) for n, row in enumerate(rows)], space)
        # As if the indexer had been killed between the first large batch and its codes.
        store._connection.execute("DELETE FROM code")
        store._connection.execute("UPDATE space SET generation = 0, coded_to = 0, mean = NULL")
        with Store.open(home) as reader:
            assert reader.nearest(rows[77], limit=1)[0].item.name == "77.jpg"
            store.remove([78])
            assert len(reader.nearest(rows[77], limit=500)) == 149
        store.write([make.photo(folder.id, "late.jpg")], space)
        assert len(chunks(store)) == 2
