"""All that Temporal keeps of a workflow, as text in which tests search for what must not be there."""

import base64
import re
from typing import Any

from google.protobuf.json_format import MessageToJson
from temporalio.client import WorkflowHandle

_PAYLOAD = re.compile(r'"data": "([^"]*)"')  # JSON shows its bytes in base64


async def kept_of(handle: WorkflowHandle[Any, Any]) -> str:
    """Give a workflow's history and description, its payloads in the clear."""
    history = (await handle.fetch_history()).to_json()
    kept = history + MessageToJson((await handle.describe()).raw_description)
    return _PAYLOAD.sub(lambda found: base64.b64decode(found[1]).decode(), kept)
