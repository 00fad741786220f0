"""How the page asks its window for a folder, within a policy that lets it evaluate no text.

The script that the window adds to the page makes `window.qvlWindow.pickFolder()`, a promise of a path or
null. The question travels as a navigation to an address that exists nowhere (RFC 2606), which the window
refuses and understands; the answer as one more script of the window. pywebview's own bridge evaluates its
answers, which the page's policy forbids, and Qt announces no navigation to a scheme that it does not know.
"""

from __future__ import annotations

import json

NAME = "qvl-local-window"
PICK_FOLDER = f"http://{NAME}.invalid/pick-folder"

SCRIPT = f"""
(() => {{
  let resolve = null;
  window.qvlWindow = Object.freeze({{
    pickFolder() {{
      resolve?.(null);
      return new Promise((done) => {{ resolve = done; location.href = "{PICK_FOLDER}"; }});
    }},
  }});
  window.addEventListener("qvl-local-folder", (event) => {{ resolve?.(event.detail); resolve = null; }});
}})();
"""
"""For every page of the window, before its own scripts run."""


def answer(path: str | None) -> str:
    """The script that tells the page what was chosen; None when the person changed their mind."""
    # JSON is JavaScript but for two line separators, which ASCII escapes.
    detail = json.dumps({"detail": path or None}, ensure_ascii=True)
    return f'window.dispatchEvent(new CustomEvent("qvl-local-folder", {detail}));'
