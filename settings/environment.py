"""Every setting of the environment, typed and read once at the edges. Secrets cannot be printed.

Temporal's own settings (TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE, TEMPORAL_API_KEY, TEMPORAL_TLS_*) are read by the SDK:
see `temporalio.envconfig`.
"""

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StrictBool, ValidationError, model_validator

from settings.fields import (
    Addresses,
    AuthorityFile,
    BaseUrl,
    ClaimValue,
    HttpsUrl,
    NamedValues,
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


class ConfigError(ValueError):
    """A setting is missing, unknown or contradictory; the message is one sentence that says what to set."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)

    prefix: ClassVar[str] = ""  # of the variables; a section with one refuses unknown variables that begin so
    family: ClassVar[str] = ""  # of a section without a prefix: refuses unknown variables that begin so

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Read the section; raises ConfigError."""
        try:
            return cls.model_validate(cls.values_in(environ))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            variable = cls.prefix + "_".join(str(part) for part in first["loc"]).upper()
            if first["type"] == "missing":
                raise ConfigError(f"{variable} is not set; see .env.example for what it means.") from None
            problem = first["msg"].removeprefix("Value error, ")
            raise ConfigError(f"{variable}: {problem}." if first["loc"] else f"{problem}.") from None

    @classmethod
    def values_in(cls, environ: Mapping[str, str]) -> dict[str, str]:
        """Give the section's variables that are set, by field; raises ConfigError for an unknown one."""
        fields = {cls.prefix + name.upper(): name for name in cls.model_fields}
        if begins := cls.prefix or cls.family:
            limits = {name.upper() for name in LimiterSettings.model_fields}
            known = [name for name in dict.fromkeys([*fields, *sorted(limits)]) if name.startswith(begins)]
            for variable in environ:
                if variable.startswith(begins) and variable not in known:
                    near = difflib.get_close_matches(variable, known, n=1)
                    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}."
                    raise ConfigError(f"{variable} is not a setting of Fastbell; {hint}")
        return {name: environ[variable] for variable, name in fields.items() if environ.get(variable)}


class ApnsSettings(_Section):
    """Apple: token authentication with a .p8 key."""

    prefix = "APNS_"

    key_file: ReadableFile
    key_id: Word
    team_id: Word
    topic: Word
    url: BaseUrl = "https://api.push.apple.com"
    sandbox_url: BaseUrl = "https://api.sandbox.push.apple.com"
    ca_file: AuthorityFile | None = None


class FcmSettings(_Section):
    """Google: a service account; the project is named in its file."""

    prefix = "FCM_"

    service_account_file: ReadableFile
    url: BaseUrl = "https://fcm.googleapis.com"
    ca_file: AuthorityFile | None = None


class AppSettings(_Section):
    """One app of the file that APPS_FILE names: see `apps_file`."""

    apns: ApnsSettings | None = None
    fcm: FcmSettings | None = None
    encrypted: StrictBool = False
    presentation: Path | None = None  # read by `presentations`

    @model_validator(mode="after")
    def _some_provider(self) -> Self:
        if self.apns is None and self.fcm is None:
            raise ValueError("has neither an apns nor an fcm table")
        return self


ANY_AUDIENCE = "*"
_KEY_PAIR = re.compile(r"-----BEGIN |ssh-|ecdsa-sha2-|sk-(ssh|ecdsa)-")  # a public one is known to everybody


class AuthSettings(_Section):
    """How JWTs are checked: by a shared secret or by a key set. With neither, only API keys are accepted.

    A key set's issuer also signs for other services, so its tokens need an audience, or `*` for any.
    """

    prefix = "AUTH_"

    jwt_secret: SecretStr | None = None
    jwks_url: HttpsUrl | None = None
    audience: ClaimValue | None = None
    issuer: ClaimValue | None = None

    @model_validator(mode="after")
    def _one_way_at_most(self) -> Self:
        if self.jwt_secret is not None and self.jwks_url is not None:
            raise ValueError("set only one of AUTH_JWT_SECRET and AUTH_JWKS_URL, which check JWTs in two ways")
        if self.jwt_secret is None and self.jwks_url is None and (self.audience or self.issuer):
            raise ValueError(
                "AUTH_AUDIENCE and AUTH_ISSUER are claims of JWTs: also set AUTH_JWT_SECRET or AUTH_JWKS_URL"
            )
        if self.jwt_secret is not None and len(self.jwt_secret.get_secret_value().encode()) < 32:
            raise ValueError("AUTH_JWT_SECRET must have at least 32 bytes")
        if self.jwt_secret is not None and _KEY_PAIR.match(self.jwt_secret.get_secret_value().strip()):
            raise ValueError("AUTH_JWT_SECRET is a key of a pair, which is no secret of both sides: set AUTH_JWKS_URL")
        if self.jwks_url is not None and self.audience is None:
            raise ValueError(
                "AUTH_AUDIENCE is not set: name the `aud` of your tokens, "
                "or * to take whatever the issuer at AUTH_JWKS_URL signs for anybody"
            )
        return self


class ProxySettings(_Section):
    """The proxy to https:// addresses, in the variables that other programs read."""

    https_proxy: ProxyUrl | None = None
    no_proxy: str = ""

    @property
    def direct_hosts(self) -> tuple[str, ...]:
        """The hosts that are reached without the proxy; always including this machine."""
        words = self.no_proxy.lower().replace(",", " ").split()
        return ("localhost", "127.0.0.0/8", "::1", *words)


