"""A running simulator: listeners, phones, wire log and faults in one place."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from simulator.admin import AdminServer
from simulator.apns import ApnsEndpoint
from simulator.apns_rules import ProviderTokens
from simulator.fault_kinds import RefuseConnections, RevokeAccessTokens, StallConnections
from simulator.faults import ActiveFault, Faults
from simulator.fcm import AccessTokens, FcmEndpoint
from simulator.http.exchange import Endpoint, SimulatedEnvironment, SimulatedProvider
from simulator.http.http1 import Http1Connection
from simulator.http.http2 import Http2Connection, StreamLimits
from simulator.http.listener import Connection, Listener, PortState, bound_sockets, tls_context
from simulator.phones import Phone, Phones
from simulator.settings import DEMO, FAITHFUL, App, Behaviour, Ports, credentials_in, provider_environment
from simulator.wire import WireLog

_FCM_STREAM_LIMIT = 100
_STALLED = {"connect": PortState.HANGING, "handshake": PortState.STALLING, "greeting": PortState.MUTE}


class Simulator:
    """APNs in both environments, FCM, OAuth, phones, and the admin page."""

    def __init__(
        self, run_dir: Path, ports: Ports, behaviour: Behaviour = FAITHFUL, apps: Sequence[App] = (DEMO,)
    ) -> None:
        """Bind the ports and make the credentials; `open` starts answering."""
        sockets = bound_sockets([ports.admin, ports.apns, ports.apns_sandbox, ports.fcm])
        self.ports = Ports(*(bound.getsockname()[1] for bound in sockets))  # the actual ones
        self.environments = {app.name: provider_environment(run_dir, self.ports, app) for app in apps}
        self.environment = self.environments[apps[0].name]  # the settings of a service with one app
        self.credentials = credentials_in(run_dir, self.ports, apps)
        self.phones = Phones()
        self.requests = WireLog()
        self.faults = Faults()
        self.faults.on_change = self._apply
        self._behaviour = behaviour
        self._access_tokens = AccessTokens(
            self.credentials.apps, self.credentials.token_uri, behaviour.access_token_lifetime
        )
        self._fcm = FcmEndpoint(self._access_tokens, self.phones, self.requests, self.faults)
        apns_limits = StreamLimits(1, behaviour.apns_stream_limit, behaviour.stream_limit_after_rejection)
        self._listeners = {
            (SimulatedProvider.APNS, environment): self._listener(bound, self._apns(environment), apns_limits)
            for environment, bound in zip(SimulatedEnvironment, sockets[1:3], strict=True)
        }
        fcm_limits = StreamLimits(_FCM_STREAM_LIMIT, _FCM_STREAM_LIMIT, None)
        fcm = self._listener(sockets[3], self._fcm, fcm_limits)
        self._listeners[SimulatedProvider.FCM, SimulatedEnvironment.PRODUCTION] = fcm
        self._admin = AdminServer(self, sockets[0])

    @classmethod
    @asynccontextmanager
    async def start(
        cls,
        *,
        run_dir: Path,
        port: int = 0,
        ports: Ports | None = None,
        behaviour: Behaviour = FAITHFUL,
        apps: Sequence[App] = (DEMO,),
    ) -> AsyncIterator["Simulator"]:
        """Run inside this event loop; `port=0` lets the system choose all ports. The first app is the default one."""
        simulator = cls(run_dir, ports or Ports.following(port), behaviour, apps)
        try:
            await simulator.open()
            yield simulator
        finally:
            await simulator.close()

    @property
    def url(self) -> str:
        """The page and the admin API."""
        return f"http://127.0.0.1:{self.ports.admin}"

    @property
    def is_open(self) -> bool:
        """Whether every provider accepts connections."""
        return all(listener.is_open for listener in self._listeners.values())

    @property
    def open_connections(self) -> dict[tuple[SimulatedProvider, SimulatedEnvironment], int]:
        """How many connections each provider holds."""
        return {key: listener.open_connections for key, listener in self._listeners.items()}

    @property
    def access_tokens_requested(self) -> int:
        """How many access tokens were requested."""
        return self._fcm.access_tokens_requested

    def phone(self, token: str) -> Phone:
        """Find the phone with this token; KeyError when it was never seen or declared."""
        phone = self.phones.get(token)
        if phone is None:
            raise KeyError("no phone has this token")
        return phone

    def clear(self) -> None:
        """Forget faults, phones and requests; credentials, access tokens and connections stay."""
        self.faults.clear()
        self.phones.clear()
        self.requests.clear()

    async def open(self) -> None:
        """Start answering."""
        self._loop = asyncio.get_running_loop()
        for listener in self._listeners.values():
            listener.switch(PortState.OPEN)
        await self._admin.open()

    async def close(self) -> None:
        """Close every port and connection."""
        self.faults.on_change = lambda _: None  # a closed simulator opens no ports
        self.faults.clear()
        await self._admin.close()
        for listener in self._listeners.values():
            await listener.close()

    def _apns(self, environment: SimulatedEnvironment) -> ApnsEndpoint:
        tokens = ProviderTokens(self.credentials.apps)
        return ApnsEndpoint(environment, tokens, self.phones, self.requests, self.faults)

    def _listener(self, bound: socket.socket, endpoint: Endpoint, limits: StreamLimits) -> Listener:
        speaks_http1 = isinstance(endpoint, FcmEndpoint)

        def connect(alpn: str | None, on_lost: Callable[[Connection], None]) -> Connection:
            if speaks_http1 and alpn != "h2":
                return Http1Connection(endpoint, on_lost)
            return Http2Connection(endpoint, limits, self._behaviour.receive_window, on_lost)

        files = self.credentials.certificates
        protocols = ["h2", "http/1.1"] if speaks_http1 else ["h2"]
        return Listener(bound, tls_context(files.certificate, files.key, protocols), connect)

    def _apply(self, added: ActiveFault | None) -> None:
        """Adapt ports and access tokens to the faults."""
        if added is not None and added.fault.after_seconds:
            self._loop.call_later(added.fault.after_seconds + 0.001, self._begin, added)
        elif added is not None:
            self._begin(added)
        else:
            self._set_ports()

    def _begin(self, added: ActiveFault) -> None:
        fault = added.fault
        if not added.is_in_force or added not in self.faults:
            return
        self._set_ports()
        match fault:
            case RevokeAccessTokens(reason="expired"):
                self._access_tokens.expire(fault.app)
            case RevokeAccessTokens():
                self._access_tokens.revoke(fault.app)
            case RefuseConnections() | StallConnections():
                for (provider, environment), listener in self._listeners.items():
                    if fault.drop_open and added.concerns(provider, environment):
                        listener.cut()
                if (ends_in := added.ends_in) is not None:
                    self._loop.call_later(ends_in + 0.001, lambda: self.faults.on_change(None))
            case _:
                pass

    def _set_ports(self) -> None:
        for (provider, environment), listener in self._listeners.items():
            listener.switch(self._state(provider, environment))

    def _state(self, provider: SimulatedProvider, environment: SimulatedEnvironment) -> PortState:
        for active in self.faults:
            if not active.is_in_force or not active.concerns(provider, environment):
                continue
            match active.fault:
                case RefuseConnections():
                    return PortState.REFUSING
                case StallConnections(at=stage):
                    return _STALLED[stage]
                case _:
                    pass
        return PortState.OPEN
