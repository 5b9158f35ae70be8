"""Every setting, typed, read once at the edges; secrets cannot be printed.

Temporal's own settings (TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE, TEMPORAL_API_KEY, TEMPORAL_TLS_*) are read by the SDK:
see `temporalio.envconfig`.
"""

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StrictBool,
    ValidationError,
    model_validator,
)

SectionT = TypeVar("SectionT", bound="_Section")
Port = Annotated[int, Field(ge=1, le=65535)]


class ConfigError(ValueError):
    """A setting is missing, unknown or contradictory; the message is one sentence that says what to set."""


def _readable(path: Path) -> Path:
    if not path.is_file():
        raise ValueError(f"names a file that does not exist: {path}")
    return path


def _https(url: str) -> str:
    parts = urlsplit(url)
    if not parts.hostname or (parts.scheme != "https" and (parts.scheme, parts.hostname) not in _PLAIN):
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


def _page(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("must be an http:// or https:// address")
    return url.rstrip("/")


def _postgresql(url: SecretStr) -> SecretStr:
    if not re.match(r"postgres(ql)?(\+\w+)?://", url.get_secret_value()):
        raise ValueError("must be a postgresql:// address")
    return url


_PLAIN = {("http", "127.0.0.1"), ("http", "localhost")}
ReadableFile = Annotated[Path, AfterValidator(_readable)]
HttpsUrl = Annotated[str, AfterValidator(_https)]
BaseUrl = Annotated[HttpsUrl, AfterValidator(_base)]  # scheme, host and port alone


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class ApnsSettings(_Section):
    """Apple: token authentication with a .p8 key."""

    key_file: ReadableFile
    key_id: str = Field(min_length=1)
    team_id: str = Field(min_length=1)
    topic: str = Field(min_length=1)
    url: BaseUrl = "https://api.push.apple.com"
    sandbox_url: BaseUrl = "https://api.sandbox.push.apple.com"
    ca_file: ReadableFile | None = None


class FcmSettings(_Section):
    """Google: a service account; the project is named in its file."""

    service_account_file: ReadableFile
    url: BaseUrl = "https://fcm.googleapis.com"
    ca_file: ReadableFile | None = None


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
    temporal_ui_url: Annotated[str, AfterValidator(_page)] | None = None
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
    brake_window: float = Field(default=600, gt=0)  # seconds


class RetentionSettings(_Section):
    """How long what is finished is kept."""

    retention_days: int = Field(default=30, ge=2, le=3650)  # a push is of use for at most some 24 hours
    log_retention_days: int = Field(default=90, ge=2, le=3650)


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
