"""Every setting, typed, read once at the edges; secrets cannot be printed.

Temporal's own settings (TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE, TEMPORAL_API_KEY, TEMPORAL_TLS_*) are read by the SDK:
see `temporalio.envconfig`.
"""

import difflib
import os
import ssl
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar
from urllib.parse import urlsplit

import limits
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    StrictBool,
    ValidationError,
    model_validator,
)
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

SectionT = TypeVar("SectionT", bound="_Section")
Port = Annotated[int, Field(ge=1, le=65535)]


class ConfigError(ValueError):
    """A setting is missing, unknown or contradictory; the message is one sentence that says what to set."""


def _readable(path: Path) -> Path:
    if not path.is_file():
        raise ValueError(f"names a file that does not exist: {path}")
    return path


def _authority(path: Path) -> Path:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:
        raise ValueError(f"names a file without certificates: {path}") from None
    return path


def _https(url: str) -> str:
    parts = urlsplit(url)
    is_allowed = parts.scheme == "https" or (parts.scheme, parts.hostname) in _PLAIN
    if not parts.hostname or parts.port == 0 or not is_allowed:  # a port that is no number raises ValueError
        raise ValueError("must be an https:// address (http:// only on this machine)")
    return url


def _proxy(url: SecretStr) -> SecretStr:
    full = url.get_secret_value() if "://" in url.get_secret_value() else f"http://{url.get_secret_value()}"
    try:
        parts = urlsplit(full)
        is_good = parts.scheme == "http" and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        is_good = False
    if not is_good:
        raise ValueError("must be the http:// address of a proxy")
    return SecretStr(full)


def _base(url: str) -> str:
    parts = urlsplit(url)
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError("must be an address without a path, for the provider's own paths are used")
    return f"{parts.scheme}://{parts.netloc}"


def _rate(text: str) -> str:
    try:
        is_good = text == "0" or [rate.amount > 0 for rate in limits.parse_many(text)] == [True]
    except ValueError:
        is_good = False
    if not is_good:
        raise ValueError("must be a rate such as 600/minute, or 0 for no limit")
    return text


def _origins(text: str) -> tuple[str, ...]:
    origins = tuple(each.strip() for each in text.split(",") if each.strip())
    for origin in origins:
        if _base(_https(origin)) != origin:
            raise ValueError(f"must be origins without a path, separated by commas, not {origin}")
    return origins


def _addresses(text: str) -> str:
    for word in text.split(","):
        try:
            ip_network(word.strip(), strict=False)
        except ValueError:
            raise ValueError("must be addresses or networks such as 10.0.0.0/8, separated by commas") from None
    return text


def _page(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("must be an http:// or https:// address")
    return url.rstrip("/")


def _postgresql(url: SecretStr) -> SecretStr:
    try:
        parts = make_url(url.get_secret_value())
    except (ArgumentError, ValueError):  # the latter from a port that is no number
        parts = None
    if parts is None or parts.get_backend_name() not in {"postgresql", "postgres"}:
        raise ValueError("must be an address such as postgresql://user@host/name")
    unknown = sorted(parts.query.keys() - _PARAMETERS)
    if unknown:
        raise ValueError(f"{unknown[0]} is not a parameter of it; known are {', '.join(sorted(_PARAMETERS))}")
    return url


_PLAIN = {("http", "127.0.0.1"), ("http", "localhost")}
_PARAMETERS = {"host", "port", "sslmode"}
ReadableFile = Annotated[Path, AfterValidator(_readable)]
AuthorityFile = Annotated[ReadableFile, AfterValidator(_authority)]
HttpsUrl = Annotated[str, AfterValidator(_https)]
Rate = Annotated[str, AfterValidator(_rate)]
PageUrl = Annotated[str, AfterValidator(_page)]
BaseUrl = Annotated[HttpsUrl, AfterValidator(_base)]  # scheme, host and port alone


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)


class ApnsSettings(_Section):
    """Apple: token authentication with a .p8 key."""

    key_file: ReadableFile
    key_id: str = Field(min_length=1)
    team_id: str = Field(min_length=1)
    topic: str = Field(min_length=1)
    url: BaseUrl = "https://api.push.apple.com"
    sandbox_url: BaseUrl = "https://api.sandbox.push.apple.com"
    ca_file: AuthorityFile | None = None


class FcmSettings(_Section):
    """Google: a service account; the project is named in its file."""

    service_account_file: ReadableFile
    url: BaseUrl = "https://fcm.googleapis.com"
    ca_file: AuthorityFile | None = None


