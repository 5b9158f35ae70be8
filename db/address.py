"""DATABASE_URL as people write it for libpq: one host or several, TLS by `sslmode`, which of the hosts is wanted."""

import os
import re
import ssl
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

PARAMETERS = frozenset({"host", "port", "sslmode", "sslrootcert", "target_session_attrs"})
_FORM = "must be an address such as postgresql://user@host/name"
_WRITING = {"any", "primary", "read-write"}  # we write, so the one that takes writes is asked for whatever is said
_HOSTS = re.compile(r"(\w+(?:\+\w+)?://(?:[^:/]*(?::[^@]*)?@)?)([^/?]*)(.*)", re.DOTALL)
_HOST = re.compile(r"(?:\[([^]]*)]|([^:]*))(?::(\d+))?")
_PORT = "5432"
_BLANK = re.compile(r"[\s\x00-\x1f\x7f]")
_NO_HOST = re.compile(r"[][@?#]")
_SSL_MODES = {"disable", "allow", "prefer", "require", "verify-ca", "verify-full"}
_VERIFYING = {"verify-ca", "verify-full"}
_SYSTEM = "system"  # libpq's word for the authorities that the system trusts


def read_address(database_url: str) -> URL:
    """Read a `postgresql://` address as one for asyncpg; raises ValueError with what is wrong, and no secret.

    Several hosts come as `?host=a,b&port=1,2`, whichever of libpq's and SQLAlchemy's forms named them.
    """
    if _BLANK.search(database_url):
        raise ValueError("must not contain a blank or a line break; write %20 for a blank")
    match = _HOSTS.fullmatch(database_url)
    named = match[2].split(",") if match and "," in match[2] else []
    try:
        url = make_url(f"{match[1]}{match[3]}" if match and named else database_url)
    except (ArgumentError, ValueError):  # the latter from a port that is no number
        raise ValueError(_FORM) from None
    if url.get_backend_name() not in {"postgresql", "postgres"}:
        raise ValueError(_FORM)
    if unknown := sorted(url.query.keys() - PARAMETERS):
        raise ValueError(f"{unknown[0]} is not a parameter of it; known are {', '.join(sorted(PARAMETERS))}")
    if _NO_HOST.search(url.host or ""):
        raise ValueError(_FORM)
    if not _SSL_MODES.issuperset(_words(url, "sslmode")):
        raise ValueError(f"sslmode must be one of {', '.join(sorted(_SSL_MODES))}")
    _check_authority(url)
    if not _WRITING.issuperset(_words(url, "target_session_attrs")):
        raise ValueError("target_session_attrs must be read-write: a server that takes no writes is of no use here")
    url = url.set(drivername="postgresql+asyncpg").difference_update_query(["target_session_attrs"])
    if not all(1 <= port <= 65535 for port in (url.port or 5432, *map(int, filter(str.isdigit, _words(url, "port"))))):
        raise ValueError("port must be between 1 and 65535")
    hosts = [_host(word) for word in named or _words(url, "host")]
    if len(hosts) > 1:
        url = _with_hosts(url, hosts)
    mode = url.query.get("sslmode")  # asyncpg has the same under another name
    return url.difference_update_query(["sslmode"]).update_query_dict({"ssl": mode}) if mode else url


def trusting(mode: str | None, authority: str | None) -> str | ssl.SSLContext | None:
    """Give what asyncpg takes for an `sslmode` and an `sslrootcert`.

    Without the latter, libpq's other places count, PGSSLROOTCERT and ~/.postgresql/root.crt, and then, where libpq
    would give up, the system's authorities.
    """
    if mode not in _VERIFYING or (authority is None and _is_named_elsewhere()):
        return mode
    context = ssl.create_default_context(cafile=None if authority in {None, _SYSTEM} else authority)
    context.check_hostname = mode == "verify-full"
    return context


def _is_named_elsewhere() -> bool:
    if os.environ.get("PGSSLROOTCERT"):
        return True
    try:
        return (Path.home() / ".postgresql" / "root.crt").exists()
    except (RuntimeError, OSError):  # this user has no home, or may not look into it
        return False


def _check_authority(url: URL) -> None:
    given, mode = url.query.get("sslrootcert"), url.query.get("sslmode")
    if given is None or (given == _SYSTEM and mode in _VERIFYING):
        return
    if mode not in _VERIFYING or not isinstance(given, str):
        raise ValueError("sslrootcert is one file, or system, and needs sslmode=verify-full or verify-ca")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(given)
    except OSError:
        raise ValueError(f"sslrootcert names a file without certificates: {given}") from None


def _with_hosts(url: URL, hosts: Sequence[tuple[str, str | None]]) -> URL:
    ports = _words(url, "port")
    if len(ports) not in {0, 1, len(hosts)} or not all(port.isdigit() for port in ports):
        raise ValueError("port must be one number, or as many as there are hosts")
    given = ports * len(hosts) if len(ports) == 1 else ports or [_PORT] * len(hosts)
    each = [own or port for (_, own), port in zip(hosts, given, strict=True)]
    several = {"host": ",".join(host for host, _ in hosts), "port": ",".join(each)}
    return url.set(host=None, port=None).difference_update_query(["host", "port"]).update_query_dict(several)


def _words(url: URL, parameter: str) -> list[str]:
    given = url.query.get(parameter, ())
    return [word for each in ([given] if isinstance(given, str) else given) for word in each.split(",") if word]


def _host(word: str) -> tuple[str, str | None]:
    match = _HOST.fullmatch(word)
    if word.startswith("/"):  # a directory with a Unix socket
        return word, None
    if match is None or not (match[1] or match[2]):
        raise ValueError(_FORM)
    return match[1] or match[2], match[3]
