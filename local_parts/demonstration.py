"""The demonstration: fasts, then messages, told line by line; public addresses only."""

from uuid import UUID

import httpx

from local_parts.fast_story import FastStory
from local_parts.message_story import MessageStory
from local_parts.stage import Stage


async def demonstrate(stage: Stage) -> UUID | None:
    """Play it; gives the session that was to remind, if it was started. Trouble is told, not raised."""
    async with httpx.AsyncClient(timeout=10, trust_env=False) as http:
        fast, message = FastStory(stage, http), MessageStory(stage, http)
        for story in (fast, message):
            if not await _play(story):
                break
        return fast.session_id


async def _play(story: FastStory | MessageStory) -> bool:
    try:
        await story.play()
    except httpx.HTTPStatusError as error:
        asked = error.request
        story.tell_trouble(f"it stops: {asked.method} {asked.url} answered {error.response.status_code}.")
    except httpx.HTTPError as error:
        story.tell_trouble(f"it stops: {error.request.url} did not answer ({type(error).__name__}).")
    else:
        return True
    return False
