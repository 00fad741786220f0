"""What the file system and SQLite may refuse: each is a library error, and the library stays intact."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import apsw
import numpy as np
import pytest
from qvl_local.runtime.errors import LibraryBusyError, LibraryStorageError
from qvl_local.runtime.library.connection import connect, storage_errors, write_transaction
from qvl_local.runtime.library.previews import Preview, Previews
from qvl_local.runtime.library.store import Store

NOBODY = 65534


def run(script: str, *arguments: object, unprivileged: bool = False) -> dict[str, Any]:
    """Run `script` in a process of its own and return what it prints as JSON.

    `unprivileged`: as a user without rights, because permissions do not bind root. The imports come first:
    that user may not be able to read the interpreter's folders.
    """
    header = (
        "import json, os, sys\n"
        "import numpy as np\n"
        "from qvl_local.runtime.errors import *\n"
        "from qvl_local.runtime.library.records import *\n"
        "from qvl_local.runtime.library.store import Store\n"
        "import sqlite_vec, importlib.metadata\n"
    )
    if unprivileged and os.geteuid() == 0:
        # Its own copy of the extension, for an interpreter that lies where only root may read.
        header += (
            "import shutil, tempfile\n"
            "from pathlib import Path\n"
            "source = next(Path(sqlite_vec.__file__).parent.glob('vec0.*'))\n"
            "place = Path(tempfile.mkdtemp()); place.chmod(0o755)\n"
            "shutil.copy(source, place)\n"
            "from qvl_local.runtime.library import connection\n"
            "connection.vector_extension = lambda: str(place / 'vec0')\n"
            f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        )
    done = subprocess.run(
        [sys.executable, "-c", header + script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


REPORT = """
def outcome(action):
    try:
        return {"value": action()}
    except QvlError as error:
        return {"error": type(error).__name__, "message": str(error)}
"""


@pytest.fixture
def public_home(tmp_path: Path) -> Path:
    """A library folder that every user of the machine can reach, unlike pytest's own."""
    for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        folder.chmod(0o755)
    return tmp_path / "library"


def filled(home: Path, make: Any) -> np.ndarray[Any, Any]:
    vectors: np.ndarray[Any, Any] = make.vectors(5)
    with Store.open(home, mode="write") as store:
        folder = store.add_folder("/pictures")
        space = store.space(make.identity())
        store.write([make.photo(folder.id, f"{i}.jpg", v) for i, v in enumerate(vectors)], space)
    return vectors


def test_a_folder_may_have_any_name(tmp_path: Path, make: Any) -> None:
    # The path travels to SQLite as a URI for reading.
    for name in ("100% #1?mode=memory&x", "a b+c", "ü/'quote\"", "file:x"):
        vectors = filled(tmp_path / name, make)
        with Store.open(tmp_path / name) as store:
            assert store.nearest(vectors[4], limit=1)[0].item.name == "4.jpg"


@pytest.mark.skipif("sys.platform != 'linux'", reason="only Linux has names that are not text")
def test_a_folder_may_have_a_name_that_is_no_text(tmp_path: Path, make: Any) -> None:
    home = tmp_path / os.fsdecode(b"caf\xe9")
    vectors = filled(home, make)
    with Store.open(home, mode="write") as store:
        assert store.counts().items == 5
    with Store.open(home) as store:
        assert store.nearest(vectors[4], limit=1)[0].item.name == "4.jpg"
    with Previews.open(home, mode="write") as previews:
        previews.write([Preview(b"content", b"picture")])
        assert previews.thumbnail(b"content") == b"picture"


def test_a_read_only_folder_can_be_searched_and_not_indexed(public_home: Path, make: Any) -> None:
    vector = filled(public_home, make)[3]
    np.save(public_home.parent / "query.npy", vector)
    (public_home.parent / "query.npy").chmod(0o644)
    for file in public_home.iterdir():
        file.chmod(0o444)
    public_home.chmod(0o555)
    answer = run(
        REPORT
        + """
home, query = sys.argv[1], np.load(sys.argv[2])
def search():
    with Store.open(home) as store:
        return store.nearest(query, limit=1)[0].item.path
def index():
    Store.open(home, mode="write").close()
create = outcome(lambda: Store.create(home))
print(json.dumps({"search": outcome(search), "index": outcome(index), "create": create}))
""",
        public_home,
        public_home.parent / "query.npy",
        unprivileged=True,
    )
    assert answer["search"] == {"value": "/pictures/3.jpg"}
    assert answer["create"] == {"value": None}
    assert answer["index"]["error"] == "LibraryStorageError"
    assert str(public_home) in answer["index"]["message"]
    assert "writable" in answer["index"]["message"]


