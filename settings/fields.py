"""The types of settings. Each refuses a wrong value with one sentence."""

import re
import ssl
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from db.address import read_address
from domain import problems

_USUAL_PORTS = {"http": ":80", "https": ":443"}


def _readable(path: Path) -> Path:
    if not path.exists():
        raise ValueError(f"names a file that does not exist: {path}")
    if not path.is_file():
        raise ValueError(f"names what is no regular file: {path}")
    return path


def _authority(path: Path) -> Path:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:
        raise ValueError(f"names a file without certificates: {path}") from None
    return path


def _word(text: str) -> str:
    if not re.fullmatch(r"[!-~]{1,255}", text):
        raise ValueError("must be one word of ASCII characters, without blanks and line breaks")
    return text


def _claim(text: str) -> str:
    if not re.fullmatch(r"\S(.*\S)?", text):
        raise ValueError("must not be empty, nor begin or end with a blank, for tokens are compared with it as it is")
    return text


def _https(url: str) -> str:
    parts = urlsplit(url)
    is_allowed = parts.scheme == "https" or (parts.scheme, parts.hostname) in _PLAIN
    if not parts.hostname or parts.port == 0 or not is_allowed:  # a port that is no number raises ValueError
        raise ValueError("must be an https:// address (http:// only on this machine)")
    return url


def _proxy(url: SecretStr) -> SecretStr:
    has_scheme = "://" in url.get_secret_value()
    full = url.get_secret_value() if has_scheme else f"http://{url.get_secret_value()}"
    try:
        parts = urlsplit(full)
        is_host = bool(_HOST.fullmatch(parts.hostname or "")) and parts.port != 0
        is_whole = (has_scheme or parts.port is not None) and (parts.path in {"", "/"}) and not parts.query
        is_good = parts.scheme == "http" and is_host and is_whole and not parts.fragment
    except ValueError:  # a port that is no number
        is_good = False
    if not is_good:
        raise ValueError("must be the http:// address of a proxy")
    return SecretStr(full)


def _base(url: str) -> str:
    parts = urlsplit(url)
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError("must be an address without a path, for the provider's own paths are used")
    return f"{parts.scheme}://{parts.netloc}"


def _rate(text: str) -> str:
    try:
        if text != "0":
            problems.read_rate(text)
    except ValueError:
        raise ValueError("must be a rate such as 600/minute, or 0 for no limit") from None
    return text


def _origins(text: str) -> tuple[str, ...]:
    origins = tuple(each.strip() for each in text.split(",") if each.strip())
    for origin in origins:
        if _base(_https(origin)) != origin:
            raise ValueError(f"must be origins without a path, separated by commas, not {origin}")
    return origins


def _addresses(text: str) -> str:
    for word in text.split(","):
        try:
            ip_network(word.strip(), strict=False)
        except ValueError:
            raise ValueError("must be addresses or networks such as 10.0.0.0/8, separated by commas") from None
    return text


def _page(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("must be an http:// or https:// address")
    return url.rstrip("/")


def _public(url: str) -> str:
    parts = urlsplit(_page(url))
    if parts.path.strip("/") or parts.username is not None or parts.port == 0:
        raise ValueError("must be the address of a host without a path, such as https://push.example.com")
    return f"{parts.scheme}://{parts.netloc.lower().removesuffix(_USUAL_PORTS[parts.scheme])}"  # as browsers write it


def _named_values(text: SecretStr) -> SecretStr:
    if not all(_NAMED_VALUE.fullmatch(each) for each in text.get_secret_value().split(",")):
        raise ValueError("must be name=value, several separated by commas")
    return text


def _postgresql(url: SecretStr) -> SecretStr:
    read_address(url.get_secret_value())
    return url


_PLAIN = {("http", "127.0.0.1"), ("http", "localhost")}
_NAMED_VALUE = re.compile(r"|[ \t]*[!#-'*+.0-9A-Z^-z|~-]+[ \t]*=[ !#-+.-:<-\[\]-~/-]*")
_HOST = re.compile(r"[\w.:%-]+")  # a name, or an address without its brackets
ReadableFile = Annotated[Path, AfterValidator(_readable)]
AuthorityFile = Annotated[ReadableFile, AfterValidator(_authority)]
Word = Annotated[str, AfterValidator(_word)]  # part of a header
ClaimValue = Annotated[str, AfterValidator(_claim)]  # of bearer tokens
HttpsUrl = Annotated[str, AfterValidator(_https)]
Rate = Annotated[str, AfterValidator(_rate)]
Quota = Annotated[int, Field(ge=0, le=1_000_000)]  # 0: no limit
PageUrl = Annotated[str, AfterValidator(_page)]
PublicUrl = Annotated[str, AfterValidator(_public)]  # where people reach the API from outside
BaseUrl = Annotated[HttpsUrl, AfterValidator(_base)]  # scheme, host and port alone
Port = Annotated[int, Field(ge=1, le=65535)]
ProxyUrl = Annotated[SecretStr, AfterValidator(_proxy)]
NamedValues = Annotated[SecretStr, AfterValidator(_named_values)]
PostgresqlUrl = Annotated[SecretStr, AfterValidator(_postgresql)]
Origins = Annotated[tuple[str, ...], BeforeValidator(_origins)]
Addresses = Annotated[str, AfterValidator(_addresses)]
