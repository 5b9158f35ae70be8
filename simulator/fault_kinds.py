"""The kinds of scripted faults, as `POST /faults` takes them."""

from typing import Annotated, Literal, Self

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, TypeAdapter, model_validator
from pydantic_core import PydanticCustomError

from simulator.http.exchange import SimulatedEnvironment, SimulatedProvider

Status = Annotated[int, Field(ge=200, le=599)]
Seconds = Annotated[float, Field(ge=0, le=86_400)]


def _wrong(field: str, message: str) -> PydanticCustomError:
    return PydanticCustomError("fault", "{message}", {"field": field, "message": message})


class Scope(BaseModel):
    """The requests that a fault hits. By default: every request to the provider, from now on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    provider: SimulatedProvider
    environment: SimulatedEnvironment | None = None
    app: str | None = Field(default=None, min_length=1)  # an APNs topic, or an FCM project
    token: str | None = Field(default=None, min_length=1)
    share: float = Field(default=1.0, gt=0, le=1)  # of the requests it applies to, by `seed`
    seed: int = 0
    skip: int = Field(default=0, ge=0)  # let this many pass first
    count: int | None = Field(default=None, ge=1)  # over after this many
    after_seconds: Seconds = 0.0  # the time window's start, from now
    for_seconds: Seconds | None = None  # its length


class Error(Scope):
    """An error answer. APNs: `reason`, `timestamp` (ms). FCM: `errorCode`; without it the error is bare."""

    status: Status | None = None  # FCM: by default the one that belongs to errorCode
    reason: str | None = None
    timestamp: int | None = None
    error_code: str | None = Field(default=None, validation_alias=AliasChoices("errorCode", "error_code"))
    message: str | None = None
    field: str | None = None  # FCM: a BadRequest detail naming this field
    quota: Literal["device", "project"] | None = None  # FCM: a QuotaFailure detail
    retry_after: Annotated[int, Field(ge=0, le=86_400)] | None = None
    retry_after_form: Literal["seconds", "http_date"] = "seconds"

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.provider is SimulatedProvider.APNS and (self.status is None or self.reason is None):
            raise _wrong("status" if self.status is None else "reason", "an APNs error needs status and reason")
        if self.provider is SimulatedProvider.FCM and self.status is None and self.error_code is None:
            raise _wrong("errorCode", "an FCM error needs status or errorCode")
        return self


class AnswerFault(Error):
    """Answered with this error; never processed."""

    fault: Literal["answer"]


class SplitBody(Error):
    """The error's JSON in several DATA frames, some of them empty; never processed."""

    fault: Literal["split_body"]


class AcceptThenFail(Error):
    """The phone gets the push, the sender gets an error."""

    fault: Literal["accept_then_fail"]

    @model_validator(mode="before")
    @classmethod
    def _unavailable_by_default(cls, values: object) -> object:
        if isinstance(values, dict) and not values.keys() & {"status", "errorCode", "error_code"}:
            fcm = values.get("provider") == SimulatedProvider.FCM
            return {**values, **({"errorCode": "UNAVAILABLE"} if fcm else _SERVICE_UNAVAILABLE)}
        return values


_SERVICE_UNAVAILABLE = {"status": 503, "reason": "ServiceUnavailable"}


class Slow(Scope):
    """Processed at once, answered later."""

    fault: Literal["slow"]
    delay: Seconds


class Silent(Scope):
    """Never answered."""

    fault: Literal["silent"]
    processed: bool = True


class Reset(Scope):
    """RST_STREAM."""

    fault: Literal["reset"]
    code: Annotated[int, Field(ge=0, le=2**32 - 1)] = 2  # INTERNAL_ERROR
    processed: bool = False


class GoAway(Scope):
    """GOAWAY with a true last_stream_id. `processed`: whether the triggering stream is included."""

    fault: Literal["goaway"]
    code: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    reason: str | None = "Shutdown"
    processed: bool = False
    answer_in_flight: bool = True


class Close(Scope):
    """The connection is cut."""

    fault: Literal["close"]
    processed: bool = False


class CutAnswer(Scope):
    """The answer's head and half of its body, then the end. Processed, unless `status` makes it an error."""

    fault: Literal["cut_answer"]
    status: Status | None = None
    by: Literal["reset", "close"] = "reset"  # RST_STREAM, or the whole connection


class Freeze(Scope):
    """The connection stays open and sends nothing more, not even an answer to a PING."""

    fault: Literal["freeze"]
    processed: bool = False


class EmptyBody(Scope):
    """An error without a body; never processed."""

    fault: Literal["empty_body"]
    status: Status = 503


class Html(Scope):
    """A proxy's HTML page; never processed."""

    fault: Literal["html"]
    status: Status = 502


class OtherId(Scope):
    """Accepted, and answered with this in place of the `apns-id` or FCM's name."""

    fault: Literal["other_id"]
    id: str = Field(max_length=4096)


class BrokenFrame(Scope):
    """A frame of zeros with this type and size, on the stream (types 4, 6 and 7: on the connection)."""

    fault: Literal["broken_frame"]
    type: Annotated[int, Field(ge=0, le=255)] = 3  # RST_STREAM
    size: Annotated[int, Field(ge=0, le=16_384)] = 3
    processed: bool = False


class ConnectionFault(Scope):
    """A fault before any request; `drop_open` also cuts the open connections."""

    drop_open: bool = True

    @model_validator(mode="after")
    def _hits_everyone(self) -> Self:
        for name in ("app", "token", "share", "skip", "count"):
            if name in self.model_fields_set:
                raise _wrong(name, "a connection fault hits everyone")
        return self


class RefuseConnections(ConnectionFault):
    """The port is closed."""

    fault: Literal["refuse_connections"]


class StallConnections(ConnectionFault):
    """New connections hang: TCP does not connect, or TLS, or HTTP/2 is never spoken."""

    fault: Literal["stall_connections"]
    at: Literal["connect", "handshake", "greeting"] = "handshake"


class RevokeAccessTokens(Scope):
    """All access tokens issued so far, or those of the project `app`, stop working."""

    fault: Literal["revoke_access_tokens"]
    reason: Literal["revoked", "expired"] = "revoked"


class OauthDown(Scope):
    """The token endpoint answers with `status` after `delay`; never, where status is null."""

    fault: Literal["oauth_down"]
    status: Status | None = 503
    delay: Seconds = 0.0


PushFault = (
    AnswerFault
    | SplitBody
    | AcceptThenFail
    | Slow
    | Silent
    | Reset
    | GoAway
    | Close
    | CutAnswer
    | Freeze
    | EmptyBody
    | Html
    | OtherId
    | BrokenFrame
)  # hits one request
Fault = PushFault | RefuseConnections | StallConnections | RevokeAccessTokens | OauthDown

FAULTS: TypeAdapter[Fault] = TypeAdapter(Annotated[Fault, Field(discriminator="fault")])
