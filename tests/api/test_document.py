"""The file that clients are generated from says what the API says."""

from tests.api.document import PATH, document


def test_the_document_in_docs_is_the_one_that_the_api_gives() -> None:
    assert PATH.read_text() == document(), "run `make openapi`"
