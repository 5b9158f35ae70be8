"""Settings: read once, refused with one sentence, never printed."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from pydantic import BaseModel

from db.address import PARAMETERS
from settings.environment import (
    ConfigError,
    LimiterSettings,
    apns_settings,
    auth_settings,
    fcm_settings,
    limit_settings,
    limiter_settings,
    proxy_settings,
    service_settings,
    tracing_settings,
)

SECRET = "a secret that is long enough to be one"
DATABASE = {"DATABASE_URL": "postgresql://app:hush-hush@db.example/fastbell"}


@pytest.fixture
def key_file(tmp_path: Path) -> str:
    """A file that exists."""
    path = tmp_path / "key.p8"
    path.write_text("-----BEGIN PRIVATE KEY-----")
    return str(path)


def apns(key_file: str, **more: str) -> dict[str, str]:
    return {"APNS_KEY_FILE": key_file, "APNS_KEY_ID": "KEY", "APNS_TEAM_ID": "TEAM", "APNS_TOPIC": "app"} | more


def refused(read: Callable[[Mapping[str, str]], object], environ: Mapping[str, str]) -> str:
    with pytest.raises(ConfigError) as raised:
        read(environ)
    return str(raised.value)


def test_what_is_not_set_has_its_default() -> None:
    settings = service_settings(DATABASE)

    assert settings.model_dump(exclude={"database_url"}) == {
        "database_pool_size": 10,
        "apps_file": None,
        "presentation_file": None,
        "arm_window": 60.0,
        "webhooks_allow_private": False,
        "api_host": "127.0.0.1",
        "api_port": 8000,
        "public_url": None,
        "erasure_key": None,
        "metrics_host": "127.0.0.1",
        "metrics_port": 9464,
        "temporal_ui_url": None,
        "phones_url": None,
        "log_format": "auto",
        "log_level": "INFO",
    }
    assert settings.database_url.get_secret_value() == DATABASE["DATABASE_URL"]


@pytest.mark.parametrize(
    ("told", "address"),
    [
        (None, "http://127.0.0.1:8765"),
        ("https://push.example.com/", "https://push.example.com"),
        ("HTTPS://Push.Example.com:443/", "https://push.example.com"),  # as a browser writes its origin
        ("http://192.168.0.7:8000", "http://192.168.0.7:8000"),  # real phones in the office
    ],
)
def test_links_begin_with_where_people_reach_the_api(told: str | None, address: str) -> None:
    settings = service_settings(DATABASE | {"API_PORT": "8765"} | ({"PUBLIC_URL": told} if told else {}))

    assert settings.public_address == address


@pytest.mark.parametrize("told", ["push.example.com", "ftp://push.example.com", "https://", "https://a:b@c.example"])
def test_where_people_reach_the_api_is_a_web_address(told: str) -> None:
    assert refused(service_settings, DATABASE | {"PUBLIC_URL": told}).startswith("PUBLIC_URL: must be ")


def test_a_key_of_digests_that_could_be_guessed_is_refused() -> None:
    assert refused(service_settings, DATABASE | {"ERASURE_KEY": "short"}) == "ERASURE_KEY must have at least 32 bytes."


@pytest.mark.parametrize("told", ["https://push.example.com/api", "https://push.example.com/?a"])
def test_where_people_reach_the_api_has_no_path(told: str) -> None:
    assert refused(service_settings, DATABASE | {"PUBLIC_URL": told}).startswith("PUBLIC_URL: must be ")


def test_a_setting_that_is_empty_is_not_set() -> None:
    assert service_settings(DATABASE | {"API_PORT": ""}).api_port == 8000
    assert apns_settings({"APNS_KEY_FILE": "", "APNS_TOPIC": ""}) is None


def test_a_provider_of_which_nothing_is_set_is_left_out() -> None:
    assert apns_settings(DATABASE) is None
    assert fcm_settings(DATABASE) is None


def test_providers_have_their_own_addresses_unless_told_otherwise(key_file: str) -> None:
    apple, google = apns_settings(apns(key_file)), fcm_settings({"FCM_SERVICE_ACCOUNT_FILE": key_file})
    local = apns_settings(apns(key_file, APNS_URL="https://127.0.0.1:8443/"))

    assert apple
    assert (apple.url, apple.sandbox_url) == ("https://api.push.apple.com", "https://api.sandbox.push.apple.com")
    assert google
    assert google.url == "https://fcm.googleapis.com"
    assert local
    assert local.url == "https://127.0.0.1:8443"


def test_a_setting_that_does_not_exist_is_refused_with_a_suggestion(key_file: str) -> None:
    assert refused(apns_settings, apns(key_file, APNS_TOPICS="app")) == (
        "APNS_TOPICS is not a setting of Fastbell; did you mean APNS_TOPIC?"
    )
    assert refused(auth_settings, {"AUTH_JWT_SECRETS": SECRET}) == (
        "AUTH_JWT_SECRETS is not a setting of Fastbell; did you mean AUTH_JWT_SECRET?"
    )
    assert refused(limiter_settings, {"BRAKE_TOKEN_ERROR": "5"}) == (
        "BRAKE_TOKEN_ERROR is not a setting of Fastbell; did you mean BRAKE_TOKEN_ERRORS?"
    )
    assert refused(fcm_settings, {"FCM_XYZZY": "1"}) == (
        "FCM_XYZZY is not a setting of Fastbell; known are FCM_SERVICE_ACCOUNT_FILE, FCM_URL, FCM_CA_FILE,"
        " FCM_CONCURRENCY, FCM_RATE."
    )


@pytest.mark.parametrize("name", ["APNS_TOPIC", "APNS_KEY_ID", "APNS_TEAM_ID"])
@pytest.mark.parametrize(
    "value", ["com.example.fast\n", " app", "app ", "my app", "a\r\nb", "a\tb", "a\x7fb", "ápp", "a" * 256]
)
def test_what_stands_in_a_header_is_one_word(key_file: str, name: str, value: str) -> None:
    assert refused(apns_settings, apns(key_file) | {name: value}) == (
        f"{name}: must be one word of ASCII characters, without blanks and line breaks."
    )


def test_limiters_have_googles_rate_and_no_other_limit_unless_told_otherwise() -> None:
    assert limiter_settings({}) == LimiterSettings(
        apns_concurrency=800,
        fcm_concurrency=400,
        apns_rate=0,
        fcm_rate=10_000,
        brake_share=0.5,
        brake_token_errors=20,
        brake_window=600,
    )
    assert limiter_settings({"APNS_RATE": "0.5", "BRAKE_SHARE": "1"}) == LimiterSettings(apns_rate=0.5, brake_share=1)
    assert fcm_settings({"APNS_RATE": "5"}) is None
    assert refused(limiter_settings, {"BRAKE_TOKEN_ERRORS": "201"}).startswith("BRAKE_TOKEN_ERRORS: ")


@pytest.mark.parametrize("name", ["APNS_RATE", "FCM_RATE", "BRAKE_SHARE", "BRAKE_WINDOW"])
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_what_is_no_finite_number_is_no_limit(name: str, value: str) -> None:
    assert refused(limiter_settings, {name: value}) == f"{name}: Input should be a finite number."


def test_limits_alone_configure_no_provider() -> None:
    assert apns_settings({"APNS_RATE": "100", "APNS_CONCURRENCY": "10"}) is None
    assert fcm_settings({"FCM_RATE": "100"}) is None


def test_a_setting_that_is_missing_is_named(key_file: str) -> None:
    without_topic = {name: value for name, value in apns(key_file).items() if name != "APNS_TOPIC"}

    assert refused(service_settings, {}) == "DATABASE_URL is not set; see .env.example for what it means."
    assert refused(apns_settings, without_topic) == "APNS_TOPIC is not set; see .env.example for what it means."
    assert refused(fcm_settings, {"FCM_URL": "https://127.0.0.1"}) == (
        "FCM_SERVICE_ACCOUNT_FILE is not set; see .env.example for what it means."
    )


@pytest.mark.parametrize("url", ["https://relay.example/push", "https://relay.example/?a=b", "https://relay.example#a"])
def test_a_providers_address_with_a_path_is_refused(key_file: str, url: str) -> None:
    sentence = "must be an address without a path, for the provider's own paths are used."

    for name in ("APNS_URL", "APNS_SANDBOX_URL"):
        assert refused(apns_settings, apns(key_file, **{name: url})) == f"{name}: {sentence}"
    assert refused(fcm_settings, {"FCM_SERVICE_ACCOUNT_FILE": key_file, "FCM_URL": url}) == f"FCM_URL: {sentence}"


def test_an_address_with_a_port_that_is_none_is_refused(key_file: str) -> None:
    assert refused(apns_settings, apns(key_file, APNS_URL="https://h:port")).startswith("APNS_URL: Port could not be")
    assert refused(auth_settings, {"AUTH_JWKS_URL": "https://h:99999/keys"}).startswith("AUTH_JWKS_URL: Port out of")


ONLY_ONE = "set only one of AUTH_JWT_SECRET and AUTH_JWKS_URL, which check JWTs in two ways."
CLAIMS = "AUTH_AUDIENCE and AUTH_ISSUER are claims of JWTs: also set AUTH_JWT_SECRET or AUTH_JWKS_URL."
NO_AUDIENCE = (
    "AUTH_AUDIENCE is not set: name the `aud` of your tokens, or * to take whatever the issuer at AUTH_JWKS_URL"
    " signs for anybody."
)
HTTPS = "must be an https:// address (http:// only on this machine)."


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({"AUTH_AUDIENCE": "app"}, CLAIMS),
        ({"AUTH_ISSUER": "https://id.example"}, CLAIMS),
        ({"AUTH_JWT_SECRET": SECRET, "AUTH_JWKS_URL": "https://id.example/keys"}, ONLY_ONE),
        ({"AUTH_JWT_SECRET": "short"}, "AUTH_JWT_SECRET must have at least 32 bytes."),
        (
            {"AUTH_JWT_SECRET": "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE"},
            "AUTH_JWT_SECRET is a key of a pair, which is no secret of both sides: set AUTH_JWKS_URL.",
        ),
        ({"AUTH_JWKS_URL": "http://id.example/keys"}, f"AUTH_JWKS_URL: {HTTPS}"),
        ({"AUTH_JWKS_URL": "http://127.0.0.1.evil.example/keys"}, f"AUTH_JWKS_URL: {HTTPS}"),
        ({"AUTH_JWKS_URL": "http://localhost@evil.example/keys"}, f"AUTH_JWKS_URL: {HTTPS}"),
        ({"AUTH_JWKS_URL": "https://"}, f"AUTH_JWKS_URL: {HTTPS}"),
        ({"AUTH_JWKS_URL": "file:///etc/passwd"}, f"AUTH_JWKS_URL: {HTTPS}"),
        ({"AUTH_JWKS_URL": "https://id.example/keys"}, NO_AUDIENCE),
        ({"AUTH_JWKS_URL": "https://id.example/keys", "AUTH_AUDIENCE": ""}, NO_AUDIENCE),
    ],
)
def test_there_is_one_way_at_most_to_check_jwts(environ: dict[str, str], sentence: str) -> None:
    assert refused(auth_settings, environ) == sentence


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/keys", "http://localhost/keys/", "https://id.example/keys?a=b"])
def test_a_key_sets_address_is_taken_as_it_is(url: str) -> None:
    assert auth_settings({"AUTH_JWKS_URL": url, "AUTH_AUDIENCE": "app"}).jwks_url == url


POSTGRESQL = "must be an address such as postgresql://user@host/name"


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({"API_PORT": "0"}, "API_PORT: Input should be greater than or equal to 1."),
        ({"API_PORT": "http"}, "API_PORT: Input should be a valid integer, unable to parse string as an integer."),
        ({"ARM_WINDOW": "-1"}, "ARM_WINDOW: Input should be greater than or equal to 0."),
        ({"LOG_LEVEL": "LOUD"}, "LOG_LEVEL: Input should be 'DEBUG', 'INFO', 'WARNING' or 'ERROR'."),
        ({"ARM_WINDOW": "nan"}, "ARM_WINDOW: Input should be a finite number."),
        ({"DATABASE_URL": "mysql://app:hush-hush@db/x"}, f"DATABASE_URL: {POSTGRESQL}."),
        ({"DATABASE_URL": "postgresql://app:hush-hush@db:port/x"}, f"DATABASE_URL: {POSTGRESQL}."),
        ({"DATABASE_URL": "postgresql://app:hush-hush@[::1/x"}, f"DATABASE_URL: {POSTGRESQL}."),
        ({"DATABASE_URL": "postgresql://app:hush-hush@]/x"}, f"DATABASE_URL: {POSTGRESQL}."),
        (
            {"DATABASE_URL": "postgresql://app:hush-hush@db/x\n"},
            "DATABASE_URL: must not contain a blank or a line break; write %20 for a blank.",
        ),
        (
            {"DATABASE_URL": "postgresql://app:hush-hush@db/x?sslmode=maybe"},
            "DATABASE_URL: sslmode must be one of allow, disable, prefer, require, verify-ca, verify-full.",
        ),
        (
            {"DATABASE_URL": "postgresql://app:hush-hush@db:70000/x"},
            "DATABASE_URL: port must be between 1 and 65535.",
        ),
        (
            {"DATABASE_URL": "postgresql://app:hush-hush@db/x?sslmode=require&connect_timeout=5"},
            f"DATABASE_URL: connect_timeout is not a parameter of it; known are {', '.join(sorted(PARAMETERS))}.",
        ),
        (
            {"DATABASE_URL": "postgresql://app:hush-hush@a,b/x?target_session_attrs=standby"},
            "DATABASE_URL: target_session_attrs must be read-write: a server that takes no writes is of no use here.",
        ),
        (
            {"DATABASE_URL": "postgresql://app:hush-hush@a,b,c/x?port=1,2"},
            "DATABASE_URL: port must be one number, or as many as there are hosts.",
        ),
        ({"DATABASE_URL": "postgresql://app:hush-hush@a,b:port/x"}, f"DATABASE_URL: {POSTGRESQL}."),
        ({"TEMPORAL_UI_URL": "ui.example:8080"}, "TEMPORAL_UI_URL: must be an http:// or https:// address."),
        ({"TEMPORAL_UI_URL": "https://"}, "TEMPORAL_UI_URL: must be an http:// or https:// address."),
    ],
)
def test_a_value_that_cannot_be_is_refused_without_being_repeated(environ: dict[str, str], sentence: str) -> None:
    assert refused(service_settings, DATABASE | environ) == sentence


AT = "http://collector.example:4318"


@pytest.mark.parametrize(
    ("environ", "endpoint"),
    [
        ({}, None),
        ({"OTEL_SERVICE_NAME": "fastbell", "OTEL_TRACES_EXPORTER": "otlp"}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": AT}, f"{AT}/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": f"{AT}/"}, f"{AT}/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": AT, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{AT}/t"}, f"{AT}/t"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": AT, "OTEL_SDK_DISABLED": "true"}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": AT, "OTEL_TRACES_EXPORTER": "none"}, None),
    ],
)
def test_traces_go_where_the_standard_variables_say_and_nowhere_by_default(
    environ: dict[str, str], endpoint: str | None
) -> None:
    assert tracing_settings(environ).endpoint == endpoint


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318", "must be an http:// or https:// address."),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "Input should be 'http/protobuf'."),
        ("OTEL_TRACES_SAMPLER_ARG", "5", "Input should be less than or equal to 1."),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a-key", "must be name=value, several separated by commas."),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=b;c", "must be name=value, several separated by commas."),
        ("OTEL_TRACES_EXPORTER", "console", "Input should be 'otlp' or 'none'."),
    ],
)
def test_a_way_to_trace_that_there_is_not_is_refused(name: str, value: str, sentence: str) -> None:
    assert refused(tracing_settings, {name: value}) == f"{name}: {sentence}"


def test_a_file_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    assert refused(apns_settings, apns(str(tmp_path / "none.p8"))) == (
        f"APNS_KEY_FILE: names a file that does not exist: {tmp_path}/none.p8."
    )


def test_what_is_no_regular_file_is_not_called_missing(key_file: str, tmp_path: Path) -> None:
    for path in ("/dev/null", str(tmp_path)):
        sentence = f"FCM_CA_FILE: names what is no regular file: {path}."
        assert refused(fcm_settings, {"FCM_SERVICE_ACCOUNT_FILE": key_file, "FCM_CA_FILE": path}) == sentence


def test_a_file_that_holds_no_certificates_is_refused_as_an_authority(key_file: str) -> None:
    sentence = f"names a file without certificates: {key_file}."

    assert refused(apns_settings, apns(key_file, APNS_CA_FILE=key_file)) == f"APNS_CA_FILE: {sentence}"
    fcm = {"FCM_SERVICE_ACCOUNT_FILE": key_file, "FCM_CA_FILE": key_file}
    assert refused(fcm_settings, fcm) == f"FCM_CA_FILE: {sentence}"


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+asyncpg", "postgresql+psycopg"])
def test_a_database_address_may_name_any_driver(scheme: str) -> None:
    url = f"{scheme}://app@db.example/fastbell"

    assert service_settings({"DATABASE_URL": url}).database_url.get_secret_value() == url


def test_a_database_address_may_name_several_hosts() -> None:
    url = "postgresql://u:p@h1:5432,h2:5433/db?target_session_attrs=read-write"

    assert service_settings({"DATABASE_URL": url}).database_url.get_secret_value() == url


def test_no_secret_is_printed() -> None:
    settings: list[BaseModel] = [service_settings(DATABASE), auth_settings({"AUTH_JWT_SECRET": SECRET})]

    for section in settings:
        for printed in (repr(section), str(section), str(section.model_dump()), section.model_dump_json()):
            assert SECRET not in printed
            assert "hush-hush" not in printed


def test_no_refusal_repeats_a_secret() -> None:
    for environ in ({"AUTH_JWT_SECRET": "hush"}, {"AUTH_JWT_SECRET": SECRET + "hush", "AUTH_JWKS_URL": "https://a.b"}):
        assert "hush" not in refused(auth_settings, environ)
    assert "hush" not in refused(service_settings, {"DATABASE_URL": "hush://hush"})


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({}, None),
        ({"HTTPS_PROXY": ""}, None),
        ({"HTTPS_PROXY": "http://proxy.example:3128"}, "http://proxy.example:3128"),
        ({"HTTPS_PROXY": "proxy.example:3128"}, "http://proxy.example:3128"),
        ({"HTTPS_PROXY": "http://proxy.example:3128/"}, "http://proxy.example:3128/"),
        ({"HTTPS_PROXY": "user:word@proxy:3128"}, "http://user:word@proxy:3128"),
        ({"HTTPS_PROXY": "http://upper", "https_proxy": "http://lower"}, "http://lower"),
        ({"https_proxy": "http://user:word@[::1]:3128"}, "http://user:word@[::1]:3128"),
    ],
)
def test_a_proxy_is_read_as_other_programs_read_it(environ: dict[str, str], url: str | None) -> None:
    proxy = proxy_settings(environ).https_proxy

    assert (proxy and proxy.get_secret_value()) == url


def test_a_proxy_spares_this_machine_and_whatever_else_is_named() -> None:
    here = ("localhost", "127.0.0.0/8", "::1")

    assert proxy_settings({}).direct_hosts == here
    assert proxy_settings({"NO_PROXY": "Example.org, .internal,10.0.0.0/8"}).direct_hosts == (
        *here,
        "example.org",
        ".internal",
        "10.0.0.0/8",
    )


@pytest.mark.parametrize(
    "url",
    [
        "https://word@proxy",
        "socks5://word@proxy",
        "http://",
        "http://word@proxy:port",
        "word",
        "word word:3128",
        "http://proxy/word",
        "http://proxy?word",
        "http://proxy#word",
    ],
)
def test_a_proxy_that_is_none_is_refused_without_being_repeated(url: str) -> None:
    sentence = refused(proxy_settings, {"HTTPS_PROXY": url})

    assert sentence == "HTTPS_PROXY: must be the http:// address of a proxy."


def test_what_callers_are_granted_is_read() -> None:
    environ = {
        "RATE_LIMIT": "0",
        "RATE_LIMIT_SERVICE": "5 per second",
        "CORS_ORIGINS": "https://a.example, https://b.example:8443,",
        "MAX_CONCURRENT_REQUESTS_PER_CALLER": "4",
        "MAX_INSTALLATIONS_PER_USER": "0",
        "MESSAGE_RATE": "30/minute",
    }
    settings = limit_settings(environ | {"FORWARDED_ALLOW_IPS": "10.0.0.5, fd00::/8", "REQUEST_TIMEOUT": ""})

    assert settings.model_dump() == {
        "rate_limit": "0",
        "rate_limit_service": "5 per second",
        "request_timeout": 30.0,
        "most_requests": 1000,
        "max_concurrent_requests_per_caller": 4,
        "max_concurrent_requests_per_service": 64,
        "max_installations_per_user": 0,
        "max_active_fasts_per_user": 20,
        "message_burst": 20,
        "message_rate": "30/minute",
        "cors_origins": ("https://a.example", "https://b.example:8443"),
        "forwarded_allow_ips": "10.0.0.5, fd00::/8",
    }


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("RATE_LIMIT", "many", "must be a rate such as 600/minute, or 0 for no limit."),
        ("RATE_LIMIT_SERVICE", "0/minute", "must be a rate such as 600/minute, or 0 for no limit."),
        ("RATE_LIMIT", "9/second;600/minute", "must be a rate such as 600/minute, or 0 for no limit."),
        ("MESSAGE_RATE", "often", "must be a rate such as 600/minute, or 0 for no limit."),
        ("MESSAGE_BURST", "-1", "Input should be greater than or equal to 0."),
        ("MAX_INSTALLATIONS_PER_USER", "few", "Input should be a valid integer, unable to parse string as an integer."),
        ("REQUEST_TIMEOUT", "0", "Input should be greater than 0."),
        ("CORS_ORIGINS", "http://app.example", "must be an https:// address (http:// only on this machine)."),
        ("CORS_ORIGINS", "*", "must be an https:// address (http:// only on this machine)."),
        (
            "CORS_ORIGINS",
            "https://a.example/",
            "must be origins without a path, separated by commas, not https://a.example/.",
        ),
        ("FORWARDED_ALLOW_IPS", "proxy", "must be addresses or networks such as 10.0.0.0/8, separated by commas."),
    ],
)
def test_a_grant_that_cannot_be_is_refused(name: str, value: str, problem: str) -> None:
    assert refused(limit_settings, {name: value}) == f"{name}: {problem}"
