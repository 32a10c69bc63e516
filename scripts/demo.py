"""The main job end to end over real HTTP: a PDF goes in, its analysis comes back by callback.

Register the receiver, submit, poll, read the result, wait for the callback, fetch the report.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import httpx

from gateway.cli.console import Console
from scripts.receiver import Receiver

SAMPLES: Final = Path(__file__).with_name("sample")
POLL_SECONDS: Final = 0.1
"""Quicker than Retry-After asks, so that the progress of a short job can be seen."""

JOB_SECONDS: Final = 120.0
CALLBACK_SECONDS: Final = 30.0


class DemoFailed(Exception):
    """A step went wrong; the message is a sentence that says which and how."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What the demonstration leaves to look at."""

    status_url: str
    result_url: str
    report_url: str
    report_file: Path


def run_demo(api_url: str, api_key: str, receiver: Receiver, out: Console, folder: Path) -> Shown:
    """Walk through the whole path, a line a step; the report is saved in `folder`.

    Raises:
        DemoFailed: at the first step that does not go as the contract says.
    """
    headers = {"Authorization": f"Bearer {api_key}"}
    try:
        with httpx.Client(base_url=api_url, headers=headers, timeout=30, trust_env=False) as client:
            return _walk(client, receiver, out, folder)
    except httpx.HTTPError as error:
        what = str(error) or type(error).__name__
        raise DemoFailed(f"{_of(error)} got no answer: {what}") from error
    except OSError as error:
        raise DemoFailed(f"cannot use {error.filename}: {error.strerror}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise DemoFailed(f"an answer was not as the contract says: {error!r}") from error


def _walk(client: httpx.Client, receiver: Receiver, out: Console, folder: Path) -> Shown:
    _register(client, receiver, out)
    status_url = _submit(client, receiver, out)
    result_url = _poll(client, status_url, out)
    document = _read_result(client, result_url, out)
    _await_callback(receiver, document["jobId"], out)
    report = _pick_report(document)
    report_url = urljoin(str(client.base_url), report["href"])
    report_file = _download(client, report_url, report, folder, out)
    return Shown(
        status_url=status_url,
        result_url=f"{status_url}/result",
        report_url=report_url,
        report_file=report_file,
    )


def _register(client: httpx.Client, receiver: Receiver, out: Console) -> None:
    endpoint = _expect(client.post("/v1/endpoints", json={"url": receiver.url}), 201)
    secret = _expect(client.get(f"/v1/endpoints/{endpoint['id']}/secret"), 200)
    receiver.trust(secret["secret"])
    origin = urlsplit(receiver.url)
    out.done("endpoint", f"{origin.scheme}://{origin.netloc} has a signing secret of its own")


def _submit(client: httpx.Client, receiver: Receiver, out: Console) -> str:
    sample = _sample()
    job = {
        "type": "document.analyze",
        "input": {"document": {"part": "file"}},
        "callbackUrl": receiver.url,
    }
    parts: dict[str, tuple[str | None, bytes, str]] = {
        "job": (None, json.dumps(job).encode(), "application/json"),
        "file": (sample.name, sample.read_bytes(), "application/pdf"),
    }
    response = client.post("/v1/jobs", files=parts)
    document = _expect(response, 202)
    out.done("POST /v1/jobs", f"202 Accepted  {document['jobId']}  ({sample.name})")
    return str(urljoin(str(client.base_url), response.headers["location"]))


def _poll(client: httpx.Client, status_url: str, out: Console) -> str:
    deadline = time.monotonic() + JOB_SECONDS
    shown: tuple[object, object] | None = None
    while time.monotonic() < deadline:
        response = client.get(status_url)
        if response.status_code == 303:
            location = response.headers["location"]
            out.done("GET status", f"303 See Other  {urlsplit(location).path}")
            return str(urljoin(status_url, location))
        document = _expect(response, 200)
        if document["status"] in {"failed", "cancelled"}:
            raise DemoFailed(f"the job {document['status']}: {document.get('error')}")
        news = (document["progress"], document["message"])
        if news != shown:
            shown = news
            out.step("GET status", _progress(document))
        time.sleep(POLL_SECONDS)
    raise DemoFailed(f"the job was not finished after {JOB_SECONDS:.0f} s")


def _read_result(client: httpx.Client, result_url: str, out: Console) -> dict[str, Any]:
    document = _expect(client.get(result_url), 200)
    results = document["results"]
    pages, words = results["pages"], results["words"]
    language = results["language"] or "unknown"
    plural = "" if pages == 1 else "s"
    facts = f"{pages:,} page{plural}, {words:,} words, language {language}"
    out.done("GET result", f"200 OK  {facts}")
    terms = [keyword["term"] for keyword in results["keywords"][:5]]
    if terms:
        out.step("keywords", ", ".join(terms))
    return document


def _await_callback(receiver: Receiver, job_id: str, out: Console) -> None:
    callback = receiver.wait_for(job_id, seconds=CALLBACK_SECONDS)
    if callback is None:
        raise DemoFailed(f"no callback came within {CALLBACK_SECONDS:.0f} s")
    if not callback.verified:
        raise DemoFailed(f"the callback's signature did not verify: {callback.fault}")
    out.done("callback", f"{callback.event}  signature verified  {callback.webhook_id}")


def _pick_report(document: dict[str, Any]) -> dict[str, Any]:
    for artifact in document["results"]["artifacts"]:
        if artifact["contentType"] == "application/pdf":
            return dict(artifact)
    raise DemoFailed("the result names no PDF report")


def _download(
    client: httpx.Client, url: str, report: dict[str, Any], folder: Path, out: Console
) -> Path:
    response = client.get(url)
    if response.status_code != 200:
        raise DemoFailed(_unexpected(response, 200))
    body = response.content
    if len(body) != report["size"] or not body.startswith(b"%PDF-"):
        raise DemoFailed(f"the report is not the PDF of {report['size']} bytes that was announced")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    place = folder / "report.pdf"
    place.write_bytes(body)
    out.done("GET report", f"200 OK  {len(body):,} bytes")
    out.step("saved as", str(place))
    return place


def _sample() -> Path:
    found = sorted(SAMPLES.glob("*.pdf"))
    if not found:
        raise DemoFailed(f"there is no sample document in {SAMPLES}")
    return found[0]


def _progress(document: dict[str, Any]) -> str:
    message = document["message"] or ""
    return f"200 OK  {document['status']}  {document['progress']:>3} %  {message}".rstrip()


def _expect(response: httpx.Response, status: int) -> dict[str, Any]:
    if response.status_code != status:
        raise DemoFailed(_unexpected(response, status))
    document: dict[str, Any] = response.json()
    return document


def _unexpected(response: httpx.Response, status: int) -> str:
    request = response.request
    detail = ""
    if "json" in response.headers.get("content-type", ""):
        detail = f": {response.json().get('detail', '')}"
    where = f"{request.method} {request.url.path}"
    return f"{where} answered {response.status_code}, not {status}{detail}"


def _of(error: httpx.HTTPError) -> str:
    try:
        return f"{error.request.method} {error.request.url.path}"
    except RuntimeError:
        return "a request"
