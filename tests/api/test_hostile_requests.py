"""A hostile caller finds no way to an unexpected error: odd framing, odd headers, odd values everywhere."""

import asyncio
import itertools
import json
import re
from collections.abc import Iterator
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid4, uuid5

import httpx
import pytest

from tests.busy import soon
from tests.console.visits import visit
from tests.stack import Stack, User
from tests.talk import conversation_of, post, posted

HEAD = b"PUT /v1/notification-preferences HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
CHUNKED = b"2\r\n{}\r\n0\r\n\r\n"
ODD_FRAMING = {
    "both lengths": b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKED,
    "both lengths, the other way round": b"Transfer-Encoding: chunked\r\nContent-Length: 12\r\n\r\n" + CHUNKED,
    "a folded encoding": b"Content-Length: 12\r\nTransfer-Encoding:\r\n chunked\r\n\r\n" + CHUNKED,
    "two lengths": b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} ",
    "a signed length": b"Content-Length: +2\r\n\r\n{}",
    "a negative length": b"Content-Length: -2\r\n\r\n{}",
    "a hexadecimal length": b"Content-Length: 0x2\r\n\r\n{}",
    "a length with a separator": b"Content-Length: 0_2\r\n\r\n{}",
    "a length of many digits": b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n{}",
    "a blank before the colon": b"Content-Length : 2\r\n\r\n{}",
    "another encoding": b"Transfer-Encoding: xchunked\r\n\r\n" + CHUNKED,
    "two encodings": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n" + CHUNKED,
    "a negative chunk": b"Transfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n",
    "a return alone": b"X: a\rb\r\n\r\n",
    "a null": b"X: a\0b\r\n\r\n",
    "two hosts": b"Host: y\r\n\r\n",
}


async def exchanged(stack: Stack, request: bytes) -> bytes:
    """Send bytes and read all that comes until the server closes the connection."""
    reader, writer = await asyncio.open_connection(stack.http.base_url.host, stack.http.base_url.port)
    try:
        writer.write(request)
        async with soon(5):
            return await reader.read()
    finally:
        writer.close()


@pytest.mark.parametrize("rest", ODD_FRAMING.values(), ids=ODD_FRAMING)
async def test_a_request_whose_end_is_ambiguous_is_refused_and_its_connection_closed(api: Stack, rest: bytes) -> None:
    smuggled = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"

    answer = await exchanged(api, HEAD + rest + smuggled)

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"\r\nconnection: close\r\n" in answer.lower()
    assert b"urn:fastbell:problem:not-http" in answer


async def test_an_encoding_that_http_1_0_lacks_is_refused(api: Stack) -> None:
    request = HEAD.replace(b"HTTP/1.1", b"HTTP/1.0") + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKED

    assert (await exchanged(api, request)).startswith(b"HTTP/1.1 400 ")


ABSOLUTE = {
    "http://127.0.0.1/livez": "/livez",
    "HTTP://other.example:8080/livez?x=http://y": "/livez",
    "https://[::1]/livez": "/livez",
    "http://other.example": "/",
    "http://other.example?x": "/",
    "http://other.example/v1/notification-preferences": "/v1/notification-preferences",
}
TARGETS = {
    "/livez#there": 404,
    "/livez%00": 404,
    "/%00": 404,
    "/livez%2F": 404,
    "/livez%2f..": 404,
    "%2Flivez": 400,
    "/%2Flivez": 404,
    "//livez": 404,
    "//v1/..": 404,
    "/v1/../livez": 404,
    "/v1/%2e%2e/livez": 404,
    "//other.example/console": 404,
    "/console//": 404,
    "/console/%2e%2e%2f": 404,
    "/%": 404,
    "/%zz": 404,
    "/%ff%fe": 404,
    "/\\": 404,
    "*": 400,
    "": 400,
    "livez": 400,
    "x:80": 400,
    "http:/livez": 400,
    "http:livez": 400,
    "http:///livez": 400,
    "http://": 400,
    "http://me@other.example/livez": 400,
    "http://a\0b/livez": 400,
    "ftp://other.example/livez": 400,
    "urn:fastbell:x": 400,
    "/\xff": 400,
}


async def asked_for(stack: Stack, target: str) -> tuple[int, bytes]:
    """Ask for a target as it is; gives the status and the answer's body."""
    request = f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    head, _, body = (await exchanged(stack, request.encode("latin-1"))).partition(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1]), body


@pytest.mark.parametrize("target", ABSOLUTE)
async def test_a_target_in_absolute_form_is_answered_as_its_path_is(api: Stack, target: str) -> None:
    assert await asked_for(api, target) == await asked_for(api, ABSOLUTE[target])


@pytest.mark.parametrize("target", TARGETS)
async def test_an_odd_target_is_refused_in_so_many_words(api: Stack, target: str) -> None:
    status, body = await asked_for(api, target)

    assert status == TARGETS[target]
    assert b"urn:fastbell:problem:" in body or b"Not found</h1>" in body


