"""HTTP dates: exactly the IMF-fixdate form, without a locale.

Source: RFC 9110 section 5.6.7.

``datetime`` is loaded by the first date: whoever imports the library need not wait for it.
"""

from __future__ import annotations

from emissary_lib.protocol.errors import AuthenticationError

# strftime's %a and %b follow the locale; HTTP's names do not.
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


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
    import datetime

    moment = datetime.datetime.fromtimestamp(0, datetime.UTC) + datetime.timedelta(seconds=int(unix // 1))
    day, month = _DAYS[moment.weekday()], _MONTHS[moment.month - 1]
    return f"{day}, {moment.day:02} {month} {moment.year:04} {moment:%H:%M:%S} GMT"


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
    import datetime

    try:
        # Fixed columns; the comparison below checks every character that is not read here.
        moment = datetime.datetime(
            int(text[12:16]),
            _MONTHS.index(text[8:11]) + 1,
            int(text[5:7]),
            int(text[17:19]),
            int(text[20:22]),
            int(text[23:25]),
            tzinfo=datetime.UTC,
        )
    except ValueError:
        raise AuthenticationError("the date is not an HTTP date (RFC 9110 section 5.6.7)") from None
    unix = moment.timestamp()
    if http_date(unix) != text:
        raise AuthenticationError("the date is not an HTTP date in its one allowed form (IMF-fixdate)")
    return unix
