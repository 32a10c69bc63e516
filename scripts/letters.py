"""What both kinds of dead letters share on an operator's terminal."""

from __future__ import annotations

import sys

from gateway.cli.output import FAILED, OK, PARTLY, printable, row

__all__ = ["FAILED", "OK", "PARTLY", "ScriptError", "printable", "row", "say_end"]


class ScriptError(Exception):
    """A sentence for whoever typed the command."""


def say_end(shown: int, *, more: bool) -> None:
    """Say that a list is empty or cut off."""
    if shown == 0:
        print("No dead letters.")
    elif more:
        print(f"The oldest {shown} are shown; --limit N shows more.", file=sys.stderr)
