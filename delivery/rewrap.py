"""Sealing anew, under the first key of the ring, what is kept under others.

Putting a new key first changes what is sealed from then on. What was sealed before is found here by
walking through the store's names, and each value is replaced on condition that it is still the one
that was read. So it can go on beside running processes: whoever changes a value meanwhile sealed it
himself, and nothing that was written is lost. A walk that is cut off leaves what it did; the next
one passes over that and does the rest.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from config.scripts import Argument, Call, load_script, partition_prefix
from config.store import Store
from delivery.endpoints import SECRET_FIELDS
from delivery.errors import SealError
from delivery.sealing import KeyRing

PAGE = 500
"""About how many names are looked at in one round."""

PASSES = 5
"""How often everything is walked through while others change what is being sealed anew."""

MAX_NAMED = 20
"""How much of what cannot be opened is named."""

_NAME = re.compile(rb"gw:\{p(\d\d)\}:(.+)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """A kind of sealed value: where it is kept, and what it is bound to.

    Attributes:
        noun: what the values are, for people.
        name: matches the names of the hashes that hold them, under the partition's prefix; its
            group is the identifier of what the hash is about.
        fields: the hash's fields that are sealed; empty for every one.
        row: what they are sealed for, of that identifier. None where the value itself says so: it
            is then `words` words, the last of which is the row, and after a space what is sealed.
        words: how many words stand before what is sealed.
    """

    noun: str
    name: re.Pattern[str]
    fields: tuple[str, ...]
    row: Callable[[str], str] | None
    words: int = 0


def _itself(identifier: str) -> str:
    return identifier


DELIVERY_SEALED = (
    Sealed(
        noun="signing secrets",
        name=re.compile(r"ep:(ep_[0-9A-Za-z]+)"),
        fields=tuple(SECRET_FIELDS.values()),
        row=_itself,
    ),
    Sealed(
        noun="disabled URLs",
        name=re.compile(r"ep:(ep_[0-9A-Za-z]+):gone"),
        fields=(),
        row=None,
        words=3,
    ),
    Sealed(
        noun="deliveries",
        name=re.compile(r"d:(msg_[0-9A-Za-z]+)"),
        fields=("url", "headers"),
        row=_itself,
    ),
    Sealed(
        noun="replays",
        name=re.compile(r"rp:(rpl_[0-9A-Za-z]+)"),
        fields=("toUrl",),
        row=_itself,
    ),
)
"""Everything that delivery seals."""

Tally = Mapping[str, Mapping[str, int]]
"""How many values are sealed under each key, by the noun of their kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewrapped:
    """What a rewrapping did.

    Attributes:
        rewrapped: values that are under the first key now.
        unreadable: values that no key of the ring opens; they stay as they are.
        named: what some of those belong to, at most `MAX_NAMED`.
    """

    rewrapped: int
    unreadable: int
    named: tuple[str, ...]


@dataclass(slots=True)
class _Pass:
    rewrapped: int = 0
    changed: int = 0
    unreadable: int = 0
    named: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Found:
    """A hash that may hold sealed values."""

    partition: int
    name: str
    kind: Sealed
    identifier: str


@dataclass(frozen=True, slots=True)
class _Value:
    """A value as it was read, and with what is sealed in it sealed anew."""

    found: _Found
    field: bytes
    kept: bytes
    anew: bytes


async def tally(store: Store, kinds: Sequence[Sealed]) -> Tally:
    """Return how many values of each of `kinds` are sealed under which key.

    A value that is moved about in the store during the walk may be counted twice.

    Raises:
        StoreUnavailable: calling again begins anew.
    """
    counts: dict[str, Counter[str]] = {kind.noun: Counter() for kind in kinds}
    async for page in store.hash_names("gw:{p*", PAGE):
        found = list(_match(page, kinds))
        for each, (keys, _) in zip(found, await _look(store, found, ""), strict=True):
            names = iter(keys)
            for key_id, count in zip(names, names, strict=True):
                counts[each.kind.noun][key_id.decode()] += count
    return counts


