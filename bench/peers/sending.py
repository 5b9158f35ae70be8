"""How all of them send: over Fastbell's own clients, so that queues are compared and not clients."""

import os
from pathlib import Path

from bench.providers_target import reminder
from domain.push import Environment
from push.apns.sender import ApnsAccount, ApnsSender
from push.fcm.sender import FcmAccount, FcmSender
from push.sender import Accepted, Sender


class Senders:
    """One client for each provider. Made inside a running event loop, from the settings of a worker."""

    def __init__(self) -> None:
        given = os.environ
        apns = ApnsAccount(
            key_file=Path(given["APNS_KEY_FILE"]),
            key_id=given["APNS_KEY_ID"],
            team_id=given["APNS_TEAM_ID"],
            topic=given["APNS_TOPIC"],
            url=given["APNS_URL"],
            sandbox_url=given["APNS_SANDBOX_URL"],
            ca_file=Path(given["APNS_CA_FILE"]),
        )
        fcm = FcmAccount(
            service_account_file=Path(given["FCM_SERVICE_ACCOUNT_FILE"]),
            url=given["FCM_URL"],
            ca_file=Path(given["FCM_CA_FILE"]),
        )
        self._senders: dict[str, Sender] = {"apns": ApnsSender(apns), "fcm": FcmSender(fcm)}

    async def send(self, provider: str, token: str) -> None:
        """Send a phone its reminder; raises what the caller's queue has to retry."""
        async with self._senders[provider].lease(Environment.PRODUCTION) as call:
            answer = await call(reminder(token))
        if not isinstance(answer, Accepted):
            raise RuntimeError(answer.reason)  # noqa: TRY004 (a refusal, no wrong type)
