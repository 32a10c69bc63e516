"""The row of files: stored under an identifier, served as bytes, whatever they are called."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

NAMES = {
    "traversal": "../../../../etc/passwd",
    "traversal with backslashes": "..\\..\\windows\\system32",
    "encoded traversal": "%2e%2e%2fpasswd",
    "absolute": "/etc/passwd",
    "drive": "C:\\autoexec.bat",
    "dots": "..",
    "a device": "NUL",
    "hidden": ".htaccess",
    "line end": "a\r\nSet-Cookie: x=y",
    "quote": 'a"; filename="b',
    "right to left": "a\u202efdp.exe",
    "nul": "a\x00.pdf",
    "long": "x" * 5_000,
    "empty": "",
    "not ASCII": "Grüße 文書.pdf",
    "a temporary file of the store": "#1",
    "the input of the job": "input.json",
}


def _kept(folder: Path) -> set[str]:
    return {str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file()}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
async def test_files_are_kept_under_an_identifier_whatever_they_are_called(
    name: str, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    made = await client.post("/v1/files", params={"name": name}, content=b"uploaded")
    assert made.status_code == 201
    file_id = made.json()["fileId"]
    served = await client.get(f"/v1/files/{file_id}")
    assert served.content == b"uploaded"
    assert served.headers["content-disposition"].startswith("attachment")
    assert served.headers["content-disposition"].isprintable()
    assert "set-cookie" not in served.headers
    job = {"type": "document.analyze", "input": {"document": {"part": "f"}}}
    answer = await client.post(
        "/v1/jobs",
        files=[("job", ("j", json.dumps(job), "application/json")), ("f", (name, b"part"))],
    )
    job_id = answer.json()["jobId"] if answer.status_code == 202 else None
    assert job_id is not None or answer.status_code == 400  # a head that no parser takes
    assert _kept(tmp_path / "artifacts") == {
        f"files/{file_id}/0",
        *([f"jobs/{job_id}/in/0"] if job_id else []),
    }


@pytest.mark.parametrize(
    "declared",
    [
        "text/html",
        "image/svg+xml",
        "application/javascript",
        "text/html; charset=utf-7",
        "x/y\r\nz",
    ],
)
async def test_files_whose_type_lies_are_saved_and_not_shown(
    declared: str, client: httpx.AsyncClient
) -> None:
    made = await client.post(
        "/v1/files",
        content=b"<script>alert(1)</script>",
        headers={"Content-Type": declared.replace("\r\n", " ")},
    )
    served = await client.get(made.headers["location"])
    assert served.headers["content-disposition"].startswith("attachment")
    assert served.headers["x-content-type-options"] == "nosniff"


async def test_files_of_no_bytes_are_files(client: httpx.AsyncClient) -> None:
    made = await client.post("/v1/files", content=b"")
    assert (made.status_code, made.json()["size"]) == (201, 0)
    assert (await client.get(made.headers["location"])).content == b""
