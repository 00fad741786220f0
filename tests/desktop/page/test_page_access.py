"""For everybody: the keyboard alone, screen readers, both themes, narrow screens, large libraries."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, Route, expect

DOCS = Path(__file__).parents[3] / "docs" / "images"
MOST_BYTES = 30_000
MOST_NODES = 500
MANY = 10_000
THEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots go: to a temporary folder, or to the one that QVL_SCREENSHOTS names."""
    named = os.environ.get("QVL_SCREENSHOTS")
    return Path(named) if named else tmp_path_factory.mktemp("screenshots")


def settled(page: Page) -> None:
    expect(page.locator("#count")).to_contain_text("best first")
    expect(page.locator("#count")).not_to_contain_text("looking closer")


def start(page: Page) -> None:
    page.locator(".tile").first.wait_for()


def found(page: Page, words: str = "two dogs on a beach at night") -> None:
    page.locator("#query").fill(words)
    page.locator("#query").press("Enter")
    settled(page)


def menu(name: str) -> Callable[[Page], None]:
    def opened(page: Page) -> None:
        page.get_by_role("button", name=name, exact=True).click()
        page.locator(f"#menu-{name.lower()} :is(.bars, .choices)").first.wait_for()

    return opened


def viewer(page: Page) -> None:
    found(page)
    page.locator(".tile .open").first.click()
    page.locator("dialog.viewer .full.there").wait_for()
    page.locator(".facts dl").wait_for(state="attached")


def video(page: Page) -> None:
    page.get_by_role("button", name="Videos", exact=True).click()
    found(page, "a train moving left")
    page.locator(".tile .open").first.click()
    page.wait_for_function("() => document.querySelector('dialog.viewer video')?.readyState > 1")
    page.locator("dialog.viewer video").evaluate("video => video.pause()")


def panel(page: Page) -> None:
    page.get_by_role("button", name=re.compile("^Library")).click()
    page.locator("dialog.sheet .folders").wait_for()


def selecting(page: Page) -> None:
    page.locator(".tile .open").first.focus()
    page.keyboard.press("Space")
    page.locator("#selected").wait_for()


def no_match(page: Page) -> None:
    page.locator("#query").fill("a submarine under the polar ice")
    page.locator("#query").press("Enter")
    page.locator("#notice").wait_for()


def duplicates(page: Page) -> None:
    page.get_by_role("link", name="Duplicates").click()
    page.locator(".group").first.wait_for()


STATES: dict[str, Callable[[Page], None]] = {
    "start": start,
    "found": found,
    "date": menu("Date"),
    "place": menu("Place"),
    "folder": menu("Folder"),
    "viewer": viewer,
    "video": video,
    "library": panel,
    "selected": selecting,
    "no-match": no_match,
    "duplicates": duplicates,
}


def test_no_state_has_a_serious_fault_for_those_who_hear_the_page(visit: Any, pictures: Path) -> None:
    faults = []
    for name, reach in STATES.items():
        with visit(reduced_motion="reduce") as watched:
            page = watched.page
            start(page)
            reach(page)
            for theme in THEMES:
                page.emulate_media(color_scheme=theme, reduced_motion="reduce")
                expect(page.locator("html")).to_have_attribute("data-theme", theme)
                for violation in Axe().run(page).response["violations"]:
                    if violation["impact"] in ("serious", "critical"):
                        nodes = [node["html"][:160] for node in violation["nodes"][:3]]
                        faults.append((name, theme, violation["id"], nodes))
                page.screenshot(path=pictures / f"{name}-{theme}.png")
    assert faults == []


