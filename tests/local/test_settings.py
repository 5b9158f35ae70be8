"""Settings of a local run, and the operators' commands without one."""

import base64
import re
import socket
from pathlib import Path
from typing import Any

import jwt
import pytest

import cli
from commands.context import read_settings
from demo.parts import LogLine, read_line
from demo.settings import check_ports, local_settings, metrics_ports, shared_environment, write_settings
from domain.push import Provider
from settings.environment import (
    ApnsSettings,
    AuthSettings,
    ConfigError,
    FcmSettings,
    LimiterSettings,
    RetentionSettings,
    ServiceSettings,
    TracingSettings,
    apns_settings,
    fcm_settings,
)
from tests.local.run import ROOT

SECRET = "s" * 40


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({"API_PORT": "http"}, "API_PORT must be a port number from 1 to 65535."),
        ({"SIMULATOR_PORT": "65533"}, "SIMULATOR_PORT must be a port number from 1 to 65532."),
        ({"APNS_KEY_ID": "ABC"}, "APNS_KEY_FILE is not set; see .env.example for what it means."),
        ({"APNS_KEYID": "ABC"}, "APNS_KEYID is not a setting of Fastbell; did you mean APNS_KEY_ID?"),
        ({"AUTH_JWT_SECRET": "short"}, "AUTH_JWT_SECRET must have at least 32 bytes."),
        (
            {"RUN_DIR": "/my runs"},
            "RUN_DIR /my runs has a space, quote or the like, which PostgreSQL's start cannot take.",
        ),
        (
            {"FCM_RATE": "fast"},
            "FCM_RATE: Input should be a valid number, unable to parse string as a number.",
        ),
        ({"RETENTION_DAYS": "1"}, "RETENTION_DAYS: Input should be greater than or equal to 2."),
        ({"PAYLOAD_KEYS_FILE": "/no"}, "PAYLOAD_KEYS_FILE: names a file that does not exist: /no."),
        ({"WORKERS": "0"}, "WORKERS must be a number from 1 to 64."),
        ({"WORKERS": "two"}, "WORKERS must be a number from 1 to 64."),
        ({"LOG_LEVEL": "LOUD"}, "LOG_LEVEL: Input should be 'DEBUG', 'INFO', 'WARNING' or 'ERROR'."),
    ],
)
def test_settings_that_cannot_be_are_reported_in_one_sentence(environ: dict[str, str], sentence: str) -> None:
    with pytest.raises(ConfigError) as raised:
        local_settings(environ)

    assert str(raised.value) == sentence


def test_two_parts_cannot_have_one_port() -> None:
    given = {"API_PORT": "18903", "SIMULATOR_PORT": "18900", "METRICS_PORT": "19464", "TEMPORAL_ADDRESS": "t:7233"}
    settings = local_settings(given)  # no port of a run that is going on beside this

    with pytest.raises(ConfigError) as raised:
        check_ports(settings)

    assert str(raised.value) == "API_PORT and SIMULATOR_PORT + 3 are both 18903; set one of them to another port."


def test_each_further_worker_has_the_next_port_that_is_free_and_no_other_parts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        taken = busy.getsockname()[1]
        settings = local_settings({"METRICS_PORT": str(taken - 1), "API_PORT": str(taken + 1), "WORKERS": "2"})

        first, second = metrics_ports(settings)

    assert first == taken - 1
    assert second > taken + 1


@pytest.mark.parametrize(
    ("host", "seen_from_here"),
    [
        (None, "http://127.0.0.1:18000"),
        ("0.0.0.0", "http://127.0.0.1:18000"),
        ("::", "http://127.0.0.1:18000"),
        ("::1", "http://[::1]:18000"),
        ("127.0.0.2", "http://127.0.0.2:18000"),
    ],
)
def test_the_api_listens_where_it_is_told_to_and_nothing_else_does(
    host: str | None, seen_from_here: str, tmp_path: Path
) -> None:
    told = {"PUBLIC_URL": "http://192.168.1.5:18000"} | ({"API_HOST": host} if host else {})
    settings = local_settings({"RUN_DIR": str(tmp_path), "API_PORT": "18000", "METRICS_HOST": "0.0.0.0", **told})

    shared = shared_environment(settings, "postgresql:///given")

    assert settings.api_url == seen_from_here
    assert shared["API_HOST"] == (host or "127.0.0.1")
    assert shared["PUBLIC_URL"] == "http://192.168.1.5:18000"
    assert shared["METRICS_HOST"] == "127.0.0.1"