class AppSettings(_Section):
    """One app of the file that APPS_FILE names: see `apps_file`."""

    apns: ApnsSettings | None = None
    fcm: FcmSettings | None = None
    encrypted: StrictBool = False

    @model_validator(mode="after")
    def _some_provider(self) -> Self:
        if self.apns is None and self.fcm is None:
            raise ValueError("has neither an apns nor an fcm table")
        return self


class AuthSettings(_Section):
    """How bearer tokens are checked: exactly one of a shared secret and a key set's address."""

    jwt_secret: SecretStr | None = None
    jwks_url: HttpsUrl | None = None
    audience: str | None = None
    issuer: str | None = None

    @model_validator(mode="after")
    def _exactly_one_way(self) -> Self:
        if (self.jwt_secret is None) == (self.jwks_url is None):
            raise ValueError(
                "set exactly one of AUTH_JWT_SECRET and AUTH_JWKS_URL, so that bearer tokens can be checked"
            )
        if self.jwt_secret is not None and len(self.jwt_secret.get_secret_value().encode()) < 32:
            raise ValueError("AUTH_JWT_SECRET must have at least 32 bytes")
        return self


class ProxySettings(_Section):
    """The proxy through which https:// addresses are reached, as other programs are told of it."""

    https_proxy: Annotated[SecretStr, AfterValidator(_proxy)] | None = None
    no_proxy: str = ""

    @property
    def spared(self) -> tuple[str, ...]:
        """The hosts that are reached straight; this machine is always one."""
        words = self.no_proxy.lower().replace(",", " ").split()
        return ("localhost", "127.0.0.0/8", "::1", *words)


class ServiceSettings(_Section):
    """What API and worker share."""

    database_url: Annotated[SecretStr, AfterValidator(_postgresql)]
    database_pool_size: int = Field(default=10, ge=2, le=200)
    apps_file: ReadableFile | None = None
    arm_window: float = Field(default=60.0, ge=0, le=300)  # seconds
    api_host: str = "127.0.0.1"
    api_port: Port = 8000
    metrics_host: str = "127.0.0.1"
    metrics_port: Port = 9464
    temporal_ui_url: PageUrl | None = None
    log_format: Literal["auto", "json", "console"] = "auto"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


class GateSettings(_Section):
    """What a provider may be asked over one app's route, and from when on token errors count as a mass failure."""

    apns_concurrency: int = Field(default=800, ge=1)  # calls under way in each worker
    fcm_concurrency: int = Field(default=400, ge=1)
    apns_rate: float = Field(default=0, ge=0)  # calls per second of the whole fleet; 0: no limit
    fcm_rate: float = Field(default=10_000, ge=0)
    brake_share: float = Field(default=0.5, gt=0, le=1)  # of the devices answered for
    brake_token_errors: int = Field(default=20, ge=1, le=200)  # of as many devices
    brake_window: float = Field(default=600, gt=0, le=86_400)  # seconds


class LimitSettings(_Section):
    """What one API process grants its callers, and what it believes of whoever stands in front of it."""

    rate_limit: Rate = "600/minute"  # of each user
    rate_limit_service: Rate = "30000/minute"  # of each caller with the scope service or support
    request_timeout: float = Field(default=30.0, gt=0, le=600)  # seconds until an answer must begin
    most_requests: int = Field(default=1000, ge=1)  # that wait for an answer at a time
    cors_origins: Annotated[tuple[str, ...], BeforeValidator(_origins)] = ()
    forwarded_allow_ips: Annotated[str, AfterValidator(_addresses)] = (
        ""  # proxies whose X-Forwarded-For and X-Forwarded-Proto are believed
    )


class RetentionSettings(_Section):
    """How long what is finished is kept."""

    retention_days: int = Field(default=30, ge=2, le=3650)  # a push is of use for at most some 24 hours
    log_retention_days: int = Field(default=90, ge=2, le=3650)


