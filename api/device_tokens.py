"""Device tokens: register, list, sign out; a phone that was offline at the sign-out sends it late, with a ticket."""

import base64
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field
from sqlalchemy.ext.asyncio import AsyncSession

from api.dependencies import AllowedApps, AllServices, Database, Paged, RowWrites, UserCaller, cut
from api.fields import Body, Ticket
from api.http.problem_types import anonymous_responses, responses
from api.http.problems import Detail
from api.http.rates import address
from api.writes import Writes
from db import device_tokens
from db.device_tokens import Registration
from db.models.people import DeviceToken
from db.views import devices as device_history
from db.views.devices import ShownToken
from domain import devices as registration
from domain import locales
from domain.devices import Permission
from domain.problems import InvalidField
from domain.push import APP_ID, LONGEST_APP_ID, Environment, Provider
from operations import redrive as redrives
from push.payload_limit import is_usable
from settings.apps_file import AppIds

router = APIRouter(tags=["device tokens"])
user_router = APIRouter(prefix="/device-tokens", tags=["device tokens"])
LARGEST_SEQUENCE = 2**53 - 1  # which every client's numbers hold


def _public_key(value: str) -> str:
    try:
        key = base64.b64decode(value, validate=True)
    except ValueError:
        key = b""
    if not is_usable(key):
        raise ValueError("must be an X25519 public key: 32 bytes in base64, not of low order")
    return value


class RegistrationIn(Body):
    """What an app sends after each sign-in and whenever its token changes."""

    provider: Provider
    token: Annotated[str, Field(min_length=1, max_length=registration.LONGEST_TOKEN)]
    environment: Environment = Environment.PRODUCTION
    app_id: Annotated[str | None, Field(max_length=LONGEST_APP_ID, pattern=APP_ID)] = None
    locale: Annotated[
        str | None,
        BeforeValidator(locales.locale),
        Field(description="Locale of the app. A value that is not a locale is stored as null.", examples=["de-AT"]),
    ] = None
    time_zone: Annotated[
        str | None,
        BeforeValidator(registration.time_zone),
        Field(
            description="An IANA name, or an offset of whole hours such as GMT+02:00. Anything else is stored as null.",
            examples=["Europe/Berlin"],
        ),
    ] = None
    app_version: Annotated[
        str | None,
        BeforeValidator(registration.version),
        Field(description="Shown to support. Unprintable characters are left out."),
    ] = None
    os_version: Annotated[
        str | None,
        BeforeValidator(registration.version),
        Field(description="Version of the phone's system, shown to support. Unprintable characters are left out."),
    ] = None
    permission: Annotated[
        Permission | None,
        BeforeValidator(registration.permission),
        Field(description="Whether the system lets the app show notifications. Shown to support; never stops a push."),
    ] = None
    sign_out_digest: Annotated[
        str | None,
        Field(
            pattern=r"^[0-9A-Fa-f]{64}$",
            description="SHA-256 (hexadecimal) of the UTF-8 bytes of the ticket that can end this registration without "
            "a bearer token (`POST /v1/sign-outs`).",
        ),
    ] = None
    sequence: Annotated[
        int | None,
        Field(
            strict=True,
            ge=0,
            le=LARGEST_SEQUENCE,
            description="A number that grows with each registration that the app sends with the same "
            "`sign_out_digest`. One that arrives after a higher one changes nothing.",
        ),
    ] = None
    former_ticket: Annotated[
        Ticket | None,
        Field(description="Ticket of the user who was signed in here before, if their sign-out was not sent yet."),
    ] = None
    public_key: Annotated[
        Annotated[str, AfterValidator(_public_key)] | None,
        Field(description="X25519, 32 bytes in base64, for apps whose texts are encrypted (docs/encryption.md)."),
    ] = None

    def checked(self) -> Registration:
        """Check the token and its environment by the provider's rules, and fields that belong together.

        Raises InvalidField.
        """
        token = registration.token(self.provider, self.token)
        if self.provider is Provider.FCM and self.environment is not Environment.PRODUCTION:
            raise InvalidField("environment", Detail.FCM_ENVIRONMENT)
        if self.sequence is not None and self.sign_out_digest is None:
            raise InvalidField("sequence", Detail.SEQUENCE_NEEDS_DIGEST)
        as_bytes = {
            "sign_out_digest": None if self.sign_out_digest is None else bytes.fromhex(self.sign_out_digest),
            "public_key": None if self.public_key is None else base64.b64decode(self.public_key),
        }
        return Registration(**self.model_dump(include=set(RegistrationIn.model_fields)) | as_bytes | {"token": token})


