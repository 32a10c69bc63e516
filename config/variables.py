"""Environment variables that libraries read when they are imported."""

from __future__ import annotations

import os


def preset(**variables: str) -> None:
    """Set variables that are not set yet; before importing the library that reads them."""
    for name, value in variables.items():
        os.environ.setdefault(name, value)
