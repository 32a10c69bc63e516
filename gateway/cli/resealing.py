"""Sealing anew, beside the store: what is under which key, and all of it under the first."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from config.clock import StoreClock, SystemClock
from config.partitions import kept_partitions
from config.settings import Settings, load_settings
from config.store import Store
from delivery.configure import connect_store, key_ring
from delivery.rewrap import Rewrapped, Tally, rewrap, tally
from delivery.sealing import KeyRing
from gateway.audit import AuditLog
from gateway.cli.command import CliError
from gateway.cli.installed import installed
from gateway.cli.output import OK, PARTLY, note, say, say_json, table
from gateway.rewrap import SEALED

_COLUMNS = {"SEALED": 20, "UNDER": 34, "VALUES": 12, "THE KEY": 20}


async def reseal(data_dir: Path, *, dry_run: bool, as_json: bool) -> int:
    """Seal everything of an installation under its first key, unless `dry_run`; return the code.

    Raises:
        CliError: there is no such installation, or its store was never used.
        SettingsError, StoreError, SealError: the settings, the store or the keys cannot be used.
    """
    settings = load_settings(installed(data_dir))
    ring = key_ring(settings)
    store = connect_store(settings)
    try:
        if await kept_partitions(store) is None:
            raise CliError("this store was never used by the gateway")
        done = None if dry_run else await _rewrap(store, settings, ring)
        kept = await tally(store, SEALED)
    finally:
        await store.close()
    _say(kept, ring, done, as_json=as_json)
    others = {kid for counts in kept.values() for kid in counts} - {ring.first}
    return PARTLY if others else OK


async def _rewrap(store: Store, settings: Settings, ring: KeyRing) -> Rewrapped:
    audit = AuditLog(store, StoreClock(SystemClock()), settings.api)
    await audit.record_local("sealing.rewrap", ring.first)
    return await rewrap(store, ring, SEALED)


def _say(kept: Tally, ring: KeyRing, done: Rewrapped | None, *, as_json: bool) -> None:
    if as_json:
        said = {"first": ring.first, "sealed": kept}
        say_json(said if done is None else {**said, **asdict(done)})
        return
    rows = (
        (noun, kid, count, _place(kid, ring))
        for noun, counts in kept.items()
        for kid, count in sorted(counts.items()) or [("-", 0)]
    )
    for line in table(_COLUMNS, rows):
        say(line)
    if done is not None:
        say(f"{done.rewrapped} sealed anew")
    if done is not None and done.unreadable:
        note(f"{done.unreadable} cannot be opened, of {', '.join(done.named)}")


def _place(kid: str, ring: KeyRing) -> str:
    if kid == ring.first:
        return "is the first"
    if kid == "-":
        return ""
    return "can be opened" if kid in ring.ids else "is missing"