@pytest.mark.parametrize(("target", "status"), [("*", 404), ("http://x/livez", 405), ("x:80", 400)])
async def test_options_asks_for_all_by_an_asterisk(api: Stack, target: str, status: int) -> None:
    request = f"OPTIONS {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

    assert (await exchanged(api, request.encode())).startswith(f"HTTP/1.1 {status} ".encode())


async def test_the_host_of_an_absolute_target_counts_and_not_that_of_the_header(api: Stack) -> None:
    carol = await visit(api)
    form = f"csrf_token={await carol.csrf_token()}".encode()
    cookie = carol.headers()["cookie"]

    def request(host: str, header: str, origin: str) -> bytes:
        lines = f"POST http://{host}/console/sign-out HTTP/1.1\r\nHost: {header}\r\nOrigin: http://{origin}\r\n"
        form_lines = f"Cookie: {cookie}\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        return f"{lines}{form_lines}Content-Length: {len(form)}\r\nConnection: close\r\n\r\n".encode() + form

    refused = await exchanged(api, request("here.example", "there.example", "there.example"))
    taken = await exchanged(api, request("here.example", "there.example", "here.example"))

    assert [answer.split(b" ", 2)[1] for answer in (refused, taken)] == [b"403", b"303"]


NO_ADDRESSES = ["http://[", "http://[::1", "http://]", "//[", "[", "http://a:b", "http://[v1.x]", "", "null", "http://"]


@pytest.mark.parametrize("origin", NO_ADDRESSES)
@pytest.mark.parametrize("path", ["/console/sign-in", "/console/sign-out"])
async def test_a_form_whose_origin_is_no_address_is_refused(api: Stack, path: str, origin: str) -> None:
    carol = await visit(api)
    form = {"csrf_token": await carol.csrf_token()}

    answer = await api.http.post(path, data=form, headers=carol.headers(origin=origin))

    assert answer.status_code == 403
    assert "This form was sent from another site." in answer.text


HEADERS = (
    "Origin Host Referer Forwarded X-Forwarded-For X-Forwarded-Proto X-Forwarded-Host Cookie Sec-Fetch-Site Accept"
    " Content-Type Accept-Encoding Traceparent X-Request-Id Authorization Range If-Match Last-Event-Id Upgrade"
    " Access-Control-Request-Method Access-Control-Request-Headers Expect TE"
)
ODD_VALUES = [
    b"http://[",
    b"[",
    b"[::1]:x",
    b"http://a:99999999",
    b"\xff\xfe",
    b"http://a\xe2\x84\x80b",
    b'"',
    b"=;=;=",
    b"fastbell_console=\xff",
    b'fastbell_console="\\000"',
    b"Bearer \xff",
    b"x" * 9000,
]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/v1/notification-preferences"),
        ("POST", "/console/sign-in"),
        ("GET", "/console/"),
        ("OPTIONS", "/livez"),
    ],
)
async def test_no_header_leads_to_an_unexpected_error(api: Stack, alice: User, method: str, path: str) -> None:
    fine = {"Host": b"x", "Connection": b"close", "Content-Length": b"0"} | {
        "Authorization": alice.headers["Authorization"].encode()
    }

    at_once = asyncio.Semaphore(20)

    async def status(name: str, value: bytes) -> int:
        lines = [f"{method} {path} HTTP/1.1".encode()]
        lines += [each.encode() + b": " + said for each, said in (fine | {name: value}).items()]
        async with at_once:
            return int((await exchanged(api, b"\r\n".join([*lines, b"", b""]))).split(b" ", 2)[1])

    odd = list(itertools.product(HEADERS.split(), ODD_VALUES))
    statuses = await asyncio.gather(*(status(*each) for each in odd))

    assert [each for each, found in zip(odd, statuses, strict=True) if found >= 500] == []


def odd_bodies(body: dict[str, Any]) -> Iterator[bytes]:
    """Put odd values into each field of a good body, and give what is no such body at all."""
    instants = [
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "10000-01-01T00:00:00Z",
        "2026-06-30T23:59:60Z",
    ]
    odd: list[object] = [
        "",
        "\0",
        "\ud800",
        "x" * 300,
        *instants,
        None,
        True,
        -1,
        1.5,
        10**30,
        2**63,
        [],
        {},
        [None],
        [2**70],
        [[]],
    ]
    for field, value in itertools.product([*body, "unknown", "\0", "\ud800"], odd):
        yield json.dumps(body | {field: value}).encode()
    yield from (b"", b"null", b"[]", b"{", b"\xff\xfe", b"\xef\xbb\xbf{}", "{}".encode("utf-16"), b'{"a":1,"a":2}')
    yield from (b"[" * 60_000, b'{"a":' * 10_000, b"1" * 60_000, b"1e999", b'{"\\ud800":NaN}', b'{"x":"\xff"}', b"\0")


