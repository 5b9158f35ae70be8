"""What a person sees: short lines, coloured only on a terminal."""

import os
import sys
from pathlib import Path
from typing import TextIO

_COLOURS = {"error": "31", "warning": "33", "good": "32", "dim": "2", "bold": "1"}


class Terminal:
    """Writes whole lines; a reader that went away is no trouble."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_coloured = stream.isatty() and not os.environ.get("NO_COLOR")
        self.hides_parts = False  # while stopping: parts complain about each other's end

    def say(self, text: str = "") -> None:
        """Write a line."""
        try:
            self._stream.write(text + "\n")
            self._stream.flush()
        except OSError:  # the window was closed, or the other end of a pipe
            self._stream = sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 -- stays open until the process ends

    def part_says(self, name: str, level: str, text: str) -> None:
        """Write a line of a part, prefixed with its name."""
        if not self.hides_parts:
            self.say(f"{self.colour(f'{name:<9} |', 'dim')} {self.colour(text, level)}")

    def colour(self, text: str, style: str) -> str:
        """Colour a text if this is a terminal."""
        code = _COLOURS.get(style)
        return f"\x1b[{code}m{text}\x1b[0m" if self._is_coloured and code else text
