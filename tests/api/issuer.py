"""An issuer of bearer tokens on a socket: its key set, how often it was asked, and its moods."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


class Issuer:
    """What tests hold of it."""

    def __init__(self) -> None:
        self.keys: dict[str, Key] = {}
        self.answer: bytes | None = None  # given instead of the key set
        self.status = 200
        self.drips = False  # answers byte by byte, without end
        self.times_asked = 0
        self.url = ""

    def add(self, kid: str, key: Key) -> None:
        """Publish a key."""
        self.keys[kid] = key

    def sign(self, kid: str, sub: object = "alice", **claims: Any) -> str:
        """Sign a token."""
        key = self.keys[kid]
        algorithm = "RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256"
        return jwt.encode(claim(sub, **claims), key, algorithm=algorithm, headers={"kid": kid})

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        await reader.readuntil(b"\r\n\r\n")
        self.times_asked += 1
        body = self.answer if self.answer is not None else json.dumps({"keys": self.published()}).encode()
        head = f"HTTP/1.1 {self.status} x\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        writer.write(head.encode())
        if self.drips:
            with suppress(ConnectionError):
                while True:
                    writer.write(b" ")
                    await writer.drain()
                    await asyncio.sleep(0.05)
        writer.write(body)
        with suppress(ConnectionError):  # whoever asked has had enough
            await writer.drain()
        writer.close()

    def published(self) -> list[dict[str, Any]]:
        """Give the keys as the set has them."""
        return [_public(key) | {"kid": kid, "use": "sig"} for kid, key in self.keys.items()]


def _public(key: Key) -> dict[str, Any]:
    if isinstance(key, rsa.RSAPrivateKey):
        return jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True)


def claim(sub: object = "alice", **claims: Any) -> dict[str, Any]:
    """Make claims that are good for an hour; None leaves one out."""
    found = {"sub": sub, "exp": datetime.now(UTC) + timedelta(hours=1)} | claims
    return {name: value for name, value in found.items() if value is not None}


def public_pem(key: Key) -> bytes:
    """Write a public key as its issuer publishes it."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@asynccontextmanager
async def open_issuer() -> AsyncIterator[Issuer]:
    """Serve an issuer while the block runs."""
    issuer = Issuer()
    server = await asyncio.start_server(issuer.serve, "127.0.0.1", 0)
    issuer.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/keys"
    async with server:
        yield issuer
