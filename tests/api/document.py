"""The API's document as a file, for those who generate clients: `python -m tests.api.document` rewrites it."""

import json
from pathlib import Path

from api.app import create_app
from settings.environment import auth_settings, service_settings
from tests.stack import SECRET

PATH = Path(__file__).parents[2] / "docs" / "openapi.json"


def document() -> str:
    """Give the document as the file holds it."""
    environment = {"DATABASE_URL": "postgresql://localhost/fastbell", "AUTH_JWT_SECRET": SECRET}
    app = create_app(service_settings(environment), auth_settings(environment))
    return json.dumps(app.openapi(), indent=1) + "\n"


if __name__ == "__main__":
    PATH.write_text(document())