def test_a_library_without_permission_says_so(public_home: Path, make: Any) -> None:
    filled(public_home, make)
    public_home.chmod(0o700)
    answer = run(
        REPORT + "print(json.dumps(outcome(lambda: Store.open(sys.argv[1]).close())))",
        public_home,
        unprivileged=True,
    )
    assert answer["error"] == "LibraryStorageError"
    assert f"{public_home}/library.db: the library cannot be read" in answer["message"]
    assert f"Make {public_home} readable" in answer["message"]
    assert "writ" not in answer["message"]


def test_a_place_where_nothing_may_be_made_says_so(public_home: Path) -> None:
    public_home.mkdir()
    public_home.chmod(0o555)
    answer = run(
        REPORT + "print(json.dumps(outcome(lambda: Store.create(sys.argv[1] + '/new'))))",
        public_home,
        unprivileged=True,
    )
    assert answer["error"] == "LibraryStorageError"
    assert str(public_home / "new") in answer["message"]


def test_a_read_only_folder_with_an_unmerged_log_is_refused(public_home: Path, make: Any) -> None:
    # A killed indexer leaves its last batches in the log; without them the answer would be of yesterday.
    filled(public_home, make)
    run(
        """
connection = __import__("apsw").Connection(sys.argv[1] + "/library.db")
connection.execute("INSERT INTO folder (path) VALUES ('/late')")
print("{}", flush=True)
os._exit(0)
""",
        public_home,
    )
    assert (public_home / "library.db-wal").stat().st_size > 0
    (public_home / "library.db-shm").unlink()
    for file in public_home.iterdir():
        file.chmod(0o444)
    public_home.chmod(0o555)
    answer = run(
        REPORT
        + "print(json.dumps(outcome(lambda: [folder.path for folder in Store.open(sys.argv[1]).folders()])))",
        public_home,
        unprivileged=True,
    )
    assert answer["error"] == "LibraryStorageError"
    assert "not closed cleanly" in answer["message"]


@pytest.mark.parametrize("content", [b"not a database " * 100, b"", b"SQLite format 3\0" + b"\xff" * 8000])
def test_a_file_that_is_no_library_is_refused(home: Path, content: bytes) -> None:
    home.mkdir()
    (home / "library.db").write_bytes(content)
    if not content:
        # An empty file is a library that was never finished: it is made into one.
        Store.open(home, mode="write").close()
        Store.open(home).close()
        return
    for mode in ("read", "write"):
        with pytest.raises(LibraryStorageError, match="not a readable qvl-local library"):
            Store.open(home, mode=mode)  # type: ignore[arg-type]
    assert (home / "library.db").read_bytes() == content


