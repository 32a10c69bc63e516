"""The settings of an installation, for commands that work beside it, on its store."""

from __future__ import annotations

from pathlib import Path

from config.settings import draft_settings
from config.variables import environment
from gateway.cli.target import read_run


def installed(data_dir: Path) -> dict[str, str]:
    """Return the environment, with what `gateway up` keeps in its data directory filled in.

    Where the environment names a store, it is returned as it is.

    Raises:
        CliError: neither names a store.
    """
    environ = environment()
    draft = draft_settings(environ)
    if draft.text("store", "url"):
        return environ
    record, folder = read_run(data_dir, "GATEWAY_STORE_URL"), data_dir.resolve()
    kept = {
        "GATEWAY_STORE_URL": record["storeUrl"],
        "GATEWAY_STORE_PARTITIONS": str(record["partitions"]),
        "GATEWAY_BROKER_URL": record["brokerUrl"],
    }
    if not draft.is_given("profile"):
        kept["GATEWAY_PROFILE"] = "development"
    if not draft.text("public_url"):
        kept["GATEWAY_PUBLIC_URL"] = record["apiUrl"]
    if not draft.text("artifacts", "url"):
        kept["GATEWAY_ARTIFACTS_URL"] = (folder / "artifacts").as_uri()
    if not draft.text("sealing", "keys") and not draft.text("sealing", "keys_file"):
        kept["GATEWAY_SEALING_KEYS_FILE"] = str(folder / "sealing.key")
    return environ | kept
