"""Texts are cut between what a person sees as characters, until the bytes that are sent fit."""

from dataclasses import replace

import pytest

from domain.push import Push
from push.apns import sender as apns
from push.fcm import sender as fcm
from push.payload_limit import ELLIPSIS, fitted, shortened
from tests.push.conftest import APNS_TOKEN, FCM_TOKEN, make_push

PUBLIC_KEY = bytes(range(1, 33))
FAMILY = "👨‍👩‍👧"
LONG = ["long " * 2000, "断食" * 2000, "🎉" * 2000, '"\\\n' * 2000]


@pytest.mark.parametrize(
    ("text", "length", "cut"),
    [
        ("abc", 2, "ab"),
        ("abc def", 4, "abc"),
        ("abc", 0, ""),
        ("ae\u0301", 2, "a"),
        ("👍🏽👍🏽", 3, "👍🏽"),
        (f"x{FAMILY}", 4, "x"),
        (FAMILY + "x", 5, FAMILY),
        ("❤️x", 1, ""),
        ("🇦🇹🇩🇪", 3, "🇦🇹"),
        ("🇦🇹🇩🇪", 2, "🇦🇹"),
        ("🏴\U000e0067\U000e0062\U000e007fx", 2, ""),
        ("한국어", 2, "한국"),
        ("\u1112\u1161\u11abx", 2, ""),  # Hangul as three letters
        ("நிx", 1, ""),
        ("क्षx", 2, ""),
        ("e" + "\u0301" * 50 + "x", 20, ""),
        ("a\r\nb", 2, "a"),
        ("\u0600\u0661x", 1, ""),  # an Arabic number sign and its number
    ],
)
def test_a_cut_falls_between_two_characters(text: str, length: int, cut: str) -> None:
    assert shortened(text, length) == cut + ELLIPSIS


def test_the_body_is_shortened_before_the_title() -> None:
    push = replace(make_push(APNS_TOKEN), title="t" * 20, body="b" * 20)

    def encode(push: Push) -> bytes:
        return f"{push.title}|{push.body}".encode()

    assert fitted(push, encode, 41) == b"t" * 20 + b"|" + b"b" * 20
    assert fitted(push, encode, 40) == b"t" * 20 + b"|" + b"b" * 16 + ELLIPSIS.encode()
    assert fitted(push, encode, 24) == b"t" * 20 + b"|" + ELLIPSIS.encode()
    assert fitted(push, encode, 23) == b"t" * 16 + ELLIPSIS.encode() + b"|" + ELLIPSIS.encode()


@pytest.mark.parametrize("text", LONG)
def test_a_sealed_text_that_is_too_long_is_shortened_before_it_is_sealed(text: str) -> None:
    bodies = (
        apns.request(make_push(APNS_TOKEN, body=text, public_key=PUBLIC_KEY), apns.sealed_payload),
        fcm.request(make_push(FCM_TOKEN, body=text, public_key=PUBLIC_KEY), fcm.sealed_payload),
    )

    for body in bodies:
        assert 4096 - 200 < len(body) <= 4096  # texts are padded to a multiple of 128 bytes, 171 in base64


@pytest.mark.parametrize("text", LONG)
def test_a_title_that_is_too_long_is_shortened_too(text: str) -> None:
    long = replace(make_push(FCM_TOKEN, body=text), title=text)

    assert 4070 < len(apns.request(long)) <= 4096
    assert 4070 < len(fcm.request(long)) <= 4096
