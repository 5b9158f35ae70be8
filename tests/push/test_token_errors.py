"""The reasons that count as token errors by user are those by which the providers' tables judge a token."""

from domain.reasons import TOKEN_ERRORS
from push.apns import errors as apns_verdicts
from push.fcm import errors as fcm_verdicts
from push.verdict import Verdict

ABOUT_THE_TOKEN = {Verdict.DEAD_TOKEN, Verdict.SUSPECT_TOKEN, Verdict.MISMATCHED_TOKEN}


def test_token_errors_are_those_of_the_providers_tables() -> None:
    tables = [*apns_verdicts.VERDICTS.items(), *fcm_verdicts.VERDICTS.items()]

    assert {reason for (_, reason), verdict in tables if verdict in ABOUT_THE_TOKEN} == TOKEN_ERRORS