@pytest.mark.parametrize("host", ["203.0.113.1", "no such host", "a..b"])
def test_an_api_host_that_is_not_this_machine_is_reported_by_its_name(host: str) -> None:
    settings = local_settings({"API_HOST": host, "API_PORT": "18000"})

    with pytest.raises(ConfigError) as raised:
        check_ports(settings)

    assert str(raised.value) == f"API_HOST {host} is no address of this machine."


def test_a_providers_own_settings_win_wholly_over_the_simulators(tmp_path: Path) -> None:
    account = tmp_path / "account.json"
    account.touch()
    settings = local_settings({"RUN_DIR": str(tmp_path), "FCM_SERVICE_ACCOUNT_FILE": str(account), "APNS_URL": ""})

    shared = shared_environment(settings, "postgresql:///given")

    assert settings.simulated == {Provider.APNS}
    assert {name for name in shared if name.startswith("FCM_")} == {"FCM_SERVICE_ACCOUNT_FILE"}
    assert shared["APNS_URL"] == "https://127.0.0.1:8901"


def test_limits_towards_providers_leave_the_simulators_settings_as_they_are(tmp_path: Path) -> None:
    limits = {"APNS_RATE": "50", "APNS_CONCURRENCY": "10", "FCM_RATE": "100", "FCM_CONCURRENCY": "20"}
    settings = local_settings({"RUN_DIR": str(tmp_path), **limits})

    shared = shared_environment(settings, "postgresql:///given")

    assert settings.simulated == {*Provider}
    assert limits.items() <= shared.items()
    assert apns_settings(shared)
    assert fcm_settings(shared)


def test_servers_that_are_named_are_used_and_not_started(tmp_path: Path) -> None:
    named = {"DATABASE_URL": "postgresql://db/x", "TEMPORAL_ADDRESS": "t:7233", "TEMPORAL_API_KEY": "key"}
    settings = local_settings({**named, "RUN_DIR": str(tmp_path), "AUTH_JWT_SECRET": SECRET, "HOME": "/home/me"})

    shared = shared_environment(settings, named["DATABASE_URL"])

    assert not settings.starts_postgres
    assert not settings.starts_temporal
    assert "TEMPORAL_PORT" not in settings.ports
    assert "TEMPORAL_UI_URL" not in shared
    assert named.items() <= shared.items()
    assert shared["AUTH_JWT_SECRET"] == SECRET
    assert settings.inherited == {"HOME": "/home/me"}


def test_what_is_started_by_hand_beside_a_run_has_its_settings(tmp_path: Path) -> None:
    keys = tmp_path / "payload-keys"
    keys.write_text(f"first {base64.b64encode(bytes(32)).decode()}")
    given = {"PAYLOAD_KEYS_FILE": str(keys), "RETENTION_DAYS": "9", "BRAKE_SHARE": "1", "RATE_LIMIT": "0"}
    settings = local_settings({**given, "RUN_DIR": str(tmp_path)})

    write_settings(tmp_path, shared_environment(settings, ""))

    assert given.items() <= read_settings(tmp_path).items()


def test_the_page_of_a_temporal_that_is_started_is_its_own(tmp_path: Path) -> None:
    settings = local_settings({"RUN_DIR": str(tmp_path), "TEMPORAL_UI_PORT": "1234", "TEMPORAL_UI_URL": "http://else"})

    assert shared_environment(settings, "")["TEMPORAL_UI_URL"] == "http://127.0.0.1:1234"


def test_a_run_keeps_its_secret(tmp_path: Path) -> None:
    settings = local_settings({"RUN_DIR": str(tmp_path)})

    first, second = (shared_environment(settings, "")["AUTH_JWT_SECRET"] for _ in range(2))

    assert first == second
    assert (tmp_path / "jwt-secret").stat().st_mode & 0o777 == 0o600


def test_settings_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    settings = {"PLAIN": "1", "EMPTY": "", "ODD": 'it\'s # "a" $HOME\nand=more \\'}

    write_settings(tmp_path, settings)

    assert read_settings(tmp_path) == settings


