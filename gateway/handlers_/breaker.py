"""A circuit breaker for services that handlers call: the rules, and the state threads share.

The rules are pure. There is no half-open state to get stuck in: open means that one request is let
through each `wait`, and whoever is let through need not report back for the next one to have its
turn.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """When to open and how often to try again.

    Attributes:
        failures: so many in a row open the breaker.
        wait: seconds from one probe to the next while it is open.
    """

    failures: int
    wait: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """Requests pass. Entered at the start, and by a success; left by the last failure allowed."""

    failures: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """Requests fail without being sent, except one from `probe_at` (monotonic seconds) on.

    Entered by the last failure allowed, left by a success.
    """

    probe_at: float


State = Closed | Open


def admit(state: State, now: float, rules: Rules) -> tuple[bool, State]:
    """Return whether a request may be sent at `now`, and the state from then on."""
    match state:
        case Closed():
            return True, state
        case Open(probe_at=probe_at):
            if now < probe_at:
                return False, state
            return True, Open(probe_at=now + rules.wait)


def after(state: State, now: float, rules: Rules, *, success: bool) -> State:
    """Return the state after a request that was let through ended at `now`."""
    if success:
        return Closed()
    match state:
        case Closed(failures=failures) if failures + 1 < rules.failures:
            return Closed(failures=failures + 1)
        case _:
            return Open(probe_at=now + rules.wait)


class Breakers:
    """The breakers of one process, by name; may be used from any thread."""

    def __init__(self, *, limit: int = 1_024) -> None:
        """Remember `limit` breakers, those used last."""
        self._limit = limit
        self._states: OrderedDict[str, State] = OrderedDict()
        self._lock = threading.Lock()

    def admit(self, name: str, now: float, rules: Rules) -> bool:
        """Tell whether a request may be sent to `name` at `now` (monotonic seconds)."""
        with self._lock:
            admitted, state = admit(self._states.get(name, Closed()), now, rules)
            self._keep(name, state)
        return admitted

    def report(self, name: str, now: float, rules: Rules, *, success: bool) -> None:
        """Note how a request that was let through ended."""
        with self._lock:
            state = after(self._states.get(name, Closed()), now, rules, success=success)
            self._keep(name, state)

    def _keep(self, name: str, state: State) -> None:
        self._states[name] = state
        self._states.move_to_end(name)
        if len(self._states) > self._limit:
            self._states.popitem(last=False)
