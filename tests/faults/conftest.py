"""What every test of faults keeps its record in."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.records import Record


@pytest.fixture
def record(tmp_path: Path) -> Record:
    """A file that attempts are noted in."""
    return Record(tmp_path / "record")