async def rewrap(store: Store, ring: KeyRing, kinds: Sequence[Sealed]) -> Rewrapped:
    """Seal every value of `kinds` under the first key of `ring` that is under another one.

    Processes whose ring has another key first go on sealing under that; so each of them is started
    anew with the new ring before this is called. What they write meanwhile is looked at once more,
    a bounded number of times; `tally` tells whether anything is left.

    Raises:
        StoreUnavailable: what was done stays done; calling again does the rest.
    """
    rewrapped = 0
    for _ in range(PASSES):
        done = await _rewrap_once(store, ring, kinds)
        rewrapped += done.rewrapped
        if not done.changed:
            break
    return Rewrapped(rewrapped=rewrapped, unreadable=done.unreadable, named=tuple(done.named))


async def _rewrap_once(store: Store, ring: KeyRing, kinds: Sequence[Sealed]) -> _Pass:
    done = _Pass()
    async for page in store.hash_names("gw:{p*", PAGE):
        found = list(_match(page, kinds))
        looked = await _look(store, found, ring.first)
        values = [
            value
            for each, (_, others) in zip(found, looked, strict=True)
            for name, sealed in others
            if (value := _seal_anew(each, name, sealed, ring, done)) is not None
        ]
        for was_same in await _replace(store, values):
            done.rewrapped += was_same
            done.changed += not was_same
    return done


def _match(names: Iterable[bytes], kinds: Sequence[Sealed]) -> Iterator[_Found]:
    for name in names:
        parts = _NAME.fullmatch(name)
        if parts is None:
            continue
        inner = parts[2].decode("utf-8", "replace")
        for kind in kinds:
            if match := kind.name.fullmatch(inner):
                yield _Found(int(parts[1]), inner, kind, match[1])


async def _look(
    store: Store, found: Sequence[_Found], first: str
) -> list[tuple[list[Any], list[tuple[bytes, bytes]]]]:
    """Return for each hash how many values are under which key, and those not under `first`."""
    asked = [
        (each.partition, (each.name, ",".join(each.kind.fields), each.kind.words)) for each in found
    ]
    return await _by_partition(store, "read_sealed", (first,), asked)


async def _replace(store: Store, values: Sequence[_Value]) -> list[bool]:
    """Return for each value whether it was still the same, and is now the one sealed anew."""
    asked = [
        (each.found.partition, (each.found.name, each.field, each.kept, each.anew))
        for each in values
    ]
    return [bool(each) for each in await _by_partition(store, "reseal", (), asked)]


async def _by_partition(
    store: Store,
    script: str,
    before: Sequence[Argument],
    asked: Sequence[tuple[int, Sequence[Argument]]],
) -> list[Any]:
    """Run a script in each partition that is asked about; return its replies in the order asked."""
    order = sorted(range(len(asked)), key=lambda at: asked[at][0])
    groups = [(p, list(each)) for p, each in groupby(order, key=lambda at: asked[at][0])]
    replies = await store.run_all(
        [
            Call(
                load_script("delivery", script),
                partition_prefix(partition),
                (*before, *(argument for at in members for argument in asked[at][1])),
            )
            for partition, members in groups
        ]
    )
    placed = {
        at: reply
        for (_, members), each in zip(groups, replies, strict=True)
        for at, reply in zip(members, each, strict=True)
    }
    return [placed[at] for at in range(len(asked))]


def _seal_anew(
    found: _Found, name: bytes, kept: bytes, ring: KeyRing, done: _Pass
) -> _Value | None:
    """Return the value sealed anew; None, and noted in `done`, when nothing opens it."""
    *words, sealed = kept.split(b" ", found.kind.words)
    row = found.kind.row(found.identifier) if found.kind.row else _named(words)
    try:
        anew = b" ".join((*words, ring.seal(ring.open(sealed, row=row), row=row)))
    except SealError:
        done.unreadable += 1
        if len(done.named) < MAX_NAMED:
            done.named.append(found.identifier)
        return None
    return _Value(found, name, kept, anew)


def _named(words: Sequence[bytes]) -> str:
    """Return the row that a value names; what no row can be for a value that is none."""
    return words[-1].decode("utf-8", "replace") if words else "?"
