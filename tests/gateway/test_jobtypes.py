"""What a job type says of where it runs, and for how long it may wait."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.jobtypes import DefinitionError, Registry, job_type
from gateway.testing import run_handler
from tests.gateway import isolated_types


def test_a_type_says_where_it_runs() -> None:
    types = Registry.load(["tests.gateway.isolated_types"], "production")
    assert types.get("isolated.thread").isolation == "thread"
    assert types.get("isolated.pid").isolation == "process"
    assert types.get("isolated.pid").memory_bytes is None
    assert types.get("isolated.eat").memory_bytes == isolated_types.MEMORY
    assert types.get("isolated.thread").queue_timeout is None


def test_the_test_kit_runs_isolated_types_too() -> None:
    run = run_handler(isolated_types.read, {"file": {"part": "a"}}, {"a": b"abc"})
    assert run.artifacts == {"bytes.bin": b"abc", "file.bin": b"abc"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"isolation": "container"}, "isolation must be 'thread' or 'process'"),
        ({"memory_bytes": 2**30}, "memory_bytes needs isolation='process'"),
        ({"isolation": "process", "memory_bytes": 512}, "memory_bytes must be at least 16777216"),
        ({"isolation": "process", "memory_bytes": -1}, "memory_bytes must be at least"),
        ({"queue_timeout": 0}, "queue_timeout must be a positive number"),
        ({"queue_timeout": float("inf")}, "queue_timeout must be a positive number"),
        ({"queue_timeout": float("nan")}, "queue_timeout must be a positive number"),
    ],
)
def test_a_wrong_declaration_says_what_to_change(changed: dict[str, Any], message: str) -> None:
    declare = job_type("test.type", timeout=1, example={}, **changed)
    with pytest.raises(DefinitionError, match=message):
        declare(isolated_types.thread.function)
