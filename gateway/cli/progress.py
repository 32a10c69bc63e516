"""How a job gets on, live: a bar on a terminal, a line for each change elsewhere."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Self, TextIO

from gateway.cli.output import printable

_BAR = 30
_CYAN = "36"


class Bar:
    """One line that is drawn again and again; for terminals that can."""

    def __init__(self, stream: TextIO, *, colours: bool, blocks: bool) -> None:
        self._stream = stream
        self._colours = colours
        self._full, self._empty = ("█", "░") if blocks else ("#", "-")
        self._drawn = False

    def show(self, percent: float, status: str, message: str) -> None:
        """Draw where things stand."""
        full = round(_BAR * min(max(percent, 0), 100) / 100)
        bar = self._full * full + self._empty * (_BAR - full)
        words = f"{percent:>3.0f} %  {status}  {printable(message)}".rstrip()
        room = shutil.get_terminal_size().columns - _BAR - 3
        painted = f"\x1b[{_CYAN}m{bar}\x1b[0m" if self._colours else bar
        self._stream.write(f"\r\x1b[K{painted} {words[: max(room, 0)]}")
        self._stream.flush()
        self._drawn = True

    def close(self) -> None:
        """Leave what was drawn last, and go to the next line."""
        if self._drawn:
            self._stream.write("\n")
            self._stream.flush()
            self._drawn = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Lines(Bar):
    """A line for each change, for what is no terminal."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream, colours=False, blocks=False)
        self._last = ""

    def show(self, percent: float, status: str, message: str) -> None:
        """Say where things stand, unless it was just said."""
        line = f"{percent:>3.0f} %  {status}  {printable(message)}".rstrip()
        if line != self._last:
            self._stream.write(f"{line}\n")
            self._stream.flush()
            self._last = line


def progress(environ: Mapping[str, str], stream: TextIO | None = None) -> Bar:
    """Return what shows progress on `stream`: colours unless NO_COLOR is set (no-color.org)."""
    stream = sys.stdout if stream is None else stream
    if not stream.isatty() or environ.get("TERM", "dumb") == "dumb":
        return Lines(stream)
    blocks = (stream.encoding or "").lower().replace("-", "").startswith("utf")
    return Bar(stream, colours=not environ.get("NO_COLOR"), blocks=blocks)
