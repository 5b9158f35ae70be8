"""Figures are written so that they can be read at a glance, and never say more than is known."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from api.console.rendering import Column, ago, bars, count, instant, seconds, sentence, share


@pytest.mark.parametrize(
    ("duration", "written"),
    [
        (None, "\N{EN DASH}"),
        (0, "0 ms"),
        (0.0123, "12 ms"),
        (0.9996, "1.0 s"),
        (2.345, "2.3 s"),
        (59.6, "60 s"),
        (timedelta(minutes=5), "5 min"),
        (3 * 3600, "3 h"),
        (50 * 3600, "2 d"),
        (-0.4, "-400 ms"),
    ],
)
def test_a_duration_has_the_unit_that_suits_it(duration: float | timedelta | None, written: str) -> None:
    assert seconds(duration).replace("\u202f", " ") == written


@pytest.mark.parametrize(
    ("part", "whole", "written"),
    [
        (0, 0, "\N{EN DASH}"),
        (0, 5, "0 %"),
        (5, 5, "100 %"),
        (1, 3, "33.3 %"),
        (1, 1_000_000, "0.1 %"),
        (999_999, 1_000_000, "99.9 %"),
    ],
)
def test_a_share_is_nothing_or_all_only_where_it_is(part: int, whole: int, written: str) -> None:
    assert share(part, whole).replace("\u202f", " ") == written


def test_thousands_stand_apart() -> None:
    assert count(1234567).replace("\u202f", " ") == "1 234 567"


def test_an_instant_says_how_long_ago_and_when_exactly() -> None:
    at = datetime.now(UTC) - timedelta(seconds=4.6)  # rounded, so it is 5 s for nearly a second

    written = ago(at)

    assert f'<time datetime="{at.isoformat(timespec="milliseconds")}" title="{at:%Y-%m-%d %H:%M:%S}.' in written
    assert "5\u202fs ago</time>" in written
    assert "in 3\u202fmin</time>" in ago(datetime.now(UTC) + timedelta(minutes=3, seconds=1))


def test_a_chart_is_drawn_to_the_scale_of_its_highest_column_and_its_words_are_escaped() -> None:
    drawn = bars([Column("<b>", 1, 3), Column("none", 0), Column("few", 0.001)], 'a "label"', "plain")

    assert "&lt;b&gt;" in drawn
    assert 'aria-label="a &#34;label&#34;"' in drawn
    assert drawn.count('class="lower"') == 2
    assert '<rect class="lower" x="0.00" y="48.00" width="119.00" height="16.00"/>' in drawn
    assert '<rect class="upper" x="0.00" y="0.00" width="119.00" height="48.00"/>' in drawn
    assert '<rect class="lower" x="240.00" y="62.50" width="119.00" height="1.50"/>' in drawn  # what is there is seen


NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("zone", "theirs"),
    [
        ("Asia/Tokyo", ("2026-07-01 21:00:00", "Wed 21:00:00, Tokyo")),
        ("America/Port_of_Spain", ("2026-07-01 08:00:00", "Wed 08:00:00, Port of Spain")),
        ("Pacific/Kiritimati", ("2026-07-02 02:00:00", "Thu 02:00:00, Kiritimati")),
        ("Etc/GMT-2", ("2026-07-01 14:00:00", "Wed 14:00:00, UTC+2")),
        ("Asia/Kathmandu", ("2026-07-01 17:45:00", "Wed 17:45:00, Kathmandu")),
        ("Europe/London", ("2026-07-01 13:00:00", "Wed 13:00:00, London")),
        ("Etc/UTC", None),
        (None, None),
    ],
)
def test_a_persons_clock_stands_beside_an_instant_where_it_differs_from_utc(
    zone: str | None, theirs: tuple[str, str] | None
) -> None:
    written = instant(NOON, None if zone is None else ZoneInfo(zone))

    shown = "" if theirs is None else f'<span class="theirs" data-clock="{theirs[0]}"> ({theirs[1]})</span>'
    assert written == (
        '<time datetime="2026-07-01T12:00:00.000+00:00" title="2026-07-01 12:00:00.000 UTC" data-as="instant">'
        f"2026-07-01 12:00:00 UTC</time>{shown}"
    )


def test_instants_in_a_sentence_are_written_as_everywhere_and_its_words_are_escaped() -> None:
    told = sentence("<b> was due at 2026-07-01 12:00:00 UTC; not 2026-77-01 12:00:00 UTC & 12:00:00 UTC.", None)

    assert told == f"&lt;b&gt; was due at {instant(NOON)}; not 2026-77-01 12:00:00 UTC &amp; 12:00:00 UTC."
