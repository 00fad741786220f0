"""The commands on a real library: what they print, for people and for programs, and their exit status."""

import base64
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from qvl_local.desktop.progress import View
from qvl_local.runtime import Library
from qvl_local.runtime.library.records import Mount
from qvl_local.runtime.library.store import Store

QUERY = "two dogs on a beach at night"


def test_first_index_accounts_for_every_file(sample: Any) -> None:
    printed = sample.first_index
    assert sample.first_status == 1  # one file is broken
    assert [failure["path"] for failure in printed["failed"]] == [str(sample.broken)]
    assert printed["failed"][0]["error"]
    assert printed["photos"] == 24 + 2  # the copy has a name of its own
    assert printed["videos"] == 4
    assert printed["items"] == printed["added"] == 30
    assert printed["segments"] >= printed["items"]
    assert (printed["updated"], printed["unchanged"], printed["removed"]) == (0, 0, 0)


def test_second_index_has_nothing_to_do(sample: Any, cli_json: Any) -> None:
    printed = cli_json("index", str(sample.pictures))
    assert (printed["added"], printed["updated"], printed["unchanged"]) == (0, 0, 30)
    assert len(printed["failed"]) == 1


def test_index_for_people(sample: Any, cli: Any) -> None:
    outcome = cli("index", str(sample.pictures))
    assert outcome.status == 0
    assert "30 unchanged" in outcome.out
    assert "The library holds 30 items: 26 photos and 4 videos" in outcome.out
    assert "could not be used" not in outcome.out
    assert "Library:" in outcome.err
    assert "segment" not in outcome.out
    # The broken one was reported before: it says where it is named, and how to be rid of that.
    assert "1 file is set aside as before; `qvl-local status` says which and why" in outcome.err
    assert ".qvlignore" in outcome.err
    assert str(sample.broken) in cli("status").out.replace("~", str(Path.home()))


def test_the_built_in_model_is_named_for_what_it_is(sample: Any, cli: Any) -> None:
    about = "The built-in model, tiny, only knows drawn sample scenes"
    command = f"qvl-local index {sample.pictures} --library {sample.library} --model 2b"
    known = next(path for path in sample.pictures.rglob("*.jpg") if path != sample.broken)
    for arguments in (("index", str(sample.pictures)), ("similar", str(known)), ("search", QUERY)):
        outcome = cli(*arguments)
        (line,) = [line for line in outcome.err.splitlines() if line.startswith(about)]
        assert f"{command} (downloads 8.5 GB, once)" in line
    assert outcome.err.splitlines()[-1] == line
    for form in ("-f", "-0", "--json"):
        assert about not in cli("search", QUERY, "--no-rerank", form).err


