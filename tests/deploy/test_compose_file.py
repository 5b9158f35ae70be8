"""The compose file is valid, keeps our rules, and passes every setting on."""

import pytest

from settings.environment import (
    ApnsSettings,
    AuthSettings,
    FcmSettings,
    LimiterSettings,
    LimitSettings,
    ProxySettings,
    RetentionSettings,
    ServiceSettings,
    TemporalSettings,
    TracingSettings,
)
from tests.deploy.compose import COMPOSE_FILE, project
from tests.deploy.faults import SETTINGS, faults

NOT_PASSED = {"APNS_CA_FILE", "FCM_CA_FILE"}  # only a simulator signs its own certificates
OF_BOTH = {
    name.upper() for section in (ServiceSettings, TemporalSettings, TracingSettings) for name in section.model_fields
}
OF_API = {f"AUTH_{name.upper()}" for name in AuthSettings.model_fields} | {
    name.upper() for name in LimitSettings.model_fields
}
OF_WORKER = {f"APNS_{name.upper()}" for name in ApnsSettings.model_fields} | {
    f"FCM_{name.upper()}" for name in FcmSettings.model_fields
}
OF_WORKER |= {
    name.upper() for section in (ProxySettings, LimiterSettings, RetentionSettings) for name in section.model_fields
}


def test_the_file_follows_the_specification_and_our_rules() -> None:
    assert faults(COMPOSE_FILE.read_text()) == []


@pytest.mark.parametrize(
    ("right", "broken", "fault"),
    [
        ("stop_grace_period: 45s", "stop_grace: 45s", "schema"),
        ("volumes:\n  postgres:", "volumes: [postgres]", "schema"),
        ("stop_grace_period: 45s", "stop_grace_period: 20s", "worker: is killed"),
        ("command: [python, worker.py]", "container_name: worker", "worker: cannot be scaled"),
        ("127.0.0.1:${API_PORT:-8000}:8000", "${API_PORT:-8000}:8000", "api: port 8000:8000"),
        ("postgres:17-bookworm", "postgres:latest", "postgres: image"),
        ("temporalio/ui:2.54.1", "temporalio/ui", "temporal-ui: image"),
        ("security_opt: *no-new-privileges", "security_opt: []", "postgres: may gain privileges"),
        ("migrate: {condition: service_completed", "migrations: {condition: service_completed", "api: depends on"),
        (
            "postgres: {condition: service_healthy}",
            "postgres: {condition: service_started}",
            "database-roles: waits for",
        ),
        ("  required: false", "  required: true", "worker: cannot start without temporal-setup"),
        ("${ARM_WINDOW:-60}", "${ARMED_WINDOW:-60}", "ARMED_WINDOW: not documented"),
        ("    healthcheck: # it", "    x-healthcheck: # it", "worker: runs on without"),
        ("./deploy/not-set", "./deploy/nothing", "no file ./deploy/nothing"),
        ("./deploy:/deploy:ro", "./deployment:/deploy:ro", "no volume ./deployment"),
    ],
)
def test_a_broken_copy_is_rejected(right: str, broken: str, fault: str) -> None:
    text = COMPOSE_FILE.read_text()
    assert right in text

    assert any(fault in found for found in faults(text.replace(right, broken)))


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_that_has_no_default_is_asked_for(name: str) -> None:
    with pytest.raises(KeyError, match=f"{name}: set it in .env"):
        project(COMPOSE_FILE.read_text(), {**SETTINGS, name: ""})


@pytest.mark.parametrize(("name", "own"), [("api", OF_API), ("worker", OF_WORKER)])
def test_a_service_is_passed_its_settings_and_no_unknown_one(name: str, own: set[str]) -> None:
    services = project(COMPOSE_FILE.read_text(), SETTINGS)["services"]
    passed = services[name]["environment"].keys()

    assert own - passed - NOT_PASSED == set(), "docker-compose.yml and docs/deployment.md must name these settings"
    assert {one for one in passed if not one.startswith("TEMPORAL_")} <= OF_BOTH | own
    assert services["api"]["environment"].keys() | services["worker"]["environment"].keys() >= OF_BOTH


def test_without_the_profile_no_temporal_server_is_started() -> None:
    services = project(COMPOSE_FILE.read_text(), SETTINGS)["services"]

    assert {name for name, service in services.items() if not service.get("profiles")} == {
        "postgres",
        "database-roles",
        "migrate",
        "api",
        "worker",
    }
