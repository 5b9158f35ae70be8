"""Where the simulator listens and how it behaves; the certificates and credentials of itself and its clients.

They are made once, and kept under the run directory.
"""

import datetime
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")


@dataclass(frozen=True, slots=True)
class App:
    """One app. Apps of one team may share its key: give them the same `team_id` and `key_id`."""

    name: str
    topic: str
    team_id: str
    key_id: str
    project: str

    @property
    def client_email(self) -> str:
        """The service account that sends for the project."""
        return f"simulator@{self.project}.iam.gserviceaccount.com"


DEMO = App("demo", "app.fastbell.demo", "FBSIMTEAM1", "FBSIMKEY01", "fastbell-demo")


def apps_named(names: Iterable[str]) -> tuple[App, ...]:
    """List the demonstration app, then one app per name, each of a team of its own; raises ValueError.

    The app `tea` has the topic `app.fastbell.tea` and the project `fastbell-tea`.
    """
    named = [DEMO]
    for number, name in enumerate(names, 2):
        if not _NAME.fullmatch(name) or any(name == app.name for app in named):
            raise ValueError("an app's name is made of a-z, 0-9 and dashes, and is there once")
        named.append(
            App(name, f"app.fastbell.{name}", f"FBSIMTEAM{number}", f"FBSIMKEY{number:02}", f"fastbell-{name}")
        )
    return tuple(named)


DEFAULT_PORT = 8900


@dataclass(frozen=True, slots=True)
class Ports:
    """One port per listener, all on 127.0.0.1; 0 lets the system choose."""

    admin: int
    apns: int
    apns_sandbox: int
    fcm: int  # FCM and OAuth share it

    @classmethod
    def following(cls, port: int) -> "Ports":
        """Put the page on `port` and the providers on the three after it; the system chooses all for 0."""
        if port == 0:
            return cls(admin=0, apns=0, apns_sandbox=0, fcm=0)
        return cls(admin=port, apns=port + 1, apns_sandbox=port + 2, fcm=port + 3)


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Behaviour of the real providers that a test may change. The defaults are faithful."""

    apns_stream_limit: int = 1000  # after the first accepted push; before it the limit is 1
    stream_limit_after_rejection: int | None = 1  # after a 4xx, until the next accepted push; None: no drop
    receive_window: int = 16 * 1024 * 1024  # bytes in flight from a client per connection; at least 65 535
    access_token_lifetime: timedelta = timedelta(hours=1)


FAITHFUL = Behaviour()


@dataclass(frozen=True, slots=True)
class ProcessSettings:
    """What `python -m simulator` reads from the environment."""

    run_dir: Path
    ports: Ports
    apps: tuple[App, ...] = (DEMO,)

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> "ProcessSettings":
        """RUN_DIR, SIMULATOR_PORT, and SIMULATOR_{APNS,APNS_SANDBOX,FCM}_PORT to place one listener elsewhere.

        SIMULATOR_APPS names apps beside the demonstration's, separated by commas.
        """
        following = Ports.following(_port(environ, "SIMULATOR_PORT", DEFAULT_PORT))
        ports = Ports(
            admin=following.admin,
            apns=_port(environ, "SIMULATOR_APNS_PORT", following.apns),
            apns_sandbox=_port(environ, "SIMULATOR_APNS_SANDBOX_PORT", following.apns_sandbox),
            fcm=_port(environ, "SIMULATOR_FCM_PORT", following.fcm),
        )
        return cls(run_dir=Path(environ.get("RUN_DIR") or ".run"), ports=ports, apps=_apps(environ))


def _apps(environ: Mapping[str, str]) -> tuple[App, ...]:
    names = [name.strip() for name in environ.get("SIMULATOR_APPS", "").split(",")]
    try:
        return apps_named(name for name in names if name)
    except ValueError as error:
        raise SystemExit(f"SIMULATOR_APPS cannot be used: {error}.") from None


def _port(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name) or str(default)
    if not text.isdecimal() or int(text) > 65535:
        raise SystemExit(f"{name} must be a port number from 0 to 65535.")
    return int(text)


def private_pem(key: PrivateKeyTypes) -> bytes:
    """PKCS8 PEM, the form of Apple's .p8 files."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write(path: Path, content: bytes, mode: int = 0o600) -> None:
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    unfinished.replace(path)


_SERVER_LIFETIME = datetime.timedelta(days=397)
_RENEW_BEFORE = datetime.timedelta(days=7)


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """PEM files: the authority that clients trust, and the servers' certificate and key."""

    authority: Path
    certificate: Path
    key: Path


