"""Callbacks of a running gateway, judged by other people's libraries: PyPI's, npm's, Node's."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
import standardwebhooks
import svix.webhooks
from pytest_httpserver import HTTPServer

from delivery.models import Scheme
from delivery.signing import generate_secret, public_key, sign_body
from gateway.receiving import VerificationFailed, verify, verify_x_signature
from tests.processes import eventually, missing, program
from tests.running import Gateway, Inbox, inbox
from tests.vectors import PUBLIC_KEY, V1A, X_SIGNATURE

HARNESS: Final = Path(__file__).with_name("oracles.mjs")
PACKAGES: Final = Path(sys.prefix) / "npm"
"""Where `scripts/setup dev` puts the packages of Node."""

Request = tuple[dict[str, str], bytes]
TRACE: Final = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(scope="module")
def node() -> str:
    """Return the path of Node, which has the packages."""
    found = program("node", "other people's verifiers")
    if not (PACKAGES / "node_modules").is_dir():
        missing(f"there are no packages of Node in {PACKAGES}: scripts/setup dev, with npm")
    return found


class Oracles:
    """Judges of a request, each by itself."""

    def __init__(self, node: str) -> None:
        self._node = node

    def standard(self, request: Request, secret: str) -> bool:
        """Tell whether a `v1` signature is genuine; all libraries must be of one mind."""
        verdicts = {
            self._pypi(standardwebhooks.Webhook, request, secret),
            self._pypi(svix.webhooks.Webhook, request, secret),
            self.ask("standardwebhooks", request, secret),
            self.ask("svix", request, secret),
            self._ours(request, secret),
        }
        assert len(verdicts) == 1
        return verdicts.pop()

    def ed25519(self, request: Request, key: str) -> bool:
        """Tell whether a `v1a` signature is genuine."""
        verdicts = {self.ask("ed25519", request, key), self._ours(request, key)}
        assert len(verdicts) == 1
        return verdicts.pop()

    def x_signature(self, request: Request, secret: str) -> bool:
        """Tell whether an `X-Signature` is genuine."""
        headers, body = request
        ours = _takes(lambda: verify_x_signature(body, headers, secret))
        assert self.ask("x-signature", request, secret) == ours
        return ours

    def ask(self, by: str, request: Request, secret: str) -> bool:
        """Ask a judge that runs under Node."""
        headers, body = request
        question = {
            "by": by,
            "secret": secret,
            "headers": headers,
            "body": base64.b64encode(body).decode(),
        }
        ended = subprocess.run(
            [self._node, str(HARNESS), str(PACKAGES)],
            input=json.dumps([question]),
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        assert ended.returncode == 0, ended.stderr
        [answer] = json.loads(ended.stdout)
        return bool(answer)

    @staticmethod
    def _pypi(library: Any, request: Request, secret: str) -> bool:
        headers, body = request
        try:
            library(secret).verify(body, headers)
        except standardwebhooks.WebhookVerificationError:
            return False
        return True

    @staticmethod
    def _ours(request: Request, secret: str) -> bool:
        headers, body = request
        return _takes(lambda: verify(body, headers, secret))


def _takes(verifying: Callable[[], object]) -> bool:
    try:
        verifying()
    except VerificationFailed as failed:
        if failed.fault != "no_match":
            raise
        return False
    return True


@pytest.fixture(scope="module")
def oracles(node: str) -> Oracles:
    return Oracles(node)


class Endpoint:
    """A receiver's endpoint at a gateway, with operators' means."""

    def __init__(self, gateway: Gateway, box: Inbox) -> None:
        self._gateway = gateway
        self._box = box
        made = gateway.client.post("/v1/endpoints", json={"url": box.url})
        self._url = f"/v1/endpoints/{made.json()['id']}"

    def called(self, scheme: Scheme = "v1", **callback: Any) -> list[Request]:
        """Run a job, and return what came of it at the receiver."""
        before = len(self._box.received)
        job = self._gateway.submit(
            type="demo.echo",
            input={"payload": "für uns"},
            callbackUrl=self._box.url,
            callback={"signature": scheme, **callback},
        )
        self._gateway.called_back(job["jobId"])
        return self._box.received[before:]

    def secrets(self) -> dict[str, Any]:
        """Return what the receiver is to know."""
        return self._answered("GET", "secret")

    def rotate(self, **members: Any) -> dict[str, Any]:
        """Change a secret; return what the receiver is to know then."""
        return self._answered("POST", "rotate", json=members)

    def test(self, **members: Any) -> dict[str, Any]:
        """Have a sample sent; return its delivery."""
        return self._answered("POST", "test", json={"url": self._box.url, **members})

    def _answered(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        answer = self._gateway.client.request(method, f"{self._url}/{path}", **request)
        assert answer.is_success, answer.text
        found: dict[str, Any] = answer.json()
        return found


@pytest.fixture
def box(httpserver: HTTPServer) -> Inbox:
    return inbox(httpserver, "/judged")


@pytest.fixture
def endpoint(gateway: Gateway, box: Inbox) -> Endpoint:
    """Return an endpoint without secrets in their overlap."""
    made = Endpoint(gateway, box)
    for scheme in ("v1", "v1a", "x-signature"):
        made.rotate(scheme=scheme, overlapSeconds=0)
    return made


def signatures(request: Request) -> list[str]:
    return request[0]["webhook-signature"].split(" ")


def test_v1_through_a_rotation(endpoint: Endpoint, oracles: Oracles) -> None:
    old = endpoint.secrets()["secret"]
    [request] = endpoint.called()
    assert oracles.standard(request, old)
    assert not oracles.standard(request, generate_secret())
    assert not oracles.standard((request[0], request[1] + b" "), old)

    new = endpoint.rotate()["secret"]
    [both] = endpoint.called()
    assert len(signatures(both)) == 2
    assert [oracles.standard(both, secret) for secret in (new, old)] == [True, True]
    assert not oracles.standard(both, generate_secret())

    endpoint.rotate(retire=True)
    [after] = endpoint.called()
    assert [oracles.standard(after, secret) for secret in (new, old)] == [True, False]


def test_v1a_through_a_rotation(endpoint: Endpoint, oracles: Oracles) -> None:
    old = endpoint.secrets()["publicKey"]
    [request] = endpoint.called("v1a")
    assert [each.partition(",")[0] for each in signatures(request)] == ["v1a"]
    assert oracles.ed25519(request, old)
    assert not oracles.ed25519(request, public_key(generate_secret("v1a")))

    endpoint.rotate(scheme="v1a", secret=V1A.secret)
    [both] = endpoint.called("v1a")
    assert [oracles.ed25519(both, key) for key in (PUBLIC_KEY, old)] == [True, True]

    endpoint.rotate(scheme="v1a", retire=True)
    [after] = endpoint.called("v1a")
    assert [oracles.ed25519(after, key) for key in (PUBLIC_KEY, old)] == [True, False]


def test_x_signature_is_flat_and_proves_v1_too(endpoint: Endpoint, oracles: Oracles) -> None:
    [request] = endpoint.called("x-signature")
    known = endpoint.secrets()
    assert oracles.x_signature(request, known["xSignatureSecret"])
    assert not oracles.x_signature(request, generate_secret("x-signature"))
    assert oracles.standard(request, known["secret"])
    body = json.loads(request[1])
    assert (body["type"], body["jobType"], body["status"]) == (
        "job.completed",
        "demo.echo",
        "completed",
    )
    assert body["results"] == {"payload": "für uns"}


@pytest.mark.parametrize("knows", ["old", "new"])
def test_a_receiver_that_knows_one_of_two_texts_takes_every_callback(
    endpoint: Endpoint, box: Inbox, oracles: Oracles, knows: str
) -> None:
    old = endpoint.secrets()["xSignatureSecret"]
    new = endpoint.rotate(scheme="x-signature")["xSignatureSecret"]
    secret = {"old": old, "new": new}[knows]
    box.judge = lambda headers, body: headers["x-signature"] == sign_body(secret, body)
    taken = endpoint.called("x-signature")[-1]
    assert oracles.x_signature(taken, secret)
    assert taken[0]["gateway-attempt"] == {"new": "1", "old": "2"}[knows]


def test_a_sample_is_signed_as_callbacks_are(
    gateway: Gateway, endpoint: Endpoint, box: Inbox, oracles: Oracles
) -> None:
    sample = endpoint.test(signature="x-signature", event="job.failed")
    assert eventually(lambda: len(box.received) == 1)
    [request] = box.received
    headers, body = request
    known = endpoint.secrets()
    assert oracles.standard(request, known["secret"])
    assert oracles.x_signature(request, known["xSignatureSecret"])
    assert (headers["gateway-trigger"], headers["webhook-id"]) == ("test", sample["id"])
    assert json.loads(body)["metadata"] == {"sample": True}


def test_a_sample_that_fails_is_tried_once_and_is_no_dead_letter(
    gateway: Gateway, endpoint: Endpoint, box: Inbox
) -> None:
    box.always = 503
    sample = endpoint.test()
    url = f"/v1/deliveries/{sample['id']}"
    ended = gateway.wait(
        lambda: gateway.client.get(url).json(), lambda found: found["state"] == "dead", 20
    )
    [attempt] = ended["attempts"]
    assert (ended["reason"], attempt["trigger"]) == ("exhausted", "test")
    assert (attempt["statusCode"], attempt["nextAttemptAt"]) == (503, None)
    assert len(box.received) == 1
    assert sample["id"] not in gateway.dead_letters("list", "--json").stdout


def test_callbacks_go_on_in_the_trace_of_the_submission(
    gateway: Gateway, endpoint: Endpoint, box: Inbox
) -> None:
    box.answers.append(500)
    submitted = gateway.client.post(
        "/v1/jobs",
        json={"type": "demo.echo", "input": {"payload": 1}, "callbackUrl": box.url},
        headers={"traceparent": TRACE},
    )
    gateway.called_back(submitted.json()["jobId"])
    spans = [headers["traceparent"].split("-") for headers, _ in box.received]
    assert {(version, trace, flags) for version, trace, _, flags in spans} == {
        (*TRACE.split("-")[:2], "01")
    }
    assert len({span for _, _, span, _ in spans} | {TRACE.split("-")[2]}) == 3
    [untraced] = endpoint.called()
    assert "traceparent" not in untraced[0]


def test_a_job_that_begins_is_told_of(gateway: Gateway, endpoint: Endpoint, box: Inbox) -> None:
    endpoint.called(events=["job.started", "job.completed"])
    assert eventually(lambda: len(box.received) == 2)
    said = {body["type"]: body["data"] for body in (json.loads(each) for _, each in box.received)}
    started, completed = said["job.started"], said["job.completed"]
    assert (started["status"], started["attempt"]) == ("processing", 1)
    assert started["jobId"] == completed["jobId"]
    assert started["sequence"] < completed["sequence"]


def test_known_answers_are_those_of_node_too(oracles: Oracles) -> None:
    assert oracles.ask("ed25519", (V1A.headers, V1A.body), PUBLIC_KEY)
    assert oracles.ask("x-signature", (X_SIGNATURE.headers, X_SIGNATURE.body), X_SIGNATURE.secret)
