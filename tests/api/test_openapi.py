"""The API keeps its own word: schemathesis reads /openapi.json and tries what it promises, and what it forbids."""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema
from schemathesis.hooks import HookContext

from api.app import create_app
from api.http.auth import is_user_id
from api.open_streams import OpenStreamLimits
from domain.devices import Permission
from settings.environment import auth_settings, service_settings
from tests.stack import Stack, StackPlace, iphone, make_stack
from tests.support.dead import dead_task
from tests.talk import conversation_of

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "negative_data_rejection",
    "missing_required_header",
    "unsupported_method",
    "ignored_auth",
    "use_after_free",
)


OF_USERS = "device-tokens|fasting-sessions|notification-preferences|sync|preference-links|push-tasks"


DESCRIBES_A_PHONE = ("locale", "time_zone", "app_version", "os_version", "permission")  # stored as null if unreadable


@pytest.fixture
async def hasty(detached: StackPlace) -> AsyncIterator[Stack]:
    """An API whose streams end at once, so that one can wait for their ends."""
    environment = detached.environment()
    app = create_app(service_settings(environment), auth_settings(environment), OpenStreamLimits(max_duration=0))
    async with make_stack(detached, app) as stack:
        yield stack


@pytest.mark.long
@pytest.mark.timeout(150)
@pytest.mark.filterwarnings("ignore:Generating overly large repr")  # of a request that is large on purpose
async def test_schemathesis_finds_no_server_error_and_no_undocumented_answer(hasty: Stack) -> None:
    carol, erin, dave = hasty.user(None, "support", "service"), hasty.user(), hasty.user()
    known = Known(
        user_id=erin.user_id,  # nobody switches dave's reminders off
        sessions=[await erin.start_fast(due_in=3600) for _ in range(6)],
        tasks=[task_id for _ in range(6) for task_id in await dead_task(dave, iphone(), ends_in=59)],
        conversations=[await conversation_of(erin) for _ in range(6)],
    )
    config = SchemathesisConfig.from_dict(
        {
            "seed": 1,
            "headers": carol.headers,
            "continue-on-failure": True,
            "generation": {"deterministic": True, "max-examples": 40, "database": "none"},
            "checks": {"enabled": False} | {name: {"enabled": True} for name in CHECKS},
            "phases": {"stateful": {"generation": {"max-examples": 10}}},
        }
    )

    answers, failures = await asyncio.to_thread(_run, str(hasty.http.base_url), config, known)

    assert not failures, "\n\n".join(failures)
    assert set(answers) >= {200, 201, 202, 204, 401, 404, 405, 409, 422}, answers  # it came as far as it should
    assert answers.total() > 500


@dataclass(frozen=True)
class Known:
    """Ids of what exists, and of whom carol acts for."""

    user_id: str
    sessions: list[UUID]
    tasks: list[UUID]
    conversations: list[UUID]


def _run(address: str, config: SchemathesisConfig, known: Known) -> tuple[Counter[int], list[str]]:
    whole = schemathesis.openapi.from_url(f"{address}/openapi.json", config=config)
    schema = whole.exclude(path_regex=f"^/v1/({OF_USERS})")  # they are tried below /v1/users/: the same handlers

    ids = {"session_id": known.sessions, "task_id": known.tasks, "conversation_id": known.conversations}
    turns: dict[tuple[str, str], Iterator[UUID | None]] = {}

    @schema.hook
    def map_path_parameters(context: HookContext, parameters: dict[str, Any] | None) -> dict[str, Any] | None:
        """Turn valid ids into those of what exists, and now and then into a new one; each operation starts afresh."""
        assert context.operation is not None
        if not parameters:
            return parameters
        valid = [name for name in ids if _is_uuid(parameters.get(name))]
        for name in valid:
            turn = turns.setdefault((context.operation.label, name), itertools.cycle([*ids[name], None]))
            parameters |= {name: str(next(turn) or uuid4())}
        return parameters | ({"user_id": known.user_id} if _is_user_id(parameters.get("user_id")) else {})

    @schema.hook
    def map_body(_: HookContext, body: Any) -> Any:
        """Turn valid ends and starts into ones that a fast may have."""
        if not isinstance(body, dict):
            return body
        now = datetime.now(UTC)
        fitting = {"ends_at": now + timedelta(hours=9), "started_at": now - timedelta(hours=7)}
        fitted = {name: at.isoformat() for name, at in fitting.items() if _is_instant(body.get(name))}
        rehearsed = {"dry_run": True} if "limit" in body else {}  # else none would be left to be redriven by itself
        return body | fitted | rehearsed

    @schema.hook
    def filter_case(_: HookContext, case: schemathesis.Case[Any]) -> bool:
        """Leave out what the API takes on purpose: a phone is registered whatever it says of itself."""
        body = case.body if isinstance(case.body, dict) else {}
        return all(body.get(name) is None or isinstance(body[name], str) for name in DESCRIBES_A_PHONE) and (
            body.get("permission") in (None, *Permission)
        )

    answers, failures = Counter[int](), []
    for event in from_schema(schema).execute():
        if isinstance(event, events.FatalError | events.NonFatalError):
            failures.append(repr(event))
        if isinstance(event, events.ScenarioFinished):
            answers.update(each.response.status_code for each in event.recorder.interactions.values() if each.response)
            failures += _failures(event)
    return answers, failures


def _is_user_id(value: object) -> bool:
    return isinstance(value, str) and is_user_id(value)


def _is_uuid(value: object) -> bool:
    try:
        return isinstance(value, str) and str(UUID(value)) == value
    except ValueError:
        return False


def _is_instant(value: object) -> bool:
    try:
        return isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False


def _failures(event: events.ScenarioFinished) -> list[str]:
    return [
        f"{event.label}: {check.name}: {check.failure_info.failure}\n{check.failure_info.code_sample}"
        for checks in event.recorder.checks.values()
        for check in checks
        if check.failure_info is not None
    ]