def test_a_library_of_another_model_or_of_the_sample_pictures_needs_no_caution(
    sample: Any, cli: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    shutil.copytree(sample.strangers, tmp_path / "Sample pictures")
    monkeypatch.setenv("QVL_LIBRARY", str(tmp_path / "library"))
    drawn = cli("index", str(tmp_path / "Sample pictures"))
    assert "Model: tiny" in drawn.err
    assert "built-in" not in drawn.err + cli("search", QUERY, "--no-rerank").err
    # One folder of one's own, and the caution is there.
    mine = tmp_path / "My photos"
    mine.mkdir()
    assert f"qvl-local index '{mine}' --library" in cli("index", str(mine)).err


def test_a_known_bad_file_can_be_kept_out(sample: Any, cli: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("QVL_LIBRARY", str(tmp_path / "library"))
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    shutil.copy(sample.broken, pictures / "bad.jpg")
    alone = cli("index", str(pictures))
    assert alone.status == 1
    assert "No file could be used in" in alone.out
    assert "1 file could not be used: exit status 1.\n" in alone.err
    assert "others are indexed" not in alone.err
    assert ".qvlignore" not in alone.err
    again = cli("index", str(pictures))
    assert again.status == 0
    assert ".qvlignore" in again.err
    # Another one fails: that is an error, and named alone.
    shutil.copy(sample.broken, pictures / "worse.jpg")
    with (pictures / "worse.jpg").open("ab") as stream:
        stream.write(b"another")
    more = cli("index", str(pictures))
    assert more.status == 1
    assert "worse.jpg" in more.out
    assert "bad.jpg" not in more.out
    assert "1 file could not be used: exit status 1. 1 file is set aside as before" in more.err
    (pictures / "worse.jpg").unlink()
    (pictures / ".qvlignore").write_text("bad.jpg\n", encoding="utf-8")
    done = cli("index", str(pictures))
    assert done.status == 0
    assert "Nothing to do" in done.out
    assert "could not be used" not in done.out + done.err


def test_search_json(cli_json: Any) -> None:
    printed = cli_json("search", QUERY, "-k", "7")
    assert printed["query"] == QUERY
    assert [hit["rank"] for hit in printed["results"]] == [1, 2, 3, 4, 5, 6, 7]
    check_scores(printed)
    assert all(hit["reranker_score"] is not None for hit in printed["results"])
    assert printed["timings_ms"]


def test_scores_fall_past_the_last_reranked_hit(cli_json: Any) -> None:
    printed = cli_json("search", QUERY, "-k", "28")
    check_scores(printed)
    assert {hit["reranker_score"] is None for hit in printed["results"]} == {True, False}


def check_scores(printed: Any) -> None:
    """Finite numbers between 0 and 1 that follow the rank."""
    scores = [hit["score"] for hit in printed["results"]]
    assert all(isinstance(score, float) and 0 <= score <= 1 for score in scores)  # false for NaN as well
    assert scores == sorted(scores, reverse=True)
    assert all(-1 <= hit["embedding_score"] <= 1 for hit in printed["results"])


def test_search_without_reranker(cli_json: Any) -> None:
    printed = cli_json("search", QUERY, "--no-rerank")
    check_scores(printed)
    assert all(hit["reranker_score"] is None for hit in printed["results"])
    cosines = [hit["embedding_score"] for hit in printed["results"]]
    assert cosines == sorted(cosines, reverse=True)


def test_search_by_picture_finds_the_picture(sample: Any, cli_json: Any) -> None:
    picture = next(sample.pictures.rglob("*.jpg"))
    printed = cli_json("search", "--image", str(picture), "--no-rerank", "-k", "3")
    assert printed["query"] is None
    assert printed["results"][0]["embedding_score"] > 0.99


def test_filters(sample: Any, cli_json: Any) -> None:
    everything = cli_json("search", QUERY, "-k", "100", "--no-rerank")["results"]
    assert len(everything) == 30
    videos = cli_json("search", QUERY, "--kind", "video")["results"]
    assert len(videos) == 4
    assert all(hit["end_s"] > hit["start_s"] >= 0 for hit in videos)
    photos = cli_json("search", QUERY, "--kind", "photo", "-k", "100")["results"]
    assert len(photos) == 26
    assert all(hit["start_s"] is None and hit["end_s"] is None for hit in photos)

    day = sorted(hit["taken_at"] for hit in everything if hit["taken_at"])[10][:10]
    later = cli_json("search", QUERY, "-k", "100", "--after", day)["results"]
    earlier = cli_json("search", QUERY, "-k", "100", "--before", day)["results"]
    assert {hit["taken_at"][:10] >= day for hit in later} == {True}
    assert {hit["taken_at"][:10] < day for hit in earlier} == {True}
    assert len(later) + len(earlier) == len([hit for hit in everything if hit["taken_at"]])

    odd = cli_json("search", QUERY, "--under", str(sample.pictures / "odd"))["results"]
    assert len(odd) == 2
    assert cli_json("search", QUERY, "--camera", "no such camera")["results"] == []


def test_widths_and_filters_count_in_both_kinds_of_search(sample: Any, cli_json: Any) -> None:
    known = str(next(sample.pictures.rglob("*.jpg")))
    for asked in (("search", QUERY, "--no-rerank"), ("similar", known)):
        full, narrow = (cli_json(*asked, *more)["results"] for more in ((), ("--dims", "64")))
        assert [hit["embedding_score"] for hit in full] != [hit["embedding_score"] for hit in narrow]
        videos = cli_json(*asked, "--kind", "video")["results"]
        assert {hit["kind"] for hit in videos} == {"video"}


def test_places_by_name(cli: Any, cli_json: Any, monkeypatch: Any) -> None:
    everything = cli_json("search", QUERY, "-k", "100", "--no-rerank")["results"]
    names = Counter(hit["place"] for hit in everything)
    assert names[None] < len(everything) / 2  # the sample world has positions
    place = next(name for name, _ in names.most_common() if name is not None)
    there = cli_json("search", QUERY, "-k", "100", "--no-rerank", "--place", place.upper())["results"]
    assert {hit["path"] for hit in there} == {hit["path"] for hit in everything if hit["place"] == place}

    monkeypatch.setattr("qvl_local.runtime.library.place_names.find_spec", lambda name: None)
    bare = cli_json("search", QUERY, "-k", "100", "--no-rerank")["results"]
    assert {hit["place"] for hit in bare} == {None}
    refused = cli("search", QUERY, "--place", place)
    assert refused.status == 1
    assert "pip install 'qvl-local[places]'" in refused.err


def test_a_hit_names_the_files_that_belong_to_it(
    sample: Any, cli_json: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    files = sorted(sample.strangers.rglob("*.*"))
    photo, clip = (next(path for path in files if path.suffix.lower() == kind) for kind in (".jpg", ".mp4"))
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    shutil.copy(photo, pictures / "IMG_1.JPG")
    (pictures / "IMG_1.CR2").write_bytes(b"never read")
    monkeypatch.setenv("QVL_LIBRARY", str(tmp_path / "library"))
    monkeypatch.setattr("qvl_local.runtime.library.companions.LIVE_S", 3600.0)  # clips are longer than films
    shutil.copy(clip, pictures / "IMG_1.MOV")
    assert cli_json("index", str(pictures))["failed"] == []
    (hit,) = cli_json("search", QUERY, "--no-rerank")["results"]
    assert hit["path"] == str(pictures / "IMG_1.JPG")
    assert hit["companions"] == [
        {"kind": "live", "path": str(pictures / "IMG_1.MOV")},
        {"kind": "raw", "path": str(pictures / "IMG_1.CR2")},
    ]


def test_search_for_people(cli: Any) -> None:
    outcome = cli("search", QUERY, "-k", "30")
    assert outcome.status == 0
    lines = outcome.out.splitlines()
    assert {"#", "score", "moment", "taken", "file"} <= set(lines[0].split()) | set(lines[1].split())
    assert re.fullmatch(r"in (less than )?[0-9.]+ s", lines[-1])
    assert "\x1b" not in outcome.out  # no colours, no links, no names that speak to the terminal
    assert "two\\nlines \\x1b[31mred\\x1b[0m.jpg" in outcome.out


def test_search_says_when_nothing_passes(cli: Any) -> None:
    outcome = cli("search", QUERY, "--camera", "no such camera")
    assert outcome.status == 0
    assert "Nothing in the library passes these filters" in outcome.out


def test_search_says_that_a_folder_is_not_there(sample: Any, cli: Any, tmp_path: Path) -> None:
    outcome = cli("search", QUERY, "--under", str(tmp_path / "gone"))
    assert outcome.status == 0
    assert f"--under {tmp_path / 'gone'}: no such folder" in outcome.out
    assert "lies in none of the indexed folders" in cli("search", QUERY, "--under", str(tmp_path)).out
    outcome = cli("search", QUERY, "--under", str(tmp_path / "gone"), "-f")
    assert outcome.out == ""
    assert "no such folder" in outcome.err


def test_the_first_line_comes_before_the_model(sample: Any, tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from qvl_local.desktop import console\n"
        "from qvl_local.desktop.commands import index\n"
        "def note(line):\n"
        "    print(line, 'onnxruntime' in sys.modules, 'numpy' in sys.modules)\n"
        "    raise SystemExit\n"
        "sys.modules['qvl_local.desktop.commands.index'].note = note\n"
        "from qvl_local.desktop.cli import run\n"
        "run(['index', sys.argv[1], '--library', sys.argv[2]])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(sample.pictures), str(tmp_path / "library")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == f"Library: {tmp_path / 'library'} False False\n"


def test_bare_paths_are_byte_for_byte(sample: Any, cli: Any) -> None:
    outcome = cli("search", QUERY, "-0", "--under", str(sample.pictures / "odd"))
    paths = outcome.out.encode("utf-8", "surrogateescape").split(b"\0")
    assert paths.pop() == b""
    assert sorted(paths) == sorted(
        os.fsencode(entry.path)
        for entry in os.scandir(sample.pictures / "odd")
        if entry.name != sample.broken.name
    )
    lines = cli("search", QUERY, "-f", "--kind", "video").out.splitlines()
    assert len(lines) == 4
    assert all(Path(line).is_file() for line in lines)


def test_json_carries_names_that_are_not_unicode(sample: Any, cli_json: Any) -> None:
    hits = cli_json("search", QUERY, "--under", str(sample.pictures / "odd"))["results"]
    raw = [base64.b64decode(hit["path_base64"]) for hit in hits if "path_base64" in hit]
    if sys.platform == "linux":
        assert raw == [os.fsencode(sample.pictures / "odd") + b"/caf\xe9.jpg"]
    else:
        assert raw == []


def test_similar(sample: Any, cli: Any, cli_json: Any) -> None:
    known = cli_json("search", QUERY, "--kind", "photo", "--no-rerank")["results"][0]["path"]
    printed = cli_json("similar", known, "-k", "5")
    assert printed["query"] is None
    assert len(printed["results"]) == 5
    assert known not in [hit["path"] for hit in printed["results"]]
    assert all(hit["reranker_score"] is None for hit in printed["results"])

    stranger = next(path for path in sample.strangers.rglob("*.*") if path.is_file() and path.name[0] != ".")
    assert len(cli_json("similar", str(stranger), "-k", "5")["results"]) == 5
    # Names may hold line breaks, and one of the sample's does: NUL ends each.
    assert cli("similar", known, "-0", "-k", "3").out.count("\0") == 3


def test_what_is_no_picture_is_not_called_damaged(sample: Any, cli: Any, tmp_path: Path) -> None:
    text = tmp_path / "shopping list.txt"
    text.write_text("milk, bread, film", encoding="utf-8")
    for arguments in (("similar", str(text)), ("search", "--image", str(text))):
        refused = cli(*arguments)
        assert refused.status == 1
        assert f"{text}: its content is no photo or video of a known format" in refused.err
        assert "damaged" not in refused.err
    film = cli("search", QUERY, "-f", "-k", "1", "--kind", "video", "--no-rerank").out.rstrip("\n")
    assert f"{film}: it is a video" in cli("search", "--image", str(film)).err
    assert "is cut short" in cli("search", "--image", str(sample.broken)).err


def test_a_model_that_the_library_was_not_made_with_is_not_even_looked_for(
    sample: Any, cli: Any, monkeypatch: Any
) -> None:
    def never(*_arguments: object, **_options: object) -> None:
        raise AssertionError("it was looked for")

    monkeypatch.setattr("qvl_local.runtime.model.checkpoints._from_hub", never)
    for model in ("2b", "Qwen/Qwen3-VL-Embedding-8B"):
        refused = cli("search", QUERY, "--model", model)
        assert refused.status == 1
        assert f"was indexed with the model tiny, not {model}" in refused.err
        assert f"--model {model} --library {sample.library}" in refused.err


def test_status(sample: Any, cli: Any, cli_json: Any) -> None:
    printed = cli_json("status")
    assert printed["path"] == str(sample.library)
    assert (printed["items"], printed["photos"], printed["videos"]) == (30, 26, 4)
    assert [folder["path"] for folder in printed["folders"]] == [str(sample.pictures)]
    assert [failure["path"] for failure in printed["failed"]] == [str(sample.broken)]
    assert "tiny" in printed["model"]
    assert printed["bytes"] > 10_000
    shown = cli("status")
    assert shown.status == 0
    assert "26 photos" in shown.out


def test_status_names_the_disks_that_are_away(
    sample: Any, cli: Any, cli_json: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(sample.library, tmp_path / "library")
    monkeypatch.setenv("QVL_LIBRARY", str(tmp_path / "library"))
    disk = str(sample.pictures / "disk")
    with Store.open(tmp_path / "library", mode="write") as store:
        (folder,) = store.folders()
        store.note_mount(Mount(folder.id, disk, is_away=True))
    assert cli_json("status")["away"] == [{"path": disk}]
    assert "disk; what it holds is kept" in cli("status").out.replace("\n", " ")


def test_remove_forgets_but_touches_nothing(
    sample: Any, cli: Any, cli_json: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(sample.library, tmp_path / "library")
    monkeypatch.setenv("QVL_LIBRARY", str(tmp_path / "library"))
    gone = cli_json("search", QUERY, "--kind", "photo")["results"][0]["path"]
    printed = cli_json("remove", gone)
    assert (printed["removed"], printed["removed_failed"], printed["items"]) == (1, 0, 29)
    assert (
        "Forgot 1 file that could not be used; the library holds 29 items now"
        in cli("remove", str(sample.broken)).out
    )
    assert Path(gone).is_file()
    assert gone not in [hit["path"] for hit in cli_json("search", QUERY, "-k", "100")["results"]]
    assert cli_json("remove", str(sample.pictures))["items"] == 0
    assert "The library is empty. Index something first: qvl-local index PATH" in cli("search", QUERY).out
    assert cli_json("status")["folders"] == []


def test_a_library_that_is_not_there(cli_json: Any, tmp_path: Path) -> None:
    for command in (["search", QUERY], ["status"], ["remove", "x"]):
        error = cli_json(*command, "--library", str(tmp_path / "none"), status=1)["error"]
        assert error["type"] == "LibraryStorageError"
        assert "qvl-local index" in error["message"]
    assert not (tmp_path / "none").exists()


def test_errors_about_names_that_are_not_unicode_are_json_too(cli_json: Any, tmp_path: Path) -> None:
    error = cli_json("index", str(tmp_path / "gone\udcff"), status=2)["error"]
    assert error["type"] == "InputError"
    assert "gone" in error["message"]


def test_an_unknown_model_is_named(sample: Any, cli_json: Any, tmp_path: Path) -> None:
    library = str(tmp_path / "new")
    error = cli_json("index", str(sample.pictures), "--library", library, "--model", "huge", status=1)[
        "error"
    ]
    assert error["type"] == "ModelNotFoundError"
    assert "huge" in error["message"]


def test_debug_shows_the_traceback(cli: Any, tmp_path: Path) -> None:
    outcome = cli("status", "--library", str(tmp_path / "none"))
    assert "Traceback" not in outcome.err
    outcome = cli("status", "--library", str(tmp_path / "none"), "--debug")
    assert outcome.status == 1
    assert "Traceback" in outcome.err


def test_a_process_of_its_own(sample: Any) -> None:
    """The installed command: JSON alone on stdout, a reader that goes away, nothing left behind."""
    command = [sys.executable, "-c", "from qvl_local.desktop.cli import main; main()"]
    environment = {**os.environ, "QVL_LIBRARY": str(sample.library), "LC_ALL": "C"}
    done = subprocess.run(
        [*command, "search", QUERY, "--json"], capture_output=True, env=environment, check=True
    )
    assert json.loads(done.stdout)["results"]
    assert done.stderr == b""

    with subprocess.Popen(
        [*command, "search", QUERY, "-f"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        errors = process.stderr.read()
    assert errors == b""


@pytest.mark.skipif("sys.platform != 'linux'", reason="/dev/full is a device of Linux")
@pytest.mark.parametrize("unbuffered", ["", "1"])  # met where it is written, or when all is written out
@pytest.mark.parametrize("arguments", [["status", "--json"], ["status"], ["search", QUERY, "-f"]])
def test_an_output_that_takes_nothing_is_an_error(sample: Any, arguments: list[str], unbuffered: str) -> None:
    command = [sys.executable, "-c", "from qvl_local.desktop.cli import main; main()", *arguments]
    environment = {**os.environ, "QVL_LIBRARY": str(sample.library), "PYTHONUNBUFFERED": unbuffered}
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment, check=False
        )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: ")
    assert "output cannot be written: No space left on device" in line


def test_a_full_disk_is_not_taken_for_the_output(
    cli: Any, cli_json: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_library: Library) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")  # as write() raises it: without a name

    monkeypatch.setattr(Library, "status", full)
    error = cli_json("status", status=1)["error"]
    assert error["type"] == "OSError"
    assert error["message"].startswith("The system refused: No space left on device.")
    assert "output" not in cli("status").err


def test_ctrl_c_keeps_what_is_done(sample: Any, tmp_path: Path, cli: Any) -> None:
    command = [sys.executable, "-c", "from qvl_local.desktop.cli import main; main()"]
    library = str(tmp_path / "library")
    with subprocess.Popen(
        [*command, "index", str(sample.pictures), "--library", library, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert "Library:" in process.stderr.readline()
        # Said just before the work begins.
        assert any(line.startswith("Model: ") for line in process.stderr)
        process.send_signal(signal.SIGINT)
        errors = process.stderr.read()
        printed = json.loads(process.stdout.read())
    assert process.returncode == 130
    assert printed["error"]["type"] == "Interrupted"
    assert "Stopped by Ctrl-C" in errors
    assert "Traceback" not in errors
    # Whether the broken file was set aside by the first run already is a matter of time.
    done = json.loads(cli("index", str(sample.pictures), "--library", library, "--json").out)
    assert done["items"] == 30
    assert done["added"] + done["unchanged"] == 30


@pytest.mark.skipif("os.name != 'posix'", reason="Windows ends a program without telling it")
def test_sigterm_ends_the_first_fetch_of_a_model(
    sample: Any, tmp_path: Path, cli_json: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []

    def terminated(_view: View, step: str, _fraction: float) -> None:
        steps.append(step)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setenv("QVL_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(View, "model", terminated)
    library = tmp_path / "library"
    printed = cli_json("index", str(sample.pictures), "--library", str(library), status=143)
    assert (printed["items"], printed["added"]) == (0, 0)
    assert len(steps) == 1
    assert not library.exists()
    assert not list((tmp_path / "cache").rglob("*.onnx"))


@pytest.mark.skipif("os.name != 'posix'", reason="Windows ends a program without telling it")
def test_sigterm_ends_an_index_in_order(sample: Any, tmp_path: Path, cli: Any) -> None:
    command = [sys.executable, "-c", "from qvl_local.desktop.cli import main; main()"]
    library = str(tmp_path / "library")
    with subprocess.Popen(
        [*command, "index", str(sample.pictures), "--library", library, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert any(line.startswith("Model: ") for line in process.stderr)
        process.terminate()
        errors = process.stderr.read()
        printed = json.loads(process.stdout.read())
    assert process.returncode == 143
    assert printed["items"] == printed["added"] < 30
    assert "Stopped by SIGTERM" in errors
    assert "Traceback" not in errors
    # Whether the broken file was set aside by the first run already is a matter of time.
    done = json.loads(cli("index", str(sample.pictures), "--library", library, "--json").out)
    assert (done["items"], done["added"], done["unchanged"]) == (30, 30 - printed["added"], printed["added"])
