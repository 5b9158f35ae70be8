"""Late sign-outs: a phone that was offline at the sign-out sends it later, without a bearer token."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response
from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncSession

from api.dependencies import AllServices, RowWrites
from api.fields import Body, Ticket
from api.http.problem_types import anonymous_responses
from api.http.rates import address
from db import device_tokens

router = APIRouter(prefix="/v1/sign-outs", tags=["device tokens"])


class SignOutIn(Body):
    """A sign-out by the ticket whose digest was registered."""

    installation_id: UUID
    ticket: Annotated[Ticket, Field(description="The text whose SHA-256 was sent as `sign_out_digest`.")]


def _limit_by_address(request: Request, services: AllServices) -> None:
    services.sign_outs.spend(address(request))


@router.post("", status_code=204, dependencies=[Depends(_limit_by_address)], responses=anonymous_responses())
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
