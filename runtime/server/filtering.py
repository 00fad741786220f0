"""The filters of a request, the same for searching, browsing and counting: which items are meant.

    kind=photo  after=2023  before=2023-05  under=3  camera=Nikon  near=48.2,16.37,5  place=Lisbon

Folders are named by id, so that no path ever comes from a request.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ..errors import InputError
from ..library.dates import parse_date
from ..library.records import Filters, Near

MOST_WORDS = 32

Kind = Literal["photo", "video"]


class FilterParameters(BaseModel):
    """Filters as a request has them; routes with more parameters extend it. Unknown ones are errors."""

    model_config = ConfigDict(extra="forbid")

    kind: Kind | None = Field(None, description="Photos or videos only.")
    after: str | None = Field(
        None, max_length=32, description="Taken at or after: 2023, 2023-05, 2023-05-06."
    )
    before: str | None = Field(None, max_length=32, description="Taken before.")
    under: list[str] = Field(
        default=[],
        max_length=MOST_WORDS,
        description="Id of a folder, of `/api/folders` or `/api/facets`; may repeat: in any of them.",
    )
    camera: list[str] = Field(
        default=[], max_length=MOST_WORDS, description="Part of a camera's name; may repeat: any of them."
    )
    near: str | None = Field(
        None, max_length=80, description="Latitude, longitude and a radius in km: 48.2,16.37,5."
    )
    place: list[str] = Field(
        default=[],
        max_length=MOST_WORDS,
        description="Part of a place's name, as `/api/facets` gives it; may repeat: any of them. Needs the "
        "extra `places`.",
    )

    def filters(self) -> Filters:
        """The filters as the library takes them.

        Raises:
            InputError: a date or place that makes no sense.
        """
        cameras = tuple(name for name in self.camera if name.strip())
        places = tuple(name for name in self.place if name.strip())
        return Filters(
            kind=self.kind,
            after=None if not self.after else parse_date(self.after, option="after"),
            before=None if not self.before else parse_date(self.before, option="before"),
            camera=cameras or None,
            folders=tuple(self.under),
            near=None if not self.near else _near(self.near),
            place=places or None,
        )


def _near(text: str) -> Near:
    try:
        latitude, longitude, km = (float(part) for part in text.split(","))
    except ValueError:
        latitude = longitude = km = math.nan
    if not (abs(latitude) <= 90 and abs(longitude) <= 180 and 0 < km <= 20_100):
        raise InputError(f"near {text!r}: give latitude, longitude and kilometres, as in 48.2,16.37,5.")
    return Near(latitude, longitude, km)
