"""Files: taken up where they broke off, and never kept but whole."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from gateway.client import DownloadFailed
from tests.gateway.client.conftest import Both, files_in
from tests.gateway.client.server import Planned, Scripted


def artifact(data: bytes) -> dict[str, Any]:
    return {"href": "/v1/jobs/job_1/artifacts/a", "size": len(data), "sha256": sha256(data)}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("ranges", [True, False], ids=["resumed", "from-the-start"])
async def test_a_download_that_breaks_off_is_taken_up(
    planned: Both, server: Scripted, tmp_path: Path, *, ranges: bool
) -> None:
    etag = {"ETag": '"v1"'} if ranges else {}
    first = Planned(headers={"Content-Length": "10", **etag}, pieces=(b"01234",), breaks=True)
    rest = {"Content-Range": "bytes 5-9/10"} if ranges else {}
    data = b"56789" if ranges else b"0123456789"
    server.plan(first, Planned(status=206 if ranges else 200, headers=rest, pieces=(data,)))
    place = tmp_path / "a"
    await planned.call("download", artifact(b"0123456789"), str(place))
    assert place.read_bytes() == b"0123456789"
    asked = server.received[1].headers
    wanted = ("bytes=5-", '"v1"') if ranges else (None, None)
    assert (asked.get("range"), asked.get("if-range")) == wanted


@pytest.mark.parametrize(
    ("sent", "said"),
    [(b"0123456780", "SHA-256"), (b"012345678", "9 bytes came of 10"), (b"0" * 11, "more than")],
    ids=["other", "short", "long"],
)
async def test_other_bytes_than_announced_leave_no_file(
    planned: Both, server: Scripted, tmp_path: Path, sent: bytes, said: str
) -> None:
    server.plan(Planned(pieces=(sent,)))
    place = tmp_path / "a"
    place.write_bytes(b"as it was")
    with pytest.raises(DownloadFailed, match=said):
        await planned.call("download", artifact(b"0123456789"), place)
    assert files_in(tmp_path) == {"a": b"as it was"}


async def test_a_file_that_cannot_be_written_leaves_nothing(
    planned: Both, server: Scripted, tmp_path: Path
) -> None:
    server.plan(Planned(pieces=(b"0",)))
    with pytest.raises(FileNotFoundError):
        await planned.call("download", artifact(b"0"), tmp_path / "none" / "a")
    assert files_in(tmp_path) == {}
