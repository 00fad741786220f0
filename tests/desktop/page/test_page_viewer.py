"""One item, large: keys, facts, moments, what is similar; and what is done with several."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect
from qvl_local.runtime import Library


def open_tile(page: Page, n: int = 0) -> Locator:
    page.locator(".tile .open").nth(n).click()
    viewer = page.locator("dialog.viewer")
    expect(viewer).to_be_visible()
    return viewer


def find(page: Page, fragment: str) -> None:
    page.goto(page.url.partition("#")[0] + fragment)
    expect(page.locator("#count")).to_contain_text("best first")
    expect(page.locator("#count")).not_to_contain_text("looking closer")


def test_the_arrow_keys_walk_and_escape_leads_back_to_the_tile(page: Page, served: Any) -> None:
    names = [item["name"] for item in served.get("api/items", order="newest")["items"][:3]]
    viewer = open_tile(page, 0)
    expect(viewer.locator("h2")).to_have_text(names[0])
    expect(viewer.get_by_role("button", name="Previous")).to_be_hidden()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(viewer.locator("h2")).to_have_text(names[2])
    page.keyboard.press("ArrowLeft")
    expect(viewer.locator("h2")).to_have_text(names[1])
    expect(viewer.locator(".where")).to_contain_text("2 of ")
    assert "view=" in page.evaluate("location.hash")
    page.keyboard.press("Escape")
    expect(viewer).to_have_count(0)
    assert page.evaluate("document.activeElement.closest('.tile')?.dataset.name") == names[1]
    expect(page).not_to_have_url(re.compile("view="))


def test_back_closes_the_viewer_and_an_address_opens_it(page: Page, visit: Any) -> None:
    viewer = open_tile(page, 1)
    name = viewer.locator("h2").inner_text()
    address = page.evaluate("location.hash")
    page.go_back()
    expect(viewer).to_have_count(0)
    with visit(address) as watched:
        expect(watched.page.locator("dialog.viewer h2")).to_have_text(name)
        expect(watched.page.locator("dialog.viewer .where")).to_contain_text("2 of ")
        watched.page.keyboard.press("ArrowRight")
        expect(watched.page.locator("dialog.viewer .where")).to_contain_text("3 of ")
        watched.page.keyboard.press("Escape")
        expect(watched.page.locator("dialog.viewer")).to_have_count(0)
        expect(watched.page.locator(".tile").first).to_be_visible()


def test_what_is_known_of_a_picture_and_why_it_was_found(page: Page, served: Any) -> None:
    find(page, "#q=hotel+sign")
    hit = served.get("api/search", q="hotel sign", limit=200)["results"][0]
    media = served.get(f"api/media/{hit['id']}")
    viewer = open_tile(page)
    facts = viewer.locator(".facts")
    expect(facts).to_contain_text(media["camera"])
    expect(facts).to_contain_text(media["path"])
    expect(facts).to_contain_text(media["place"] or "°")
    expect(facts).to_contain_text(f"{media['width']} × {media['height']}")
    expect(facts).to_contain_text("Why it is here")
    expect(facts).to_contain_text(f"{hit['embedding_score']:.2f}")
    expect(facts).to_contain_text("On a closer look")
    page.keyboard.press("i")
    expect(facts).to_be_hidden()


def test_a_video_opens_at_the_second_that_matched_and_its_moments_lead_elsewhere(
    page: Page, served: Any, moment: Any
) -> None:
    words, hit = moment
    find(page, f"#q={words}&kind=video")
    page.locator(f".tile[data-id='{hit['id']}'] .open").click()
    video = page.locator("dialog.viewer video")
    page.wait_for_function(
        "start => (document.querySelector('dialog.viewer video')?.currentTime ?? 0) >= start",
        arg=hit["start_s"],
    )
    assert video.evaluate("video => video.currentTime") < hit["end_s"] + 1
    moments = page.locator(".moments button")
    expect(moments.first).to_be_visible()
    assert moments.count() == len(served.get(f"api/moments/{hit['id']}", q=words)["moments"]) > 1
    video.evaluate("video => video.pause()")
    moments.first.click()
    page.wait_for_function(
        "start => document.querySelector('dialog.viewer video').currentTime < start", arg=hit["start_s"]
    )
    expect(moments.first).to_have_attribute("aria-current", "")


def test_space_pauses_a_video_and_plays_it_whatever_has_the_focus(page: Page, moment: Any) -> None:
    words, hit = moment
    find(page, f"#q={words}&kind=video")
    page.locator(f".tile[data-id='{hit['id']}'] .open").click()
    video = page.locator("dialog.viewer video")
    page.wait_for_function("() => document.querySelector('dialog.viewer video')?.paused === false")
    assert page.evaluate("document.activeElement.className") == "stage"
    viewer = page.locator("dialog.viewer")
    for part in (None, viewer.get_by_role("button", name="Find similar"), video):
        if part is not None:
            part.focus()
        video.evaluate("video => { video.loop = true; return video.play(); }")
        page.keyboard.press("Space")
        page.wait_for_function("() => document.querySelector('dialog.viewer video').paused")
        page.keyboard.press("Space")
        page.wait_for_function("() => !document.querySelector('dialog.viewer video').paused")
    assert "like=" not in page.url
    # The next one takes the video's place, which had the focus.
    name = viewer.locator("h2").inner_text()
    there = "ArrowRight" if viewer.get_by_role("button", name="Next").is_visible() else "ArrowLeft"
    page.keyboard.press(there)
    expect(viewer.locator("h2")).not_to_have_text(name)
    page.keyboard.press("ArrowLeft" if there == "ArrowRight" else "ArrowRight")
    expect(viewer.locator("h2")).to_have_text(name)


def test_a_video_plays_in_its_tile_while_one_points_at_it(page: Page, served: Any, moment: Any) -> None:
    words, hit = moment
    find(page, f"#q={words}&kind=video")
    tile = page.locator(f".tile[data-id='{hit['id']}']")
    tile.hover()
    page.wait_for_function(
        "([id, start]) => document.querySelector(`.tile[data-id='${id}'] video`)?.currentTime > start",
        arg=[hit["id"], hit["start_s"]],
    )
    assert tile.locator("video").evaluate("video => video.muted")
    page.mouse.move(400, 20)
    expect(tile.locator("video")).to_have_count(0)


@pytest.mark.parametrize("kind", ["gif", "webp"])
def test_a_picture_that_moves_does_so_in_its_tile_and_when_it_is_open(
    visit: Any, serving: Any, tmp_path: Path, kind: str
) -> None:
    frames = [Image.new("RGB", (400, 300), (200, 30 + 40 * i, 30 * i)) for i in range(5)]
    (tmp_path / "pictures").mkdir()
    path = tmp_path / "pictures" / f"dance.{kind}"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100, loop=0)
    with Library.open(tmp_path / "library", model="tiny") as library:
        library.index([path.parent])
    with serving(tmp_path / "library") as served, visit(url=served.url) as watched:
        page = watched.page
        tile = page.locator(".tile")
        tile.hover()
        moving = tile.locator("img.live.there")
        source = moving.get_attribute("src")
        answer = httpx.get(f"{served.url}{source}")
        assert (answer.headers["content-type"], answer.content) == (f"image/{kind}", path.read_bytes())
        page.mouse.move(400, 20)
        expect(moving).to_have_count(0)
        tile.locator(".open").click()
        expect(page.locator("dialog.viewer .full.there")).to_have_attribute("src", str(source))


def test_with_reduced_motion_nothing_plays_by_itself(visit: Any) -> None:
    with visit("#kind=video", reduced_motion="reduce") as watched:
        page = watched.page
        page.locator(".tile").first.hover()
        page.locator(".tile .open").first.click()
        page.wait_for_function("() => document.querySelector('dialog.viewer video')?.readyState > 0")
        assert page.locator("dialog.viewer video").evaluate("video => video.paused")
        assert page.locator(".tile video").count() == 0


def test_find_similar_leaves_the_item_out(page: Page) -> None:
    viewer = open_tile(page, 2)
    name = viewer.locator("h2").inner_text()
    page.keyboard.press("s")
    expect(viewer).to_have_count(0)
    expect(page.locator("#title")).to_have_text("Similar to this one")
    expect(page.locator("#count")).to_contain_text("best first")
    expect(page.locator("#chip img")).to_be_visible()
    assert page.locator(f".tile[data-name='{name}']").count() == 0
    assert page.locator(".tile").count() > 5


def test_back_from_similar_ones_tells_again_why_it_was_found(page: Page) -> None:
    find(page, "#q=hotel+sign")
    viewer = open_tile(page)
    name = viewer.locator("h2").inner_text()
    expect(viewer.locator(".facts")).to_contain_text("Why it is here")
    viewer.get_by_role("button", name="Find similar").click()
    expect(page.locator("#count")).to_contain_text("best first")
    page.go_back()
    expect(viewer.locator("h2")).to_have_text(name)
    expect(viewer.locator(".facts")).to_contain_text("Why it is here")
    expect(viewer.locator(".facts")).to_contain_text("On a closer look")


def test_a_heic_photo_is_shown(page: Page, served: Any) -> None:
    items = served.get("api/items", kind="photo", limit=1000)["items"]
    (heic, *_) = [item for item in items if item["name"].endswith(".HEIC")]
    page.goto(page.url.partition("#")[0] + f"#view={heic['id']}")
    picture = page.locator("dialog.viewer .full.there")
    expect(picture).to_be_visible()
    assert picture.evaluate("picture => picture.naturalWidth") == heic["width"]


def test_a_path_is_copied(visit: Any, served: Any) -> None:
    with visit(permissions=["clipboard-read", "clipboard-write"]) as watched:
        page = watched.page
        item = served.get("api/items", order="newest")["items"][0]
        open_tile(page).get_by_role("button", name="Copy path").click()
        expect(page.locator("#toast")).to_contain_text("1 path copied")
        path = served.get(f"api/media/{item['id']}")["path"]
        assert page.evaluate("navigator.clipboard.readText()") == path


def test_several_are_selected_and_come_as_a_zip(page: Page) -> None:
    tiles = page.locator(".tile")
    tiles.nth(1).hover()
    tiles.nth(1).locator(".check").click()
    tiles.nth(3).locator(".open").click(modifiers=["Shift"])
    tiles.nth(5).locator(".open").click(modifiers=["ControlOrMeta"])
    bar = page.get_by_role("toolbar", name="Selected items")
    expect(bar).to_contain_text("4 selected")
    names = [tiles.nth(i).get_attribute("data-name") for i in (1, 2, 3, 5)]
    with page.expect_download() as download:
        bar.get_by_role("button", name="Download").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        assert sorted(archive.namelist()) == sorted(str(name) for name in names)
        assert archive.testzip() is None
    bar.get_by_role("button", name="Clear the selection").click()
    expect(bar).to_be_hidden()


def test_one_is_downloaded_as_it_is(page: Page, served: Any, album: Any) -> None:
    item = served.get("api/items", order="newest")["items"][0]
    viewer = open_tile(page)
    with page.expect_download() as download:
        viewer.get_by_role("button", name="Download").click()
    assert download.value.suggested_filename == item["name"]
    (path,) = [one.path for one in album.items if one.path.name == item["name"]]
    assert download.value.path().read_bytes() == path.read_bytes()
