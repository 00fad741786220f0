"""Looking for things: words, pictures, both; the two steps of a search; filters; the newest items."""

from __future__ import annotations

import base64
import re
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, Route, expect

DOGS = "two dogs on a beach at night"
NOWHERE = "a submarine under the polar ice"


def search(page: Page, words: str) -> None:
    page.locator("#query").fill(words)
    page.locator("#query").press("Enter")
    expect(page.locator("#title")).to_contain_text(words)


def settled(page: Page) -> None:
    """Both steps of a search are done."""
    expect(page.locator("#count")).to_contain_text("best first")
    expect(page.locator("#count")).not_to_contain_text("looking closer")


def shown(page: Page, n: int = 10) -> list[str]:
    """The names of the first items, as the page has them."""
    return page.locator(".tile").evaluate_all("(all, n) => all.slice(0, n).map((one) => one.dataset.name)", n)


def edges(page: Page, selector: str) -> dict[str, float]:
    """Where the first such element is on the screen."""
    found: dict[str, float] = page.locator(selector).first.evaluate("e => e.getBoundingClientRect().toJSON()")
    return found


def names(answer: dict[str, Any], n: int = 10) -> list[str]:
    return [item["name"] for item in answer.get("results", answer.get("items"))[:n]]


def differing(served: Any) -> str:
    """A query whose two orders differ."""
    for words in (
        DOGS,
        "a red car in the snow",
        "a boat on the water at sunset",
        "a cat in the forest",
        "snow",
    ):
        fast = names(served.get("api/search", q=words, rerank=False))
        if fast != names(served.get("api/search", q=words)):
            return words
    raise AssertionError("the reranker changes nothing")


