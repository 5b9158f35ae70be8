"""What is sealed is opened by the one key, in the one push, as docs/encryption.md says."""

import base64
import json
import re
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.bindings._rust import openssl
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from domain.kinds import Kind
from domain.push import Push
from push.payload_limit import SUITE, binding, is_usable, sealed
from tests.push.conftest import APNS_TOKEN, make_push

PAGE = Path(__file__).parent.parent.parent / "docs" / "encryption.md"
KEY = X25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC_KEY = KEY.public_key().public_bytes_raw()


def opened(text: str, key: X25519PrivateKey, info: bytes) -> dict[str, str]:
    found: dict[str, str] = json.loads(SUITE.decrypt(base64.b64decode(text), key, info))
    return found


def test_a_sealed_text_is_opened_by_its_key() -> None:
    push = replace(make_push(APNS_TOKEN, body="Noch 15 Minuten. 🎉"), title="Fast geschafft")

    text = sealed(push, PUBLIC_KEY)

    assert opened(text, KEY, binding(push.task_id, push.kind)) == {
        "title": "Fast geschafft",
        "body": "Noch 15 Minuten. 🎉",
    }


def test_the_same_text_never_looks_the_same() -> None:
    push = make_push(APNS_TOKEN)

    assert len({sealed(push, PUBLIC_KEY) for _ in range(10)}) == 10


def test_the_length_of_a_short_text_does_not_show() -> None:
    assert len({len(sealed(make_push(APNS_TOKEN, body="x" * length), PUBLIC_KEY)) for length in range(80)}) == 1


def test_what_a_text_is_bound_to_is_spelt_out() -> None:
    task_id = UUID("0b0f4bd2-5c4f-4d2c-9a51-1d0a3f1c7e01")

    assert binding(task_id, Kind.REMINDER) == b"fastbell/1/0b0f4bd2-5c4f-4d2c-9a51-1d0a3f1c7e01/reminder"


def test_a_text_is_not_opened_in_another_push_nor_by_another_key() -> None:
    push = make_push(APNS_TOKEN)
    text, own = sealed(push, PUBLIC_KEY), binding(push.task_id, push.kind)

    for key, info in (
        (KEY, binding(uuid4(), push.kind)),
        (KEY, own.replace(b"/reminder", b"/message")),
        (KEY, own.replace(b"/1/", b"/2/")),
        (X25519PrivateKey.generate(), own),
    ):
        with pytest.raises(InvalidTag):
            opened(text, key, info)


@pytest.mark.parametrize("where", [0, 31, 32, -1])
def test_a_text_that_was_touched_is_not_opened(where: int) -> None:
    push: Push = make_push(APNS_TOKEN)
    touched = bytearray(base64.b64decode(sealed(push, PUBLIC_KEY)))
    touched[where] ^= 1

    with pytest.raises(InvalidTag):
        SUITE.decrypt(bytes(touched), KEY, binding(push.task_id, push.kind))


LOW_ORDER = [  # https://cr.yp.to/ecdh.html, the points that leave no secret
    "00" * 32,
    "01" + "00" * 31,
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]


@pytest.mark.parametrize("key", [*map(bytes.fromhex, LOW_ORDER), b"", PUBLIC_KEY[:31], PUBLIC_KEY + b"x"])
def test_a_key_that_keeps_no_secret_is_not_usable(key: bytes) -> None:
    assert not is_usable(key)


def test_every_other_key_is_usable() -> None:
    assert is_usable(PUBLIC_KEY)


def test_the_suite_is_that_of_the_standard() -> None:
    """RFC 9180, appendix A.2.1: the first of its encryptions, which has an `aad`; ours is empty."""
    key = "8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb"
    enc = "1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a"
    ct = "1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28"
    info = "4f6465206f6e2061204772656369616e2055726e"

    plaintext = openssl.hpke._decrypt_with_aad(
        SUITE,
        bytes.fromhex(enc + ct),
        X25519PrivateKey.from_private_bytes(bytes.fromhex(key)),
        bytes.fromhex(info),
        b"Count-0",
    )

    assert plaintext == b"Beauty is truth, truth beauty"


def vectors() -> list[dict[str, str]]:
    blocks = re.findall(r"^```text\n(private key .*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return [dict(re.split(r"  +", line, maxsplit=1) for line in block.splitlines()) for block in blocks]


@pytest.mark.parametrize("vector", vectors(), ids=lambda vector: vector["task_id"][:8])
def test_the_vectors_of_the_page_are_opened_as_it_says(vector: dict[str, str]) -> None:
    key = X25519PrivateKey.from_private_bytes(bytes.fromhex(vector["private key"]))
    text = base64.b64decode(vector["sealed"])

    assert key.public_key().public_bytes_raw() == base64.b64decode(vector["public_key"])
    assert binding(UUID(vector["task_id"]), Kind(vector["kind"])) == vector["info"].encode()
    assert text == bytes.fromhex(vector["enc"] + vector["ct"])
    plaintext = SUITE.decrypt(text, key, vector["info"].encode())
    assert plaintext.decode().rstrip(" ") == vector["plaintext"]
    assert len(plaintext) % 128 == 0
    assert json.loads(plaintext).keys() == {"title", "body"}


def test_the_page_has_vectors() -> None:
    assert len(vectors()) >= 2
