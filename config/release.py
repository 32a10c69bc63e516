"""What this is and which release of it: told to receivers, and in the description of the API."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PRODUCT = "async-request-reply-gateway"
"""The product's name, and that of its distribution."""

_CHECKOUT = Path(__file__).resolve().parent.parent / "pyproject.toml"


@cache
def release() -> str:
    """Return the release: of the distribution, or of the checkout that is run; `0` of neither."""
    try:
        return version(PRODUCT)
    except PackageNotFoundError:
        pass
    try:
        return str(tomllib.loads(_CHECKOUT.read_text(encoding="utf-8"))["project"]["version"])
    except (OSError, tomllib.TOMLDecodeError, KeyError):
        return "0"