class ServiceSettings(_Section):
    """What the API and the worker share."""

    database_url: PostgresqlUrl
    database_pool_size: int = Field(default=10, ge=2, le=200)
    apps_file: ReadableFile | None = None
    presentation_file: ReadableFile | None = None
    arm_window: float = Field(default=60.0, ge=0, le=300)  # seconds
    api_host: str = "127.0.0.1"
    api_port: Port = 8000
    public_url: PublicUrl | None = None
    erasure_key: SecretStr | None = None  # of the digests of erased users' ids; None: each has a key that is forgotten
    metrics_host: str = "127.0.0.1"
    metrics_port: Port = 9464
    temporal_ui_url: PageUrl | None = None
    webhooks_allow_private: bool = False  # private and loopback addresses, and http://
    phones_url: PageUrl | None = None
    log_format: Literal["auto", "json", "console"] = "auto"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @model_validator(mode="after")
    def _long_key(self) -> Self:
        if self.erasure_key is not None and len(self.erasure_key.get_secret_value().encode()) < 32:
            raise ValueError("ERASURE_KEY must have at least 32 bytes")
        return self

    @property
    def public_address(self) -> str:
        """Where people reach the API: the start of every link."""
        return self.public_url or f"http://127.0.0.1:{self.api_port}"


class TemporalSettings(_Section):
    """What Fastbell adds to the SDK's own settings of Temporal."""

    payload_keys_file: ReadableFile | None = None


class LimiterSettings(_Section):
    """The limits of one app's route to a provider, and the number of token errors that stops it."""

    family = "BRAKE_"

    apns_concurrency: int = Field(default=800, ge=1)  # calls under way in each worker
    fcm_concurrency: int = Field(default=400, ge=1)
    apns_rate: float = Field(default=0, ge=0)  # calls per second of the whole fleet; 0: no limit
    fcm_rate: float = Field(default=10_000, ge=0)
    brake_share: float = Field(default=0.5, gt=0, le=1)  # of the users with an answer
    brake_token_errors: int = Field(default=20, ge=1, le=200)  # of as many users
    brake_window: float = Field(default=600, gt=0, le=86_400)  # seconds


class LimitSettings(_Section):
    """The limits of one API process for its callers, and the proxies whose headers it trusts."""

    rate_limit: Rate = "6000/minute"  # of each user
    rate_limit_service: Rate = "30000/minute"  # of each caller with the scope service or support
    request_timeout: float = Field(default=30.0, gt=0, le=600)  # seconds until an answer must begin
    most_requests: int = Field(default=1000, ge=1)  # waiting for an answer at a time
    max_concurrent_requests_per_caller: Quota = 8  # of each user
    max_concurrent_requests_per_service: Quota = 64  # of each caller with the scope service
    max_installations_per_user: Quota = 20  # that have an active token
    max_active_fasts_per_user: Quota = 20
    message_burst: Quota = 20  # of each sender in each conversation
    message_rate: Rate = "1/second"  # at which a burst is refilled
    cors_origins: Origins = ()
    forwarded_allow_ips: Addresses = ""  # proxies whose X-Forwarded-For and X-Forwarded-Proto are trusted


class RetentionSettings(_Section):
    """How long finished work is kept."""

    retention_days: int = Field(default=30, ge=2, le=3650)  # a push is useful for about 24 hours at most
    log_retention_days: int = Field(default=90, ge=2, le=3650)
    event_retention_days: int = Field(default=7, ge=2, le=365)  # a delivery to a webhook is tried for a day


class TracingSettings(_Section):
    """Whether to trace. The OpenTelemetry SDK reads the other OTEL_* variables by itself."""

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
    otel_traces_sampler_arg: float = Field(default=1.0, ge=0, le=1)  # the SDK traces all where it cannot read it
    otel_exporter_otlp_headers: NamedValues | None = None  # the SDK quotes them in its log where it cannot read them
    otel_sdk_disabled: bool = False
    otel_service_name: str | None = None

    @property
    def endpoint(self) -> str | None:
        """Where spans are sent; None: nowhere."""
        if self.otel_sdk_disabled or self.otel_traces_exporter == "none":
            return None
        whole = self.otel_exporter_otlp_endpoint and f"{self.otel_exporter_otlp_endpoint}/v1/traces"
        return self.otel_exporter_otlp_traces_endpoint or whole


DEFAULT_LIMITS = LimitSettings()

service_settings = ServiceSettings.read
temporal_settings = TemporalSettings.read
limiter_settings = LimiterSettings.read
limit_settings = LimitSettings.read
retention_settings = RetentionSettings.read
tracing_settings = TracingSettings.read
auth_settings = AuthSettings.read


def apns_settings(environ: Mapping[str, str] = os.environ) -> ApnsSettings | None:
    """Read Apple's settings; None where none is set."""
    return ApnsSettings.read(environ) if ApnsSettings.values_in(environ) else None


def fcm_settings(environ: Mapping[str, str] = os.environ) -> FcmSettings | None:
    """Read Google's settings; None where none is set."""
    return FcmSettings.read(environ) if FcmSettings.values_in(environ) else None


def proxy_settings(environ: Mapping[str, str] = os.environ) -> ProxySettings:
    """Read HTTPS_PROXY and NO_PROXY; in lower case they win, as they do for other programs."""
    names = ("HTTPS_PROXY", "NO_PROXY")
    return ProxySettings.read({name: environ.get(name.lower()) or environ.get(name, "") for name in names})