@pytest.fixture
def held(served: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The reranker waits until `held.set()`: as long as a large model takes."""
    go_on = threading.Event()
    rerank = served.service.library.rerank

    def slow(*args: Any, **options: Any) -> Any:
        assert go_on.wait(60)
        return rerank(*args, **options)

    monkeypatch.setattr(served.service.library, "rerank", slow)
    yield go_on
    go_on.set()


def test_without_a_query_the_newest_items_stand_below_their_months(page: Page, served: Any) -> None:
    items = served.get("api/items", order="newest", limit=1000)
    assert shown(page) == names(items)
    expect(page.locator("#count")).to_have_text(f"{items['total']} items")
    year = items["items"][0]["taken_at"][:4]
    expect(page.locator(".heading").first).to_contain_text(year)
    assert page.evaluate("document.activeElement.id") == "query"


def test_a_search_shows_the_fast_order_and_then_the_better_one(page: Page, served: Any, held: Any) -> None:
    held.set()
    words = differing(served)
    held.clear()
    search(page, words)
    expect(page.locator("#count")).to_contain_text("looking closer")
    assert shown(page) == names(served.get("api/search", q=words, limit=200, rerank=False))
    held.set()
    settled(page)
    assert shown(page) == names(served.get("api/search", q=words, limit=200))
    expect(page.locator("#offer")).to_be_empty()
    assert page.evaluate("document.activeElement.id") == "query"


def test_words_stay_behind_the_hash_which_no_server_sees(page: Page) -> None:
    addresses = []
    page.on("request", lambda request: request.is_navigation_request() and addresses.append(request.url))
    search(page, DOGS)
    page.reload()
    expect(page.locator("#query")).to_have_value(DOGS)
    assert "dogs" in page.evaluate("location.hash")
    assert page.evaluate("location.search") == ""
    assert len(addresses) == 1


def pointed_at_while_looking_closer(page: Page, served: Any, held: Any) -> str:
    """Search words whose better order is held back, with the pointer over the first one; the words."""
    held.set()
    words: str = differing(served)
    held.clear()
    search(page, words)
    expect(page.locator("#count")).to_contain_text("looking closer")
    page.mouse.move(300, 500)
    page.mouse.move(310, 510)
    return words


def test_nothing_moves_while_one_points_at_it(page: Page, served: Any, held: Any) -> None:
    words = pointed_at_while_looking_closer(page, served, held)
    before = shown(page)
    held.set()
    expect(page.locator("#offer")).to_contain_text("Better order ready")
    assert shown(page) == before
    page.get_by_role("button", name="Show", exact=True).click()
    expect(page.locator("#offer")).to_be_empty()
    assert shown(page) == names(served.get("api/search", q=words, limit=200))


def test_the_better_order_comes_by_itself_when_the_pointer_goes(page: Page, served: Any, held: Any) -> None:
    words = pointed_at_while_looking_closer(page, served, held)
    held.set()
    expect(page.locator("#offer")).to_contain_text("Better order ready")
    page.mouse.move(310, 20)
    expect(page.locator("#offer")).to_be_empty()
    assert shown(page) == names(served.get("api/search", q=words, limit=200))


LONG = "海" * 250
"""Nine characters each, in an address. To the built-in model they mean nothing."""


def test_words_too_long_for_an_address_are_searched_for(page: Page, served: Any) -> None:
    asked = []
    page.on("request", lambda request: "/api/events" in request.url and asked.append(request.method))
    search(page, LONG)
    page.get_by_role("button", name="Show the closest anyway").click()
    found = httpx.post(served.url + "api/search", json={"q": LONG, "limit": 200}, timeout=60).json()
    assert shown(page) == names(found)
    assert asked == ["POST"]


def test_moments_are_compared_with_words_too_long_for_an_address(visit: Any, moment: Any) -> None:
    _, hit = moment
    with visit(f"#kind=video&q={LONG}") as watched:
        page = watched.page
        page.get_by_role("button", name="Show the closest anyway").click()
        with page.expect_response("**/api/moments/*") as answer:
            page.locator(f".tile[data-id='{hit['id']}'] .open").click()
        assert (answer.value.request.method, answer.value.status) == ("POST", 200)
        expect(page.locator(".moments button").first).to_be_visible()


def test_no_good_match_is_said_plainly_and_the_closest_are_still_there(page: Page, served: Any) -> None:
    assert served.get("api/search", q=NOWHERE)["no_good_match"]
    search(page, NOWHERE)
    expect(page.locator("#notice")).to_contain_text(f"Nothing here clearly matches “{NOWHERE}”")
    expect(page.locator("#grid")).to_be_hidden()
    page.get_by_role("button", name="Show the closest anyway").click()
    expect(page.locator(".tile").first).to_be_visible()
    assert shown(page) == names(served.get("api/search", q=NOWHERE, limit=200))


def test_what_the_closer_look_does_not_like_stands_below_a_line(page: Page, served: Any) -> None:
    words, hits = next(
        (words, hits)
        for words in ("hotel sign", DOGS, "snow", "a cat", "a dog", "a boat on the water at sunset")
        for hits in [served.get("api/search", q=words, limit=200)["results"]]
        if hits[0]["reranker_score"] >= 0.5
    )
    likely = [n for n, hit in enumerate(hits) if (hit["reranker_score"] or 0) >= 0.5]
    assert hits[likely[-1] + 1]["reranker_score"] < 0.5
    search(page, words)
    settled(page)
    line = page.locator(".heading")
    expect(line).to_have_text("Less likely from here on")
    last = edges(page, f".tile[data-id='{hits[likely[-1]]['id']}']")
    first = edges(page, f".tile[data-id='{hits[likely[-1] + 1]['id']}']")
    box = edges(page, ".heading")
    assert last["bottom"] <= box["top"] < first["top"]


def test_the_down_arrow_leads_from_the_box_to_the_first_result(page: Page) -> None:
    search(page, DOGS)
    settled(page)
    page.keyboard.press("ArrowDown")
    tile = "document.activeElement.closest('.tile')?.getAttribute('aria-posinset')"
    assert page.evaluate(tile) == "1"


def test_an_offer_covers_nothing_and_can_be_dismissed(page: Page, served: Any, held: Any) -> None:
    pointed_at_while_looking_closer(page, served, held)
    held.set()
    offer = page.locator("#offer")
    expect(offer).to_contain_text("Better order ready")
    box = edges(page, "#offer")
    assert edges(page, "#filters")["bottom"] <= box["top"] < box["bottom"] <= edges(page, ".tile")["top"]
    assert edges(page, "#count")["right"] <= box["left"]
    offer.get_by_role("button", name="Not now").click()
    expect(offer).to_be_empty()


def test_searches_of_late_are_offered_and_can_be_forgotten(page: Page) -> None:
    for words in (DOGS, "hotel sign"):
        search(page, words)
    page.reload()
    page.locator(".tile").first.wait_for()
    page.locator("#query").fill("")
    box = page.locator("#recent")
    expect(box.locator("li")).to_have_text(["hotel sign", DOGS, "Forget these searches"])
    page.locator("#query").press("ArrowDown")
    page.locator("#query").press("ArrowDown")
    page.locator("#query").press("Enter")
    expect(page.locator("#title")).to_contain_text(DOGS)
    page.locator("#query").fill("")
    box.get_by_text("Forget these searches").click()
    assert page.evaluate("localStorage.getItem('qvl-recent')") == "[]"


def test_back_brings_the_earlier_search_back(page: Page) -> None:
    search(page, DOGS)
    search(page, "hotel sign")
    page.go_back()
    expect(page.locator("#title")).to_contain_text(DOGS)
    expect(page.locator("#query")).to_have_value(DOGS)
    page.go_back()
    expect(page.locator("#title")).to_have_text("Photos and videos")
    page.keyboard.press("Escape")
    page.locator("#title").click()
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "query"


GIVE = """([kind, name, type, data]) => {
  const bytes = Uint8Array.from(atob(data), (one) => one.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, { type }));
  const of = { bubbles: true, cancelable: true };
  const events = kind === "paste"
    ? [new ClipboardEvent("paste", { ...of, clipboardData: transfer })]
    : ["dragover", "drop"].map((step) => new DragEvent(step, { ...of, dataTransfer: transfer }));
  for (const event of events) document.body.dispatchEvent(event);
}"""


def give(page: Page, kind: str, path: Path, media_type: str = "image/jpeg") -> None:
    data = base64.b64encode(path.read_bytes()).decode()
    page.evaluate(GIVE, [kind, path.name, media_type, data])


@pytest.mark.parametrize("kind", ["drop", "paste", "choose"])
def test_a_picture_finds_itself_and_words_can_be_added(page: Page, album: Any, kind: str) -> None:
    path = album.items[20].path
    if kind == "choose":
        with page.expect_file_chooser() as chooser:
            page.get_by_role("button", name="Search by a picture").click()
        chooser.value.set_files(path)
    else:
        give(page, kind, path)
    expect(page.locator("#title")).to_have_text("Similar to this picture")
    settled(page)
    assert path.name in shown(page, 3)
    expect(page.locator("#chip canvas")).to_be_visible()
    page.locator("#query").fill("at night")
    page.locator("#query").press("Enter")
    expect(page.locator("#title")).to_have_text("Like this, but “at night”")
    settled(page)
    page.get_by_role("button", name="Search without this picture").click()
    expect(page.locator("#title")).to_have_text("“at night”")
    expect(page.locator("#chip")).to_be_hidden()


def test_what_is_no_picture_is_refused_in_words(visit: Any, tmp_path: Path) -> None:
    with visit() as watched:
        watched.expected = ("422",)
        text = tmp_path / "letter.txt"
        text.write_text("Dear all", encoding="utf-8")
        give(watched.page, "drop", text, "text/plain")
        expect(watched.page.locator("#toast")).to_contain_text("letter.txt is not a picture")
        give(watched.page, "drop", text, "image/png")
        expect(watched.page.locator("#toast")).to_have_text(
            re.compile(r"^This cannot be searched by: (?!The picture)")
        )


def test_photos_and_videos_apart(page: Page, served: Any) -> None:
    page.get_by_role("button", name="Videos", exact=True).click()
    total = served.get("api/items", kind="video")["total"]
    expect(page.locator("#count")).to_have_text(f"{total} items")
    expect(page.locator(".tile").first).to_have_attribute("data-badge", re.compile(r"\d:\d\d"))
    page.get_by_role("button", name="Clear filters").click()
    expect(page.locator("#count")).to_have_text(f"{served.get('api/items')['total']} items")


def test_a_year_by_its_button_and_a_range_by_dragging_over_the_months(page: Page, served: Any) -> None:
    page.get_by_role("button", name="Date").click()
    year = page.locator(".year").nth(1).inner_text()
    page.locator(".year").nth(1).click()
    total = served.get("api/items", after=year, before=str(int(year) + 1))["total"]
    expect(page.locator("#count")).to_have_text(f"{total} item{'' if total == 1 else 's'}")
    expect(page.get_by_role("button", name=f"Date: {year}")).to_be_visible()

    bars = page.locator(".bars").bounding_box()
    assert bars is not None
    page.mouse.move(bars["x"] + 0.3 * bars["width"], bars["y"] + 30)
    page.mouse.down()
    page.mouse.move(bars["x"] + 0.6 * bars["width"], bars["y"] + 30, steps=5)
    page.mouse.up()
    found = page.evaluate("Object.fromEntries(new URLSearchParams(location.hash.slice(1)))")
    assert found["after"] < found["before"]
    total = served.get("api/items", after=found["after"], before=found["before"])["total"]
    expect(page.locator("#count")).to_have_text(f"{total} item{'' if total == 1 else 's'}")


def test_the_ends_of_a_range_move_with_the_arrow_keys(page: Page) -> None:
    page.get_by_role("button", name="Date").click()
    end = page.get_by_role("slider", name="From")
    first = end.get_attribute("aria-valuetext")
    end.focus()
    end.press("ArrowRight")
    expect(end).not_to_have_attribute("aria-valuetext", first or "")
    expect(page).to_have_url(re.compile("after="))
    end.press("Home")
    expect(page).not_to_have_url(re.compile("after="))


@pytest.mark.parametrize("menu", ["Camera", "Folder"])
def test_cameras_and_folders_are_ticked(page: Page, served: Any, menu: str) -> None:
    facets = served.get("api/facets")
    entry = facets["cameras" if menu == "Camera" else "folders"][0]
    page.get_by_role("button", name=menu, exact=True).click()
    box = page.get_by_role("checkbox", name=re.compile("^" + re.escape(entry["name"])))
    box.check()
    expect(page.locator("#count")).to_have_text(f"{entry['count']} items")
    expect(page.get_by_role("button", name=f"{menu}: {entry['name']}")).to_be_visible()
    box.uncheck()
    expect(page.locator("#count")).to_have_text(f"{facets['total']} items")


def test_places_are_ticked_by_name(page: Page, served: Any) -> None:
    spots = [spot for spot in served.get("api/facets")["places"] if spot["name"]][:2]
    page.get_by_role("button", name="Place", exact=True).click()
    for spot in spots:
        page.get_by_role("checkbox", name=re.compile("^" + re.escape(spot["name"]))).check()
    expect(page.locator("#count")).to_have_text(f"{sum(spot['count'] for spot in spots)} items")
    names = " · ".join(spot["name"] for spot in spots)
    expect(page.get_by_role("button", name=f"Place: {names}")).to_be_visible()
    expect(page.locator("#menu-place")).not_to_contain_text("pip install")
    page.reload()
    expect(page.locator("#count")).to_have_text(f"{sum(spot['count'] for spot in spots)} items")


def test_a_place_with_a_distance(page: Page, served: Any, monkeypatch: Any) -> None:
    # Places without names are where the extra is not installed, and far from all towns.
    monkeypatch.setattr("qvl_local.runtime.library.place_names.find_spec", lambda name: None)
    spot = served.get("api/facets")["places"][0]
    page.get_by_role("button", name="Place", exact=True).click()
    expect(page.locator("#menu-place")).to_contain_text("pip install 'qvl-local[places]'")
    page.locator(".spot").first.click()
    expect(page.locator(".spot").first).to_have_attribute("aria-pressed", "true")
    near = page.evaluate("new URLSearchParams(location.hash.slice(1)).get('near')")
    latitude, longitude, _ = (float(part) for part in near.split(","))
    assert (latitude, longitude) == (spot["latitude"], spot["longitude"])
    total = served.get("api/items", near=near)["total"]
    expect(page.locator("#count")).to_have_text(f"{total} item{'' if total == 1 else 's'}")
    page.get_by_label("Within", exact=True).select_option("500")
    expect(page).to_have_url(re.compile(r"500(&|$)"))


def test_a_search_under_filters_counts_what_passes_them(page: Page, served: Any) -> None:
    facets = served.get("api/facets")
    page.goto(page.url + "#q=dogs&kind=photo")
    settled(page)
    expect(page.locator("#count")).to_have_text(f"{facets['kinds']['photo']} items, best first")


def test_filters_hold_for_searches_and_an_empty_result_offers_to_drop_them(page: Page) -> None:
    page.goto(page.url + "#q=dogs&kind=photo&after=1990&before=1991")
    expect(page.locator("#notice")).to_contain_text("Nothing passes these filters")
    page.get_by_role("button", name="Remove the filters").click()
    expect(page.locator(".tile").first).to_be_visible()
    settled(page)


def test_a_busy_server_is_asked_again(visit: Any) -> None:
    with visit() as watched:
        watched.expected = ("503",)
        page, times = watched.page, []

        def busy(route: Route) -> None:
            times.append(1)
            if len(times) > 1:
                return route.continue_()
            return route.fulfill(
                status=503, headers={"Retry-After": "1"}, json={"error": {"message": "full"}}
            )

        page.route("**/api/events?q=*", busy)
        page.locator(".tile").first.wait_for()
        search(page, DOGS)
        settled(page)
        assert len(times) == 2


def test_a_model_that_does_not_load_says_why(visit: Any) -> None:
    with visit() as watched:
        watched.expected = ("503",)
        page = watched.page
        # As the server answers where waiting changes nothing: without a time to come again.
        problem = {"error": {"type": "ModelError", "message": "ONNX Runtime could not start CUDA."}}
        page.route("**/api/events?q=*", lambda route: route.fulfill(status=503, json=problem))
        page.locator(".tile").first.wait_for()
        search(page, DOGS)
        expect(page.locator("#notice")).to_contain_text("could not start CUDA")
        expect(page.get_by_role("button", name="Try again")).to_be_visible()


def test_a_search_that_fails_says_why_and_can_be_tried_again(visit: Any) -> None:
    with visit() as watched:
        watched.expected = ("404",)
        watched.page.goto(watched.page.url + "#picture=gone")
        expect(watched.page.locator("#notice")).to_contain_text("That picture is no longer held")
