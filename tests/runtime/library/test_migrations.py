"""Libraries of older and newer versions."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import apsw
import pytest
from qvl_local.runtime.errors import LibraryVersionError
from qvl_local.runtime.library import migrations
from qvl_local.runtime.library.migrations import MIGRATIONS, Migration, own_version
from qvl_local.runtime.library.store import Store


def rows(home: Path, sql: str) -> list[Any]:
    connection = apsw.Connection(str(home / "library.db"))
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def with_another(monkeypatch: pytest.MonkeyPatch, sql: str) -> None:
    """From now on this is a version with one more migration."""
    monkeypatch.setattr(migrations, "MIGRATIONS", (*MIGRATIONS, Migration("9999-a-later-one", sql)))


def test_a_new_library_has_every_migration_by_name(home: Path) -> None:
    Store.create(home)
    assert rows(home, "SELECT * FROM migration") == [(m.name, own_version()) for m in MIGRATIONS]
    assert rows(home, "PRAGMA page_size") == [(16384,)]
    assert rows(home, "PRAGMA journal_mode") == [("wal",)]


def test_names_are_unique_and_in_order() -> None:
    names = [migration.name for migration in MIGRATIONS]
    assert names == sorted(set(names))


@pytest.mark.parametrize("mode", ["read", "write"])
def test_an_older_library_is_brought_up_to_date(
    home: Path, make: Any, monkeypatch: pytest.MonkeyPatch, mode: Any
) -> None:
    with Store.open(home, mode="write") as store:
        store.write([make.photo(store.add_folder("/p").id, "a.jpg")], store.space(make.identity()))
    with_another(monkeypatch, "ALTER TABLE media ADD COLUMN stars INTEGER")
    with Store.open(home, mode=mode) as store:
        assert store.counts().items == 1
    assert rows(home, "SELECT stars FROM media") == [(None,)]
    assert len(rows(home, "SELECT * FROM migration")) == len(MIGRATIONS) + 1


def test_a_migration_that_fails_leaves_the_library_as_it_was(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Store.create(home)
    with monkeypatch.context() as patch:
        with_another(patch, "ALTER TABLE media ADD COLUMN stars INTEGER; INSERT INTO nowhere VALUES (1)")
        with pytest.raises(apsw.SQLError, match="nowhere"):
            Store.open(home, mode="write")
    assert "stars" not in [column[1] for column in rows(home, "PRAGMA table_info(media)")]
    Store.open(home, mode="write").close()


@pytest.mark.parametrize("mode", ["read", "write"])
def test_a_newer_library_is_refused_and_left_alone(
    home: Path, monkeypatch: pytest.MonkeyPatch, mode: Any
) -> None:
    with monkeypatch.context() as patch:
        with_another(patch, "CREATE TABLE future (x)")
        patch.setattr(migrations, "own_version", lambda: "9.1.0")
        Store.create(home)
    before = rows(home, "SELECT * FROM sqlite_schema")
    with pytest.raises(LibraryVersionError) as caught:
        Store.open(home, mode=mode)
    message = str(caught.value)
    for part in (
        str(home),
        "qvl-local 9.1.0",
        f"qvl-local {own_version()}",
        "9999-a-later-one",
        "pip install -U",
    ):
        assert part in message
    assert rows(home, "SELECT * FROM sqlite_schema") == before


def test_many_may_create_a_library_at_once(home: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: Store.create(home), range(8)))
    assert len(rows(home, "SELECT * FROM migration")) == len(MIGRATIONS)
