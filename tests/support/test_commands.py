"""The operators' commands see and do what the API does, in a process of their own."""

import asyncio
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from structlog.testing import capture_logs

import cli
from db import workers
from domain.push import Environment, Provider, Route
from push.limiter.registry import RouteLimiters
from push.limiter.settings import Limits
from simulator import Simulator
from tests.busy import ANSWERED_WITHIN
from tests.console.visits import an_address
from tests.stack import Stack, User, android, iphone
from tests.support.cli import run
from tests.support.dead import dead_task, redriven, task


async def test_dead_pushes_are_listed_shown_and_redriven_from_the_command_line(stack: Stack, alice: User) -> None:
    reason, phone = f"reason-{uuid4()}", iphone()
    [task_id] = await dead_task(alice, phone, minutes=10, reason=reason)  # each command may take long to start

    _, table, _ = await run(stack, "dead", "list", "--reason", reason)
    _, shown, _ = await run(stack, "dead", "show", str(task_id))
    status, told, _ = await run(stack, "dead", "redrive", "--task", str(task_id))

    [titles, line] = table.splitlines()
    assert titles.split() == ["TASK", "DUE", "STATE", "ROUTE", "TRIES", "REASON", "USER", "REDRIVE"]
    assert [*line.split()[:1], *line.split()[3:]] == [
        str(task_id), "dead", "apns/production", "0", reason, alice.user_id, "possible",
    ]  # fmt: skip
    assert f"token:            {phone.token[-6:]}\n" in shown
    assert phone.token not in table + shown
    assert (status, told) == (0, "WHAT HAPPENED  PUSH TASKS\nredriven       1\n")
    assert (await redriven(stack, task_id))[0] == "accepted"
    [action] = await stack.rows("SELECT actor FROM support_actions WHERE subject_id = :id", id=task_id)
    assert action.actor == "cli:erin"


async def test_a_redrive_by_filter_can_be_rehearsed_and_finds_a_local_runs_database(
    stack: Stack, alice: User, tmp_path: Path
) -> None:
    reason = f"reason-{uuid4()}"
    task_ids = await dead_task(alice, iphone(), android(), minutes=10, reason=reason)
    (tmp_path / "run.env").write_text(f"DATABASE_URL='{stack.place.database_url}'\n")
    local_run = {"DATABASE_URL": "", "RUN_DIR": str(tmp_path)}
    words = ("dead", "redrive", "--reason", reason, "--limit", "10", "--json")
    expected = {"redriven": 2, "withheld": {}, "limit_reached": False}

    rehearsed = await run(stack, *words, "--dry-run", **local_run)
    assert (rehearsed[0], json.loads(rehearsed[1])) == (0, expected)
    assert {(await task(stack, each)).state for each in task_ids} == {"dead"}

    meant = await run(stack, *words, **local_run)
    assert (meant[0], json.loads(meant[1])) == (0, expected)
    assert {(await redriven(stack, each))[0] for each in task_ids} == {"accepted"}


async def test_a_push_that_cannot_be_redriven_is_reported_in_one_sentence(stack: Stack, alice: User) -> None:
    [task_id] = await dead_task(alice, iphone())
    async with stack.sessions.begin() as db:
        await db.execute(text("UPDATE push_tasks SET expires_at = now() WHERE task_id = :id"), {"id": task_id})

    assert await run(stack, "dead", "redrive", "--task", str(task_id)) == (
        1,
        "",
        "This push cannot be redriven: it has expired, and showing it now would mislead.\n",
    )


async def beat(db: AsyncSession, worker_id: UUID, report: Mapping[str, Any]) -> None:
    """Let a worker live for a minute: a command may take longer to start than the 10 s that a heartbeat counts."""
    await workers.beat(db, worker_id, report, lives=10)
    await db.execute(
        text("UPDATE workers SET seen_at = seen_at + interval '1 minute' WHERE worker_id = :id"), {"id": worker_id}
    )


