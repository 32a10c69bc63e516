"""Figures beside their targets: as a table, and as JSON with what they were made from."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TextIO

from tests.bench.machine import described_machine

_BAR = 24
_COLUMNS = ("", "figure", "target", "measured", "ratio", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure, measured.

    Attributes:
        name: of the table in the performance page: P1.
        what: it is, in a few words.
        target: in words.
        measured: in words.
        ratio: of measured to what it is measured against; None where it is against nothing.
        ok: whether it reaches the target.
        details: what it was made from.
    """

    name: str
    what: str
    target: str
    measured: str
    ratio: float | None = None
    ok: bool
    details: dict[str, Any] = field(default_factory=dict)


def table(figures: Sequence[Figure]) -> str:
    """Return the figures as aligned lines."""
    rows = [_COLUMNS, *(_row(figure) for figure in figures)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(_COLUMNS))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


def _row(figure: Figure) -> tuple[str, ...]:
    ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
    verdict = "ok" if figure.ok else "NOT MET"
    return figure.name, figure.what, figure.target, figure.measured, ratio, verdict


def as_json(figures: Sequence[Figure], *, quick: bool) -> str:
    """Return the figures with the machine and the versions they were measured with."""
    whole = {
        "quick": quick,
        "machine": described_machine(),
        "figures": [asdict(figure) for figure in figures],
    }
    return json.dumps(whole, indent=2) + "\n"


class Progress:
    """A bar on a terminal, nothing elsewhere."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._wide = 0

    def at(self, name: str, step: str, done: float) -> None:
        """Show that `done` (0 to 1) of the figure `name` is done, and which step is next."""
        if not self._stream.isatty():
            return
        filled = round(_BAR * min(1.0, done))
        line = f"{name} [{'#' * filled}{'.' * (_BAR - filled)}] {step}"
        self._stream.write(f"\r{line.ljust(self._wide)}")
        self._stream.flush()
        self._wide = len(line)

    def clear(self) -> None:
        """Take the bar away."""
        if self._wide:
            self._stream.write(f"\r{' ' * self._wide}\r")
            self._stream.flush()
            self._wide = 0
