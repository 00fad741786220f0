"""The schema of a library, as an append-only list of named migrations, each run in its own transaction.

Never edit or reorder a migration that was released: append a new one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import apsw

from ..errors import LibraryStorageError, LibraryVersionError
from ..machine import installed_version
from .connection import APPLICATION_ID, count, fetch, write_transaction


@dataclass(frozen=True, slots=True)
class Migration:
    """One step from a schema to the next."""

    name: str
    sql: str


MIGRATIONS: tuple[Migration, ...] = (
    Migration(
        "0001-first-schema",
        """
        -- One way of turning pixels into vectors. `active`: serves the searches; at most one does.
        CREATE TABLE space (
            id INTEGER PRIMARY KEY,
            bundle TEXT NOT NULL,
            revision TEXT NOT NULL,
            precision TEXT NOT NULL,
            dims INTEGER NOT NULL,
            pixels TEXT NOT NULL,
            template TEXT NOT NULL,
            active INTEGER NOT NULL DEFAULT 0,
            i8_scale REAL,                          -- int8 = round(float * i8_scale); NULL: no batch yet
            components INTEGER NOT NULL DEFAULT 0,  -- vector components written so far, and
            clipped INTEGER NOT NULL DEFAULT 0,     -- how many of them were outside the int8 range
            mean BLOB,                              -- float32 [dims], in int8 units; the codes' centre
            mean_square BLOB,                       -- float32 [dims], of the components themselves
            generation INTEGER NOT NULL DEFAULT 0,  -- of the codes in use; 0 before there are any
            coded_from INTEGER NOT NULL DEFAULT 0,  -- vectors there were when the mean was taken
            coded_to INTEGER NOT NULL DEFAULT 0,    -- the highest segment id that has a code
            UNIQUE (revision, precision, dims, pixels, template)
        ) STRICT;
        CREATE UNIQUE INDEX space_active ON space (active) WHERE active = 1;

        -- Paths and names are TEXT, or the file system's bytes as BLOB when they are not valid Unicode.
        CREATE TABLE folder (
            id INTEGER PRIMARY KEY,
            path ANY NOT NULL UNIQUE
        ) STRICT;

        CREATE TABLE media (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            folder_id INTEGER NOT NULL REFERENCES folder (id),
            name ANY NOT NULL,
            size INTEGER NOT NULL,
            mtime_ns INTEGER NOT NULL,
            content_hash BLOB NOT NULL,
            state TEXT NOT NULL CHECK (state IN ('indexed', 'failed')),
            error TEXT,                             -- why it failed
            kind TEXT CHECK (kind IN ('photo', 'video')),
            width INTEGER,
            height INTEGER,
            duration_s REAL,
            taken_at TEXT,                          -- local wall clock, YYYY-MM-DDTHH:MM:SS.ffffff
            latitude REAL,
            longitude REAL,
            camera TEXT,
            UNIQUE (folder_id, name)
        ) STRICT;
        CREATE INDEX media_content ON media (content_hash, size);
        CREATE INDEX media_taken_at ON media (taken_at) WHERE taken_at IS NOT NULL;
        CREATE INDEX media_camera ON media (camera) WHERE camera IS NOT NULL;
        CREATE INDEX media_failed ON media (id) WHERE state = 'failed';

        -- A photo has one segment, a video one for each scene. Ids rise and are never used twice.
        CREATE TABLE segment (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            media_id INTEGER NOT NULL REFERENCES media (id),
            space_id INTEGER NOT NULL REFERENCES space (id),
            t0_ms INTEGER NOT NULL,
            t1_ms INTEGER NOT NULL
        ) STRICT;
        CREATE INDEX segment_media ON segment (media_id, space_id);
        CREATE INDEX segment_space ON segment (space_id);

        -- The source of truth of every search: sqlite-vec int8 vectors of full width.
        CREATE TABLE vector (
            segment_id INTEGER PRIMARY KEY REFERENCES segment (id),
            space_id INTEGER NOT NULL,
            embedding BLOB NOT NULL
        ) STRICT;

        -- Sign bits of centred vectors, 4096 rows a chunk; derived from `vector`, may be deleted at any time.
        CREATE TABLE code (
            space_id INTEGER NOT NULL,
            generation INTEGER NOT NULL,
            chunk INTEGER NOT NULL,
            ids BLOB NOT NULL,                      -- int64 [rows], rising
            head BLOB NOT NULL,                     -- the leading bits, [rows, head bytes]
            tail BLOB NOT NULL,                     -- the bits behind them, [rows, tail bytes]
            PRIMARY KEY (space_id, generation, chunk)
        ) STRICT;

        -- Coded rows whose vector is gone, until the codes are built anew.
        CREATE TABLE dropped (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            space_id INTEGER NOT NULL,
            segment_id INTEGER NOT NULL
        ) STRICT;
        CREATE INDEX dropped_space ON dropped (space_id);
        CREATE TRIGGER vector_dropped AFTER DELETE ON vector
        WHEN old.segment_id <= (SELECT coded_to FROM space WHERE id = old.space_id)
        BEGIN
            INSERT INTO dropped (space_id, segment_id) VALUES (old.space_id, old.segment_id);
        END;
        """,
    ),
    Migration(
        "0002-single-files",
        """
        -- 0: holds files that were named one by one; nobody asked for the rest of the folder.
        ALTER TABLE folder ADD COLUMN whole INTEGER NOT NULL DEFAULT 1;

        -- Files that got no vectors in one space, by no fault of theirs; `media.error` holds faults of files.
        CREATE TABLE refusal (
            media_id INTEGER NOT NULL REFERENCES media (id),
            space_id INTEGER NOT NULL REFERENCES space (id),
            error TEXT NOT NULL,
            PRIMARY KEY (media_id, space_id)
        ) STRICT, WITHOUT ROWID;
        """,
    ),
    Migration(
        "0003-companions",
        """
        -- The item that stands for this one: the still of a Live Photo for its film. NULL: none does.
        ALTER TABLE media ADD COLUMN shown_by INTEGER REFERENCES media (id) ON DELETE SET NULL;
        CREATE INDEX media_shown_by ON media (shown_by) WHERE shown_by IS NOT NULL;

        -- What browsing and counting go through instead of the wide rows.
        CREATE INDEX media_shown
            ON media (taken_at, kind, camera, folder_id, substr(name, 1, instr(name, '/') - 1))
            WHERE state = 'indexed' AND shown_by IS NULL;
        CREATE INDEX media_place ON media (latitude, longitude, taken_at)
            WHERE latitude IS NOT NULL AND state = 'indexed' AND shown_by IS NULL;

        -- Raw files that lie beside photos. They are not read; `stem` is the name without the extension.
        CREATE TABLE raw (
            folder_id INTEGER NOT NULL REFERENCES folder (id) ON DELETE CASCADE,
            stem ANY NOT NULL,
            name ANY NOT NULL,
            PRIMARY KEY (folder_id, name)
        ) STRICT, WITHOUT ROWID;
        CREATE INDEX raw_stem ON raw (folder_id, stem);

        -- The Live Photos of a library that is older than this: as `companions.pair_up` does it file by file.
        -- rtrim(name, every character but the dot) is the name up to its last dot.
        CREATE TEMP TABLE still AS
            SELECT id, folder_id, rtrim(name, replace(name, '.', '')) AS stem,
                lower(name) LIKE '%.he__' AS is_heif
            FROM media
            WHERE kind = 'photo' AND state = 'indexed' AND typeof(name) = 'text' AND (
                lower(name) LIKE '%.heic' OR lower(name) LIKE '%.heif'
                OR lower(name) LIKE '%.jpg' OR lower(name) LIKE '%.jpeg'
            );
        CREATE INDEX temp.still_stem ON still (folder_id, stem);
        UPDATE media SET shown_by = (
            SELECT s.id FROM still s
            WHERE s.folder_id = media.folder_id AND s.stem = rtrim(media.name, replace(media.name, '.', ''))
            ORDER BY s.is_heif DESC, s.id LIMIT 1
        )
        WHERE kind = 'video' AND state = 'indexed' AND duration_s <= 4 AND typeof(name) = 'text'
            AND (lower(name) LIKE '%.mov' OR lower(name) LIKE '%.mp4');
        DROP TABLE temp.still;
        """,
    ),
    Migration(
        "0004-mounts",
        """
        -- Subfolders of a root ("" for the root itself) on another device than the folder that they lie in.
        -- `away`: at the last look nothing was mounted there, and nothing that is known there to be seen.
        CREATE TABLE mount (
            folder_id INTEGER NOT NULL REFERENCES folder (id) ON DELETE CASCADE,
            name ANY NOT NULL,
            away INTEGER NOT NULL,
            PRIMARY KEY (folder_id, name)
        ) STRICT, WITHOUT ROWID;
        """,
    ),
)


def migrate(connection: apsw.Connection, path: Path) -> None:
    """Bring the library at `path` to the newest schema; several processes may call this at once.

    Raises LibraryStorageError when the file belongs to something else, LibraryVersionError when it was made
    by a newer qvl-local.
    """
    if not pending(connection, path):
        return
    for migration in MIGRATIONS:
        # The transaction takes the write lock first, so of two processes the second sees the first's work.
        with write_transaction(connection):
            connection.execute(
                "CREATE TABLE IF NOT EXISTS migration (name TEXT PRIMARY KEY, made_by TEXT) STRICT"
            )
            if migration not in pending(connection, path):
                continue
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(migration.sql)
            connection.execute("INSERT INTO migration VALUES (?, ?)", (migration.name, own_version()))


def pending(connection: apsw.Connection, path: Path) -> tuple[Migration, ...]:
    """The migrations that the file still lacks; all of them for an empty file. Raises as `migrate` does."""
    application_id = count(connection, "PRAGMA application_id")
    tables = {name for (name,) in fetch(connection, "SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if application_id != APPLICATION_ID and tables - {"migration"}:
        raise LibraryStorageError(
            f"{path}: this is a database of another program, not a qvl-local library. "
            f"Choose another folder with --library."
        )
    if "migration" not in tables:
        return MIGRATIONS
    applied = dict(fetch(connection, "SELECT name, made_by FROM migration ORDER BY name"))
    unknown = [name for name in applied if name not in {migration.name for migration in MIGRATIONS}]
    if unknown:
        raise LibraryVersionError(
            f"{path}: the library was made by qvl-local {applied[unknown[-1]]} (schema {unknown[-1]}); "
            f"this is qvl-local {own_version()} (schema {MIGRATIONS[-1].name}). "
            f"Upgrade with `pip install -U qvl-local`, or choose another folder with --library."
        )
    return tuple(migration for migration in MIGRATIONS if migration.name not in applied)


def own_version() -> str:
    """The version of the installed qvl-local, as libraries remember who made them."""
    return installed_version() or "(not installed)"
