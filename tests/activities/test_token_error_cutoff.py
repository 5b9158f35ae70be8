"""The brake's watch over a route: whom it convicts, whom it believes, and that it always lets go. Time is passed in."""

from datetime import UTC, datetime
from uuid import uuid4

from db.engine import make_engine, make_sessions
from domain.push import Environment, Provider, Push, Route
from fleet.token_error_cutoff import TokenErrorCutoff
from push.limiter.registry import RouteLimiters
from push.limiter.settings import Limits
from push.sender import Accepted, Answer, SuspectToken
from sending.precheck import Proceed
from tests.push.conftest import make_push

ROUTE = Route(Provider.APNS, None, Environment.PRODUCTION)
NOWHERE = "postgresql://nobody@127.0.0.1:1/none"


class Scene:
    """One brake without a database, its gates, and a clock that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0
        self.limiters = RouteLimiters({Provider.APNS: Limits(10)})
        self.limiters.share(1.0)
        self.cutoff = TokenErrorCutoff(make_sessions(make_engine(NOWHERE)), self.limiters, clock=lambda: self.now)

    async def answered(self, answer: Answer, *, sender: object = "sender", user_id: str | None = None) -> int:
        """Let one more device get an answer, of one more user; gives how many tokens are to be deactivated."""
        push: Push = make_push("ab" * 32)
        instant = datetime.now(UTC)
        go = Proceed(push, ROUTE, uuid4(), 1, instant, instant, user_id or f"user-{uuid4()}")
        return len(await self.cutoff.note(go, sender, answer))  # type: ignore[arg-type]


async def test_one_acceptance_among_many_suspects_convicts_none() -> None:
    scene = Scene()
    for _ in range(19):
        await scene.answered(SuspectToken("BadDeviceToken"))
    scene.now = 60.0

    convicted = [await scene.answered(Accepted("id")) for _ in range(20)]

    assert convicted == [0] * 19 + [19]


async def test_suspects_of_before_the_window_count_as_well() -> None:
    scene = Scene()
    for _ in range(10):
        await scene.answered(SuspectToken("BadDeviceToken"))
    scene.now = 3600.0

    convicted = [await scene.answered(Accepted("id")) for _ in range(11)]

    assert convicted == [0] * 10 + [10]


async def test_late_answers_to_credentials_that_were_replaced_change_nothing() -> None:
    scene = Scene()
    scene.limiters.serving(ROUTE, "old")
    scene.limiters.serving(ROUTE, "new")
    await scene.answered(SuspectToken("BadDeviceToken"), sender="new")
    scene.now = 60.0

    assert await scene.answered(SuspectToken("BadDeviceToken"), sender="old") == 0
    assert [await scene.answered(Accepted("id"), sender="new") for _ in range(2)] == [0, 1]


async def test_a_gate_that_was_braked_is_released_though_the_database_failed_in_between() -> None:
    scene = Scene()

    await scene.cutoff.learn({ROUTE}, changes=0)
    assert scene.limiters.at(ROUTE).report().state == "braked"
    await scene.cutoff.learn((), changes=0)

    assert scene.limiters.at(ROUTE).report().state == "closed"


async def test_the_suspects_of_one_user_are_one_voice_against_their_conviction() -> None:
    scene = Scene()
    for _ in range(19):
        await scene.answered(SuspectToken("BadDeviceToken"), user_id="mallory")
    scene.now = 60.0

    convicted = [await scene.answered(Accepted("id")) for _ in range(2)]

    assert convicted == [0, 19]


async def test_a_thousand_tokens_of_one_user_engage_nothing() -> None:
    scene = Scene()

    for _ in range(1000):
        await scene.answered(SuspectToken("BadDeviceToken"), user_id="mallory")

    assert scene.limiters.at(ROUTE).report().state == "closed"
