"""The library itself: the first run, folders, failures, duplicates, signing in, a server that comes back."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from playwright.sync_api import Route, expect
from qvl_local.runtime import Library
from qvl_local.runtime.server.jobs import JobState

READING = JobState("running", stage="embed", done=8, total=69)


def test_the_first_run_leads_from_nothing_to_a_found_picture(
    visit: Any, serving: Any, album: Any, tmp_path: Path
) -> None:
    with serving(tmp_path / "library") as served, visit(url=served.url) as watched:
        page = watched.page
        expect(page.locator("#notice")).to_contain_text("Find your photos and videos by what is in them")
        expect(page.locator("#filters")).to_be_hidden()
        page.get_by_label("Folder to add").fill(str(album.more / "missing"))
        watched.expected = ("404", "400")
        page.get_by_role("button", name="Add folder").click()
        expect(page.locator(".problem")).not_to_be_empty()
        page.get_by_label("Folder to add").fill(str(album.more))
        page.get_by_role("button", name="Add folder").click()
        expect(page.locator("#count")).to_have_text("5 items")
        expect(page.locator(".tile")).to_have_count(5)
        words = next(
            words
            for words in ("snow", "a dog", "a cat", "a tree", "a car", "at night", "a balloon", "a sign")
            if not served.get("api/search", q=words)["no_good_match"]
        )
        page.locator("#query").fill(words)
        page.locator("#query").press("Enter")
        expect(page.locator("#count")).to_have_text("5 items, best first")


def test_a_folder_is_added_while_a_search_is_on(
    visit: Any, serving: Any, album: Any, indexed_copy: Path
) -> None:
    with serving(indexed_copy) as served, visit("#q=hotel+sign", url=served.url) as watched:
        page = watched.page
        before = served.get("api/status")["items"]
        expect(page.locator("#count")).to_contain_text("best first")
        page.get_by_role("button", name=re.compile("^Library")).click()
        panel = page.locator("dialog.sheet")
        panel.get_by_label("Folder to add").fill(str(album.more))
        panel.get_by_role("button", name="Add folder").click()
        expect(panel.locator(".folders")).to_contain_text(str(album.more))
        expect(panel.locator(".state")).to_contain_text("ready to be found")
        expect(panel.locator(".folders li").filter(has_text="More pictures")).to_contain_text("5 items")
        page.keyboard.press("Escape")
        expect(page.locator("#offer")).to_contain_text("The library has changed")
        page.get_by_role("button", name="Search again").click()
        expect(page.locator("#count")).to_have_text(f"{before + 5} items, best first")

        page.get_by_role("button", name=re.compile("^Library")).click()
        line = panel.locator(".folders li").filter(has_text="More pictures")
        line.get_by_role("button", name="Forget").click()
        expect(line.last).to_contain_text("Forget “More pictures”, with its 5 items? No file is deleted.")
        panel.get_by_role("button", name="Forget", exact=True).click()
        expect(panel.locator(".folders")).not_to_contain_text("More pictures")
        assert served.get("api/status")["items"] == before
        assert len(list(album.more.iterdir())) == 5


def test_while_pictures_are_read_it_is_said_how_far_that_is(page: Any, served: Any, monkeypatch: Any) -> None:
    nowhere = "a submarine under the polar ice"
    assert served.get("api/search", q=nowhere)["no_good_match"]
    with monkeypatch.context() as patched:
        patched.setattr(served.service.jobs, "state", lambda: READING)
        page.locator("#query").fill("hotel sign")
        page.locator("#query").press("Enter")
        expect(page.locator("#count")).to_contain_text("best first")
        expect(page.locator("#so-far")).to_have_text("8 of 69 read so far")
        page.locator("#query").fill(nowhere)
        page.locator("#query").press("Enter")
        expect(page.locator("#notice h2")).to_contain_text(nowhere)
        expect(page.locator("#notice h2 .yet")).to_be_visible()
        with page.expect_request("**/api/events?q=*"):
            patched.undo()
    expect(page.locator("#notice h2 .yet")).to_be_hidden()
    expect(page.locator("#so-far")).to_be_empty()
    expect(page.locator("#notice h2")).to_contain_text(nowhere)


def test_a_search_that_is_left_does_not_come_back_among_the_duplicates(page: Any) -> None:
    page.route("**/api/events?q=*", lambda route: None)
    with page.expect_request("**/api/events?q=*"):
        page.locator("#query").fill("a submarine under the polar ice")
        page.locator("#query").press("Enter")
    with page.expect_event("requestfailed", lambda request: "/api/events?q=" in request.url):
        page.get_by_role("link", name="Duplicates").click()
    page.locator(".group").first.wait_for()
    expect(page.locator("#notice")).to_be_hidden()
    expect(page.locator("#count")).to_contain_text("groups")


def test_folders_are_found_by_looking_around(
    visit: Any, serving: Any, album: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("HOME", str(album.more.parent))
    with serving(tmp_path / "library") as served, visit(url=served.url) as watched:
        page = watched.page
        around = page.get_by_role("group", name="Folders on this computer")
        home = next(place for place in served.get("api/places")["places"] if place["kind"] == "home")
        around.get_by_role("button", name=f"{home['name']} · {home['count']}").click()
        around.get_by_role("button", name="More pictures", exact=True).click()
        around.get_by_role("button", name="Add “More pictures”").click()
        expect(page.locator("#count")).to_have_text("5 items")


def test_folders_with_pictures_are_offered_with_how_many_they_hold(
    visit: Any, serving: Any, album: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    for variable in ("XDG_CONFIG_HOME", "XDG_PICTURES_DIR", "XDG_VIDEOS_DIR"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "ana"))
    shutil.copytree(album.more, tmp_path / "ana" / "Pictures" / "Holiday")
    (tmp_path / "ana" / "Videos").mkdir()  # with nothing in it
    with serving(tmp_path / "library") as served, visit(url=served.url) as watched:
        page = watched.page
        around = page.get_by_role("group", name="Folders on this computer")
        expect(around.get_by_role("button")).to_have_text(["Pictures · 5", "ana · 5"])
        around.get_by_role("button", name="Pictures").click()
        around.get_by_role("button", name="Add “Pictures”").click()
        expect(page.locator("#count")).to_have_text("5 items")
        page.locator("#to-library").click()
        # What is searched is not offered again.
        expect(page.locator("dialog.sheet .add .row button")).to_have_text(["ana · 5"])


def test_reading_goes_on_when_one_says_so(visit: Any, serving: Any, album: Any, tmp_path: Path) -> None:
    with serving(tmp_path / "library") as served, visit(url=served.url) as watched:
        page = watched.page
        served.service.jobs.pause()
        page.get_by_label("Folder to add").fill(str(album.more))
        page.get_by_role("button", name="Add folder").click()
        page.get_by_role("button", name=re.compile("^Paused")).click()
        panel = page.locator("dialog.sheet")
        expect(panel.locator(".state")).to_contain_text("Paused")
        panel.get_by_role("button", name="Go on").click()
        expect(panel.locator(".state")).to_contain_text("5 photos and 0 videos")
        page.keyboard.press("Escape")
        expect(page.locator(".tile")).to_have_count(5)


def test_a_renamed_file_has_its_new_name_and_a_deleted_one_waits_for_show(
    visit: Any, serving: Any, album: Any, tmp_path: Path
) -> None:
    own = shutil.copytree(album.more, tmp_path / "Own")
    with Library.open(tmp_path / "library", model="tiny") as library:
        library.index([own])
    with serving(tmp_path / "library") as served, visit(url=served.url) as watched:
        page = watched.page
        expect(page.locator(".tile[data-name='wide 1.jpg']")).to_be_visible()
        (own / "wide 1.jpg").rename(own / "renamed.jpg")
        served.service.jobs.start()
        expect(page.locator(".tile[data-name='renamed.jpg']")).to_be_visible()
        expect(page.get_by_role("button", name="Select renamed.jpg")).to_have_count(1)
        expect(page.locator(".tile[data-name='wide 1.jpg']")).to_have_count(0)

        page.locator(".tile .open").first.focus()
        (own / "renamed.jpg").unlink()
        served.service.jobs.start()
        expect(page.locator("#offer")).to_contain_text("The library has changed")
        expect(page.locator(".tile")).to_have_count(5)
        page.get_by_role("button", name="Show", exact=True).click()
        expect(page.locator(".tile")).to_have_count(4)
        expect(page.locator("#offer")).to_be_empty()


def test_a_path_may_be_typed_in_quotes(visit: Any, serving: Any, album: Any, tmp_path: Path) -> None:
    with serving(tmp_path / "library") as served, visit(url=served.url) as watched:
        watched.page.get_by_label("Folder to add").fill(f'"{album.more}"')
        watched.page.get_by_role("button", name="Add folder").click()
        expect(watched.page.locator("#count")).to_have_text("5 items")


def test_it_is_said_that_the_built_in_model_knows_no_photos(
    page: Any, visit: Any, serving: Any, album: Any, tmp_path: Path
) -> None:
    hint = page.locator("#hint")
    expect(hint).to_contain_text("only knows drawn sample scenes")
    hint.get_by_role("button", name="Got it").click()
    expect(hint).to_have_count(0)
    page.reload()
    page.locator(".tile").first.wait_for()
    expect(hint).to_have_count(0)
    page.get_by_role("button", name=re.compile("^Library")).click()
    expect(page.locator("dialog.sheet .drawn")).to_be_visible()

    samples = shutil.copytree(album.more, tmp_path / "Sample pictures")
    with Library.open(tmp_path / "library", model="tiny") as library:
        library.index([samples])
    with serving(tmp_path / "library") as served, visit(url=served.url) as watched:
        with watched.page.expect_response("**/api/folders"):
            watched.page.reload()
        expect(watched.page.locator(".tile")).to_have_count(5)
        expect(watched.page.locator("#hint")).to_be_hidden()


def test_failures_are_named_with_their_reasons(page: Any, served: Any, album: Any) -> None:
    (failure,) = served.get("api/failures")["failures"]
    page.get_by_role("button", name="Library, 1 could not be read").click()
    panel = page.locator("dialog.sheet")
    expect(panel).to_contain_text("1 file could not be read")
    expect(panel.locator(".failures b")).to_have_text("broken holiday.jpg")
    reason = failure["error"].removeprefix(failure["path"]).lstrip(": ")
    expect(panel.locator(".failures small")).to_have_text(str(album.pictures))
    expect(panel.locator(".failures p")).to_have_text(reason)
    assert reason == "the picture is cut short: its end is missing; copy it again from where it came from"
    status = served.get("api/status")
    expect(panel.locator(".state")).to_contain_text(
        f"{status['photos']} photos and {status['videos']} videos"
    )
    expect(panel.locator(".model")).to_contain_text("tiny")


def test_duplicates_stand_in_groups_and_all_but_the_best_are_selected(page: Any, album: Any) -> None:
    page.get_by_role("link", name="Duplicates").click()
    expect(page.locator("#title")).to_have_text("Duplicates")
    expect(page.locator(".advice")).to_contain_text("deletes nothing")
    for original, copy in album.copies:
        group = page.locator(".group").filter(has_text=copy)
        expect(group).to_contain_text(original)
        expect(group.locator("li").filter(has_text="Best")).to_contain_text(original)
    group = page.locator(".group").filter(has_text=album.copies[0][1])
    group.get_by_role("button", name="Select all but the best").click()
    expect(page.get_by_role("checkbox", name=f"Select {album.copies[0][1]}", exact=True)).to_be_checked()
    expect(page.get_by_role("checkbox", name=f"Select {album.copies[0][0]}", exact=True)).not_to_be_checked()
    group.get_by_role("button", name="Compare").click()
    compare = page.get_by_role("dialog", name="Compare")
    kept = compare.locator("figure").filter(has_text=album.copies[0][1])
    kept.get_by_role("button", name="Select the others").click()
    expect(page.get_by_role("checkbox", name=f"Select {album.copies[0][1]}", exact=True)).not_to_be_checked()
    group.locator(".open").first.click()
    expect(page.locator("dialog.viewer .where")).to_contain_text("1 of ")
    page.keyboard.press("Escape")
    page.get_by_role("link", name="qvl-local").click()
    expect(page.locator("#title")).to_have_text("Photos and videos")
    expect(page.locator(".tile").first).to_be_visible()
    expect(page.locator(".advice")).to_be_hidden()


def test_a_server_with_a_token_asks_for_it_once(visit: Any, serving: Any, indexed_copy: Path) -> None:
    token = "a token for this test only"
    with serving(indexed_copy, token=token) as served, visit(url=served.url, expected=("401",)) as watched:
        page = watched.page
        box = page.get_by_role("dialog", name="This library asks for its token")
        box.get_by_label("Token").fill("not the token at all")
        box.get_by_role("button", name="Sign in").click()
        expect(box.get_by_role("alert")).to_have_text("That is not the token.")
        page.keyboard.press("Escape")
        box.get_by_label("Token").fill(token)
        box.get_by_role("button", name="Sign in").click()
        expect(box).to_have_count(0)
        expect(page.locator(".tile").first).to_be_visible()
        assert token not in page.url
        page.reload()
        expect(page.locator(".tile").first).to_be_visible()


def test_a_server_that_goes_is_missed_and_welcomed_back(
    visit: Any, serving: Any, indexed_copy: Path, monkeypatch: Any
) -> None:
    with serving(indexed_copy) as served:
        port = int(served.url.rstrip("/").rpartition(":")[2])
        visiting = visit(url=served.url)
        watched = visiting.__enter__()
        watched.expected = ("ERR_", "Failed to load")
        watched.page.locator(".tile").first.wait_for()
        monkeypatch.setattr(served.service.jobs, "state", lambda: READING)
        expect(watched.page.locator("#library-state")).to_have_text("Reading 11%")
    banner = watched.page.locator("#banner")
    expect(banner).to_be_visible()
    expect(banner).to_contain_text("does not answer")
    # Nobody knows any more how far reading is, nor what these words would find.
    expect(watched.page.locator("#library-state")).to_have_text("Library")
    watched.page.locator("#query").fill("hotel sign")
    watched.page.locator("#query").press("Enter")
    expect(watched.page.locator("#count")).to_contain_text("does not answer")
    expect(watched.page.locator(".tile")).to_have_count(0)
    with serving(indexed_copy, port=port):
        watched.page.get_by_role("button", name="Try now").click()
        expect(banner).to_be_hidden()
        expect(watched.page.locator(".tile").first).to_be_visible()
        expect(watched.page.locator("#count")).to_contain_text("best first")
        visiting.__exit__(None, None, None)


# A browser without a screen never hides a page.
HIDEABLE = 'Object.defineProperty(document, "hidden", { get: () => window.isAway === true });'
TURN = "(away) => { window.isAway = away; document.dispatchEvent(new Event('visibilitychange')); }"
PAGES = 8
"""Browsers open six connections to one server, for all of its pages together."""


def test_eight_pages_are_open_and_each_can_search(visit: Any, served: Any) -> None:
    with visit() as watched:
        context = watched.page.context
        context.add_init_script(HIDEABLE)
        pages = [context.new_page() for _ in range(PAGES)]
        watched.page.close()
        for page in pages:
            page.goto(served.url)
            page.locator(".tile").first.wait_for()
            page.evaluate(TURN, True)
        for page in pages:
            page.evaluate(TURN, False)
            page.locator("#query").fill("hotel sign")
            page.locator("#query").press("Enter")
            expect(page.locator("#count")).to_contain_text("best first")
            page.evaluate(TURN, True)
        expect(pages[0].locator("#banner")).to_be_hidden()


def test_a_page_that_is_seen_again_shows_what_changed_meanwhile(visit: Any) -> None:
    with visit() as watched:
        page = watched.page
        page.context.add_init_script(HIDEABLE)
        page.reload()
        page.locator(".tile").first.wait_for()
        page.evaluate(TURN, True)

        def later(route: Route) -> None:
            status = route.fetch().json()
            route.fulfill(json=status | {"generation": status["generation"] + 1})

        page.route("**/api/status", later)
        with page.expect_request("**/api/items?*"):
            page.evaluate(TURN, False)
        expect(page.locator("#banner")).to_be_hidden()
