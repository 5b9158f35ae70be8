"""Texts of an app that asked for it: sealed to the phone's own key, from its registration to its screen."""

import base64
import json
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from sqlalchemy import text

from push.registry import Rotation
from simulator import Simulator
from simulator.phones import ScreenLine
from tests.apps.conftest import TWO, AppsFile
from tests.stack import Phone, Stack, User, android, iphone

KEY = X25519PrivateKey.generate()
PUBLIC_KEY = base64.b64encode(KEY.public_key().public_bytes_raw()).decode()
NewPhone = Callable[[], Phone]
PROVIDERS = pytest.mark.parametrize("new_phone", [iphone, android], ids=["apns", "fcm"])
GENERIC = ("Erinnerung", "Öffne die App, um sie zu sehen.")


@pytest.fixture
async def alice(stack: Stack, rotation: Rotation, apps_file: AppsFile) -> User:
    """Somebody with an app whose texts are sealed."""
    apps_file.write(secret=apps_file.table("secret", TWO, encrypted=True))
    await rotation.look()
    return stack.user()


@PROVIDERS
async def test_the_phone_opens_what_the_provider_cannot_read(
    alice: User, simulator: Simulator, new_phone: NewPhone
) -> None:
    phone = new_phone()
    await alice.register(phone, app_id="secret", public_key=PUBLIC_KEY, locale="de-AT")

    line = await _shown(alice, simulator, phone)

    assert (line.title, line.body) == GENERIC
    assert _opened(line) == {"title": "Dein Fasten ist fast geschafft", "body": "Noch 1 Minute."}


@PROVIDERS
async def test_a_generic_preview_stays_generic_under_the_seal(
    alice: User, simulator: Simulator, new_phone: NewPhone
) -> None:
    phone = new_phone()
    await alice.register(phone, app_id="secret", public_key=PUBLIC_KEY, locale="de-AT")
    await alice.call("PUT", "/v1/notification-preferences", {"reminder_preview": "generic"})

    line = await _shown(alice, simulator, phone)

    assert (line.title, line.body) == GENERIC == tuple(_opened(line).values())


@PROVIDERS
async def test_a_phone_without_a_key_gets_the_generic_text_alone(
    alice: User, simulator: Simulator, new_phone: NewPhone
) -> None:
    phone = new_phone()
    await alice.register(phone, app_id="secret", public_key=PUBLIC_KEY, locale="de-AT")
    await alice.register(phone, app_id="secret", locale="de-AT")

    line = await _shown(alice, simulator, phone)

    assert (line.title, line.body) == GENERIC
    assert line.data.keys() == {"task_id", "kind", "url"}


@PROVIDERS
@pytest.mark.parametrize("key", [b"", b"short", bytes(32), bytes(33)], ids=["none", "short", "low order", "long"])
async def test_a_stored_key_that_seals_nothing_leaves_the_generic_text(
    alice: User, simulator: Simulator, new_phone: NewPhone, key: bytes
) -> None:
    phone = new_phone()
    await alice.register(phone, app_id="secret", public_key=PUBLIC_KEY, locale="de-AT")
    async with alice.stack.sessions.begin() as db:
        odd = text("UPDATE device_tokens SET public_key = :key WHERE token = :token")
        await db.execute(odd, {"key": key, "token": phone.token})

    line = await _shown(alice, simulator, phone)

    assert (line.title, line.body) == GENERIC
    assert "sealed" not in line.data


async def test_neither_the_text_nor_the_key_is_in_the_logs(
    alice: User, simulator: Simulator, capsys: pytest.CaptureFixture[str]
) -> None:
    phone = iphone()
    await alice.register(phone, app_id="secret", public_key=PUBLIC_KEY)

    line = await _shown(alice, simulator, phone)

    logs = "".join(capsys.readouterr())
    assert not [each for each in ("Your fast", "to go.", PUBLIC_KEY, line.data["sealed"]) if each in logs]


async def _shown(user: User, simulator: Simulator, phone: Phone) -> ScreenLine:
    """Remind somebody; gives the one line on the screen."""
    assert await user.stack.finished(await user.start_fast(due_in=0.5)) == "accepted"
    [line] = simulator.phone(phone.token).screen
    return line


def _opened(line: ScreenLine) -> dict[str, str]:
    """Open a line as docs/encryption.md says, with nothing of ours but the page."""
    suite = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)
    info = f"fastbell/1/{line.data['task_id']}/{line.data['kind']}".encode()
    words: dict[str, str] = json.loads(suite.decrypt(base64.b64decode(line.data["sealed"]), KEY, info))
    return words