async def test_each_workers_share_of_the_rate_is_seen_from_the_command_line(stack: Stack) -> None:
    limits = {Provider.FCM: Limits(concurrency=10, rate=50.0), Provider.APNS: Limits(concurrency=10)}
    worker_id, gates = uuid4(), RouteLimiters(limits)
    limited, free = (Route(provider, "app.rate", Environment.PRODUCTION) for provider in (Provider.FCM, Provider.APNS))
    for route in (limited, free):
        gates.at(route).share(0.25)
    async with stack.sessions.begin() as db:
        await beat(db, worker_id, gates.report())

    _, table, _ = await run(stack, "gates", "list")

    async with stack.sessions.begin() as db:
        await workers.leave(db, worker_id)
    titles, *lines = table.splitlines()
    column = titles.index("RATE")
    shares = {line.split()[0]: line[column:].split("  ")[0] for line in lines if "/app.rate/" in line}
    assert shares == {"fcm/app.rate/production": "12.5/s", "apns/app.rate/production": "no limit"}


async def test_refusals_that_no_table_knows_are_seen_from_the_command_line(stack: Stack) -> None:
    worker_id, known = uuid4(), {"provider": "apns", "status": 400, "reason": "SeenByErin", "count": 7}
    known["last_at"] = "2026-11-25T10:00:00Z"
    async with stack.sessions.begin() as db:
        await beat(db, worker_id, {"gates": [], "unknown_refusals": [known]})

    _, table, _ = await run(stack, "gates", "list")
    _, told, _ = await run(stack, "gates", "list", "--json")

    async with stack.sessions.begin() as db:
        await workers.leave(db, worker_id)
    titles, *lines = table.partition("\n\n")[2].splitlines()
    assert re.split(" {2,}", titles) == ["PROVIDER", "STATUS", "UNKNOWN REASON", "TIMES", "LAST"]
    assert ["apns", "400", "SeenByErin", "7", "2026-11-25", "10:00:00Z"] in [line.split() for line in lines]
    assert known in json.loads(told)["unknown_refusals"]


async def test_a_cutoff_is_seen_and_resumed_from_the_command_line(stack: Stack) -> None:
    engage = (
        "INSERT INTO brakes (provider, app_id, environment, reason, token_errors, answers) "
        "VALUES ('apns', 'app.cli', 'sandbox', 'BadDeviceToken', 90, 100) RETURNING id"
    )
    async with stack.sessions.begin() as db:
        brake_id = (await db.execute(text(engage))).scalar_one()

    _, table, _ = await run(stack, "gates", "list")
    resumed = await run(stack, "gates", "resume", str(brake_id))

    [line] = [line for line in table.splitlines() if line.startswith("apns/app.cli/sandbox ")]
    assert line.endswith(f"  {brake_id} (BadDeviceToken)")
    assert resumed == (0, "Resumed. 90 of 100 users had token errors (BadDeviceToken).\n", "")


async def test_a_timeline_is_reported_on_the_command_line_in_order(stack: Stack, alice: User) -> None:
    phone = iphone()
    await alice.register(phone)
    session_id = await alice.start_fast(due_in=3600)
    await alice.cancel(session_id)

    status, lines, _ = await run(stack, "timeline", "--user", alice.user_id)
    _, of_the_fast, _ = await run(stack, "timeline", "--user", alice.user_id, "--session", str(session_id))
    _, told, _ = await run(stack, "timeline", "--user", alice.user_id, "--limit", "1", "--json")

    assert (status, len(lines.splitlines())) == (0, 3)
    assert re.fullmatch(
        rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\dZ  Registered the iPhone {str(phone.installation_id)[:8]} for pushes\.",
        lines.splitlines()[0],
    )
    assert of_the_fast.splitlines() == lines.splitlines()[1:]
    [item] = json.loads(told)
    assert (item["event"], item["session_id"]) == ("fast_cancelled", str(session_id))


