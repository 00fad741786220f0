"""The pages for people: every link leads somewhere, to the section that it names."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

_CODE = re.compile(r"^(```+|~~~+).*?^\1|`[^`\n]*`", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)|^\[[^\]]+\]:\s*(\S+)", re.MULTILINE)
_HTML = re.compile(r"<(?:img|a|source)\b[^>]*\b(?:src|srcset|href)=\"([^\"]+)\"")


def links(page: Path) -> list[str]:
    """What a page links to, but for other sites."""
    text = _CODE.sub("", page.read_text(encoding="utf-8"))
    found = [first or second for first, second in _LINK.findall(text)] + _HTML.findall(text)
    return [link for link in found if not re.match(r"[a-z][a-z+.-]*:", link)]


def anchors(page: Path) -> set[str]:
    """The sections of a page as GitHub names them: lower case, blanks become hyphens, marks go."""
    text = re.sub(r"^(```+|~~~+).*?^\1", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    names: list[str] = []
    for title in re.findall(r"^#{1,6}\s+(.+?)\s*#*$", text, re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).lower()
        name = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        names.append(f"{name}-{names.count(name)}" if name in names else name)
    return set(names) | set(re.findall(r"<a\s+(?:name|id)=\"([^\"]+)\"", text))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page: Path) -> None:
    broken = []
    for link in links(page):
        name, _, section = link.partition("#")
        target = (page.parent / unquote(name)).resolve() if name else page
        is_here = target.exists() and target.is_relative_to(ROOT)
        is_named = not section or target.suffix != ".md" or (is_here and section in anchors(target))
        if not (is_here and is_named):
            broken.append(link)
    assert broken == []


def test_links_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A title, with `code`\n"
        '[one](a.md#there) ![two](b/c.svg "words") [site](https://example.org)\n'
        "`[no](code.md)`\n```\n[no](fence.md)\n# no title\n```\n"
        '[three]: d.md\n<img src="e.png" alt="">\n## Twice\n## Twice\n',
        encoding="utf-8",
    )
    assert links(page) == ["a.md#there", "b/c.svg", "d.md", "e.png"]
    assert anchors(page) == {"a-title-with-code", "twice", "twice-1"}