class TracingSettings(_Section):
    """Whether to trace; what else the OpenTelemetry SDK knows of (OTEL_*) it reads by itself."""

    otel_exporter_otlp_endpoint: PageUrl | None = None
    otel_exporter_otlp_traces_endpoint: PageUrl | None = None
    otel_exporter_otlp_protocol: Literal["http/protobuf"] = "http/protobuf"
    otel_exporter_otlp_traces_protocol: Literal["http/protobuf"] = "http/protobuf"
    otel_traces_exporter: Literal["otlp", "none"] = "otlp"
    otel_traces_sampler: Literal[
        "always_on",
        "always_off",
        "traceidratio",
        "parentbased_always_on",
        "parentbased_always_off",
        "parentbased_traceidratio",
    ] = "parentbased_always_on"
    otel_sdk_disabled: bool = False
    otel_service_name: str | None = None

    @property
    def endpoint(self) -> str | None:
        """Where spans go; None: nowhere."""
        if self.otel_sdk_disabled or self.otel_traces_exporter == "none":
            return None
        whole = self.otel_exporter_otlp_endpoint and f"{self.otel_exporter_otlp_endpoint}/v1/traces"
        return self.otel_exporter_otlp_traces_endpoint or whole


DEFAULT_LIMITS = LimitSettings()

_SECTIONS: dict[str, type[_Section]] = {"APNS_": ApnsSettings, "FCM_": FcmSettings, "AUTH_": AuthSettings}


def service_settings(environ: Mapping[str, str] = os.environ) -> ServiceSettings:
    """Read what API and worker share."""
    return _read(ServiceSettings, _unprefixed(ServiceSettings, environ), "")


def gate_settings(environ: Mapping[str, str] = os.environ) -> GateSettings:
    """Read the limits of the gates and the threshold of the brake."""
    return _read(GateSettings, _unprefixed(GateSettings, environ), "")


def retention_settings(environ: Mapping[str, str] = os.environ) -> RetentionSettings:
    """Read how long what is finished is kept."""
    return _read(RetentionSettings, _unprefixed(RetentionSettings, environ), "")


def limit_settings(environ: Mapping[str, str] = os.environ) -> LimitSettings:
    """Read what the API grants its callers."""
    return _read(LimitSettings, _unprefixed(LimitSettings, environ), "")


def tracing_settings(environ: Mapping[str, str] = os.environ) -> TracingSettings:
    """Read whether to trace."""
    return _read(TracingSettings, _unprefixed(TracingSettings, environ), "")


def auth_settings(environ: Mapping[str, str] = os.environ) -> AuthSettings:
    """Read how bearer tokens are checked."""
    return _read(AuthSettings, _values("AUTH_", environ), "AUTH_")


def apns_settings(environ: Mapping[str, str] = os.environ) -> ApnsSettings | None:
    """Read Apple's settings; None where none is set."""
    values = _values("APNS_", environ)
    return _read(ApnsSettings, values, "APNS_") if values else None


def fcm_settings(environ: Mapping[str, str] = os.environ) -> FcmSettings | None:
    """Read Google's settings; None where none is set."""
    values = _values("FCM_", environ)
    return _read(FcmSettings, values, "FCM_") if values else None


def proxy_settings(environ: Mapping[str, str] = os.environ) -> ProxySettings:
    """Read HTTPS_PROXY and NO_PROXY; in lower case they win, as they do for other programs."""
    names = {"https_proxy": ("https_proxy", "HTTPS_PROXY"), "no_proxy": ("no_proxy", "NO_PROXY")}
    values = {field: next(filter(None, map(environ.get, spellings)), "") for field, spellings in names.items()}
    return _read(ProxySettings, {field: value for field, value in values.items() if value}, "")


def _unprefixed(section: type[_Section], environ: Mapping[str, str]) -> dict[str, str]:
    return {name: environ[name.upper()] for name in section.model_fields if environ.get(name.upper())}


def _values(prefix: str, environ: Mapping[str, str]) -> dict[str, str]:
    known = {prefix + name.upper(): name for name in _SECTIONS[prefix].model_fields}
    names = [*known, *(name.upper() for name in GateSettings.model_fields if name.upper().startswith(prefix))]
    for variable in environ:
        if variable.startswith(prefix) and variable not in names:
            near = difflib.get_close_matches(variable, names, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(names)}."
            raise ConfigError(f"{variable} is not a setting of Fastbell; {hint}")
    return {name: environ[variable] for variable, name in known.items() if environ.get(variable)}


def _read(section: type[SectionT], values: dict[str, str], prefix: str) -> SectionT:
    try:
        return section.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        variable = prefix + "_".join(str(part) for part in first["loc"]).upper()
        if first["type"] == "missing":
            raise ConfigError(f"{variable} is not set; see .env.example for what it means.") from None
        problem = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{variable}: {problem}." if first["loc"] else f"{problem}.") from None
