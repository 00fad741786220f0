"""The page's modules, joined into the script that browsers get."""

from __future__ import annotations

from pathlib import Path

import pytest
from qvl_local.runtime.server.page import read_page
from qvl_local.runtime.server.page_script import PageError, joined, lean, lean_style, order_of

PAGE = Path(__file__).parents[3] / "desktop" / "page"


def test_modules_come_before_those_that_import_them_and_lose_what_browsers_need_not() -> None:
    modules = {
        "main.js": 'import { b } from "./b.js";\nimport { a } from "./a.js";\n\n/** Yes. */\na + b();\n',
        "a.js": "// one\nexport const a = 1;\n",
        "b.js": (
            'import { a } from "./a.js";\n\n/**\n * Two.\n */\n'
            "export function b() {\n  return a + 1; // kept\n}\n"
        ),
        "other.js": "alert(2);\n",
    }
    order = order_of(modules, "main.js")
    assert order == ("a.js", "b.js", "main.js")
    expected = "const a = 1;function b() {return a + 1; // kept\n}\na + b();"
    assert joined(modules, order) == expected


@pytest.mark.parametrize(
    ("modules", "complaint"),
    [
        ({"main.js": 'import { a } from "./a.js";\n'}, "a.js: is imported, and is not there"),
        ({"main.js": 'import * as a from "./main.js";\n'}, "no import or export by name"),
        ({"main.js": "export default 1;\n"}, "no import or export by name"),
        (
            {
                "main.js": 'import { a } from "./a.js";\nconst b = a;\n',
                "a.js": "const b = 1;\nexport let a = b;\n",
            },
            "main.js: b is declared in a.js, too",
        ),
    ],
)
def test_modules_that_cannot_be_joined_are_named(modules: dict[str, str], complaint: str) -> None:
    with pytest.raises(PageError, match=complaint):
        joined(modules, order_of(modules, "main.js"))


def test_modules_that_import_each_other_come_once() -> None:
    modules = {
        "main.js": 'import { a } from "./a.js";\n',
        "a.js": 'import { m } from "./main.js";\nexport let a;\n',
    }
    assert order_of(modules, "main.js") == ("a.js", "main.js")


def test_what_stands_beside_code_stays() -> None:
    script = 'let a = "// text"; /* why */\n\n  /* two\n     lines */\n  // one\n  let b;\n'
    assert lean(script) == 'let a = "// text"; /* why */\nlet b;'


def test_lines_are_joined_where_their_ends_mean_nothing() -> None:
    script = 'if (a) {\n  b("//");\n  c(1,\n    2);\n  // gone;\n  let d; // stays;\n  d = 1\n  d += 1;\n}\n'
    assert lean(script) == 'if (a) {b("//");\nc(1,2);let d; // stays;\nd = 1\nd += 1;}\n'


def test_a_style_sheet_keeps_its_texts_and_the_spaces_that_mean_something() -> None:
    style = """
    /* why */
    a:hover, b :focus { color: red; width: calc(1px + 2px); }
    @media (max-width: 9px) { i::after { content: "a, b: {c; }"; } }
    """
    assert lean_style(style) == (
        "a:hover,b :focus{color:red;width:calc(1px + 2px)}"
        '@media (max-width:9px){i::after{content:"a, b: {c; }"}}'
    )


def test_every_module_of_the_page_is_part_of_its_script() -> None:
    served = read_page(PAGE)
    scripts = {name for name in served if name.endswith(".js")}
    assert scripts == {"/main.js", "/theme.js"}
    names = {path.name for path in PAGE.glob("*.js")} - {"theme.js"}
    modules = {name: (PAGE / name).read_text(encoding="utf-8") for name in names}
    assert set(order_of(modules, "main.js")) == names


def test_a_folder_without_a_page_serves_none(tmp_path: Path) -> None:
    assert read_page(None) == read_page(tmp_path) == read_page(tmp_path / "missing") == {}