def certificate_files(directory: Path) -> CertificateFiles:
    """Reuse the files in `directory` while they are valid; make them otherwise."""
    files = CertificateFiles(directory / "ca.pem", directory / "server.pem", directory / "server.key")
    authority_key = directory / "ca.key"
    if not (_is_valid(files.authority) and authority_key.is_file()):
        authority = trustme.CA(organization_name="Fastbell simulator")
        _write(authority_key, authority.private_key_pem.bytes())
        _write(files.authority, authority.cert_pem.bytes(), 0o644)
        files.certificate.unlink(missing_ok=True)
    if not (_is_valid(files.certificate) and files.key.is_file()):
        authority = trustme.CA.from_pem(files.authority.read_bytes(), authority_key.read_bytes())
        until = datetime.datetime.now(datetime.UTC) + _SERVER_LIFETIME
        server = authority.issue_cert("localhost", "127.0.0.1", not_after=until)
        _write(files.key, server.private_key_pem.bytes())
        _write(files.certificate, b"".join(each.bytes() for each in server.cert_chain_pems), 0o644)
    return files


def _is_valid(path: Path) -> bool:
    if not path.is_file():
        return False
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    return certificate.not_valid_after_utc - _RENEW_BEFORE > datetime.datetime.now(datetime.UTC)


@dataclass(frozen=True, slots=True)
class AppCredentials:
    """One app's files, and the public keys that the listeners verify with."""

    app: App
    apns_key_file: Path
    service_account_file: Path
    apns_public_key: ec.EllipticCurvePublicKey
    fcm_public_key: rsa.RSAPublicKey


@dataclass(frozen=True, slots=True)
class Credentials:
    """What is kept under `RUN_DIR/simulator/`."""

    certificates: CertificateFiles
    token_uri: str
    apps: tuple[AppCredentials, ...]


def provider_environment(run_dir: Path, ports: Ports, app: App = DEMO) -> dict[str, str]:
    """Give the service's settings for a simulator on these ports. Makes the files; needs no running simulator."""
    credentials = credentials_in(run_dir, ports, (app,))
    [of_app] = credentials.apps
    authority = str(credentials.certificates.authority)
    return {
        "APNS_KEY_FILE": str(of_app.apns_key_file),
        "APNS_KEY_ID": app.key_id,
        "APNS_TEAM_ID": app.team_id,
        "APNS_TOPIC": app.topic,
        "APNS_URL": f"https://127.0.0.1:{ports.apns}",
        "APNS_SANDBOX_URL": f"https://127.0.0.1:{ports.apns_sandbox}",
        "APNS_CA_FILE": authority,
        "FCM_SERVICE_ACCOUNT_FILE": str(of_app.service_account_file),
        "FCM_URL": f"https://127.0.0.1:{ports.fcm}",
        "FCM_CA_FILE": authority,
    }


def credentials_in(run_dir: Path, ports: Ports, apps: Sequence[App] = (DEMO,)) -> Credentials:
    """Make the missing files under `run_dir` and reuse the others; the ports must be known."""
    directory = run_dir.resolve() / "simulator"
    directory.mkdir(parents=True, exist_ok=True)
    token_uri = f"https://127.0.0.1:{ports.fcm}/token"
    return Credentials(
        certificates=certificate_files(directory),
        token_uri=token_uri,
        apps=tuple(_of_app(directory, app, token_uri) for app in apps),
    )


def _of_app(directory: Path, app: App, token_uri: str) -> AppCredentials:
    apns_key_file = directory / f"AuthKey_{app.key_id}.p8"
    suffix = "" if app is DEMO else f"-{app.name}"
    service_account_file = directory / f"fcm-service-account{suffix}.json"
    return AppCredentials(
        app=app,
        apns_key_file=apns_key_file,
        service_account_file=service_account_file,
        apns_public_key=_apns_key(apns_key_file).public_key(),
        fcm_public_key=_service_account_key(service_account_file, app, token_uri).public_key(),
    )


def _apns_key(path: Path) -> ec.EllipticCurvePrivateKey:
    if not path.is_file():
        _write(path, private_pem(ec.generate_private_key(ec.SECP256R1())))
    key = load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError(f"{path} does not hold an EC key; delete it and start again")
    return key


def _service_account_key(path: Path, app: App, token_uri: str) -> rsa.RSAPrivateKey:
    if path.is_file():
        account = json.loads(path.read_bytes())
    else:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        account = _service_account(app, private_pem(key).decode())
    if account.get("token_uri") != token_uri:
        account["token_uri"] = token_uri
        _write(path, json.dumps(account, indent=2).encode())
    # It is our own key; checking that two primes are prime would double the time of a start.
    key_in_file = load_pem_private_key(
        account["private_key"].encode(), password=None, unsafe_skip_rsa_key_validation=True
    )
    if not isinstance(key_in_file, rsa.RSAPrivateKey):
        raise TypeError(f"{path} does not hold an RSA key; delete it and start again")
    return key_in_file


def _service_account(app: App, private_key: str) -> dict[str, str]:
    return {
        "type": "service_account",
        "project_id": app.project,
        "private_key_id": "simulator",
        "private_key": private_key,
        "client_email": app.client_email,
        "client_id": "100000000000000000000",
        "auth_uri": "https://accounts.google.com/o/oauth2/auth",
        "universe_domain": "googleapis.com",
    }