def test_every_setting_has_a_line_in_the_example() -> None:
    listed = set(re.findall(r"^#([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    sections: dict[str, Any] = {"": ServiceSettings, "APNS_": ApnsSettings, "FCM_": FcmSettings, "AUTH_": AuthSettings}
    known = {prefix + name.upper() for prefix, section in sections.items() for name in section.model_fields}

    known |= {
        name.upper()
        for section in (LimiterSettings, RetentionSettings, TracingSettings)
        for name in section.model_fields
    }
    assert known <= listed
    assert {"RUN_DIR", "TEMPORAL_PORT", "TEMPORAL_UI_PORT", "SIMULATOR_PORT", "TEMPORAL_ADDRESS"} <= listed


@pytest.mark.parametrize(
    ("line", "plain_level", "read"),
    [
        ('{"level": "info", "event": "ready", "n": 1}', "error", LogLine("", "ready  n=1", "ready")),
        ('{"level": "warning", "event": "late"}', "", LogLine("warning", "late", "late")),
        ('{"level": "fatal", "ts": "now", "msg": "over"}', "", LogLine("error", "over", "over")),
        ("Traceback", "error", LogLine("error", "Traceback")),
        ("Server: up", "", LogLine("", "Server: up")),
        ("[1, 2", "", LogLine("", "[1, 2")),
        ("12", "error", LogLine("error", "12")),
        ("", "error", LogLine("", "")),
    ],
)
def test_a_parts_line_is_read_for_what_it_is(line: str, plain_level: str, read: LogLine) -> None:
    assert read_line(line, plain_level) == read


NO_ADDRESS = "DATABASE_URL: must be an address such as postgresql://user@host/name."


@pytest.mark.parametrize(
    ("arguments", "settings", "sentence"),
    [
        ("token --user a", {}, "AUTH_JWT_SECRET is not set, and there is no local run in {}. `make run` starts one."),
        ("token --user a", {"AUTH_JWT_SECRET": "x"}, "AUTH_JWT_SECRET must have at least 32 bytes."),
        (
            "token --user a",
            {"AUTH_JWKS_URL": "https://issuer", "AUTH_AUDIENCE": "app"},
            "AUTH_JWKS_URL is set, so only its issuer can make bearer tokens.",
        ),
        ("migrate", {}, "DATABASE_URL is not set; see .env.example for what it means."),
        ("migrate", {"DATABASE_URL": "nonsense"}, NO_ADDRESS),
        ("migrate", {"DATABASE_URL": "postgresql://user@host:port/name"}, NO_ADDRESS),
        ("dead list", {"DATABASE_URL": "postgresql://user@host:port/name"}, NO_ADDRESS),
        (
            "migrate",
            {"DATABASE_URL": "postgresql://127.0.0.1:9/x"},
            "DATABASE_URL: PostgreSQL cannot be reached (ConnectionRefusedError).",
        ),
    ],
)
def test_a_command_that_cannot_run_says_in_one_sentence_why(
    arguments: str,
    settings: dict[str, str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("AUTH_JWT_SECRET", "AUTH_JWKS_URL", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"RUN_DIR": str(tmp_path), **settings}.items():
        monkeypatch.setenv(name, value)

    status = cli.main(arguments.split())

    assert (status, *capsys.readouterr()) == (2, "", sentence.format(tmp_path) + "\n")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "the following arguments are required: command"),
        (["token"], "the following arguments are required: --user"),
        (["token", "--user", ""], "argument --user: a user id has 1 to 200 printable characters"),
        (["token", "--user", "a\n"], "argument --user: a user id has 1 to 200 printable characters"),
        (
            ["token", "--user", "a", "--hours", "-1"],
            "argument --hours: must be a number of hours above 0, at most a year",
        ),
    ],
)
def test_a_command_told_wrongly_says_what_it_wants(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        cli.main(arguments)

    assert raised.value.code == 2
    assert capsys.readouterr().err.rstrip().endswith(complaint)


def test_a_tokens_audience_issuer_scopes_and_lifetime_are_as_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"AUTH_JWT_SECRET": SECRET, "AUTH_AUDIENCE": "app", "AUTH_ISSUER": "me"}.items():
        monkeypatch.setenv(name, value)

    assert cli.main(["token", "--user", "a", "--scope", "support", "--scope", "service", "--hours", "2"]) == 0

    claims = jwt.decode(capsys.readouterr().out.strip(), SECRET, algorithms=["HS256"], audience="app", issuer="me")
    assert claims.pop("exp") - claims.pop("iat") == 2 * 3600
    assert claims == {"sub": "a", "aud": "app", "iss": "me", "scope": "support service"}
