"""What a phone shows of what it is sent."""

import itertools

import pytest

from simulator.http.exchange import SimulatedEnvironment, SimulatedProvider
from simulator.phones import Arrival, Notification, Phones, PhoneState, Receipt
from simulator.wire import WireLog

APNS, FCM = SimulatedProvider.APNS, SimulatedProvider.FCM
NOW = 1_700_000_000.0
OFFLINE, ONLINE = PhoneState.OFFLINE, PhoneState.INSTALLED


class Pocket:
    """One phone and a clock."""

    def __init__(self, provider: SimulatedProvider) -> None:
        self.phone = Phones().seen("token", provider, SimulatedEnvironment.PRODUCTION)
        self._wire = WireLog()
        self._numbers = itertools.count()

    def push(
        self,
        title: str,
        *,
        key: str | None = None,
        task: str | None = None,
        expires: float | None = None,
        has_sound: bool = True,
    ) -> Receipt:
        """Send one push at NOW."""
        request = self._wire.append(NOW, self.phone.provider, SimulatedEnvironment.PRODUCTION, "token", {}, b"{}")
        identity = task or f"push-{next(self._numbers)}"
        notification = Notification(title, "Body", {}, key, identity, is_visible=True, has_sound=has_sound)
        receipt = Receipt(request, notification, expires)
        self.phone.receive(receipt, NOW)
        return receipt

    @property
    def titles(self) -> list[tuple[str | None, int]]:
        """The screen: titles and how often each was received."""
        return [(line.title, line.times_received) for line in self.phone.screen]


@pytest.fixture(params=[APNS, FCM])
def pocket(request: pytest.FixtureRequest) -> Pocket:
    """Either phone."""
    return Pocket(request.param)


def test_the_newest_line_is_on_top(pocket: Pocket) -> None:
    pocket.push("one")
    pocket.push("two")

    assert pocket.titles == [("two", 1), ("one", 1)]


def test_a_phone_rings_for_what_it_shows_and_has_a_sound(pocket: Pocket) -> None:
    loud, quiet = pocket.push("one", key="a"), pocket.push("two", key="a", has_sound=False)
    pocket.phone.become(OFFLINE, NOW)
    late = pocket.push("three", key="a")
    rang_offline = late.sounded_timestamp
    pocket.phone.become(ONLINE, NOW + 60)

    assert (loud.sounded_timestamp, quiet.sounded_timestamp) == (NOW, None)
    assert (rang_offline, late.sounded_timestamp) == (None, NOW + 60)


def test_the_same_key_replaces_the_line_and_brings_it_up(pocket: Pocket) -> None:
    pocket.push("one", key="a")
    pocket.push("two", key="b")
    pocket.push("three", key="a")

    assert pocket.titles == [("three", 1), ("two", 1)]


def test_the_same_notification_twice_is_counted_on_its_line(pocket: Pocket) -> None:
    for _ in range(3):
        pocket.push("one", key="a", task="task-1")

    assert pocket.titles == [("one", 3)]


def test_without_a_key_the_same_notification_twice_is_two_lines(pocket: Pocket) -> None:
    for _ in range(2):
        pocket.push("one", task="task-1")

    assert pocket.titles == [("one", 1), ("one", 1)]


def test_another_notification_on_the_same_line_starts_a_new_count(pocket: Pocket) -> None:
    for task in ("task-1", "task-1", "task-2"):
        pocket.push("one", key="a", task=task)

    assert pocket.titles == [("one", 1)]


@pytest.mark.parametrize(
    ("expires", "fate"), [(NOW - 1, Arrival.DROPPED), (NOW + 1, Arrival.SHOWN), (0.0, Arrival.SHOWN)]
)
def test_a_push_past_its_expiry_is_dropped(pocket: Pocket, expires: float, fate: Arrival) -> None:
    receipt = pocket.push("late", expires=expires)

    assert receipt.fate is fate
    assert receipt.reason == ("expired" if fate is Arrival.DROPPED else None)


def test_now_or_never_does_not_wait_for_an_offline_phone(pocket: Pocket) -> None:
    pocket.phone.become(OFFLINE, NOW)
    receipt = pocket.push("now", expires=0.0)
    pocket.phone.become(ONLINE, NOW)

    assert (receipt.fate, receipt.reason, pocket.titles) == (Arrival.DROPPED, "offline", [])


def test_what_expires_while_a_phone_is_offline_is_never_shown(pocket: Pocket) -> None:
    pocket.phone.become(OFFLINE, NOW)
    receipt = pocket.push("one", expires=NOW + 10)
    pocket.phone.become(ONLINE, NOW + 20)

    assert (receipt.fate, receipt.reason, pocket.titles) == (Arrival.DROPPED, "expired", [])


def test_apple_keeps_one_notification_for_an_offline_phone() -> None:
    pocket = Pocket(APNS)
    pocket.phone.become(OFFLINE, NOW)
    first, second = pocket.push("one", key="a"), pocket.push("two", key="b")
    waiting = second.fate
    pocket.phone.become(ONLINE, NOW)

    assert (first.fate, first.reason) == (Arrival.DROPPED, "superseded_while_offline")
    assert (waiting, second.fate) == (Arrival.WAITING, Arrival.SHOWN)
    assert pocket.titles == [("two", 1)]


def test_google_keeps_all_for_an_offline_phone_and_tags_replace_on_arrival() -> None:
    pocket = Pocket(FCM)
    pocket.phone.become(OFFLINE, NOW)
    for title, key in (("one", "a"), ("two", "b"), ("three", "a")):
        pocket.push(title, key=key)
    pocket.phone.become(ONLINE, NOW)

    assert pocket.titles == [("three", 1), ("two", 1)]


def test_removing_the_app_clears_screen_and_waiting_pushes(pocket: Pocket) -> None:
    pocket.push("one")
    pocket.phone.become(OFFLINE, NOW)
    waiting = pocket.push("two")
    pocket.phone.become(PhoneState.UNINSTALLED, NOW + 5)

    assert (pocket.titles, pocket.phone.uninstalled_timestamp) == ([], NOW + 5)
    assert (waiting.fate, waiting.reason) == (Arrival.DROPPED, "uninstalled")
