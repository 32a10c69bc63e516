"""The secrets that an endpoint has for one scheme: the newest, and those it took the place of.

Who changes a secret cannot change it at both ends at once. So what is replaced signs on for a
while, its overlap, and a receiver may change over at any time within. Kept is all of it in one
sealed value, so that a change is one write on condition that nobody else changed it meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

MAX_RETIRED = 3
"""Replaced secrets that may sign on at once: the `webhook-signature` header is not to grow on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """One secret.

    Attributes:
        text: the secret itself.
        until: when it signs no more, µs; None while nothing has taken its place.
        wish: stands for the request that brought it, so that the same one brings it once; empty for
            one that nobody asked for.
    """

    text: str
    until: int | None = None
    wish: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """Secrets of one scheme, newest first.

    Attributes:
        newest: signs until another takes its place.
        retired: sign until their instants.
    """

    newest: Secret
    retired: tuple[Secret, ...] = ()

    def in_force(self, now: int) -> tuple[str, ...]:
        """Return what signs at `now` (µs), newest first."""
        return (self.newest.text, *(each.text for each in self.retiring(now)))

    def retiring(self, now: int) -> tuple[Secret, ...]:
        """Return what still signs at `now` (µs) although it was replaced."""
        return tuple(each for each in self.retired if each.until is not None and each.until > now)

    def rotated(self, text: str, *, now: int, overlap: int, wish: str = "") -> Secrets:
        """Return the secrets with `text` as the newest; the same ones if it is.

        Args:
            text: may be a retired one, which then comes back.
            now: µs.
            overlap: µs that the one it replaces signs on, and earlier ones at the most.
            wish: stands for the request.
        """
        if text == self.newest.text:
            return self
        end = now + overlap
        replaced = replace(self.newest, until=end)
        earlier = (
            replace(each, until=min(each.until or end, end))
            for each in self.retiring(now)
            if each.text != text
        )
        retired = (replaced, *earlier)[:MAX_RETIRED] if overlap > 0 else ()
        return Secrets(newest=Secret(text=text, wish=wish), retired=retired)

    def settled(self) -> Secrets:
        """Return the newest alone: every overlap ends now."""
        return replace(self, retired=())

    def encode(self) -> bytes:
        """Return what is sealed: a line for each, with its instant and its wish where it has them.

        A tab stands between: no secret and no wish holds one.
        """
        lines = (
            "\t".join((each.text, str(each.until or ""), each.wish)).rstrip("\t")
            for each in (self.newest, *self.retired)
        )
        return "\n".join(lines).encode()

    @classmethod
    def decode(cls, kept: bytes) -> Secrets:
        """Return what `encode` kept."""
        newest, *retired = (_decode(line) for line in kept.decode().split("\n"))
        return cls(newest=newest, retired=tuple(retired))


def _decode(line: str) -> Secret:
    text, until, wish = (*line.split("\t"), "", "")[:3]
    return Secret(text=text, until=int(until) if until else None, wish=wish)
