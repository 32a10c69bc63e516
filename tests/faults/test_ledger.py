"""Jobs submitted while everything is killed at random; `./scripts/soak` does it at length."""

from __future__ import annotations

from pathlib import Path

from tests.faults.ledger import SETTINGS, Ledger
from tests.running import running


def test_nothing_is_missing_from_the_ledger(tmp_path: Path) -> None:
    with running(tmp_path / "data", SETTINGS) as gateway:
        ledger = Ledger(gateway, seed=1, record=str(tmp_path / "record"))
        with ledger.receivers.listening():
            ledger.run(jobs=300, kills=10)
            documents = ledger.settle(patience=60)
        assert len(ledger.kills) == 10
        assert ledger.faults(documents) == []