async def test_of_whom_nothing_is_known_one_sentence_is_said(stack: Stack, alice: User) -> None:
    await alice.register(iphone())
    somebody_elses, nobody = str(uuid4()), f"nobody-{uuid4()}"

    assert await run(stack, "timeline", "--user", nobody) == (0, "", f"Nothing is known of {nobody}.\n")
    assert await run(stack, "timeline", "--user", alice.user_id, "--session", somebody_elses) == (
        0,
        "",
        f"Nothing is known of {alice.user_id} in this part of their timeline.\n",
    )


@pytest.mark.long
async def test_a_test_push_is_sent_and_followed_from_the_command_line(
    stack: Stack, simulator: Simulator, alice: User
) -> None:
    phone, apple = android(), iphone()
    await alice.register(phone, apple)
    simulator.faults.add(provider="apns", token=apple.token, fault="answer", status=400, reason="BadMessageId")

    to_one = await run(stack, "test-push", "--user", alice.user_id, "--installation", str(phone.installation_id))
    to_all, told, _ = await run(stack, "test-push", "--user", alice.user_id, "--json")
    _, dry, _ = await run(stack, "test-push", "--user", alice.user_id, "--validate-only")
    nobody = await run(stack, "test-push", "--user", f"nobody-{uuid4()}")

    name = f"{phone.installation_id}  fcm"
    assert (to_one[0], to_one[1].splitlines()[-1]) == (0, f"{name}  Accepted by the provider.")
    states = {item["provider"]: item["state"] for item in json.loads(told)["items"]}
    assert (to_all, states) == (1, {"apns": "rejected", "fcm": "accepted"})
    assert dry.splitlines()[0] == f"{apple.installation_id}  apns  Skipped: Apple has no dry run."
    assert "Google checked the push" in dry
    assert nobody == (1, "", "No phone of this person has an active token.\n")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("dead redrive --provider apns", "error: give --task, or --limit with a filter or --all"),
        ("dead redrive --limit 10", "error: give --task, or --limit with a filter or --all"),
        ("dead redrive --all", "error: give --task, or --limit with a filter or --all"),
        ("dead redrive --all --provider apns --limit 10", "with a filter or --all"),
        (f"dead redrive --task {UUID(int=1)} --all", "can be redriven"),
        (f"dead redrive --task {UUID(int=1)} --limit 3", "can be redriven"),
        ("dead list --limit 0", "error: argument --limit: must be a number from 1 to 10000"),
        ("dead list --due-from 2026-01-01T00:00", "error: argument --due-from: must be an instant with an offset"),
        ("timeline --user anna --limit 1001", "error: argument --limit: must be a number from 1 to 1000"),
        ("timeline", "error: the following arguments are required: --user"),
        (f"timeline --user {'a' * 201}", "argument --user: a user id has 1 to 200 printable characters"),
        (f"test-push --user {'a' * 201}", "argument --user: a user id has 1 to 200 printable characters"),
        (f"dead list --user {'a' * 201}", "argument --user: a user id has 1 to 200 printable characters"),
        ("dead list --state lost", "error: argument --state: must be one of pending, accepted, rejected"),
        ("dead list --due-to yesterday", "error: argument --due-to: must be an instant with an offset"),
        ("dead list --kind call", "error: argument --kind: must be one of reminder, message, test"),
    ],
)
def test_what_argparse_refuses_is_told_its_way(words: str, complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main(words.split())

    assert exit_.value.code == 2
    assert complaint in capsys.readouterr().err


def test_tasks_of_other_states_are_listed_of_somebody_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["dead", "list", "--state", "pending"]) == 2
    assert "of one user, conversation or message only" in capsys.readouterr().err


def test_a_database_has_to_be_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.setenv("RUN_DIR", str(tmp_path))

    assert cli.main(["dead", "list"]) == 2
    assert capsys.readouterr().err == (
        f"DATABASE_URL is not set, and there is no local run in {tmp_path}. `make run` starts one.\n"
    )


