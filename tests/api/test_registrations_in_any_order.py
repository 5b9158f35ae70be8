"""Whatever way its requests take, a phone ends up with the person and the token that it registered last."""

import random
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from uuid import UUID, uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from db import device_tokens
from db.device_tokens import Registration
from db.engine import Sessions
from domain.naming import digest
from domain.problems import Conflict
from domain.push import Environment, Provider
from tests.stack import Stack

Request = Callable[[AsyncSession], Awaitable[object]]


@dataclass
class Phone:
    """A phone that does what docs/phones.md says; its requests may be lost, and come late or twice."""

    chance: random.Random
    sessions: Sessions
    name: str = field(default_factory=lambda: str(uuid4()))  # in all that it makes, for the database is everybody's
    installation_id: UUID = field(default_factory=uuid4)
    person: str | None = None
    ticket: str = ""
    sequence: int = 0
    rotations: int = 0
    owed: list[tuple[UUID, str]] = field(default_factory=list)
    sent: list[Request] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=count)

    @property
    def people(self) -> list[str]:
        return [f"alice-{self.name}", f"bob-{self.name}"]

    @property
    def token(self) -> str:
        return f"{self.name}-{self.rotations}"

    async def sign_out(self) -> None:
        if self.person is not None and self.sequence:
            self.owed.append((self.installation_id, self.ticket))
        self.person = None

    async def sign_in(self) -> None:
        await self.sign_out()
        self.person = self.chance.choice(self.people)
        self.renew_ticket()

    def renew_ticket(self) -> None:
        self.ticket, self.sequence = f"{self.name}-{next(self.numbers)}", 0

    async def rotate(self) -> None:
        self.rotations += 1

    async def register(self) -> bool:
        """Register; false if the phone hears no answer, or has to register again."""
        if self.person is None:
            return True
        self.sequence += 1
        person, installation_id = self.person, self.installation_id
        former = next((ticket for at, ticket in reversed(self.owed) if at == installation_id), None)
        new = Registration(
            Provider.FCM,
            self.token,
            Environment.PRODUCTION,
            sign_out_digest=digest(self.ticket),
            sequence=self.sequence,
            former_ticket=former,
        )
        try:
            return await self.request(lambda db: device_tokens.register(db, person, installation_id, new))
        except Conflict as refused:
            self.owed.append((installation_id, self.ticket))
            self.renew_ticket()
            if refused.code == "installation-taken":
                self.installation_id = uuid4()
            return False

    async def pay(self) -> None:
        for at, ticket in list(self.owed):
            if await self.request(partial(device_tokens.sign_out_by_ticket, installation_id=at, ticket=ticket)):
                self.owed.remove((at, ticket))

    async def backend_signs_out(self) -> None:
        for person in self.people:
            async with self.sessions.begin() as db:
                await device_tokens.sign_out(db, person, self.installation_id)

    async def others_try(self) -> None:
        """Another person knows the installation, but neither its token nor a ticket."""
        stranger = f"mallory-{self.name}"
        new = Registration(
            Provider.FCM,
            f"{stranger}-{next(self.numbers)}",
            Environment.PRODUCTION,
            sign_out_digest=digest(stranger),
            sequence=2**53 - 1,
            former_ticket=f"guessed-{self.name}",
        )
        await self.deliver(lambda db: device_tokens.register(db, stranger, self.installation_id, new))
        async with self.sessions.begin() as db:
            await device_tokens.sign_out(db, stranger, self.installation_id)

    async def late_ones_come(self) -> None:
        for request in self.chance.sample(self.sent, k=min(3, len(self.sent))):
            await self.deliver(request)

    async def request(self, request: Request) -> bool:
        """Send it; false if no answer is heard, whether or not it arrived. Raises Conflict if that is the answer."""
        self.sent.append(request)
        fate = self.chance.random()
        if fate < 0.3:
            return False
        refused = await self.deliver(request)
        if fate < 0.5:
            return False
        if refused:
            raise refused
        return True

    async def deliver(self, request: Request) -> Conflict | None:
        try:
            async with self.sessions.begin() as db:
                await request(db)
        except Conflict as refused:
            return refused
        return None

    async def owners(self) -> list[tuple[str, str]]:
        async with self.sessions() as db:
            rows = [row for user in self.people for row in await device_tokens.active_for_user(db, user)]
            return [(row.user_id, row.token) for row in rows]


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_at_rest_the_last_registration_counts_and_nothing_that_comes_later(stack: Stack, seed: int) -> None:
    chance = random.Random(seed)
    phone = Phone(chance, stack.sessions)
    acts = [phone.sign_in, phone.sign_out, phone.rotate, phone.pay, phone.backend_signs_out, phone.others_try]
    for _ in range(14):
        await chance.choice([*acts, phone.register, phone.register, phone.register, phone.late_ones_come])()

    while not await phone.register():
        pass
    while phone.owed:
        await phone.pay()
    await phone.rotate()
    while not await phone.register():
        pass
    wanted = [] if phone.person is None else [(phone.person, phone.token)]
    assert await phone.owners() == wanted
    while phone.owed:
        await phone.pay()
    for request in chance.sample(phone.sent, k=len(phone.sent)):
        await phone.deliver(request)
        assert await phone.owners() == wanted
    await phone.sign_out()
    while phone.owed:
        await phone.pay()
    assert await phone.owners() == []
