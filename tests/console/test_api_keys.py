"""The page of API keys: what each may do, when it was used, and its end."""

from datetime import timedelta
from uuid import UUID, uuid4

from db import api_keys
from db.support_actions import Actor
from tests.console.visits import Visit, words
from tests.stack import Stack, eventually

HTML = "<b>&\"'</b>"


async def make(stack: Stack, name: str, lasts: timedelta | None = None) -> tuple[str, UUID]:
    """Make a key; gives its text and its id."""
    async with stack.sessions.begin() as db:
        key = await api_keys.create(db, name, ["service"], lasts=lasts, actor=Actor("maria"))
        [made] = [each for each in await api_keys.all_keys(db) if each.name == name]
    return key, made.key_id


async def test_keys_are_listed_without_their_texts(stack: Stack, carol: Visit) -> None:
    name = f"{HTML} {uuid4()}"
    key, key_id = await make(stack, name, timedelta(days=30))

    page = await carol.get("/console/api-keys")

    assert f"{name} active never" in words(page)
    assert "service in 30" in words(page)
    assert HTML not in page.text
    assert key not in page.text
    assert str(key_id) in page.text


async def test_a_key_is_revoked_by_its_button_and_it_is_noted_by_whom(stack: Stack, carol: Visit) -> None:
    key, key_id = await make(stack, str(uuid4()))
    headers = {"Authorization": f"Bearer {key}"}
    path = f"/v1/users/{uuid4()}/fasting-sessions"
    assert (await stack.http.get(path, headers=headers)).status_code == 200

    answers = [await carol.post(f"/console/api-keys/{key_id}/revoke") for _ in range(2)]

    where = f"/console/api-keys?revoked={key_id}"
    assert [(each.status_code, each.headers["location"]) for each in answers] == [(303, where)] * 2
    assert "is revoked. Within five seconds no API process takes it." in words(await carol.get(where))

    async def is_refused() -> bool:
        return (await stack.http.get(path, headers=headers)).status_code == 401

    await eventually(is_refused)
    [action] = await stack.rows(
        "SELECT * FROM support_actions WHERE subject_id = :id AND actor = :actor", id=key_id, actor=carol.user_id
    )
    assert action.action == "revoke_api_key"
    assert (await carol.post(f"/console/api-keys/{uuid4()}/revoke")).status_code == 404
