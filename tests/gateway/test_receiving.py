"""Verifying callbacks: known answers, what the real signer made, and what must not pass."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Mapping

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from config.clock import SECOND, SystemClock
from delivery.signing import generate_secret, sign, sign_body
from gateway.receiving import TOLERANCE, Event, VerificationFailed, verify, verify_x_signature
from tests.running import ROOT
from tests.vectors import PUBLIC_KEY, V1, V1_OTHER, V1A, X_SIGNATURE

ID, NOW, BODY = V1.message_id, V1.timestamp, V1.body
SECRET, SIGNATURE, OTHER_SECRET = V1.secret, V1.signature, V1_OTHER.secret


def received(**changes: str | None) -> dict[str, str]:
    headers: dict[str, str | None] = {
        "webhook-id": ID,
        "webhook-timestamp": str(NOW),
        "webhook-signature": SIGNATURE,
    }
    headers.update({f"webhook-{name}": value for name, value in changes.items()})
    return {name: value for name, value in headers.items() if value is not None}


def failure(
    body: bytes = BODY,
    secret: str | list[str] = SECRET,
    now: float = NOW,
    signature: str = SIGNATURE,
) -> VerificationFailed:
    with pytest.raises(VerificationFailed) as caught:
        verify(body, received(signature=signature), secret, now=now)
    return caught.value


@pytest.mark.parametrize(
    ("secret", "signature"),
    [
        pytest.param(SECRET, SIGNATURE, id="v1"),
        pytest.param(PUBLIC_KEY, V1A.signature, id="v1a-public"),
        pytest.param(V1A.secret, V1A.signature, id="v1a-pair"),
        pytest.param(SECRET, f"v1,bad v2,x {SIGNATURE}", id="one-good-among-bad"),
        pytest.param(SECRET, f"v1,!!! v1, , {SIGNATURE} v1a,AAAA", id="one-good-among-junk"),
    ],
)
def test_known_answers_verify(secret: str, signature: str) -> None:
    headers = received(signature=signature)
    event = verify(BODY, headers, [OTHER_SECRET, secret], now=NOW)
    assert (event.id, event.data) == (ID, {"test": 2_432_232_314})


def test_the_second_known_answer_verifies() -> None:
    event = verify(V1_OTHER.body, V1_OTHER.headers, OTHER_SECRET, now=V1_OTHER.timestamp)
    assert event.data["username"] == "test_user"


def test_header_names_are_read_in_any_case() -> None:
    headers = {name.title(): value for name, value in received().items()}
    assert verify(BODY, headers, SECRET, now=NOW).id == ID


def event_of(document: object) -> Event:
    body = json.dumps(document).encode()
    signature = sign([SECRET], message_id=ID, timestamp=NOW, body=body)
    return verify(body, received(signature=signature), SECRET, now=NOW)


@pytest.mark.parametrize(
    ("document", "challenge"),
    [
        ({"type": "endpoint.verification", "data": {"challenge": "text"}}, "text"),
        ({"type": "endpoint.verification", "data": {"challenge": 1}}, None),
        ({"type": "endpoint.verification", "data": {}}, None),
        ({"type": "job.completed", "data": {"challenge": "text"}}, None),
    ],
)
def test_what_a_challenge_is_answered_with(document: object, challenge: str | None) -> None:
    assert event_of(document).challenge == challenge


@pytest.mark.parametrize(
    ("document", "data"),
    [
        ({"type": "job.completed", "timestamp": "t", "data": {"jobId": "j"}}, {"jobId": "j"}),
        ({"type": "job.completed", "timestamp": "t", "jobId": "j"}, {"jobId": "j"}),
        (
            {"type": "job.completed", "timestamp": "t", "jobId": "j", "jobType": "a.b"},
            {"jobId": "j", "type": "a.b"},
        ),
    ],
    ids=["standard", "flat", "flat-with-the-type"],
)
def test_the_event_is_what_the_body_says(document: object, data: Mapping[str, object]) -> None:
    expected = Event(id=ID, type="job.completed", timestamp="t", data=data)
    assert event_of(document) == expected


@pytest.mark.parametrize(
    ("changes", "part", "fault", "said"),
    [
        pytest.param({"id": None}, "webhook-id", "missing", "is missing", id="no-id"),
        pytest.param({"id": ""}, "webhook-id", "missing", "is missing", id="empty-id"),
        pytest.param(
            {"id": "m" * 8_193}, "webhook-id", "malformed", "longer than 8192", id="long-id"
        ),
        pytest.param(
            {"id": "msg_other"}, "webhook-signature", "no_match", "none of the secrets", id="id"
        ),
        pytest.param({"timestamp": None}, "webhook-timestamp", "missing", "is missing", id="none"),
        *[
            pytest.param(
                {"timestamp": value}, "webhook-timestamp", "malformed", "is not an integer", id=name
            )
            for name, value in [
                ("words", "now"),
                ("fraction", "1614265330.0"),
                ("negative", "-1"),
                ("spaces", " 1614265330"),
                ("other-digits", "١٦١٤٢٦٥٣٣٠"),
                ("endless", "9" * 13),
            ]
        ],
        pytest.param(
            {"signature": None}, "webhook-signature", "missing", "is missing", id="no-signature"
        ),
        *[
            pytest.param(
                {"signature": value}, "webhook-signature", "malformed", "no version", id=name
            )
            for name, value in [
                ("nothing", "v1,"),
                ("nothing-twice", "v1, v1,"),
                ("bad-base64", "v1,%%%"),
                ("bad-padding", SIGNATURE.rstrip("=")),
                ("bytes-behind", SIGNATURE + "!"),
                ("urlsafe", "v1," + "-_" * 22),
                ("no-version", "g0hM9SsE"),
                ("not-ascii", "v1,é"),
            ]
        ],
        pytest.param(
            {"signature": "v1," + "A" * 8_192},
            "webhook-signature",
            "malformed",
            "longer than 8192",
            id="long-signature",
        ),
        pytest.param(
            {"signature": f"v2,AAAA {V1A.signature}"},
            "webhook-signature",
            "unknown_version",
            "no signature of version v1,",
            id="other-versions",
        ),
        pytest.param(
            {"signature": "v1,AAAA"}, "webhook-signature", "no_match", "none of the", id="forged"
        ),
    ],
)
def test_the_part_at_fault_is_named(
    changes: dict[str, str | None], part: str, fault: str, said: str
) -> None:
    with pytest.raises(VerificationFailed) as caught:
        verify(BODY, received(**changes), SECRET, now=NOW)
    failed = caught.value
    assert (failed.part, failed.fault, failed.seconds) == (part, fault, None)
    assert str(failed).startswith(part)
    assert said in str(failed)


@pytest.mark.parametrize(
    "body", [BODY + b"\n", BODY + b"\0", b" " + BODY, BODY[:-1], BODY.swapcase(), b""]
)
def test_another_body_does_not_verify(body: bytes) -> None:
    assert failure(body).fault == "no_match"


@pytest.mark.parametrize(
    "secret", [OTHER_SECRET, generate_secret(), []], ids=["other", "new", "none"]
)
def test_other_secrets_do_not_verify(secret: str | list[str]) -> None:
    assert failure(secret=secret).fault == "no_match"


@pytest.mark.parametrize("seconds", [-TOLERANCE, 0, TOLERANCE])
def test_five_minutes_either_way_are_tolerated(seconds: int) -> None:
    assert verify(BODY, received(), SECRET, now=NOW + seconds).id == ID


@pytest.mark.parametrize(
    ("now", "fault", "seconds", "said"),
    [
        (NOW + 301, "too_old", 301, "is 301 s in the past; 300 s are tolerated"),
        (NOW - 301, "too_new", 301, "is 301 s in the future; 300 s are tolerated"),
        (NOW - 412.4, "too_new", 412, "is 412 s in the future; 300 s are tolerated"),
        (NOW + 300.5, "too_old", 300, "tolerated"),
        (NOW - 300.5, "too_new", 300, "tolerated"),
        (0, "too_new", NOW, "tolerated"),
    ],
)
def test_how_far_a_timestamp_is_away_is_said(
    now: float, fault: str, seconds: int, said: str
) -> None:
    failed = failure(now=now)
    assert (failed.part, failed.fault, failed.seconds) == ("webhook-timestamp", fault, seconds)
    assert said in str(failed)


def test_the_tolerance_is_the_receivers_choice() -> None:
    assert verify(BODY, received(), SECRET, now=NOW + 900, tolerance=900).id == ID
    with pytest.raises(VerificationFailed, match="is 11 s in the past; 10 s are tolerated"):
        verify(BODY, received(), SECRET, now=NOW + 11, tolerance=10)


@pytest.mark.parametrize(
    "body", [b"", b"\xff", b"[]", b"null", b"[" * 100_000, b"1" * 5_000, b'"text"']
)
def test_a_genuine_body_has_to_be_an_object(body: bytes) -> None:
    signature = sign([SECRET], message_id=ID, timestamp=NOW, body=body)
    failed = failure(body, signature=signature)
    assert (failed.part, failed.fault) == ("body", "malformed")


NAMES = st.sampled_from(["webhook-id", "webhook-timestamp", "Webhook-Signature", "other"])
ENTRIES = st.lists(
    st.builds("{},{}".format, st.sampled_from(["v1", "v1a", "v2", ""]), st.text(max_size=100))
)
VALUES = st.one_of(
    st.text(max_size=80), st.just(str(NOW)), st.just(SIGNATURE), ENTRIES.map(" ".join)
)


@given(headers=st.dictionaries(NAMES, VALUES), body=st.binary(max_size=50))
def test_nothing_that_is_sent_raises_anything_else(headers: dict[str, str], body: bytes) -> None:
    with pytest.raises(VerificationFailed):
        verify(body, headers, [OTHER_SECRET, PUBLIC_KEY], now=NOW)


OBJECTS = st.dictionaries(st.text(max_size=8), st.integers() | st.text(max_size=8))


@given(
    data=OBJECTS, key=st.binary(min_size=24, max_size=64), message_id=st.text("ab_1", min_size=1)
)
def test_what_is_signed_verifies(data: dict[str, object], key: bytes, message_id: str) -> None:
    secret = "whsec_" + base64.b64encode(key).decode()
    body = json.dumps({"type": "t", "timestamp": "", "data": data}).encode()
    signature = sign([SECRET, secret], message_id=message_id, timestamp=NOW, body=body)
    headers = received(id=message_id, signature=signature)
    assert verify(body, headers, secret, now=NOW).data == data


@pytest.mark.parametrize("signature", ["v1,AAAA", f"v1a,AAAA {SIGNATURE}", "v2,AAAA", "v1,"])
@pytest.mark.parametrize("valid", [True, False])
def test_it_agrees_with_the_published_library(signature: str, *, valid: bool) -> None:
    now = SystemClock().now() // SECOND
    good = sign([SECRET], message_id=ID, timestamp=now, body=BODY)
    headers = received(timestamp=str(now), signature=f"{signature} {good}" if valid else signature)
    verdicts: list[bool] = []
    try:
        Webhook(SECRET).verify(BODY, headers)
        verdicts.append(True)
    except (WebhookVerificationError, ValueError):
        verdicts.append(False)
    try:
        verify(BODY, headers, SECRET)
        verdicts.append(True)
    except VerificationFailed:
        verdicts.append(False)
    assert verdicts == [valid, valid]


@pytest.mark.parametrize(
    "secret",
    [
        pytest.param("", id="empty"),
        pytest.param("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", id="no-prefix"),
        pytest.param("whsec_", id="nothing-after-the-prefix"),
        pytest.param("whsec_not base64", id="not-base64"),
        pytest.param("whsec_é", id="not-ascii"),
        pytest.param("whsec_" + base64.b64encode(bytes(23)).decode(), id="23-bytes"),
        pytest.param("whsec_" + base64.b64encode(bytes(65)).decode(), id="65-bytes"),
        pytest.param("whsk_" + base64.b64encode(bytes(32)).decode(), id="seed-only"),
        pytest.param("whpk_" + base64.b64encode(bytes(64)).decode(), id="too-long"),
        pytest.param("other_" + base64.b64encode(bytes(32)).decode(), id="other-prefix"),
    ],
)
def test_a_malformed_secret_is_the_receivers_error_and_not_shown(secret: str) -> None:
    with pytest.raises(ValueError, match="secret") as caught:
        verify(BODY, received(), [SECRET, secret], now=NOW)
    assert len(secret) < 8 or secret[6:] not in str(caught.value)


JOB = b'{"type":"job.completed","timestamp":"t","jobId":"j"}'
TEXT = X_SIGNATURE.secret


def x_signed(body: bytes = JOB, text: str = TEXT) -> dict[str, str]:
    return {"webhook-id": ID, "X-Signature": sign_body(text, body)}


def test_an_x_signature_verifies() -> None:
    for secrets in (TEXT, ["another text", TEXT], [TEXT, generate_secret("x-signature")]):
        event = verify_x_signature(JOB, x_signed(), secrets)
        assert event == Event(id=ID, type="job.completed", timestamp="t", data={"jobId": "j"})
    shouted = {"x-signature": x_signed()["X-Signature"].upper()}
    assert verify_x_signature(JOB, shouted, TEXT).id == ""


def test_the_published_x_signature_is_genuine_and_no_event() -> None:
    with pytest.raises(VerificationFailed) as caught:
        verify_x_signature(X_SIGNATURE.body, X_SIGNATURE.headers, TEXT)
    assert (caught.value.part, caught.value.fault) == ("body", "malformed")


@pytest.mark.parametrize(
    ("headers", "fault"),
    [
        pytest.param({}, "missing", id="none"),
        pytest.param({"x-signature": ""}, "missing", id="empty"),
        pytest.param({"x-signature": "sha256=" + "0" * 64}, "malformed", id="prefixed"),
        pytest.param({"x-signature": "0" * 63}, "malformed", id="short"),
        pytest.param({"x-signature": "0" * 65}, "malformed", id="long"),
        pytest.param({"x-signature": "٠" * 64}, "malformed", id="other-digits"),
        pytest.param({"x-signature": "0" * 8_193}, "malformed", id="endless"),
        pytest.param({"x-signature": "0" * 64}, "no_match", id="forged"),
        pytest.param(x_signed(JOB + b" "), "no_match", id="another-body"),
        pytest.param(x_signed(text="x" * 24), "no_match", id="another-secret"),
        pytest.param({"webhook-signature": SIGNATURE}, "missing", id="the-other-header"),
    ],
)
def test_what_is_wrong_with_an_x_signature_is_said(headers: dict[str, str], fault: str) -> None:
    with pytest.raises(VerificationFailed) as caught:
        verify_x_signature(JOB, headers, TEXT)
    assert (caught.value.part, caught.value.fault) == ("x-signature", fault)
    assert str(caught.value).startswith("x-signature")


def test_no_secrets_verify_no_x_signature() -> None:
    with pytest.raises(VerificationFailed):
        verify_x_signature(JOB, x_signed(), [])


@pytest.mark.parametrize("secret", ["", "é" * 30, SECRET, V1A.secret, PUBLIC_KEY])
def test_what_is_no_text_is_the_receivers_error_and_not_shown(secret: str) -> None:
    with pytest.raises(ValueError, match="secret") as caught:
        verify_x_signature(JOB, x_signed(), [TEXT, secret])
    assert len(secret) < 8 or secret[6:] not in str(caught.value)


@given(body=st.binary(max_size=50), value=st.text(max_size=80))
def test_no_x_signature_raises_anything_else(body: bytes, value: str) -> None:
    with pytest.raises(VerificationFailed):
        verify_x_signature(body, {"X-Signature": value}, TEXT)


@given(data=OBJECTS, text=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=24))
def test_what_is_signed_so_verifies(data: dict[str, object], text: str) -> None:
    assume(len(text) <= 128 and not text.startswith(("whsec_", "whsk_", "whpk_")))
    body = json.dumps({"type": "t", "timestamp": "", "data": data}).encode()
    assert verify_x_signature(body, x_signed(body, text), ["other", text]).data == data


def test_the_file_needs_nothing_but_python() -> None:
    # -I and -S: neither this checkout nor any installed package can be found.
    program = (
        "import runpy, sys; names = runpy.run_path(sys.argv[1], run_name='receiving');"
        f"event = names['verify']({BODY!r}, {received()!r}, {SECRET!r}, now={NOW}); print(event.id)"
    )
    ended = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, str(ROOT / "gateway" / "receiving.py")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout.strip() == ID