async def test_a_code_from_the_command_line_signs_its_person_in_to_the_console(stack: Stack, tmp_path: Path) -> None:
    settings = {"API_PORT": "8765", "API_HOST": "", "RUN_DIR": str(tmp_path)}

    status, told, complaints = await run(stack, "console", **settings)
    [(address, code)] = re.findall(r"console  (\S+)\ncode     (\S+)\n", told)
    async with httpx.AsyncClient(
        base_url=stack.http.base_url, follow_redirects=True, timeout=ANSWERED_WITHIN
    ) as browser:
        headers = {"x-forwarded-for": an_address()}
        page = await browser.post("/console/sign-in", data={"code": code}, headers=headers)

    assert (status, complaints) == (0, "")
    assert address == "http://127.0.0.1:8765/console"
    assert page.url.path == "/console/"
    assert "cli:erin" in page.text


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 201])
def test_a_name_that_cannot_be_gets_no_code(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main(["console", "--user", name])

    assert exit_.value.code == 2
    assert "argument --user: a user id has 1 to 200 printable characters" in capsys.readouterr().err


async def test_an_api_key_is_printed_once_listed_without_its_text_and_revoked(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", stack.place.database_url)
    monkeypatch.setenv("LOGNAME", "erin")
    name = f"shop-{uuid4()}"

    async def said(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with capture_logs():  # of the stack in this process
            return await asyncio.to_thread(cli.main, ["api-keys", *words]), *capsys.readouterr()

    created = [await said("create", "--name", name, "--scope", "service", *more) for more in ((), LASTING)]
    keys = [out.removesuffix("\n") for _, out, _ in created]
    by_key = {"Authorization": f"Bearer {keys[0]}"}
    used = await stack.http.get("/v1/users/alice/device-tokens", headers=by_key)
    listed = (await said("list"))[1]
    shown = [each for each in json.loads((await said("list", "--json"))[1]) if each["name"] == name]
    first = shown[1]["key_id"]
    revoked = [await said("revoke", first), await said("revoke", first), await said("revoke", "--name", name)]
    unknown = await said("revoke", str(uuid4()))

    assert [(status, complaints) for status, _, complaints in created] == [(0, "")] * 2
    assert all(re.fullmatch(r"fbk_[\w-]{43}", key) for key in keys)
    assert used.status_code == 200
    assert not any(key[4:] in listed + str(shown) for key in keys)
    assert [(each["scopes"], each["state"]) for each in shown] == [(["service"], "active")] * 2
    assert [each["expires_at"] is None for each in shown] == [False, True]
    assert [each["last_used_at"] is None for each in shown] == [True, False]
    told = f"Revoked {first} ({name}).\n"
    assert revoked[:2] == [(0, told, "")] * 2
    assert sorted(revoked[2][1].splitlines()) == sorted(f"Revoked {each['key_id']} ({name})." for each in shown)
    assert unknown == (1, "", "There is no such API key.\n")
    rows = [line.split()[1:4] for line in (await said("list"))[1].splitlines()]  # others' keys make columns wider
    assert rows.count([name, "service", "revoked"]) == 2
    deeds = "SELECT actor, action FROM support_actions WHERE subject_id = :id ORDER BY id"
    assert await stack.rows(deeds, id=first) == [("cli:erin", "create_api_key"), ("cli:erin", "revoke_api_key")]


LASTING = ("--scope", "service", "--expires-in-days", "30")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("create --scope service", "the following arguments are required: --name"),
        ("create --name a", "the following arguments are required: --scope"),
        ("create --name a --scope admin", "invalid choice: 'admin' (choose from"),
        ("create --name a --scope service --expires-in-days 0", "must be a number of days from 1 to 3650"),
        (f"create --name a --scope service --expires-in-days {'9' * 5000}", "must be a number of days from 1 to 3650"),
        (f"create --name {'a' * 201} --scope service", "a user id has 1 to 200 printable characters"),
        ("revoke", "one of the arguments ID --name is required"),
    ],
)
def test_an_api_key_asked_for_wrongly_is_not_created(
    words: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        cli.main(["api-keys", *words.split()])

    assert raised.value.code == 2
    assert complaint in capsys.readouterr().err
