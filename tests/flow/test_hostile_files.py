"""Hostile files through a whole gateway: their job fails cleanly, at once, and the worker lives."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.hostile.test_documents import TWICE, packed, pdf
from tests.running import Gateway

NAME = "../../../../tmp/report.pdf"

# By name: what makes the file, and what its job fails with.
FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "zero bytes": (lambda: b"", "document_empty"),
    "an archive that says it is a PDF": (lambda: b"PK\3\4" + bytes(100), "document_unsupported"),
    "a program that says it is a PDF": (
        lambda: b"\x7fELF\2\1\1" + bytes(100),
        "document_unsupported",
    ),
    "a PDF cut off": (lambda: pdf(b"BT (word) Tj ET")[:200], "document_damaged"),
    "a PDF that crashes its parser": (
        lambda: pdf(packed(b" " * 2**20, 2_048), filters=TWICE),
        "memory_limit",
    ),
}


def analysed(gateway: Gateway, content: bytes) -> dict[str, Any]:
    """Return the ended job that analyses `content`, sent as a PDF with a name that leads away."""
    job = {"type": "document.analyze", "input": {"document": {"part": "f"}}}
    answer = gateway.client.post(
        "/v1/jobs",
        files=[
            ("job", ("j", json.dumps(job), "application/json")),
            ("f", (NAME, content, "application/pdf")),
        ],
    )
    assert answer.status_code == 202, answer.text
    return gateway.ended(answer.json()["jobId"])


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not bound address space")
@pytest.mark.parametrize("case", FILES)
def test_files_that_cannot_be_used_fail_their_job_once(case: str, gateway: Gateway) -> None:
    make, code = FILES[case]
    worker = gateway.pid("worker")
    ended = analysed(gateway, make())
    assert (ended["status"], ended["errorCode"], ended["attempt"]) == ("failed", code, 1)
    assert ended["error"].endswith(".")
    assert analysed(gateway, b"Four words are enough.")["status"] == "completed"
    assert gateway.pid("worker") == worker


def test_files_whose_type_lies_are_what_their_content_says(gateway: Gateway) -> None:
    page = b"<!doctype html><title>Not a PDF</title><script>alert(1)</script><p>three plain words"
    ended = analysed(gateway, page)
    assert (ended["status"], ended["results"]["words"]) == ("completed", 3)
