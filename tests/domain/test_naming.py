"""Names that others rely on."""

from uuid import UUID

from domain.naming import reminder_workflow_id, workflow_page


def test_a_workflows_page_is_named_by_its_whole_id() -> None:
    workflow_id = reminder_workflow_id(UUID(int=1))

    assert workflow_page("https://ui.example/temporal", "fastbell.acct", workflow_id) == (
        "https://ui.example/temporal/namespaces/fastbell.acct/workflows/"
        "fasting-reminder%2F00000000-0000-0000-0000-000000000001"
    )
