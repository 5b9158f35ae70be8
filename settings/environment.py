"""Every setting, typed, read once at the edges; secrets cannot be printed.

Temporal's own settings (TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE, TEMPORAL_API_KEY, TEMPORAL_TLS_*) are read by the SDK:
see `temporalio.envconfig`.
"""

import difflib
import os
from collections.abc import Mapping
from typing import Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StrictBool, ValidationError, model_validator

from settings.fields import (
    Addresses,
    AuthorityFile,
    BaseUrl,
    ClaimValue,
    HttpsUrl,
    Origins,
    PageUrl,
    Port,
    PostgresqlUrl,
    ProxyUrl,
    PublicUrl,
    Quota,
    Rate,
    ReadableFile,
    Word,
)

SectionT = TypeVar("SectionT", bound="_Section")


class ConfigError(ValueError):
    """A setting is missing, unknown or contradictory; the message is one sentence that says what to set."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)


class ApnsSettings(_Section):
    """Apple: token authentication with a .p8 key."""

    key_file: ReadableFile
    key_id: Word
    team_id: Word
    topic: Word
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


ANY_AUDIENCE = "*"


class AuthSettings(_Section):
    """How bearer tokens are checked: exactly one of a shared secret and a key set's address.

    A key set's issuer signs for others, too, so its tokens need an audience, or `*`: whatever theirs is.
    """

    jwt_secret: SecretStr | None = None
    jwks_url: HttpsUrl | None = None
    audience: ClaimValue | None = None
    issuer: ClaimValue | None = None

    @model_validator(mode="after")
    def _exactly_one_way(self) -> Self:
        if (self.jwt_secret is None) == (self.jwks_url is None):
            raise ValueError(
                "set exactly one of AUTH_JWT_SECRET and AUTH_JWKS_URL, so that bearer tokens can be checked"
            )
        if self.jwt_secret is not None and len(self.jwt_secret.get_secret_value().encode()) < 32:
            raise ValueError("AUTH_JWT_SECRET must have at least 32 bytes")
        if self.jwks_url is not None and self.audience is None:
            raise ValueError(
                "AUTH_AUDIENCE is not set: name the `aud` of your tokens, "
                "or * to take whatever the issuer at AUTH_JWKS_URL signs for anybody"
            )
        return self


class ProxySettings(_Section):
    """The proxy through which https:// addresses are reached, as other programs are told of it."""

    https_proxy: ProxyUrl | None = None
    no_proxy: str = ""

    @property
    def spared(self) -> tuple[str, ...]:
        """The hosts that are reached straight; this machine is always one."""
        words = self.no_proxy.lower().replace(",", " ").split()
        return ("localhost", "127.0.0.0/8", "::1", *words)


class ServiceSettings(_Section):
    """What API and worker share."""

    database_url: PostgresqlUrl
    database_pool_size: int = Field(default=10, ge=2, le=200)
    apps_file: ReadableFile | None = None
    arm_window: float = Field(default=60.0, ge=0, le=300)  # seconds
    api_host: str = "127.0.0.1"
    api_port: Port = 8000
    public_url: PublicUrl | None = None
    metrics_host: str = "127.0.0.1"
    metrics_port: Port = 9464
    temporal_ui_url: PageUrl | None = None
    log_format: Literal["auto", "json", "console"] = "auto"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @property
    def public_address(self) -> str:
        """Where people reach the API: what links begin with."""
        return self.public_url or f"http://127.0.0.1:{self.api_port}"


class LimiterSettings(_Section):
    """What a provider may be asked over one app's route, and from when on token errors count as a mass failure."""

    apns_concurrency: int = Field(default=800, ge=1)  # calls under way in each worker
    fcm_concurrency: int = Field(default=400, ge=1)
    apns_rate: float = Field(default=0, ge=0)  # calls per second of the whole fleet; 0: no limit
    fcm_rate: float = Field(default=10_000, ge=0)
    brake_share: float = Field(default=0.5, gt=0, le=1)  # of the users answered for
    brake_token_errors: int = Field(default=20, ge=1, le=200)  # of as many users
    brake_window: float = Field(default=600, gt=0, le=86_400)  # seconds


class LimitSettings(_Section):
    """What one API process grants its callers, and what it believes of whoever stands in front of it."""

    rate_limit: Rate = "6000/minute"  # of each user
    rate_limit_service: Rate = "30000/minute"  # of each caller with the scope service or support
    request_timeout: float = Field(default=30.0, gt=0, le=600)  # seconds until an answer must begin
    most_requests: int = Field(default=1000, ge=1)  # that wait for an answer at a time
    max_concurrent_requests_per_caller: Quota = 8  # of each user
    max_concurrent_requests_per_service: Quota = 64  # of each caller with the scope service
    max_installations_per_user: Quota = 20  # that have an active token
    max_active_fasts_per_user: Quota = 20
    message_burst: Quota = 20  # of each sender in each conversation
    message_rate: Rate = "1/second"  # at which a burst fills up again
    cors_origins: Origins = ()
    forwarded_allow_ips: Addresses = ""  # proxies whose X-Forwarded-For and X-Forwarded-Proto are believed


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


def limiter_settings(environ: Mapping[str, str] = os.environ) -> LimiterSettings:
    """Read the limits of the gates and the threshold of the brake."""
    return _read(LimiterSettings, _unprefixed(LimiterSettings, environ), "")


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
    names = [*known, *(name.upper() for name in LimiterSettings.model_fields if name.upper().startswith(prefix))]
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