def test_a_library_with_a_damaged_page_says_so(home: Path, make: Any) -> None:
    vectors = filled(home, make)
    damaged = bytearray((home / "library.db").read_bytes())
    for page in range(1, len(damaged) // 16384):
        damaged[16384 * page : 16384 * page + 64] = b"\xff" * 64
    (home / "library.db").write_bytes(damaged)
    with pytest.raises(LibraryStorageError, match="backup"), Store.open(home) as store:
        store.nearest(vectors[0], limit=1)


def test_a_folder_with_other_files_is_refused(home: Path) -> None:
    home.mkdir()
    (home / "holiday.jpg").touch()
    for open_it in (Store.create, lambda home: Store.open(home, mode="write")):
        with pytest.raises(LibraryStorageError, match="holds other files") as caught:
            open_it(home)
        assert str(home) in str(caught.value)
    assert [entry.name for entry in home.iterdir()] == ["holiday.jpg"]


def test_a_database_of_another_program_is_refused_and_left_alone(home: Path) -> None:
    home.mkdir()
    connection = apsw.Connection(str(home / "library.db"))
    connection.execute("CREATE TABLE recipe (name TEXT)")
    connection.close()
    before = (home / "library.db").read_bytes()
    for mode in ("read", "write"):
        with pytest.raises(LibraryStorageError, match="another program"):
            Store.open(home, mode=mode)  # type: ignore[arg-type]
    assert (home / "library.db").read_bytes() == before


def test_a_file_in_place_of_the_folder_is_refused(home: Path) -> None:
    home.write_text("hello")
    with pytest.raises(LibraryStorageError, match="not a folder"):
        Store.open(home, mode="write")
    with pytest.raises(LibraryStorageError, match="no library here"):
        Store.open(home)


def test_reading_where_there_is_no_library_says_how_to_make_one(home: Path) -> None:
    with pytest.raises(LibraryStorageError, match="qvl-local index") as caught:
        Store.open(home)
    assert str(home) in str(caught.value)
    assert not home.exists()


def test_a_full_disk_costs_the_open_batch_and_nothing_else(home: Path, make: Any) -> None:
    with Store.open(home, mode="write") as store:
        folder = store.add_folder("/pictures")
        space = store.space(make.identity())
        vectors = make.vectors(2000)
        store.write([make.photo(folder.id, f"{i}.jpg", vectors[i]) for i in range(100)], space)
        pages = store._connection.execute("PRAGMA page_count").fetchall()[0][0]
        store._connection.execute(f"PRAGMA max_page_count = {pages}").fetchall()
        with pytest.raises(LibraryStorageError, match="disk is full") as caught:
            store.write([make.photo(folder.id, f"{i}.jpg", vectors[i]) for i in range(100, 2000)], space)
        assert str(home / "library.db") in str(caught.value)
        assert store.counts().items == 100
        assert store.nearest(vectors[7], limit=1)[0].item.name == "7.jpg"
        store._connection.execute("PRAGMA max_page_count = 1000000").fetchall()
        store.write([make.photo(folder.id, "late.jpg", vectors[1500])], space)
        assert store.nearest(vectors[1500], limit=1)[0].item.name == "late.jpg"
        assert store._connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_write_that_the_system_refuses_leaves_the_library_intact(home: Path, make: Any) -> None:
    vectors = filled(home, make)
    answer = run(
        REPORT
        + """
import resource, signal
def write():
    with Store.open(sys.argv[1], mode="write") as store:
        (folder,), (space,) = store.folders(), store.spaces()
        # From here on the system refuses every file larger than this, as a full disk or a quota would.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
        vector = np.eye(64, dtype=np.float32)[0]
        for batch in range(50):
            files = [FoundFile(folder.id, f"{batch} {i}.jpg", 1, 1) for i in range(100)]
            segments = (EncodedSegment(0, 0, vector),)
            info = MediaInfo("photo", 1, 1)
            store.write([IndexedMedia(file, bytes(32), info, segments) for file in files], space)
print(json.dumps(outcome(write)))
""",
        home,
    )
    assert answer["error"] == "LibraryStorageError"
    assert str(home) in answer["message"]
    with Store.open(home, mode="write") as store:
        assert store._connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert store.counts().items % 100 == len(vectors)
        assert store.nearest(vectors[1], limit=1)[0].item.name == "1.jpg"


def test_two_indexers_exclude_each_other_by_process(home: Path, make: Any) -> None:
    vectors = filled(home, make)
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys\nfrom qvl_local.runtime.library.store import Store\n"
            "store = Store.open(sys.argv[1], mode='write')\nprint('held', flush=True)\nsys.stdin.read()",
            str(home),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(LibraryBusyError, match=f"process {holder.pid} is indexing") as caught:
            Store.open(home, mode="write")
        assert str(home) in str(caught.value)
        with Store.open(home) as reader:
            assert reader.nearest(vectors[2], limit=1)[0].item.name == "2.jpg"
    finally:
        holder.kill()
        holder.communicate()
    # Death lets go, without any cleaning up.
    Store.open(home, mode="write").close()


@pytest.mark.parametrize("name", ["library", "{x} {owner} %s", "naïve ☃"])
def test_two_indexers_exclude_each_other_within_a_process(tmp_path: Path, name: str) -> None:
    home = tmp_path / name
    with Store.open(home, mode="write"), pytest.raises(LibraryBusyError, match=f"process {os.getpid()}"):
        Store.open(home, mode="write")
    Store.open(home, mode="write").close()


def test_a_failed_opening_lets_go_of_the_lock(home: Path) -> None:
    home.mkdir()
    (home / "library.db").write_bytes(b"junk " * 5000)
    for _ in range(2):
        with pytest.raises(LibraryStorageError):
            Store.open(home, mode="write")


def test_a_reader_sees_what_a_writer_commits(home: Path, make: Any) -> None:
    with Store.open(home, mode="write") as writer, Store.open(home) as reader:
        folder = writer.add_folder("/pictures")
        space = writer.space(make.identity())
        vectors = make.vectors(3)
        for at in range(3):
            (media_id,) = writer.write([make.photo(folder.id, f"{at}.jpg", vectors[at])], space)
            (hit, *_) = reader.nearest(vectors[at], limit=1)
            assert hit.item.name == f"{at}.jpg"
        writer.remove([media_id])
        assert {c.item.name for c in reader.nearest(vectors[2], limit=9)} == {"0.jpg", "1.jpg"}


WRITER = """
import sys
import numpy as np
from qvl_local.runtime.library.records import *
from qvl_local.runtime.library.store import Store
store = Store.open(sys.argv[1], mode="write")
folder = store.add_folder("/pictures")
space = store.space(SpaceIdentity("tiny", "r1", "fp32", 64, "384 tokens", "v1"))
rows = np.random.default_rng(1).standard_normal((100, 64)).astype(np.float32)
rows /= np.linalg.norm(rows, axis=1, keepdims=True)
for batch in range(100000):
    store.write([IndexedMedia(FoundFile(folder.id, f"{batch}-{i}.jpg", 1, 1), bytes(32),
                 MediaInfo("photo", 1, 1), (EncodedSegment(0, 0, rows[i]),)) for i in range(100)], space)
    print(batch, flush=True)
"""


@pytest.mark.parametrize("delay", [0.0, 0.003, 0.011])
def test_a_killed_indexer_loses_at_most_its_open_batch(home: Path, make: Any, delay: float) -> None:
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(home)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    for _ in range(4):
        confirmed = int(writer.stdout.readline())
    time.sleep(delay)  # Not for waiting: to strike at different places of the next batch.
    writer.send_signal(signal.SIGKILL)
    with writer:  # communicate() would miss the lines that lie in the buffer already
        rest = writer.stdout.read()
    confirmed = max([confirmed, *map(int, rest.split())])
    with Store.open(home, mode="write") as store:
        (space,) = store.spaces()
        counts = store.counts()
        # A batch may have been committed without the time to say so.
        assert counts.items in (100 * (confirmed + 1), 100 * (confirmed + 2))
        assert counts.segments == counts.items
        assert store._connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert store._connection.execute("PRAGMA foreign_key_check").fetchall() == []
        again = make.photo(store.folders()[0].id, "0-0.jpg")
        store.write([again], space)
        assert store.counts().items == counts.items


def test_a_transaction_that_raises_leaves_no_trace(tmp_path: Path) -> None:
    connection = connect(tmp_path / "a.db", mode="write")
    connection.execute("CREATE TABLE t (x UNIQUE)")

    def insert_twice() -> None:
        with write_transaction(connection):
            connection.execute("INSERT INTO t VALUES (1)")
            connection.execute("INSERT INTO t VALUES (1)")

    with pytest.raises(apsw.ConstraintError):
        insert_twice()
    assert connection.execute("SELECT * FROM t").fetchall() == []
    connection.close()


class CtrlCDuring(apsw.Connection):
    """A connection whose user presses Ctrl-C at the very moment when a statement has been executed."""

    statement = ""

    def execute(self, statements: str, *values: Any, **options: Any) -> apsw.Cursor:
        cursor = super().execute(statements, *values, **options)
        if statements == self.statement:
            self.statement = ""
            raise KeyboardInterrupt
        return cursor


@pytest.mark.parametrize(("statement", "kept"), [("BEGIN IMMEDIATE", [1]), ("COMMIT", [0, 1])])
def test_ctrl_c_around_a_transaction_does_not_block_the_next(statement: str, kept: list[int]) -> None:
    connection = CtrlCDuring(":memory:")
    connection.execute("CREATE TABLE t (x)")
    connection.statement = statement
    for value in (0, 1):
        with suppress(KeyboardInterrupt), write_transaction(connection):
            connection.execute("INSERT INTO t VALUES (?)", (value,))
    assert [x for (x,) in connection.execute("SELECT x FROM t ORDER BY x")] == kept
    connection.close()


def test_a_transaction_that_ctrl_c_left_open_is_ended_by_the_next(tmp_path: Path) -> None:
    connection = connect(tmp_path / "a.db", mode="write")
    connection.execute("CREATE TABLE t (x)")
    connection.execute("BEGIN IMMEDIATE")  # and nobody came to end it
    with write_transaction(connection):
        connection.execute("INSERT INTO t VALUES (1)")
    assert not connection.in_transaction
    assert connection.execute("SELECT x FROM t").fetchall() == [(1,)]
    connection.close()


@pytest.mark.parametrize(
    ("error", "expected", "words"),
    [
        (apsw.IOError("disk I/O error"), LibraryStorageError, "Check the disk"),
        (OSError(5, "Input/output error"), LibraryStorageError, "Check the disk"),
        (apsw.BusyError("database is locked"), LibraryBusyError, "another process"),
        (PermissionError(13, "Permission denied"), LibraryStorageError, "writable"),
    ],
)
def test_rare_refusals_are_put_into_words(error: Exception, expected: type[Exception], words: str) -> None:
    # These cannot be provoked without a broken disk, so the translation alone is tested.
    with pytest.raises(expected, match=words) as caught, storage_errors(Path("/x/library.db")):
        raise error
    assert "/x/library.db" in str(caught.value)
