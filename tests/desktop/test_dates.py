from datetime import datetime

import pytest
from qvl_local.desktop.dates import date_range
from qvl_local.runtime.errors import InputError
from qvl_local.runtime.library.dates import parse_date


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024", datetime(2024, 1, 1)),
        ("2024-05", datetime(2024, 5, 1)),
        ("2024-5-3", datetime(2024, 5, 3)),
        (" 2024-05-03 ", datetime(2024, 5, 3)),
        ("2024-05-03T18:30", datetime(2024, 5, 3, 18, 30)),
        ("2024-05-03 18:30:15", datetime(2024, 5, 3, 18, 30, 15)),
    ],
)
def test_a_date_is_the_moment_it_begins(text: str, moment: datetime) -> None:
    assert parse_date(text, option="--after") == moment


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "24",
        "2024-13",
        "2024-02-30",
        "2024-05-03T25:00",
        "03.05.2024",
        "20240503",
        "0000",
        "2024-05-00",
    ],
)
def test_what_is_no_date_is_refused_by_name(text: str) -> None:
    with pytest.raises(InputError, match="--before"):
        parse_date(text, option="--before")


def test_a_year_as_both_ends() -> None:
    assert date_range("2024", "2025") == (datetime(2024, 1, 1), datetime(2025, 1, 1))
    assert date_range(None, None) == (None, None)


def test_an_empty_range_is_refused() -> None:
    with pytest.raises(InputError, match="exclusive"):
        date_range("2024", "2024")
