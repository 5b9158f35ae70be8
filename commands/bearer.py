"""Bearer tokens for a service that checks them with a shared secret."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import jwt

from config import AuthSettings, ConfigError


def bearer_token(settings: AuthSettings, user_id: str, scopes: Sequence[str], lifetime: timedelta) -> str:
    """Sign a token that the API accepts; raises ConfigError where only the issuer can."""
    if settings.jwt_secret is None:
        raise ConfigError("AUTH_JWKS_URL is set: bearer tokens come from that issuer, none can be made here.")
    now = datetime.now(UTC)
    claims: dict[str, object] = {"sub": user_id, "iat": now, "exp": now + lifetime}
    if scopes:
        claims["scope"] = " ".join(scopes)
    if settings.audience:
        claims["aud"] = settings.audience
    if settings.issuer:
        claims["iss"] = settings.issuer
    return jwt.encode(claims, settings.jwt_secret.get_secret_value(), algorithm="HS256")
