"""Decrypts payloads for Temporal's Web UI, in the form of its codec servers: see `dispatch.payload_encryption`.

The Web UI calls from its own origin, with the cookie of the console's session, so only who is signed in here can read.
"""

from urllib.parse import urlsplit

from fastapi import APIRouter, Request, Response
from google.protobuf.json_format import MessageToJson, Parse, ParseError
from temporalio.api.common.v1 import Payloads

from api.console.session import Console, ConsoleServices, signed_in
from api.dependencies import Database
from api.http.browsers import FormRefused
from dispatch.payload_encryption import UnreadablePayload

router = APIRouter()


@router.options("/payloads/decode", status_code=204)
async def ask_first(request: Request, console: Console) -> Response:
    """Tell the browser that the Web UI, and nobody else, may call from another origin."""
    return Response(status_code=204, headers=_cors(request, console))


@router.post("/payloads/decode")
async def decode(request: Request, console: Console, sessions: Database) -> Response:
    """Decrypt payloads: `{"payloads": [{"metadata": {…}, "data": base64}]}` in and out."""
    headers = _cors(request, console)
    if await signed_in(request, sessions) is None:
        return Response("Sign in to the console of Fastbell first.", 401, headers)
    codec = console.temporal.data_converter.payload_codec
    try:
        payloads = Parse(await request.body(), Payloads()).payloads
    except (ParseError, ValueError, RecursionError):  # ValueError: no UTF-8; RecursionError: nested without end
        return Response("The body is not a JSON object of payloads.", 400, headers)
    try:
        decoded = payloads if codec is None else await codec.decode(payloads)
    except UnreadablePayload as error:
        return Response(str(error), 400, headers)
    return Response(MessageToJson(Payloads(payloads=decoded)), headers=headers, media_type="application/json")


def _cors(request: Request, console: ConsoleServices) -> dict[str, str]:
    """Give the headers for the Web UI's origin; raises FormRefused for any other."""
    ui = urlsplit(console.temporal_ui_url or "")
    origin = f"{ui.scheme}://{ui.netloc}"
    if request.headers.get("origin") != origin:
        raise FormRefused("Only Temporal's Web UI at TEMPORAL_UI_URL may ask for this.")
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Credentials": "true",
        "Access-Control-Allow-Headers": "authorization, content-type, x-namespace",
        "Access-Control-Allow-Methods": "POST",
        "Vary": "Origin",
    }