class DeviceTokenList(BaseModel):
    """A page of device tokens, the last seen first."""

    items: list[ShownToken]
    next_cursor: str | None


@user_router.put(
    "/{installation_id}",
    responses=responses("installation-taken", "ticket-spent", "registration-outdated", "being-erased"),
)
async def register_device_token(
    installation_id: UUID, body: RegistrationIn, caller: UserCaller, writes: RowWrites, apps: AllowedApps
) -> ShownToken:
    """Make this the active token of the caller's installation, and of no other. Missed pushes are then sent.

    If the caller has too many installations, the one that was not seen for longest is signed out. An installation
    that registered with a `sign_out_digest` moves to another user only with the same token or with the former user's
    ticket, else 409 `installation-taken`. A `sign_out_digest` whose ticket was used within the last hour gets 409
    `ticket-spent`: either this request was sent before that sign-out, or the app must make a new ticket. A lower
    `sequence` than one that was stored with the same digest gets 409 `registration-outdated` and changes nothing.
    """
    row = await register(caller.user_id, installation_id, await checked(body, apps), writes)
    return device_history.shown(row, {installation_id})


async def checked(body: RegistrationIn, apps: AppIds) -> Registration:
    """Check a registration, and that its app is known; raises InvalidField."""
    registered = body.checked()
    if not await apps.allow(registered.app_id):
        raise InvalidField("app_id", Detail.UNKNOWN_APP)
    return registered


async def register(user_id: str, installation_id: UUID, new: Registration, writes: Writes) -> DeviceToken:
    """Register an installation of a user; raises DomainError, ServiceUnavailable."""

    async def write(db: AsyncSession) -> DeviceToken:
        return await store(db, user_id, installation_id, new, most=writes.quotas.installations)

    return await writes.run(write, *device_tokens.locks_of(user_id, installation_id, new))


async def store(
    db: AsyncSession, user_id: str, installation_id: UUID, new: Registration, *, most: int | None
) -> DeviceToken:
    """Store a registration, and let the pushes go that the phone has missed; raises Conflict."""
    row = await device_tokens.register(db, user_id, installation_id, new, most=most)
    await redrives.revive(db, row)
    return row


@user_router.get("", responses=responses())
async def list_device_tokens(caller: UserCaller, sessions: Database, page: Paged) -> DeviceTokenList:
    """List the caller's device tokens."""
    async with sessions() as db:
        rows = await device_tokens.owned_by(db, caller.user_id, page.after, page.limit + 1)
        in_use = (await device_tokens.active_at(db, {row.installation_id for row in rows})).keys()
    found = [device_history.shown(row, in_use) for row in rows]
    items, following = cut(found, page.limit, lambda each: (each.last_seen_at, each.id))
    return DeviceTokenList(items=items, next_cursor=following)


@user_router.delete("/{installation_id}", status_code=204, responses=responses())
async def sign_out_installation(installation_id: UUID, caller: UserCaller, writes: RowWrites) -> Response:
    """Sign this installation out. If another user has since registered the token, their registration is kept.

    This uses up the ticket of the registration, as `POST /v1/sign-outs` does.
    """
    await sign_out(caller.user_id, installation_id, writes)
    return Response(status_code=204)


async def sign_out(user_id: str, installation_id: UUID, writes: Writes) -> None:
    """Sign an installation of a user out; raises DomainError, ServiceUnavailable."""

    async def leave(db: AsyncSession) -> None:
        await device_tokens.sign_out(db, user_id, installation_id)

    await writes.run(leave, f"installation/{installation_id}")


class SignOutIn(Body):
    """A sign-out by the ticket whose digest was registered."""

    installation_id: UUID
    ticket: Annotated[Ticket, Field(description="The text whose SHA-256 was sent as `sign_out_digest`.")]


def _limit_by_address(request: Request, services: AllServices) -> None:
    services.sign_outs.spend(address(request))


@router.post(
    "/v1/sign-outs", status_code=204, dependencies=[Depends(_limit_by_address)], responses=anonymous_responses()
)
async def sign_out_by_ticket(body: SignOutIn, writes: RowWrites) -> Response:
    """Sign an installation out with its ticket. The answer is the same whether or not there was anything to sign out.

    A ticket ends the registration that it was sent with and no later one, so it may come late, twice, or after another
    user signed in. A registration with this ticket that arrives afterwards is refused. No bearer token is needed;
    requests are limited by address.
    """

    async def leave(db: AsyncSession) -> None:
        await device_tokens.sign_out_by_ticket(db, body.installation_id, body.ticket)

    await writes.run(leave, f"installation/{body.installation_id}")
    return Response(status_code=204)
