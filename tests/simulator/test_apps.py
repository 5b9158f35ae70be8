"""Several apps at one Apple and one Google: topics, projects, and who may send for which."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from simulator import DEMO, App, Ports, Simulator, apps_named
from simulator.settings import ProcessSettings
from tests.busy import ANSWERED_WITHIN
from tests.simulator.raw_http2 import TOKEN, RawHttp2
from tests.simulator.test_fcm import TOKEN as FCM_TOKEN
from tests.simulator.test_fcm import message
from tests.simulator.tokens import access_token, provider_token, service_account, trusting

SISTER = App("sister", "app.fastbell.sister", DEMO.team_id, DEMO.key_id, "fastbell-sister")  # of the same team
APPS = (*apps_named(["tea"]), SISTER)


@pytest.fixture(scope="module")
async def _of_three(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Simulator]:
    async with Simulator.start(run_dir=tmp_path_factory.mktemp("apps"), apps=APPS) as running:
        yield running


@pytest.fixture
async def sim(_of_three: Simulator) -> Simulator:
    """A simulator of three apps, without phones, faults or memories."""
    _of_three.clear()
    return _of_three


async def test_each_app_has_its_own_settings(sim: Simulator) -> None:
    async with httpx.AsyncClient(base_url=sim.url, timeout=ANSWERED_WITHIN) as admin:
        listed = (await admin.get("/apps")).json()

    tea = sim.environments["tea"]
    account = service_account(sim, "tea")
    assert listed["items"] == [
        {"name": name, "environment": sim.environments[name]} for name in ("demo", "tea", "sister")
    ]
    assert (tea["APNS_TOPIC"], tea["APNS_TEAM_ID"], tea["APNS_KEY_ID"]) == (
        "app.fastbell.tea",
        "FBSIMTEAM2",
        "FBSIMKEY02",
    )
    assert (account["project_id"], account["client_email"]) == (
        "fastbell-tea",
        "simulator@fastbell-tea.iam.gserviceaccount.com",
    )
    assert sim.environments["sister"]["APNS_KEY_FILE"] == sim.environment["APNS_KEY_FILE"] != tea["APNS_KEY_FILE"]


async def test_apns_serves_the_topics_of_a_team_and_no_others(sim: Simulator, raw: RawHttp2) -> None:
    own, sister = await raw.push(), await raw.push({"apns-topic": SISTER.topic}, token="b" * 64)
    foreign = await raw.push({"apns-topic": "app.fastbell.tea"}, token="c" * 64)

    assert (own.status, sister.status) == (200, 200)
    assert (foreign.status, foreign.body) == (400, {"reason": "TopicDisallowed"})
    assert [request.app for request in sim.requests] == [DEMO.topic, SISTER.topic, "app.fastbell.tea"]


async def test_a_phone_belongs_to_the_topic_that_it_registered_with(raw: RawHttp2) -> None:
    await raw.push()

    crossed = await raw.push({"apns-topic": SISTER.topic})

    assert (crossed.status, crossed.body) == (400, {"reason": "DeviceTokenNotForTopic"})


async def test_a_declared_phone_belongs_to_its_app_before_its_first_push(sim: Simulator, raw: RawHttp2) -> None:
    async with httpx.AsyncClient(base_url=sim.url, timeout=ANSWERED_WITHIN) as admin:
        await admin.put(f"/phones/{TOKEN}", json={"provider": "apns", "app": SISTER.topic})

    assert (await raw.push()).body == {"reason": "DeviceTokenNotForTopic"}


async def test_a_connection_is_for_the_keys_of_one_team(sim: Simulator, raw: RawHttp2) -> None:
    await raw.push()
    tea = sim.environments["tea"]
    token = provider_token(sim, app="tea")
    headers = {"authorization": f"bearer {token}", "apns-topic": tea["APNS_TOPIC"]}

    unrelated = await raw.push(headers, token="b" * 64)
    async with RawHttp2.to(sim, sim.ports.apns) as fresh:
        accepted = await fresh.push(headers, token="b" * 64)

    assert (unrelated.status, unrelated.body) == (403, {"reason": "UnrelatedKeyIdInToken"})
    assert accepted.status == 200


async def test_fcm_serves_each_project_with_its_own_access_tokens_only(sim: Simulator) -> None:
    async with httpx.AsyncClient(base_url=sim.environment["FCM_URL"], verify=trusting(sim)) as client:
        demo = {"authorization": f"Bearer {await access_token(sim, client)}"}
        tea = {"authorization": f"Bearer {await access_token(sim, client, app='tea')}"}
        body = {"message": message()}

        answers = [
            await client.post(f"/v1/projects/{project}/messages:send", json=body, headers=headers)
            for project, headers in [("fastbell-tea", tea), ("fastbell-tea", demo), ("fastbell-demo", demo)]
        ]

    assert [answer.status_code for answer in answers] == [200, 403, 403]
    assert answers[0].json()["name"].startswith("projects/fastbell-tea/messages/")
    assert "details" not in answers[1].json()["error"]  # wrong credentials: nothing about the token
    assert answers[2].json()["error"]["details"][0]["errorCode"] == "SENDER_ID_MISMATCH"
    assert sim.phone(FCM_TOKEN).app == "fastbell-tea"


async def test_trouble_may_hit_one_app_alone(sim: Simulator, raw: RawHttp2) -> None:
    sim.faults.add(provider="apns", app=SISTER.topic, fault="answer", status=503, reason="ServiceUnavailable")

    own, sister = await raw.push(), await raw.push({"apns-topic": SISTER.topic}, token="b" * 64)

    assert (own.status, sister.status) == (200, 503)


async def test_access_tokens_may_be_revoked_for_one_project_alone(sim: Simulator) -> None:
    async with httpx.AsyncClient(base_url=sim.environment["FCM_URL"], verify=trusting(sim)) as client:
        tokens = [("fastbell-demo", await access_token(sim, client))]
        tokens.append(("fastbell-tea", await access_token(sim, client, app="tea")))
        sim.faults.add(provider="fcm", app="fastbell-tea", fault="revoke_access_tokens")

        statuses = [
            (
                await client.post(
                    f"/v1/projects/{project}/messages:send",
                    json={"message": message(token=project)},
                    headers={"authorization": f"Bearer {token}"},
                )
            ).status_code
            for project, token in tokens
        ]

    assert statuses == [200, 401]


def test_apps_are_named_by_a_setting() -> None:
    settings = ProcessSettings.read({"SIMULATOR_APPS": "tea, coffee", "RUN_DIR": "x"})

    assert settings == ProcessSettings(Path("x"), Ports.following(8900), apps_named(["tea", "coffee"]))


@pytest.mark.parametrize("names", ["Tea", "tea,tea", "demo", "../x"])
def test_a_wrong_name_refuses_to_start(names: str) -> None:
    with pytest.raises(SystemExit, match="SIMULATOR_APPS cannot be used"):
        ProcessSettings.read({"SIMULATOR_APPS": names})
