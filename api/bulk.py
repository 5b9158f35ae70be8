"""Many at once: batches of fasting sessions and of device tokens, for services. Each item has a result of its own.

The bodies, rules and problems of an item are those of the single routes.
"""

import asyncio
import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal, TypeVar
from uuid import UUID

import structlog
from fastapi import APIRouter
from pydantic import BaseModel, Field, SkipValidation, ValidationError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from api.dependencies import AllowedApps, Dispatch, RowWrites, RunningBatches, ServiceCaller
from api.device_tokens import RegistrationIn, checked, sign_out, store
from api.fasting_sessions import ChangeIn, StartIn
from api.fields import Body, UserId
from api.http.batch_body import UNREAD_PASSES, BatchRoute, UnreadableItem, UnreadBody
from api.http.problem_types import responses
from api.http.problems import Detail, Problem, ServiceUnavailable, problem_of
from api.writes import PATIENCE, Writes
from db import device_token_imports
from db.device_token_imports import DeviceRequest
from db.device_tokens import Registration, locks_of
from db.engine import is_contended, is_of_erased, may_be_ones_fault
from db.outbox import OutboxEntry
from domain.fasts import SessionStatus
from domain.problems import DomainError, InvalidField
from operations import fasts
from operations.fasts import CarriedOut, Finish, Order
from settings.apps_file import AppIds

router = APIRouter(prefix="/v1", route_class=BatchRoute)
MOST_ITEMS = 500
_LONGEST_ECHO = 200  # characters of an id
_PAUSE = (0.05, 0.25)  # seconds, before what others held is tried again
_AT_ONCE = 4  # registrations that are made one by one
_TOGETHER = 125  # items in a transaction: each takes up to 3 of the locks that all of PostgreSQL shares
log = structlog.get_logger()
T = TypeVar("T", bound=BaseModel)
Refused = InvalidField | ValidationError


class StartItem(StartIn):
    """A fast to start for a user."""

    user_id: UserId
    session_id: UUID
    op: Literal["start"]


class MoveItem(ChangeIn):
    """A change of a user's fast: the goal, the reminders, or both."""

    user_id: UserId
    session_id: UUID
    op: Literal["move"]


class FinishItem(Body):
    """The end of a user's fast (`end`: completed, or broken when early), or its cancellation."""

    user_id: UserId
    session_id: UUID
    op: Literal["end", "cancel"]


class SessionBatch(Body):
    """Up to 500 items. Those of one fasting session are done in their order."""

    items: Annotated[
        list[Annotated[StartItem | MoveItem | FinishItem, SkipValidation]],  # each is checked by itself
        Field(min_length=1, max_length=MOST_ITEMS, description="What to do, each for one user's fast."),
        UNREAD_PASSES,
    ]


class SessionResult(BaseModel):
    """What came of one item."""

    session_id: str = Field(description="As it was sent, as text; empty if there was none.")
    status: int = Field(description="The status that the single route would answer with.")
    problem: Problem | None = Field(default=None, description="Why the item was refused.")


class SessionResults(BaseModel):
    """A result for each item, in the same order."""

    items: list[SessionResult] = Field(description="In the order of the items.")


class RegisterItem(RegistrationIn):
    """A device token to register for a user."""

    user_id: UserId
    installation_id: UUID
    op: Literal["register"] = "register"


class ImportItem(RegistrationIn):
    """A device token from another sender. It changes nothing that a phone has said since."""

    user_id: UserId
    installation_id: UUID
    op: Literal["import"]


class SignOutItem(Body):
    """An installation to sign out for a user."""

    user_id: UserId
    installation_id: UUID
    op: Literal["sign_out"]


DeviceItem = RegisterItem | ImportItem | SignOutItem


class TokenBatch(Body):
    """Up to 500 items. Those of one installation are done in their order."""

    items: Annotated[
        list[Annotated[RegisterItem | ImportItem | SignOutItem, SkipValidation]],
        Field(min_length=1, max_length=MOST_ITEMS, description="What to do, each for one user's installation."),
        UNREAD_PASSES,
    ]


