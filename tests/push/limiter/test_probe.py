"""Which push tries a shut route: none that was refused while others wait, and users take turns. Time is passed in."""

import asyncio
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from domain.kinds import Priority
from domain.naming import user_digest
from domain.push import Environment, Provider, Route
from push.limiter.breaker import USERS
from push.limiter.route_limiter import RouteLimiter
from push.limiter.settings import Limits, Timings
from push.sender import (
    Accepted,
    Answer,
    AnsweredUnavailable,
    Delivery,
    Misconfigured,
    MismatchedToken,
    Paused,
    ProbesNext,
    ProviderTrouble,
    Rejected,
    SuspectToken,
    Throttled,
    ThrottleExtent,
    TokenMisconfigured,
    Unavailable,
    Unregistered,
    Unsendable,
)
from tests.busy import soon
from tests.logs import own_logs

ROUTE = Route(Provider.FCM, None, Environment.PRODUCTION)
WRONG = Misconfigured("wrong_key")
DOWN = AnsweredUnavailable("ServiceUnavailable", Delivery.NOT_PROCESSED)
LEFT = 3600.0  # seconds
RARELY = Timings(shortest_pause=45.0)  # as where thousands wait


class Scene:
    """A limiter, and pushes of users that come to it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.limiter = RouteLimiter(ROUTE, Limits(10), RARELY, clock=lambda: self.now, chance=lambda: 0.0)
        self.limiter.share(1.0)
        self.called: list[str] = []

    async def comes(
        self,
        task_id: UUID,
        user_id: str,
        came_to: Answer | ProviderTrouble = WRONG,
        *,
        after: asyncio.Event | None = None,
    ) -> str:
        """Let a push come; tells what becomes of it: called, appointed or paused."""
        permit = self.limiter.enter(Priority.REMINDER, task_id, user_digest(user_id))
        try:
            async with permit:
                with suppress(ProviderTrouble):
                    await permit.call(self._called(user_id, came_to, after), user_id)
                return "called"
        except Paused as paused:
            permit.hindered(paused, user_id, LEFT)
            return "appointed" if isinstance(paused, ProbesNext) else "paused"

    async def shut(self, by: ProviderTrouble = WRONG) -> list[tuple[UUID, str]]:
        """Let three users be refused; gives their pushes."""
        refused = [(uuid4(), f"refused-{number}") for number in range(USERS)]
        for each in refused:
            assert await self.comes(*each, by) == "called"
        assert self.limiter.report().state == "open"
        self.called.clear()
        return refused

    def rest(self) -> None:
        """Let the rest end."""
        assert self.limiter.report().state != "closed"
        self.now = max(self.now, self.limiter._breaker.open_until)

    async def _called(self, user_id: str, came_to: Answer | ProviderTrouble, after: asyncio.Event | None) -> Answer:
        self.called.append(user_id)
        if after is not None:
            await after.wait()
        if isinstance(came_to, ProviderTrouble):
            raise came_to
        return came_to


async def test_what_was_refused_is_not_the_probe_while_another_push_waits() -> None:
    scene = Scene()
    refused, other = await scene.shut(), (uuid4(), "other")
    assert await scene.comes(*other) == "appointed"
    scene.rest()

    assert [await scene.comes(*each) for each in refused] == ["paused"] * 3
    assert await scene.comes(*other, Accepted("id")) == "called"

    assert scene.called == ["other"]
    assert scene.limiter.report().state == "closed"


async def test_another_push_of_a_user_who_was_refused_is_not_the_probe_either() -> None:
    scene = Scene()
    [(_, name), *_] = await scene.shut()
    other = (uuid4(), "other")
    assert await scene.comes(*other) == "appointed"
    scene.rest()

    assert [await scene.comes(uuid4(), name) for _ in range(25)] == ["paused"] * 25
    assert await scene.comes(*other, Accepted("id")) == "called"

    assert scene.called == ["other"]


async def test_a_refused_users_push_that_came_first_gives_its_appointment_up() -> None:
    scene = Scene()
    [(_, name), *_] = await scene.shut()
    mine, other = (uuid4(), name), (uuid4(), "other")
    assert await scene.comes(*mine) == "appointed"

    assert await scene.comes(*other) == "appointed"

    scene.rest()
    assert await scene.comes(*mine) == "paused"
    assert await scene.comes(*other) == "called"


async def test_where_only_refused_pushes_wait_their_users_take_turns() -> None:
    scene = Scene()
    refused = await scene.shut()

    for _ in range(9):
        for each in refused:
            await scene.comes(*each)
        scene.rest()
        for each in refused:
            await scene.comes(*each)

    assert Counter(scene.called) == dict.fromkeys([name for _, name in refused], 3)


async def test_one_who_was_to_come_and_does_not_holds_up_the_refused_for_a_moment_only() -> None:
    scene = Scene()
    [first, *_] = await scene.shut()
    assert await scene.comes(uuid4(), "gone") == "appointed"
    scene.rest()
    assert await scene.comes(*first) == "paused"

    scene.now += Timings().check_again

    assert await scene.comes(*first, Accepted("id")) == "called"
    assert scene.limiter.report().state == "closed"


async def test_the_appointed_comes_when_the_rest_is_over_and_earlier_if_it_would_expire() -> None:
    scene = Scene()
    await scene.shut()
    permit = scene.limiter.enter(Priority.REMINDER, uuid4())
    with pytest.raises(ProbesNext) as appointed:
        await permit.__aenter__()
    assert appointed.value.retry_after == timedelta(seconds=30)

    permit.hindered(appointed.value, "other", left=20.0)

    assert scene.limiter._breaker.open_until == scene.now + 10


@pytest.mark.parametrize("users", [1, 100])
async def test_refusals_for_a_token_of_its_own_open_nothing_and_are_no_probe_that_counts(users: int) -> None:
    scene = Scene()
    for number in range(100):
        await scene.comes(uuid4(), f"user-{number % users}", TokenMisconfigured("THIRD_PARTY_AUTH_ERROR"))
    assert scene.limiter.report().state == "closed"
    await scene.shut()
    scene.rest()

    assert await scene.comes(uuid4(), "unlucky", TokenMisconfigured("THIRD_PARTY_AUTH_ERROR")) == "called"

    assert scene.limiter.report().state == "half_open"  # it said nothing, and the next one probes
    assert await scene.comes(uuid4(), "other", Accepted("id")) == "called"
    assert scene.limiter.report().state == "closed"


@pytest.mark.parametrize(
    "about_itself",
    [
        SuspectToken("BadDeviceToken"),
        Unregistered("Unregistered", None),
        MismatchedToken("SENDER_ID_MISMATCH"),
        Rejected("PayloadTooLarge"),
        Throttled("TooManyRequests", ThrottleExtent.TOKEN),
    ],
    ids=lambda answer: answer.reason,
)
async def test_an_answer_about_one_push_is_no_verdict_on_the_route_unless_three_users_get_one(
    about_itself: Answer | ProviderTrouble,
) -> None:
    scene = Scene()
    await scene.comes(uuid4(), "alice", WRONG)
    await scene.comes(uuid4(), "mallory", about_itself)
    await scene.comes(uuid4(), "bob", WRONG)
    await scene.comes(uuid4(), "carol", WRONG)
    assert scene.limiter.report().state == "open"  # it contradicted no refusal
    scene.rest()

    for user in ["mallory"] * 10 + ["mallet"]:
        assert await scene.comes(uuid4(), user, about_itself) == "called"  # each is the probe, one after the other
        assert scene.limiter.report().state == "half_open"
    assert await scene.comes(uuid4(), "dave", WRONG) == "called"
    assert scene.limiter.report().state == "open"
    scene.rest()

    for user in ("mallory", "mallet", "minnie"):
        assert scene.limiter.report().state == "half_open"
        await scene.comes(uuid4(), user, about_itself)
    assert scene.limiter.report().state == "closed"


async def test_a_probe_that_cannot_connect_renews_the_rest_and_three_of_them_tell_why() -> None:
    scene = Scene()
    await scene.shut()

    for told in ("wrong_key", "wrong_key", "connect_failed"):
        scene.rest()
        with pytest.raises(Unavailable):
            async with scene.limiter.enter(Priority.REMINDER, uuid4(), user_digest(str(uuid4()))):
                raise Unavailable("connect_failed", Delivery.NOT_PROCESSED)

        assert (scene.limiter.report().state, scene.limiter.report().reason) == ("open", told)


@pytest.mark.parametrize(
    "odd",
    [
        Misconfigured("InvalidProviderToken"),
        TokenMisconfigured("THIRD_PARTY_AUTH_ERROR"),
        Throttled("RESOURCE_EXHAUSTED", ThrottleExtent.UNNAMED, retry_after=timedelta(hours=1)),
        AnsweredUnavailable("UNAVAILABLE", Delivery.NOT_PROCESSED, retry_after=timedelta(hours=1)),
    ],
    ids=lambda odd: odd.reason,
)
async def test_one_users_odd_refusal_as_the_probe_of_an_outage_is_not_what_operators_read(odd: ProviderTrouble) -> None:
    scene = Scene()
    await scene.shut(DOWN)
    scene.rest()
    before = scene.limiter.report()

    with own_logs() as logs:
        assert await scene.comes(uuid4(), "mallory", odd) == "called"

    told = scene.limiter.report()
    assert (told.cause, told.reason) == (before.cause, before.reason) == ("outage", "ServiceUnavailable")
    assert told.until is None or told.until <= datetime.now(UTC) + timedelta(seconds=4)
    assert logs == []
    scene.rest()
    assert await scene.comes(uuid4(), "honest", Accepted("id")) == "called"
    assert scene.limiter.report().state == "closed"


async def test_who_comes_while_a_newcomer_probes_waits_for_the_answer_and_is_let_in_with_it() -> None:
    scene = Scene()
    await scene.shut()
    scene.rest()
    answered = asyncio.Event()

    async with soon(5):
        probe = asyncio.create_task(scene.comes(uuid4(), "honest", Accepted("id"), after=answered))
        while not scene.limiter.report().in_flight:
            await asyncio.sleep(0)
        other = asyncio.create_task(scene.comes(uuid4(), "another", Accepted("id")))
        while not scene.limiter.report().waiting:
            await asyncio.sleep(0)
        answered.set()

        assert [await probe, await other] == ["called", "called"]
    assert scene.called == ["honest", "another"]


async def test_who_waits_for_a_probe_is_sent_away_when_it_fails() -> None:
    scene = Scene()
    await scene.shut()
    scene.rest()
    answered = asyncio.Event()

    async with soon(5):
        probe = asyncio.create_task(scene.comes(uuid4(), "honest", WRONG, after=answered))
        while not scene.limiter.report().in_flight:
            await asyncio.sleep(0)
        others = [asyncio.create_task(scene.comes(uuid4(), f"other-{number}")) for number in range(5)]
        while scene.limiter.report().waiting < 5:
            await asyncio.sleep(0)
        answered.set()

        assert [await probe, *await asyncio.gather(*others)] == ["called"] + ["paused"] * 5
    assert scene.called == ["honest"]
    assert (scene.limiter.report().waiting, scene.limiter.report().in_flight) == (0, 0)


@pytest.mark.parametrize(
    "undecided",
    [Unsendable("MalformedDeviceToken"), SuspectToken("BadDeviceToken"), TokenMisconfigured("THIRD_PARTY_AUTH_ERROR")],
    ids=lambda came_to: came_to.reason,
)
async def test_who_waits_for_a_probe_probes_at_once_where_it_decides_nothing(
    undecided: Answer | ProviderTrouble,
) -> None:
    scene = Scene()
    [(_, refused), *_] = await scene.shut()
    scene.rest()
    answered = asyncio.Event()

    async with soon(5):
        probe = asyncio.create_task(scene.comes(uuid4(), "mallory", undecided, after=answered))
        while not scene.limiter.report().in_flight:
            await asyncio.sleep(0)
        names = [refused, "other"]
        others = [asyncio.create_task(scene.comes(uuid4(), name, Accepted("id"))) for name in names]
        while scene.limiter.report().waiting < len(names):
            await asyncio.sleep(0)
        answered.set()

        assert [await probe, *await asyncio.gather(*others)] == ["called"] * 3
    assert scene.called[:2] == ["mallory", "other"]  # whoever was refused does not probe while another waits
    assert scene.limiter.report().state == "closed"


async def test_a_push_that_gives_up_at_the_moment_when_it_was_to_probe_leaves_the_probe_to_another() -> None:
    scene = Scene()
    await scene.shut()
    scene.rest()
    probe = scene.limiter.enter(Priority.REMINDER, uuid4(), user_digest("gone"))
    await probe.__aenter__()
    waits = [scene.limiter.enter(Priority.REMINDER, uuid4(), user_digest(name)) for name in ("cancelled", "next")]
    tasks = [asyncio.create_task(each.__aenter__()) for each in waits]
    while scene.limiter.report().waiting < len(waits):
        await asyncio.sleep(0)

    await probe.__aexit__(None, None, None)  # without a call; the first of them is admitted
    tasks[0].cancel()

    async with soon(5):
        assert await tasks[1] is waits[1]
    await waits[1].__aexit__(None, None, None)
    assert await scene.comes(uuid4(), "last", Accepted("id")) == "called"
    assert (scene.limiter.report().state, scene.limiter.report().in_flight) == ("closed", 0)
