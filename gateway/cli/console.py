"""What a command shows: aligned lines with a mark, colours only where they are wanted."""

import sys
from collections.abc import Mapping
from typing import Final, TextIO

_LABEL_WIDTH: Final = 14
_GREEN, _YELLOW, _RED, _DIM, _BOLD = "32", "33", "31", "2", "1"


class Console:
    """Writes lines to `stream`; colours on a terminal without NO_COLOR (no-color.org)."""

    def __init__(self, environ: Mapping[str, str], stream: TextIO | None = None) -> None:
        self._stream = sys.stdout if stream is None else stream
        dumb = environ.get("TERM") == "dumb"
        self._colours = self._stream.isatty() and not environ.get("NO_COLOR") and not dumb
        encoding = (self._stream.encoding or "ascii").lower().replace("-", "")
        self._unicode = encoding.startswith("utf")
        self._is_open = True

    def title(self, text: str) -> None:
        """A heading after an empty line."""
        self._write("")
        self._write(self._paint(text, _BOLD))

    def done(self, label: str, text: str = "") -> None:
        """A step that went well."""
        self._write(self._line(self._paint("✓", _GREEN), label, text))

    def step(self, label: str, text: str = "") -> None:
        """Something under way, or a detail."""
        self._write(self._line(self._paint("·", _DIM), label, self._paint(text, _DIM)))

    def warned(self, label: str, text: str = "") -> None:
        """Something that works and is not as it should be."""
        self._write(self._line(self._paint("!", _YELLOW), label, text))

    def failed(self, label: str, text: str = "") -> None:
        """A step that went wrong."""
        self._write(self._line(self._paint("✗", _RED), label, text))

    def say(self, text: str = "") -> None:
        """Plain lines."""
        self._write(text)

    def close(self) -> None:
        """Show nothing more; what a thread still has to say comes too late."""
        self._is_open = False

    def _line(self, mark: str, label: str, text: str) -> str:
        return f"  {mark} {label:<{_LABEL_WIDTH}}  {text}".rstrip()

    def _paint(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colours and text else text

    def _write(self, text: str) -> None:
        if not self._is_open:
            return
        if not self._unicode:
            text = text.replace("✓", "+").replace("✗", "x").replace("·", "-").replace("→", "->")
            text = text.encode("ascii", "replace").decode()
        print(text, file=self._stream, flush=True)