def test_everything_is_done_with_the_keyboard_alone(page: Page) -> None:
    press = page.keyboard.press
    focus = "(document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent).trim()"

    def tab_to(wanted: str) -> None:
        seen = []
        for _ in range(40):
            press("Tab")
            seen.append(page.evaluate(focus))
            if re.search(wanted, seen[-1]):
                return
        raise AssertionError(f"{wanted!r} is not among {seen}")

    page.keyboard.type("hotel sign")
    press("Enter")
    settled(page)
    tab_to("^Videos$")
    press("Enter")
    expect(page).to_have_url(re.compile("kind=video"))
    tab_to("^Date$")
    press("Enter")
    page.locator(".end").first.wait_for()
    press("Escape")
    expect(page.locator("#menu-date")).to_be_hidden()
    tab_to("Clear filters")
    press("Enter")
    expect(page).not_to_have_url(re.compile("kind="))
    settled(page)
    page.locator("#query").focus()
    tab_to("^(Photo|Video), ")
    first = page.evaluate(focus)
    press("ArrowRight")
    press("ArrowDown")
    assert page.evaluate(focus) != first
    press("Space")
    press("Shift+ArrowRight")
    expect(page.locator("#selected")).to_contain_text("2 selected")
    press("Escape")
    expect(page.locator("#selected")).to_be_hidden()
    press("Enter")
    expect(page.locator("dialog.viewer")).to_be_visible()
    press("ArrowRight")
    press("x")
    tab_to("^Close$")
    press("Enter")
    expect(page.locator("dialog.viewer")).to_have_count(0)
    expect(page.locator("#selected")).to_contain_text("1 selected")
    press("/")
    assert page.evaluate("document.activeElement.id") == "query"


def test_the_first_tab_stop_of_the_page_leads_past_everything(page: Page) -> None:
    page.locator("#skip").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("Boolean(document.activeElement.closest('.tile'))")


def test_the_colours_follow_the_system_and_can_be_turned(visit: Any) -> None:
    with visit(color_scheme="dark") as watched:
        page = watched.page
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"
        page.get_by_role("button", name="Use light colours").click()
        page.reload()
        assert page.evaluate("document.documentElement.dataset.theme") == "light"


PHONE = {
    "viewport": {"width": 375, "height": 740},
    "device_scale_factor": 2,
    "has_touch": True,
    "is_mobile": True,
}


def test_on_a_phone_the_bar_of_the_selected_is_whole_and_the_head_one_line(visit: Any) -> None:
    with visit(**PHONE) as watched:
        page = watched.page
        start(page)
        page.locator(".tile .check").evaluate_all("all => all.slice(0, 12).forEach((one) => one.click())")
        bar = page.get_by_role("toolbar", name="Selected items")
        expect(bar).to_contain_text("12 selected")
        for part in bar.locator(":scope > *").all():
            box = part.bounding_box()
            assert box is not None
            assert 12 <= box["x"] < box["x"] + box["width"] <= 363, part.inner_text()

        before = page.locator(".top").bounding_box()
        # As it is while pictures are read.
        page.locator("#to-library").evaluate("button => button.classList.add('working')")
        page.locator("#library-state").evaluate("says => (says.textContent = 'Reading 100%')")
        assert page.locator(".top").bounding_box() == before


def test_on_a_phone_nothing_is_wider_than_the_screen(visit: Any, pictures: Path) -> None:
    for name, reach in STATES.items():
        if name in ("place", "folder", "selected"):
            continue
        with visit(**PHONE) as watched:
            start(watched.page)
            reach(watched.page)
            assert watched.page.evaluate("document.documentElement.scrollWidth") <= 375, name
            watched.page.screenshot(path=pictures / f"{name}-phone.png")


SCROLL = """async () => {
  let most = 0;
  while (!document.querySelector(".tile[data-name='9999.jpg']")) {
    scrollBy(0, 7 * innerHeight);
    await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
    most = Math.max(most, document.querySelectorAll("*").length);
  }
  return most;
}"""


