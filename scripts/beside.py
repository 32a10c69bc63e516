"""The settings of an installation, for scripts that work beside it, on its store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from config.settings import draft_settings, environment
from scripts.letters import ScriptError


def installed(data_dir: Path) -> dict[str, str]:
    """Return the environment, with what `./scripts/up` keeps in its data directory filled in.

    Where the environment names a store, it is returned as it is.

    Raises:
        ScriptError: neither names a store.
    """
    environ = environment()
    draft = draft_settings(environ)
    if draft.text("store", "url"):
        return environ
    try:
        record: dict[str, Any] = json.loads((data_dir / "run.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ScriptError(
            f"nothing runs in {data_dir}: start ./scripts/up, name its --data-dir, "
            "or set GATEWAY_STORE_URL"
        ) from None
    kept = {
        "GATEWAY_STORE_URL": record["storeUrl"],
        "GATEWAY_BROKER_URL": record["brokerUrl"],
    }
    if not draft.is_given("profile"):
        kept["GATEWAY_PROFILE"] = "development"
    if not draft.text("public_url"):
        kept["GATEWAY_PUBLIC_URL"] = record["apiUrl"]
    if not draft.text("artifacts", "url"):
        kept["GATEWAY_ARTIFACTS_URL"] = (data_dir.resolve() / "artifacts").as_uri()
    if not draft.text("sealing", "keys") and not draft.text("sealing", "keys_file"):
        kept["GATEWAY_SEALING_KEYS_FILE"] = str(data_dir / "sealing.key")
    return environ | kept