class TokenResult(BaseModel):
    """What came of one item."""

    installation_id: str = Field(description="As it was sent, as text; empty if there was none.")
    status: int = Field(description="The status that the single route would answer with.")
    problem: Problem | None = Field(default=None, description="Why the item was refused.")


class TokenResults(BaseModel):
    """A result for each item, in the same order."""

    items: list[TokenResult] = Field(description="In the order of the items.")


@router.post(
    "/fasting-sessions/batch",
    tags=["fasting sessions"],
    responses=responses("not-allowed"),
    response_model_exclude_none=True,
)
async def change_fasting_sessions(
    body: SessionBatch, caller: ServiceCaller, writes: RowWrites, relay: Dispatch, running: RunningBatches
) -> SessionResults:
    """Start, move, end or cancel up to 500 fasts, each with a result of its own.

    An item that is refused fails alone, with the problem of the single route. Repeats are harmless.
    """
    items, done, orders = await _read(body.items), _Fasts(writes), {}
    for place, item in enumerate(items):
        parsed = _parsed(place, item, _SESSION_MODELS)
        if isinstance(parsed, Exception):
            done.answers[place] = parsed
        else:
            orders[place] = _order(parsed)
    async with running.turn(caller.user_id):
        await done.carry_out(orders)
    for entry in done.entries:
        relay.dispatch_soon(entry)
    return SessionResults(
        items=[
            SessionResult(session_id=_echo(item, "session_id"), **_result(done.answers[place]))
            for place, item in enumerate(items)
        ]
    )


@router.post(
    "/device-tokens/batch", tags=["device tokens"], responses=responses("not-allowed"), response_model_exclude_none=True
)
async def change_device_tokens(
    body: TokenBatch, caller: ServiceCaller, writes: RowWrites, apps: AllowedApps, running: RunningBatches
) -> TokenResults:
    """Register or import up to 500 device tokens, or sign installations out, each with a result of its own.

    `register` does what the single route does: a token of somebody else becomes the user's. `import` is for tokens
    that another sender knew. It changes nothing where the token or the installation has an active registration, or
    where the user had the token before, such as after a sign-out: what a phone said itself is newer. An item that is
    refused fails alone, with the problem of the single route. Repeats are harmless.
    """
    items = await _read(body.items)
    parsed = [_parsed(place, item, _TOKEN_MODELS, default="register") for place, item in enumerate(items)]
    async with running.turn(caller.user_id):
        answers = await _devices(parsed, writes, apps)
    return TokenResults(
        items=[
            TokenResult(installation_id=_echo(item, "installation_id"), **_result(answer))
            for item, answer in zip(items, answers, strict=True)
        ]
    )


_SESSION_MODELS: Mapping[str, type[StartItem | MoveItem | FinishItem]] = {
    "start": StartItem,
    "move": MoveItem,
    "end": FinishItem,
    "cancel": FinishItem,
}
_TOKEN_MODELS: Mapping[str, type[DeviceItem]] = {
    "register": RegisterItem,
    "import": ImportItem,
    "sign_out": SignOutItem,
}


async def _read(items: Sequence[object] | UnreadBody) -> Sequence[object]:
    """Give the items of a body, each as it is; raises InvalidField where it is not certain what they are."""
    return await items.items(MOST_ITEMS) if isinstance(items, UnreadBody) else items


def _parsed(place: int, item: object, models: Mapping[str, type[T]], default: str = "") -> T | Refused:
    """Check one item by the model that its `op` names."""
    if isinstance(item, UnreadableItem):
        return InvalidField(f"items[{place}]", item.detail)
    if not isinstance(item, dict):
        return InvalidField(f"items[{place}]", Detail.ITEM_NOT_AN_OBJECT)
    if "op" not in item and not default:
        return InvalidField("op", Detail.FIELD_REQUIRED)
    op = item.get("op", default)
    model = models.get(op) if isinstance(op, str) else None
    if model is None:
        return InvalidField("op", f"must be one of {', '.join(models)}")
    try:
        return model.model_validate(item)
    except ValidationError as error:
        if not error.errors(include_url=False)[0]["loc"]:  # of the item as a whole: a name that is no Unicode
            return InvalidField(f"items[{place}]", Detail.ITEM_NOT_UTF_8)
        return error


