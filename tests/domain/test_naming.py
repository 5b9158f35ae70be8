"""Names that others rely on."""

import hmac
from uuid import UUID

from domain.naming import keyed_digest, reminder_workflow_id, workflow_page


def test_a_workflows_page_is_named_by_its_whole_id() -> None:
    workflow_id = reminder_workflow_id(UUID(int=1))

    assert workflow_page("https://ui.example/temporal", "fastbell.acct", workflow_id) == (
        "https://ui.example/temporal/namespaces/fastbell.acct/workflows/"
        "fasting-reminder%2F00000000-0000-0000-0000-000000000001"
    )


def test_the_digest_of_an_erased_person_is_proved_by_its_key_and_by_nothing_without_one() -> None:
    key = b"32 bytes that only an operator has"

    assert keyed_digest("alice", key) == hmac.new(key, b"alice", "sha256").digest()
    assert keyed_digest("alice", None) != keyed_digest("alice", None)
