"""HTTP dates: exactly the IMF-fixdate form, without a locale.

Source: RFC 9110 section 5.6.7.

The calendar is counted here: to load the standard library's takes as long as several modules of ours,
and every dialer would have to.
"""

from __future__ import annotations

from emissary_lib.protocol.errors import AuthenticationError

#: From 1970-01-01 on, which was a Thursday.
_WEEK = ("Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
#: Days of a common year before each month.
_BEFORE = (0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334)
_DAY = 24 * 60 * 60
_YEARS = range(1, 10_000)


def http_date(unix: float) -> str:
    """Write a wall-clock time as an HTTP date.

    Args:
        unix: Seconds since 1970-01-01 UTC; the fraction of a second is dropped.

    Raises:
        OverflowError: If the year is not 1 to 9999.

    Example:
        >>> http_date(784111777.9)
        'Sun, 06 Nov 1994 08:49:37 GMT'
    """
    days, seconds = divmod(int(unix // 1), _DAY)
    about = 1970 + days * 400 // _days_of(400)
    year = max(each for each in (about - 1, about, about + 1) if _days_until(each) <= days)
    if year not in _YEARS:
        raise OverflowError(f"an HTTP date has no year {year}")
    month = max(each for each in range(12) if _days_until(year, each) <= days)
    day = days - _days_until(year, month) + 1
    clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return f"{_WEEK[days % 7]}, {day:02} {_MONTHS[month]} {year:04} {clock} GMT"


def parse_http_date(text: str) -> float:
    """Read an HTTP date: the inverse of :func:`http_date`, which accepts nothing that it would not write.

    Returns:
        Seconds since 1970-01-01 UTC.

    Raises:
        AuthenticationError: If ``text`` is no IMF-fixdate, or names the wrong day of the week.

    Example:
        >>> parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT")
        784111777.0
    """
    try:
        # Fixed columns; the comparison below checks every character that is not read here, and that there is
        # such a day at such a time.
        days = _days_until(int(text[12:16]), _MONTHS.index(text[8:11])) + int(text[5:7]) - 1
        unix = days * _DAY + int(text[17:19]) * 3600 + int(text[20:22]) * 60 + int(text[23:25])
        written = http_date(unix)
    except (ValueError, OverflowError):
        raise AuthenticationError("the date is not an HTTP date (RFC 9110 section 5.6.7)") from None
    if written != text:
        raise AuthenticationError("the date is not an HTTP date in its one allowed form (IMF-fixdate)")
    return float(unix)


def _days_until(year: int, month: int = 0) -> int:
    """Days from 1970-01-01 to the first of a month, 0 for January."""
    return _days_of(year - 1) - _days_of(1969) + _BEFORE[month] + (month > 1 and _is_leap(year))


def _days_of(years: int) -> int:
    """Days of so many years, from the year 1 on."""
    return years * 365 + years // 4 - years // 100 + years // 400


def _is_leap(year: int) -> bool:
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