def _echo(item: object, name: str) -> str:
    """Give an item's id as it was sent, as text."""
    if isinstance(item, UnreadableItem):
        sent: object = item.text(name)
    else:
        sent = item.get(name, "") if isinstance(item, dict) else ""
    try:
        text = sent if isinstance(sent, str) else json.dumps(sent)
    except RecursionError:
        text = ""
    return text[:_LONGEST_ECHO].encode("utf-8", "replace").decode()  # JSON may hold halves of surrogate pairs


def _result(answer: CarriedOut | int | Exception) -> dict[str, Any]:
    match answer:
        case CarriedOut(is_new=is_new):
            return {"status": 201 if is_new else 200}
        case int():
            return {"status": answer}
        case Exception():
            problem = problem_of(answer)
            return {"status": problem.status, "problem": problem}


def _order(item: StartItem | MoveItem | FinishItem) -> Order:
    match item:
        case StartItem() | MoveItem():
            return Order(item.user_id, item.session_id, item.order())
        case FinishItem():
            wanted = SessionStatus.COMPLETED if item.op == "end" else SessionStatus.CANCELLED
            return Order(item.user_id, item.session_id, Finish(wanted))


class _Fasts:
    """Carries out the orders of one batch: what waits for nothing in few transactions, the rest a moment later."""

    def __init__(self, writes: Writes) -> None:
        self._writes = writes
        self.answers: dict[int, CarriedOut | Exception] = {}  # by the place of the item
        self.entries: list[OutboxEntry] = []

    async def carry_out(self, orders: Mapping[int, Order]) -> None:
        """Carry out all, or give up on those whose rows others hold for long."""
        loop = asyncio.get_running_loop()
        until, waiting = loop.time() + PATIENCE, dict(orders)
        while waiting:
            for part in _parts(waiting):
                await self._try(part)
            waiting = {place: order for place, order in waiting.items() if place not in self.answers}
            pause = random.uniform(*_PAUSE)  # noqa: S311 -- spreads requests
            if waiting and loop.time() + pause > until:
                self.answers |= dict.fromkeys(waiting, ServiceUnavailable(Detail.TOO_MANY_WRITES))
                return
            if waiting:
                await asyncio.sleep(pause)

    async def _try(self, orders: Mapping[int, Order]) -> None:
        """Carry out those whose rows are free, in one transaction; in parts where the database refuses one of them."""
        write = partial(fasts.carry_out_free, orders=orders, most=self._writes.quotas.active_fasts)
        try:
            answers, entries = await self._writes.at_once("batch", write)
        except ServiceUnavailable:  # no connection yet
            return
        except Exception as error:
            if isinstance(error, DBAPIError) and (is_contended(error) or is_of_erased(error)):
                return  # the next try sees who holds what, and who is being erased
            if not may_be_ones_fault(error):
                raise
            await self._try_in_parts(orders, error)
            return
        self.answers |= answers
        self.entries += entries

    async def _try_in_parts(self, orders: Mapping[int, Order], error: Exception) -> None:
        sessions = list({order.session_id: None for order in orders.values()})
        if len(sessions) == 1:
            log.error("an item of a batch failed", error=type(error).__name__)
            self.answers |= dict.fromkeys(orders, error)
            return
        half = set(sessions[: len(sessions) // 2])
        for is_first in (True, False):
            await self._try({place: order for place, order in orders.items() if (order.session_id in half) == is_first})


def _parts(orders: Mapping[int, Order]) -> Iterator[dict[int, Order]]:
    """Part orders into what one transaction carries out; those about one fast stay together."""
    by_session: dict[UUID, dict[int, Order]] = defaultdict(dict)
    for place, order in orders.items():
        by_session[order.session_id][place] = order
    part: dict[int, Order] = {}
    for of_one in by_session.values():
        if part and len(part) + len(of_one) > _TOGETHER:
            yield part
            part = {}
        part |= of_one
    yield part


async def _devices(parsed: Sequence[DeviceItem | Refused], writes: Writes, apps: AppIds) -> list[int | Exception]:
    """Register and sign out: what concerns no other row together, all others one by one."""
    answers: dict[int, int | Exception] = {}
    requests: dict[int, DeviceRequest] = {}
    for place, item in enumerate(parsed):
        match item:
            case RegisterItem() | ImportItem():
                try:
                    registration = await checked(item, apps)
                except InvalidField as error:
                    answers[place] = error
                else:
                    requests[place] = DeviceRequest(
                        item.user_id, item.installation_id, registration, item.op == "import"
                    )
            case SignOutItem():
                requests[place] = DeviceRequest(item.user_id, item.installation_id, None)
            case _:
                answers[place] = item
    for place in await _registered_together(requests, writes):
        answers[place] = 200
    turns = asyncio.Semaphore(_AT_ONCE)

    async def one_by_one(places: Sequence[int]) -> None:
        async with turns:
            for place in places:
                answers[place] = await _one(requests[place], writes)

    left = {place: each for place, each in requests.items() if place not in answers}
    await asyncio.gather(*(one_by_one(places) for places in _in_order(left)))  # raises the error itself, not a group
    return [answers[place] for place in range(len(parsed))]


async def _registered_together(requests: Mapping[int, DeviceRequest], writes: Writes) -> list[int]:
    """Register what concerns no other row in few transactions; gives the places of those items."""
    installations = Counter(each.installation_id for each in requests.values())
    tokens = Counter(each.address for each in requests.values())
    alone = [
        place
        for place, each in requests.items()
        if each.registration and installations[each.installation_id] == tokens[each.address] == 1
    ]
    done: list[int] = []
    for start in range(0, len(alone), _TOGETHER):
        part = [requests[place] for place in alone[start : start + _TOGETHER]]
        stored = await _stored(part, writes)
        done += [place for place in alone[start : start + _TOGETHER] if requests[place].installation_id in stored]
    return done


async def _stored(part: Sequence[DeviceRequest], writes: Writes) -> set[UUID]:
    write = partial(device_token_imports.register_all, requests=part, most=writes.quotas.installations)
    try:
        return await writes.at_once("batch", write)
    except Exception as error:  # one of them, or a lock: then each is made by itself
        if not may_be_ones_fault(error) and not isinstance(error, ServiceUnavailable):
            raise
        return set()


def _in_order(requests: Mapping[int, DeviceRequest]) -> list[list[int]]:
    """Part items into lists that may go beside each other: by user, unless one phone or token has several users."""
    users: dict[object, set[str]] = defaultdict(set)
    for each in requests.values():
        users[each.installation_id].add(each.user_id)
        if each.registration is not None:
            users[each.address].add(each.user_id)
    if any(len(of_one) > 1 for of_one in users.values()):
        return [list(requests)]
    lists: dict[str, list[int]] = defaultdict(list)
    for place, each in requests.items():
        lists[each.user_id].append(place)
    return list(lists.values())


async def _one(request: DeviceRequest, writes: Writes) -> int | Exception:
    try:
        if request.registration is None:
            await sign_out(request.user_id, request.installation_id, writes)
            return 204
        await writes.run(
            partial(_register, request=request, new=request.registration, most=writes.quotas.installations),
            *locks_of(request.user_id, request.installation_id, request.registration),
        )
    except (DomainError, ServiceUnavailable) as error:
        return error
    except Exception as error:
        if not may_be_ones_fault(error):
            raise
        log.error("an item of a batch failed", error=type(error).__name__)  # noqa: TRY400 -- its text may name a person
        return error
    return 200


async def _register(db: AsyncSession, request: DeviceRequest, new: Registration, most: int | None) -> None:
    if not (request.is_import and await device_token_imports.is_settled(db, request)):
        await store(db, request.user_id, request.installation_id, new, most=most)
