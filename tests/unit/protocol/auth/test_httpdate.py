"""httpdate: exactly RFC 9110's IMF-fixdate."""

from __future__ import annotations

import datetime
from email.utils import format_datetime

import pytest

from emissary_lib.protocol.auth.httpdate import http_date, parse_http_date
from emissary_lib.protocol.errors import AuthenticationError


@pytest.mark.parametrize(
    ("unix", "text"),
    [
        (784111777, "Sun, 06 Nov 1994 08:49:37 GMT"),  # RFC 9110 section 5.6.7
        (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
        (-1, "Wed, 31 Dec 1969 23:59:59 GMT"),
        (951782400, "Tue, 29 Feb 2000 00:00:00 GMT"),
        (4102444799, "Thu, 31 Dec 2099 23:59:59 GMT"),
    ],
)
def test_written_and_read(unix: int, text: str) -> None:
    assert http_date(unix) == text
    assert http_date(unix + 0.99) == text
    assert parse_http_date(text) == unix


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 1994 08:49:37 GMT ",
        " Sun, 06 Nov 1994 08:49:37 GMT",
        "Mon, 06 Nov 1994 08:49:37 GMT",
        "sun, 06 nov 1994 08:49:37 gmt",
        "Sun,  6 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:60 GMT",
        "Sun, 31 Feb 1994 08:49:37 GMT",
        "Sun, +6 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "Sun, 06 Nov 1994 08:49:3\u0667 GMT",
        "1994-11-06T08:49:37Z",
        "Sun, 06 Nov 0000 08:49:37 GMT",
        "Fri, 32 Dec 9999 00:00:00 GMT",
        "Tue, 29 Feb 1900 00:00:00 GMT",
        "Sun, 00 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:49:37 GMT",
    ],
)
def test_every_other_form_is_refused(text: str) -> None:
    with pytest.raises(AuthenticationError, match="HTTP date"):
        parse_http_date(text)


def test_the_calendar_is_the_standard_librarys() -> None:
    first, last = datetime.date.min.toordinal(), datetime.date.max.toordinal()
    days = {first, last, *range(first, last, 97)}
    for year in (1, 100, 400, 1582, 1900, 1970, 2000, 2024, 2100, 9999):
        days |= {datetime.date(year, *each).toordinal() for each in ((1, 1), (2, 28), (3, 1), (12, 31))}
    for day in sorted(days):
        moment = datetime.datetime.fromordinal(day).replace(hour=day % 24, second=59, tzinfo=datetime.UTC)
        assert http_date(moment.timestamp()) == format_datetime(moment, usegmt=True)
        assert parse_http_date(http_date(moment.timestamp())) == moment.timestamp()


@pytest.mark.parametrize("unix", [1e15, -1e15, 253402300800, -62135596801])
def test_a_year_that_has_not_four_digits_is_the_callers_error(unix: float) -> None:
    with pytest.raises(OverflowError):
        http_date(unix)