def test_ten_thousand_items_scroll_with_few_nodes(visit: Any) -> None:
    def items(route: Route) -> None:
        params = httpx.URL(route.request.url).params
        offset, limit = int(params.get("offset", 0)), int(params["limit"])
        some = [
            {
                "id": i,
                "kind": "photo",
                "name": f"{i}.jpg",
                "taken_at": f"{2024 - i // 1200}-{12 - i // 100 % 12:02}-01T12:00:00",
                "width": 400 + i % 7 * 100,
                "height": 600,
                "duration_s": None,
            }
            for i in range(offset, min(MANY, offset + limit))
        ]
        route.fulfill(json={"total": MANY, "items": some})

    with visit("#kind=photo") as watched:
        page = watched.page
        page.route("**/api/items?*", items)
        # Their thumbnails are blocked, which takes less time than to make them up.
        watched.expected = ("ERR_BLOCKED_BY_CLIENT",)
        network = page.context.new_cdp_session(page)
        network.send("Network.enable")
        network.send("Network.setBlockedURLs", {"urls": ["*/thumb/*"]})
        page.reload()
        expect(page.locator("#count")).to_have_text("10,000 items")
        most = page.evaluate(SCROLL)
        expect(page.locator(".tile[data-name='9999.jpg']")).to_be_visible()
        assert 100 < most <= MOST_NODES
        page.locator(".tile .open").last.focus()
        page.keyboard.press("Home")
        expect(page.locator(".tile[data-name='0.jpg']")).to_be_visible()
        assert page.evaluate("scrollY") < 400


def test_script_and_style_travel_in_less_than_thirty_kilobytes(visit: Any, served: Any) -> None:
    bodies: dict[str, int] = {}
    with visit() as watched:
        asked = []
        watched.page.on("response", lambda response: asked.append(response.url))
        watched.page.reload()
        start(watched.page)
    scripts_and_styles = {url for url in asked if url.partition("?")[0].endswith((".js", ".css"))}
    assert len(scripts_and_styles) == 3
    for url in scripts_and_styles:
        with httpx.stream("GET", url, headers={"Accept-Encoding": "gzip"}) as response:
            bodies[url] = sum(len(piece) for piece in response.iter_raw())
            assert response.headers["content-encoding"] == "gzip"
    assert sum(bodies.values()) <= MOST_BYTES, bodies


def test_the_page_runs_under_a_strict_policy(served: Any) -> None:
    policy = httpx.get(served.url).headers["content-security-policy"]
    directives = dict(part.strip().partition(" ")[::2] for part in policy.split(";"))
    assert directives["default-src"] == "'none'"
    assert directives["script-src"] == directives["style-src"] == "'self'"
    assert "unsafe" not in policy
    assert directives["require-trusted-types-for"] == "'script'"


def test_the_pictures_of_the_readme(visit: Any, served: Any, pictures: Path, moment: Any) -> None:
    """Writes them to docs/images when QVL_README_PICTURES is set, else where the other screenshots go."""
    folder = DOCS if os.environ.get("QVL_README_PICTURES") else pictures
    folder.mkdir(parents=True, exist_ok=True)
    words, hit = moment
    served.get("api/facets")  # has the names of places read, which a picture would not wait for

    def take(page: Page, name: str) -> None:
        page.wait_for_function(
            "() => [...document.querySelectorAll('.tile img')].every((picture) => picture.complete)"
        )
        page.screenshot(path=folder / f"{name}.png")
        assert (folder / f"{name}.png").stat().st_size > 20_000

    with visit(reduced_motion="reduce") as watched:
        start(watched.page)
        found(watched.page)
        take(watched.page, "page")
    with visit(f"#q={words}&kind=video", reduced_motion="reduce") as watched:
        settled(watched.page)
        watched.page.locator(f".tile[data-id='{hit['id']}'] .open").click()
        watched.page.locator(".moments .best").wait_for()
        watched.page.wait_for_function("() => document.querySelector('dialog.viewer video').readyState > 3")
        take(watched.page, "page-viewer")
