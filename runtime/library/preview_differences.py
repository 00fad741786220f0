"""How much the previews of two contents differ. What was compared is remembered; the last stay open."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from PIL import Image

from .contents import Content
from .likeness import Window, difference, difference_of_part
from .previews import Previews
from .thumbnails import DAMAGED, THUMBNAIL_SIDE, open_thumbnail

_KEPT_PREVIEWS = 512


class PreviewDifferences:
    """Compares previews. For one thread; `known` may outlive it."""

    def __init__(
        self, previews: Previews, known: dict[tuple[bytes, bytes], float], check: Callable[[], None]
    ) -> None:
        """`known`: what was compared before, by the hashes of both contents; it grows.

        `check` is called before two are compared, and may raise to end it.
        """
        self._previews = previews
        self._known = known
        self._check = check
        self._opened: OrderedDict[bytes, Image.Image | None] = OrderedDict()

    def between(self, one: Content, other: Content, window: Window | None = None) -> float:
        """Grey levels of the worst block; where a window is given, of a part `other` in the whole `one`."""
        key = (one.hash, other.hash + (b"" if window is None else b"/part"))
        known = self._known.get(key)
        if known is None:
            self._check()
            pictures = self._picture(one.hash), self._picture(other.hash)
            known = 255.0
            if pictures[0] is not None and pictures[1] is not None:
                if window is None:
                    whole = difference(pictures[0], pictures[1])
                    known = 255.0 if whole is None else whole
                else:
                    known = difference_of_part(pictures[0], pictures[1], window)
            self._known[key] = known
        return known

    def _picture(self, content: bytes) -> Image.Image | None:
        if content in self._opened:
            self._opened.move_to_end(content)
            return self._opened[content]
        picture: Image.Image | None = None
        thumbnail = self._previews.thumbnail(content)
        if thumbnail:
            try:
                with open_thumbnail(thumbnail) as image:
                    picture = image.convert("RGB")
                    picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
            except DAMAGED:
                picture = None
        self._opened[content] = picture
        if len(self._opened) > _KEPT_PREVIEWS:
            self._opened.popitem(last=False)
        return picture
