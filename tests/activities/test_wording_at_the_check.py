"""Texts, link and look are those of the presentation in use at the last check, all of one version."""

from domain.presentation import Presentations
from domain.presentation_file import SHIPPED, presentation
from sending.attempts import check_pushes
from sending.precheck import Claim, Proceed
from tests.routes.worker_harness import due_now
from tests.stack import Stack, android, iphone

TEA = """
link = "teatime://{path}"
badge = "unread"
[reminder]
channel = "steeping"
thread = "tea"
[texts.en.reminder]
title = "Tea"
body = "Soon."
[texts.en.generic.reminder]
title = "A cup"
body = "Look."
"""


async def test_what_was_planned_is_worded_as_the_file_is_at_the_check_each_push_by_one_version(stack: Stack) -> None:
    presentations = Presentations(SHIPPED)
    planned = await due_now(stack, [iphone(), android(), iphone()])

    [early] = await check_pushes(stack.sessions, [Claim(planned[0].task_id)], presentations)
    presentations.replace(presentation(TEA.encode()), None)
    late = await check_pushes(stack.sessions, [Claim(each.task_id) for each in planned[1:]], presentations)

    assert [_shown(each) for each in (early, *late)] == [
        ("Your fast is almost over", "Reminder", "fastbell", "reminders", None),
        ("Tea", "A cup", "teatime", "steeping", 1),
        ("Tea", "A cup", "teatime", "steeping", 1),
    ]
    [again] = await check_pushes(stack.sessions, [Claim(planned[0].task_id)], presentations)
    assert not isinstance(again, Proceed)  # the first is under way, and keeps its words


def _shown(verdict: object) -> tuple[object, ...]:
    assert isinstance(verdict, Proceed)
    push = verdict.push
    return push.title, push.generic_title, push.url.partition("://")[0], push.look.channel, push.badge
