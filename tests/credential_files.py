"""Service accounts' files as people leave them, and what is said of each."""

import json
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

NO_OBJECT = "it holds no JSON object, as a service account's file does"
NO_PEM = "its private_key holds no private key in PEM form without a password"
EC_KEY = (
    ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
)

# a file's whole content, or what is changed in a good one: a name with a value, None to leave it out
SERVICE_ACCOUNTS: dict[object, str] = {
    "[]": NO_OBJECT,
    '[{"type": "service_account"}]': NO_OBJECT,
    '"service_account"': NO_OBJECT,
    "7": NO_OBJECT,
    "null": NO_OBJECT,
    "": "it is not JSON",
    "{": "it is not JSON",
    b"\xff\xfe\x00": "it is not JSON",
    "{}": "its type is not service_account",
    ("type", "authorized_user"): "its type is not service_account",
    ("project_id", None): "it has no project_id",
    ("project_id", ""): "it has no project_id",
    ("project_id", 7): "its project_id has not the form of one",
    ("project_id", "my project\n"): "its project_id has not the form of one",
    ("project_id", "../../x"): "its project_id has not the form of one",
    ("client_email", None): "it has no client_email",
    ("token_uri", None): "it has no token_uri",
    ("token_uri", "ftp://oauth2.example/token"): "its token_uri is not an https:// address",
    ("token_uri", "http://oauth2.example/token"): "its token_uri is not an https:// address",
    ("token_uri", "https://[oauth2.example/token"): "its token_uri is not an https:// address",
    ("token_uri", "https://oauth2.example:99999/token"): "its token_uri is not an https:// address",
    ("private_key", None): "it has no private_key",
    ("private_key", 7): "it has no private_key",
    ("private_key", "not a PEM file"): NO_PEM,
    ("private_key", EC_KEY): "its private_key is not an RSA key, as Google's are",
    ("private_key_id", 7): "its private_key_id has not the form of one",
}


def spoil(file: Path, content: object) -> None:
    """Write such a file in place of a good one."""
    match content:
        case bytes():
            file.write_bytes(content)
        case str():
            file.write_text(content)
        case (str(name), value):
            account = json.loads(file.read_text())
            account[name] = value
            file.write_text(json.dumps({key: value for key, value in account.items() if value is not None}))
        case _:
            raise AssertionError(content)