BODIES: dict[tuple[str, str], dict[str, Any]] = {
    ("PUT", "/v1/device-tokens/{new}"): {
        "provider": "apns",
        "token": "0123456789abcdef" * 4,
        "environment": "production",
        "app_id": "app",
        "locale": "de",
        "time_zone": "UTC",
        "app_version": "1",
        "public_key": "A" * 43 + "=",
    },
    ("PUT", "/v1/fasting-sessions/{new}"): {
        "ends_at": "2030-01-01T00:00:00Z",
        "started_at": "2029-12-31T00:00:00Z",
        "reminder_minutes": [30],
    },
    ("PUT", "/v1/notification-preferences"): {
        "reminders": True,
        "reminder_minutes": [30],
        "messages": True,
        "reminder_preview": "full",
        "message_preview": "generic",
        "quiet_hours": {"starts": "22:00", "ends": "06:00", "time_zone": "UTC", "mode": "silent"},
        "rev": 1,
    },
    ("PATCH", "/v1/notification-preferences"): {
        "reminders": True,
        "reminder_minutes": [30],
        "messages": True,
        "reminder_preview": "full",
        "message_preview": "generic",
        "quiet_hours": {"starts": "22:00", "ends": "06:00", "time_zone": None, "mode": "withhold"},
        "rev": 1,
    },
    ("PUT", "/v1/conversations/{new}"): {"member_ids": ["a"]},
    ("PUT", "/v1/conversations/{known}/messages/{new}"): {"body": "Hello"},
    ("POST", "/v1/support/push-tasks/redrive"): {
        "kind": "reminder",
        "provider": "apns",
        "user_id": "a",
        "dry_run": True,
    },
}


@pytest.mark.parametrize(("method", "path"), BODIES)
async def test_no_body_leads_to_an_unexpected_error_and_what_is_refused_is_named(
    api: Stack, alice: User, method: str, path: str
) -> None:
    known = await conversation_of(alice)
    caller = _caller(api, alice, path)
    wrong = []

    for body in odd_bodies(BODIES[method, path]):
        there = path.format(new=uuid4(), known=known)
        headers = caller.headers | {"content-type": "application/json"}
        answer = await api.http.request(method, there, content=body, headers=headers)
        if answer.status_code >= 500 or (answer.status_code == 422 and not answer.json().get("field")):
            wrong.append((body[:80], answer.status_code, answer.text[:80]))

    assert wrong == []


ODD_SEGMENTS = ["%00", "%ff", "%ed%a0%80", "%2e%2e", "%2f", "{}", "x" * 4000, "%0a", f"{uuid4()}%00", f"{uuid4()}%0a"]
ODD_QUERIES = ["", "%00", "%ff", "-1", "1e9", "9" * 400, "9223372036854775808", "%ed%a0%80", "bnVsbA==", "WzFd"]


async def test_no_path_or_query_leads_to_an_unexpected_error(api: Stack, alice: User) -> None:
    document = (await api.http.get("/openapi.json")).json()
    asked = list(_asked(document))
    assert len(asked) > 300

    async def answered(method: str, path: str) -> httpx.Response:
        content = None if method == "GET" else b"{}"
        return await api.http.request(method, path, content=content, headers=_caller(api, alice, path).headers)

    answers = [(each, await answered(*each)) for each in asked]

    assert [
        (each, answer.status_code)
        for each, answer in answers
        if answer.status_code >= 500 or (answer.status_code == 422 and not answer.json().get("field"))
    ] == []


def _asked(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if path.endswith("/stream") or (path.startswith("/v1/users/") and method != "patch"):
                continue  # a stream does not end; the handlers below /v1/users/ are those of the bare routes
            parameters = operation.get("parameters", [])
            for odd in ODD_SEGMENTS if "{" in path else ():
                yield method.upper(), _filled(path, odd)
            for each in parameters:
                if each["in"] == "query":
                    yield from (
                        (method.upper(), f"{_filled(path, str(uuid4()))}?{each['name']}={v}") for v in ODD_QUERIES
                    )


OF_SERVICES = re.compile(r"/v1/(?:users|support|events|webhooks|erasures)\b|/v1/conversations/[^/]+$|.*/batch$")


def _caller(api: Stack, alice: User, path: str) -> User:
    """Give who may call this path: alice, or a service that is support, too."""
    return api.user(None, "service", "support") if OF_SERVICES.match(path) else alice


def _filled(path: str, segment: str) -> str:
    return "/".join(segment if part.startswith("{") else part for part in path.split("/"))


async def test_a_message_id_that_a_reminder_may_have_is_refused(alice: User, bob: User) -> None:
    conversation_id = await conversation_of(alice, bob)
    session_id = uuid4()

    answers = [
        await post(bob, conversation_id, "Hello", each)
        for each in (uuid5(session_id, "reminder/30/1.000000"), uuid5(NAMESPACE_URL, "x"))
    ]

    assert [(answer.status_code, answer.json()["field"]) for answer in answers] == [(422, "message_id")] * 2
    await posted(bob, conversation_id)  # version 4
    seventh = UUID("01938a5c-7a00-7cc3-98c4-dc0c0c07398f")
    assert (await post(bob, conversation_id, "Hello", seventh)).status_code == 201
