"""Languages that nobody speaks, as Android and CLDR have them: one with long texts, one that is read from the right.

Brackets around each text show where one is cut, or put together from pieces.
"""

import re
from collections.abc import Callable
from dataclasses import fields

from api.preference_page.words import CATALOGUE, PageWords

LONG = "en-XA"  # accents, and half as many words again
FROM_THE_RIGHT = "ar-XB"  # letters that run from the right; its language is Arabic to whatever asks for a direction
_ACCENTS = str.maketrans("aceinouyACEINOUY", "åçéîñöûýÅÇÉÎÑÖÛÝ")
_ARABIC = str.maketrans("abcdefghijklmnopqrstuvwxyz", "ابتثجحخدذرزسشصضطظعغفقكلمنه")


def long() -> PageWords:
    """Say everything at length."""
    return _told(lambda text: text.translate(_ACCENTS), longer=True)


def from_the_right() -> PageWords:
    """Say everything in letters that run from the right."""
    return _told(lambda text: text.lower().translate(_ARABIC), longer=False)


def _told(change: Callable[[str], str], *, longer: bool) -> PageWords:
    english = CATALOGUE["en"]
    return PageWords(
        **{each.name: _changed(getattr(english, each.name), change, longer=longer) for each in fields(PageWords)}
    )


def _changed(text: str, change: Callable[[str], str], *, longer: bool) -> str:
    parts = re.split(r"(\{\w+\})", text)
    more = " överlóng" * (len(text.split()) // 2) if longer else ""
    return f"[{''.join(each if each.startswith('{') else change(each) for each in parts)}{more}]"
