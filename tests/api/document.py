"""The API's document as a file, for those who generate clients: `python -m tests.api.document` rewrites it."""

import json
from datetime import UTC, datetime
from pathlib import Path

from api.app import create_app
from api.document import described
from api.document.examples import filled
from settings.environment import auth_settings, service_settings
from tests.stack import SECRET

PATH = Path(__file__).parents[2] / "docs" / "openapi.json"
READ_AT = datetime(2026, 1, 31, 8, tzinfo=UTC)  # the file's examples stay; those of a served document lie ahead


def document() -> str:
    """Give the document as the file holds it."""
    environment = {"DATABASE_URL": "postgresql://localhost/fastbell", "AUTH_JWT_SECRET": SECRET}
    settings = service_settings(environment)
    app = create_app(settings, auth_settings(environment))
    return json.dumps(filled(described(app, settings.public_address), READ_AT, ""), indent=1) + "\n"


if __name__ == "__main__":
    PATH.write_text(document())
