"""Languages that nobody speaks: one with long texts, one that is read from the right.

As Android's and CLDR's pseudo-locales: `en-XA` has accents and half as much text again, `ar-XB` is Arabic to whatever
asks for a direction or for numbers, with brackets around each text that show where one is cut or put together.
"""

from collections.abc import Callable
from dataclasses import fields
from re import split

from api.preference_page.languages import CATALOGUE
from api.preference_page.words import Words

LONG, FROM_THE_RIGHT = "en-XA", "ar-XB"
_ACCENTS = str.maketrans("aceinouyACEINOUY", "åçéîñöûýÅÇÉÎÑÖÛÝ")
_RIGHT_TO_LEFT = str.maketrans("abcdefghijklmnopqrstuvwxyz", "ابتثجحخدذرزسشصضطظعغفقكلمنه")


def _texts(change: Callable[[str], str]) -> Words:
    """Change every text, but not what stands in braces."""
    english = CATALOGUE["en"]
    return Words(**{each.name: _changed(getattr(english, each.name), change) for each in fields(Words)})


def _changed(text: str, change: Callable[[str], str]) -> str:
    parts = split(r"(\{\w+\})", text)
    return "[" + "".join(each if each.startswith("{") else change(each) for each in parts) + "]"


def long(text: str) -> str:
    """Make a text half as long again, with accents."""
    return text.translate(_ACCENTS) + "".join(f" {word}" for word in ("one", "two", "three")[: len(text.split()) // 2])


def from_the_right(text: str) -> str:
    """Write a text in letters that run from the right."""
    return text.lower().translate(_RIGHT_TO_LEFT)


def register() -> None:
    CATALOGUE[LONG] = _texts(long)
    CATALOGUE[FROM_THE_RIGHT] = _texts(from_the_right)
