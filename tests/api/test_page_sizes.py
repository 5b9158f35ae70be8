"""No answer grows without bound with other people's data: pages are bounded in items and in bytes."""

from datetime import UTC, datetime
from uuid import UUID, uuid4

from sqlalchemy import text

from api.dependencies import LARGEST_PAGE, cut, next_cursor
from api.open_streams import PAGE
from db import log
from tests.stack import Stack, User
from tests.streaming import streaming
from tests.talk import conversation_of, sync

LARGE = "x" * 16_000  # bytes; so many of them as an answer may hold: 66
MESSAGES = 150
STORED = """
    WITH new AS (
        INSERT INTO messages (id, kind, conversation_id, number, sender_id, body)
        SELECT gen_random_uuid(), 'message', :room, n, :user, :body FROM generate_series(1, :count) AS n
        RETURNING id, number
    ), head AS (
        INSERT INTO log_heads (user_id, seq) VALUES (:user, :count)
    )
    INSERT INTO log_items (user_id, seq, message_id) SELECT :user, number, id FROM new
"""


async def test_a_list_of_conversations_has_the_first_20_members_of_each_and_their_number(
    alice: User, api: Stack
) -> None:
    others = [api.user(f"zoe-{uuid4()}") for _ in range(24)]
    crowded, small = await conversation_of(alice, *others), await conversation_of(alice)
    everybody = sorted(user.user_id for user in (alice, *others))

    listed = (await alice.call("GET", "/v1/conversations")).json()["items"]
    read = (await alice.call("GET", f"/v1/conversations/{crowded}")).json()

    assert [(each["id"], each["member_ids"], each["member_count"]) for each in listed] == [
        (str(small), [alice.user_id], 1),
        (str(crowded), everybody[:20], 25),
    ]
    assert (read["member_ids"], read["member_count"]) == (everybody, 25)


async def test_a_page_of_sync_and_one_of_a_conversation_hold_a_mebibyte_and_lose_nothing(
    alice: User, api: Stack
) -> None:
    room, phone = await conversation_of(alice), uuid4()
    await _store(api, alice, room)

    synced: list[int] = []
    has_more = True
    while has_more:
        page = await sync(alice, phone, after=synced[-1] if synced else 0, limit=500)
        assert sum(len(item["body"]) for item in page["items"]) <= LARGEST_PAGE
        synced += [item["seq"] for item in page["items"]]
        has_more = page["has_more"]
    listed: list[int] = []
    more: str | None = ""
    while more is not None:
        answer = await alice.call("GET", f"/v1/conversations/{room}/messages?limit=200{more and f'&cursor={more}'}")
        assert len(answer.content) < LARGEST_PAGE * 1.1
        listed += [item["number"] for item in answer.json()["items"]]
        more = answer.json()["next_cursor"]

    assert synced == list(range(1, MESSAGES + 1))
    assert listed == list(range(MESSAGES, 0, -1))


async def test_a_stream_that_catches_up_reads_a_few_large_items_at_a_time_and_all_of_them(
    alice: User, api: Stack
) -> None:
    await _store(api, alice, await conversation_of(alice))

    async with api.sessions() as db:
        [page, other] = await log.pages_after(db, [(alice.user_id, 0), (alice.user_id, 149)], PAGE)
    async with streaming(alice, uuid4()) as events:
        seen = [item["seq"] for item in await events.take(MESSAGES)]

    assert ([item.seq for item in page.items], page.has_more) == ([1, 2], True)
    assert ([item.seq for item in other.items], other.has_more) == ([150], False)
    assert seen == list(range(1, MESSAGES + 1))


def test_a_page_is_cut_by_items_and_by_bytes_and_has_one_item_at_least() -> None:
    half = "x" * (LARGEST_PAGE // 2 - 2)
    at, ids = datetime.now(UTC), {word: uuid4() for word in ("b", half, half * 3)}

    def of(words: list[str], limit: int) -> tuple[list[str], str | None]:
        return cut(words, limit, lambda word: (at, ids[word]))

    assert of(["a", "b", "c"], 2) == (["a", "b"], next_cursor(at, ids["b"]))
    assert of(["a", "b"], 2) == (["a", "b"], None)
    assert of([half, half, "c"], 50) == ([half, half], next_cursor(at, ids[half]))
    assert of([half * 3, "b"], 50) == ([half * 3], next_cursor(at, ids[half * 3]))
    assert of([half * 3], 50) == ([half * 3], None)
    assert of([], 50) == ([], None)


async def _store(stack: Stack, user: User, room: UUID) -> None:
    async with stack.sessions.begin() as db:
        values = {"room": room, "user": user.user_id, "body": LARGE, "count": MESSAGES}
        await db.execute(text(STORED), values)
