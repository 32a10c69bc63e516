"""What importing depends on: variables that libraries read then, and where modules are found."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path


def preset(**variables: str) -> None:
    """Set variables that are not set yet; before importing the library that reads them."""
    for name, value in variables.items():
        os.environ.setdefault(name, value)


def import_from(folders: Iterable[Path]) -> None:
    """Let modules be found in `folders` too, after everything that is found without them."""
    sys.path += [str(folder) for folder in folders if str(folder) not in sys.path]
