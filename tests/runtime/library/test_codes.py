"""What a code is, and that the persisted codes are those of the vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from qvl_local.runtime.library.codes import Centre, head_bytes
from qvl_local.runtime.library.store import Store


def centre_of(stored: Any) -> Centre:
    rows = stored.astype(np.float32)
    return Centre(rows.mean(axis=0), np.square(rows).mean(axis=0))


def test_a_bit_says_whether_a_component_is_above_its_mean() -> None:
    centre = Centre(
        np.array([0.0, 2.5, -3.5, -127.0, 127.0, 1.0, 0.0, 0.0], np.float32), np.ones(8, np.float32)
    )
    rows = np.array([[1, 3, -3, -126, 127, 1, 0, -1], [0, 2, -4, -127, 126, 2, 1, 127]], np.int8)
    bits = np.unpackbits(centre.row_bits(rows), axis=1, bitorder="little")
    np.testing.assert_array_equal(bits, rows > centre.mean)


@pytest.mark.parametrize("dims", [64, 256, 512, 2048])
def test_a_query_of_the_library_has_the_code_of_its_row(make: Any, dims: int) -> None:
    rows = make.clustered(300, dims)
    stored = np.rint(rows * 127 / np.abs(rows).max()).astype(np.int8)
    centre = centre_of(stored)
    codes = np.unpackbits(centre.row_bits(stored), axis=1, bitorder="little")
    for number in range(20):
        bits = np.unpackbits(centre.query_bits(rows[number]), bitorder="little")
        assert np.mean(bits == codes[number]) > 0.93


def test_a_truncated_query_has_the_leading_bits_of_the_full_one(make: Any) -> None:
    rows = make.clustered(300, 256)
    stored = np.rint(rows * 127 / np.abs(rows).max()).astype(np.int8)
    centre = centre_of(stored)
    for row in rows[:20]:
        for dims in (64, 100, 128):
            short = row[:dims] / np.linalg.norm(row[:dims])
            bits = centre.query_bits(short)
            assert len(bits) == dims // 8
            differing = np.bitwise_count(bits ^ centre.query_bits(row)[: dims // 8]).sum()
            assert differing <= 0.1 * dims


def test_centring_is_what_makes_bits_tell_rows_apart(make: Any) -> None:
    rows = make.clustered(300, 256)
    stored = np.rint(rows * 127 / np.abs(rows).max()).astype(np.int8)
    about_zero = Centre(np.zeros(256, np.float32), np.ones(256, np.float32))

    def mean_distance(centre: Centre) -> float:
        bits = centre.row_bits(stored)
        return float(np.bitwise_count(bits[:150] ^ bits[150:]).sum(axis=1).mean())

    assert mean_distance(centre_of(stored)) > 1.15 * mean_distance(about_zero)


@pytest.mark.parametrize(
    ("dims", "expected"), [(8, 1), (64, 8), (256, 32), (512, 64), (2048, 64), (4096, 64)]
)
def test_the_head_is_at_most_512_bits(dims: int, expected: int) -> None:
    assert head_bytes(dims) == expected


@pytest.mark.parametrize("dims", [64, 768])
def test_persisted_codes_are_those_of_the_stored_vectors(
    store: Store, make: Any, monkeypatch: pytest.MonkeyPatch, dims: int
) -> None:
    monkeypatch.setattr("qvl_local.runtime.library.codes.CODED_FROM_ROWS", 10)
    monkeypatch.setattr("qvl_local.runtime.library.codes.CHUNK_ROWS", 8)
    folder, space = store.add_folder("/pictures"), store.space(make.identity(dims=dims))
    store.write(
        [make.photo(folder.id, f"{n}.jpg", row) for n, row in enumerate(make.clustered(20, dims))], space
    )
    execute = store._connection.execute
    ((mean, mean_square),) = execute("SELECT mean, mean_square FROM space").fetchall()
    centre = Centre(np.frombuffer(mean, np.float32), np.frombuffer(mean_square, np.float32))  # type: ignore[arg-type]
    chunks: list[Any] = execute("SELECT ids, head, tail FROM code ORDER BY chunk").fetchall()
    assert len(chunks) == 2
    for ids, head, tail in chunks:
        for at, segment_id in enumerate(np.frombuffer(ids, np.int64).tolist()):
            ((embedding,),) = execute(
                "SELECT embedding FROM vector WHERE segment_id = ?", (segment_id,)
            ).fetchall()
            (code,) = centre.row_bits(np.frombuffer(embedding, np.int8)[None])  # type: ignore[arg-type]
            rows = [np.frombuffer(part, np.uint8).reshape(8, len(part) // 8)[at] for part in (head, tail)]
            np.testing.assert_array_equal(np.concatenate(rows), code)
