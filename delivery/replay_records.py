"""Replays as the store keeps them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, cast

from delivery.letters import Filter
from delivery.replays import Definition, Failure, Part, Replay, ReplayState


def encode_definition(wanted: Definition) -> str:
    """Return the JSON that the store keeps."""
    chosen = wanted.filter
    kept: dict[str, Any] = {
        "action": wanted.action,
        "named": wanted.named,
        "rate": wanted.rate,
        "most": wanted.most,
        "dryRun": wanted.dry_run,
        "brake": wanted.brake,
        "total": wanted.total,
        "by": wanted.by,
    }
    if chosen is not None:
        kept["filter"] = {
            "reason": chosen.reason,
            "endpoint": chosen.endpoint,
            "tags": dict(chosen.tags),
            "diedAfter": chosen.died_after,
            "diedBefore": chosen.died_before,
        }
    return json.dumps(kept)


def decode_replay(replay_id: str, kept: Mapping[str, bytes]) -> Replay:
    """Return the replay that the hash fields `kept` describe."""
    base = None
    if "baseAttempted" in kept:
        base = int(kept["baseAttempted"]), int(kept["baseFailed"])
    return Replay(
        id=replay_id,
        tenant=kept["tenant"].decode(),
        kind=kept["kind"].decode(),
        definition=_decode_definition(json.loads(kept["definition"])),
        to_url=kept.get("toUrl", b""),
        state=cast("ReplayState", kept["state"].decode()),
        reason=kept.get("reason", b"").decode() or None,
        created_at=int(kept["createdAt"]),
        updated_at=int(kept["updatedAt"]),
        died_before=int(kept["diedBefore"]),
        base=base,
        paced_at=int(kept.get("pacedAt", 0)),
    )


def _decode_definition(kept: Mapping[str, Any]) -> Definition:
    chosen = kept.get("filter")
    return Definition(
        action=kept["action"],
        filter=None
        if chosen is None
        else Filter(
            reason=chosen["reason"],
            endpoint=chosen["endpoint"],
            tags=chosen["tags"],
            died_after=chosen["diedAfter"],
            died_before=chosen["diedBefore"],
        ),
        named=kept["named"],
        rate=kept["rate"],
        most=kept["most"],
        dry_run=kept["dryRun"],
        brake=kept["brake"],
        total=kept["total"],
        by=kept["by"],
    )


_PLACES = {"died", "id", "done", "plan"}


def decode_part(kept: Mapping[str, bytes], failures: Iterable[bytes]) -> Part:
    """Return the part that the hash fields `kept` describe, with its last `failures`."""
    return Part(
        place=(int(kept.get("died", 0)), kept.get("id", b"").decode()),
        done=kept.get("done") == b"1",
        plan=kept.get("plan"),
        counts={name: int(value) for name, value in kept.items() if name not in _PLACES},
        failures=tuple(_decode_failure(json.loads(each)) for each in failures),
    )


def _decode_failure(kept: Mapping[str, Any]) -> Failure:
    return Failure(
        id=kept["id"],
        at=int(kept["at"]),
        outcome=kept.get("outcome"),
        status=kept.get("status"),
        reason=kept.get("reason"),
    )
