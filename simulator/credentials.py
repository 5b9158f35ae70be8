"""Everything a client of the simulator needs: keys made once under the run directory, and the settings naming them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from simulator.apps import DEMO, App
from simulator.certificates import CertificateFiles, certificate_files
from simulator.files import private_pem, write_secret
from simulator.settings import Ports


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
    """Name the service's settings for a simulator on these ports. Makes the files; needs no running simulator."""
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
    """Make what is missing under `run_dir`, reuse what is there; the ports must be known."""
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
        write_secret(path, private_pem(ec.generate_private_key(ec.SECP256R1())))
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
        write_secret(path, json.dumps(account, indent=2).encode())
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
