"""The admin API: phones, faults, the wire log, and the page."""

import asyncio
import contextlib
import socket
from collections.abc import Generator, Mapping
from typing import Annotated, Any, Literal, Protocol

import uvicorn
from fastapi import Body, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from simulator import views
from simulator.faults import Faults
from simulator.http.exchange import SimulatedEnvironment, SimulatedProvider
from simulator.phones import CannotHappen, Phone, PhonePermission, Phones, PhoneState
from simulator.wire import WireLog

_STATES = {"online": PhoneState.INSTALLED, "offline": PhoneState.OFFLINE, "uninstall": PhoneState.UNINSTALLED}


class Running(Protocol):
    """What the admin API needs of a running simulator."""

    @property
    def phones(self) -> Phones: ...
    @property
    def requests(self) -> WireLog: ...
    @property
    def faults(self) -> Faults: ...
    @property
    def environments(self) -> Mapping[str, Mapping[str, str]]: ...
    @property
    def is_open(self) -> bool: ...


class _Form(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PhoneForm(_Form):
    """A phone declared before its first push."""

    provider: SimulatedProvider
    environment: SimulatedEnvironment = SimulatedEnvironment.PRODUCTION
    name: Annotated[str, Field(min_length=1, max_length=80)] | None = None
    app: Annotated[str, Field(min_length=1, max_length=255)] | None = None  # APNs topic, or FCM project
    state: PhoneState = PhoneState.INSTALLED
    permission: PhonePermission | None = None  # None: as it was; a new phone has granted it
    uninstalled_at: AwareDatetime | None = None  # by default now
    locale: Annotated[str, Field(max_length=35)] | None = None

    @field_validator("permission")
    @classmethod
    def _known_to_its_system(cls, permission: PhonePermission | None, info: ValidationInfo) -> PhonePermission | None:
        if permission is PhonePermission.PROVISIONAL and info.data.get("provider") is SimulatedProvider.FCM:
            raise ValueError("Android knows no provisional permission")
        return permission


class RotationForm(_Form):
    """What becomes of a rotated token."""

    after_seconds: Annotated[float, Field(ge=0, le=86_400)] = 0  # the provider calls it unregistered so much later


class TapForm(_Form):
    """Which line is tapped."""

    task_id: str | None = None  # None: the newest


class PermissionForm(_Form):
    """What the system allows the app from now on."""

    permission: PhonePermission


class _NotFound(Exception):
    """Nothing has this token or id."""


def admin_app(simulator: Running, closing: asyncio.Event) -> FastAPI:
    """Build the application over one simulator."""
    app = FastAPI(title="Fastbell provider simulator", docs_url="/docs", redoc_url=None)
    app.add_exception_handler(_NotFound, _answer_not_found)
    app.add_exception_handler(CannotHappen, _answer_conflict)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(ValidationError, _answer_invalid)
    _add_phones(app, simulator)
    _add_phone_changes(app, simulator)
    _add_faults(app, simulator)

    @app.get("/requests")
    async def requests(
        after: Annotated[int, Query(ge=0)] = 0, limit: Annotated[int, Query(ge=1, le=10_000)] = 1000
    ) -> dict[str, Any]:
        """Every request on the wire after a number, refused ones included, oldest first."""
        rows = simulator.requests.after(after, limit)
        return {
            "items": [views.wire_request(request) for request in rows],
            "next_cursor": rows[-1].number if len(rows) == limit else None,
        }

    @app.get("/apps")
    async def apps() -> dict[str, Any]:
        """Every app that the providers know, and the settings of a service that sends for it."""
        rows = [{"name": name, "environment": names} for name, names in simulator.environments.items()]
        return {"items": rows, "next_cursor": None}

    @app.get("/healthz")
    async def health(response: Response) -> dict[str, str]:
        """200 when every listener is up; a connection fault counts as down."""
        response.status_code = 200 if simulator.is_open else 503
        return {"status": "ok" if simulator.is_open else "shut"}

    @app.get("/", include_in_schema=False)
    async def lock_screens() -> HTMLResponse:
        return HTMLResponse(views.html(simulator.phones), headers={"content-security-policy": views.POLICY})

    @app.get("/events", include_in_schema=False)
    async def events() -> StreamingResponse:
        return StreamingResponse(
            views.events(simulator.phones, closing),
            media_type="text/event-stream",
            headers={"cache-control": "no-store"},
        )

    return app


def _add_phones(app: FastAPI, simulator: Running) -> None:
    @app.get("/phones")
    async def phones() -> dict[str, Any]:
        """Every phone, first seen first."""
        return {"items": [views.phone_row(phone) for phone in simulator.phones], "next_cursor": None}

    @app.delete("/phones", status_code=204)
    async def clear_phones() -> None:
        """Forget every phone."""
        simulator.phones.clear()

    @app.get("/phones/{token}")
    async def phone(token: str) -> dict[str, Any]:
        """Show a phone's screen (newest line first) and log (oldest entry first)."""
        return views.phone_detail(_phone(simulator, token))

    @app.put("/phones/{token}")
    async def declare_phone(token: str, form: PhoneForm) -> dict[str, Any]:
        """Declare a phone, or change a known one; its screen and log stay."""
        declared = simulator.phones.declare(token, form.provider, form.environment)
        declared.name = form.name or declared.name
        declared.app = form.app or declared.app
        declared.locale = form.locale
        if form.permission is not None:
            simulator.phones.permit(declared, form.permission)
        simulator.phones.change(declared, form.state)
        if form.state is PhoneState.UNINSTALLED and form.uninstalled_at is not None:
            declared.uninstalled_timestamp = form.uninstalled_at.timestamp()
        return views.phone_row(declared)


def _add_phone_changes(app: FastAPI, simulator: Running) -> None:
    @app.post("/phones/{token}/rotate")
    async def rotate_token(token: str, form: RotationForm | None = None) -> dict[str, Any]:
        """Give the phone a new token, as its system does; the old one becomes unregistered, at once or later."""
        phone = _phone(simulator, token)
        former_token = phone.token
        former = simulator.phones.rotate(phone, (form or RotationForm()).after_seconds)
        return views.rotation(phone, former, former_token)

    @app.post("/phones/{token}/tap")
    async def tap_line(token: str, form: TapForm | None = None) -> dict[str, Any]:
        """Tap a line: it leaves the screen. The answer is what the app is handed: `task_id`, `kind`, `url`."""
        return views.tapped(simulator.phones.tap(_phone(simulator, token), (form or TapForm()).task_id))

    @app.post("/phones/{token}/permission")
    async def change_permission(token: str, form: PermissionForm) -> dict[str, Any]:
        """Let the app show notifications, or not."""
        phone = _phone(simulator, token)
        simulator.phones.permit(phone, form.permission)
        return views.phone_row(phone)

    @app.post("/phones/{token}/{change}")
    async def change_phone(token: str, change: Literal["online", "offline", "uninstall"]) -> dict[str, Any]:
        """Go offline, come back, or remove the app."""
        changed = _phone(simulator, token)
        simulator.phones.change(changed, _STATES[change])
        return views.phone_row(changed)


def _add_faults(app: FastAPI, simulator: Running) -> None:
    @app.get("/faults")
    async def faults() -> dict[str, Any]:
        """Every fault, and how often it struck."""
        return {"items": [views.fault_row(active) for active in simulator.faults], "next_cursor": None}

    @app.post("/faults", status_code=201)
    async def add_fault(fields: Annotated[dict[str, Any], Body()]) -> dict[str, Any]:
        """Add a fault."""
        return views.fault_row(simulator.faults.add(**fields))

    @app.delete("/faults", status_code=204)
    async def clear_faults() -> None:
        """End every fault."""
        simulator.faults.clear()

    @app.delete("/faults/{fault_id}", status_code=204)
    async def remove_fault(fault_id: str) -> None:
        """End one fault."""
        if not simulator.faults.remove(fault_id):
            raise _NotFound("No fault has this id.")


def _phone(simulator: Running, token: str) -> Phone:
    phone = simulator.phones.get(token) or simulator.phones.get(token.lower())
    if phone is None:
        raise _NotFound("No phone has this token.")
    return phone


def _answer_not_found(_: Request, error: Exception) -> JSONResponse:
    return _problem(404, "not-found", "Not found", {"detail": str(error)})


def _answer_conflict(_: Request, error: Exception) -> JSONResponse:
    return _problem(409, "cannot-happen", "No phone does this now", {"detail": str(error)})


def _answer_invalid(_: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, RequestValidationError | ValidationError):
        raise error
    errors = [{"field": _field(problem), "message": problem["msg"]} for problem in error.errors()]
    return _problem(422, "invalid", "A field is wrong", {"errors": errors})


def _field(problem: Mapping[str, Any]) -> str:
    """Name the field; pydantic puts "body", "query" or the kind of a fault before it."""
    return ".".join(str(part) for part in problem["loc"][1:]) or problem.get("ctx", {}).get("field", "fault")


def _problem(status: int, kind: str, title: str, more: dict[str, Any]) -> JSONResponse:
    content = {"type": f"urn:fastbell:simulator:{kind}", "title": title, "status": status} | more
    return JSONResponse(content, status, media_type="application/problem+json")


class AdminServer:
    """Serves on a bound socket."""

    def __init__(self, simulator: Running, bound: socket.socket) -> None:
        self._bound = bound
        self._closing = asyncio.Event()
        app = admin_app(simulator, self._closing)
        config = uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="off", ws="none", timeout_graceful_shutdown=2
        )
        self._server = _Server(config)
        self._serving: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Start serving."""
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._bound]))
        await self._server.ready.wait()

    async def close(self) -> None:
        """Answer the requests in flight, then stop."""
        self._closing.set()
        self._server.should_exit = True
        if self._serving is not None:
            await self._serving
        self._bound.close()


class _Server(uvicorn.Server):
    """Leaves signals to the process that runs the simulator, and tells when it is up."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()
