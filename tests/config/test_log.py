"""Lines of the log: complete, bounded, and nothing a name could forge."""

import asyncio
import io
import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.log import MAX_TEXT, JsonFormatter, about, configure, subject

FORMATTER = JsonFormatter("api")


def line_of(message: str, **extra: object) -> dict[str, Any]:
    record = logging.makeLogRecord(
        {"name": "api", "levelname": "INFO", "msg": message, "created": 1_614_265_330.25, **extra}
    )
    line: dict[str, Any] = json.loads(FORMATTER.format(record))
    return line


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield root
    root.handlers[:], root.level = before
    logging.captureWarnings(capture=False)


def test_fixed_fields_come_first() -> None:
    line = line_of("job.finished", job="job_1", status=200)
    assert line == {
        "ts": "2021-02-25T15:02:10.250Z",
        "level": "info",
        "role": "api",
        "event": "job.finished",
        "job": "job_1",
        "status": 200,
    }
    assert list(line)[:4] == ["ts", "level", "role", "event"]


def test_extra_fields_cannot_replace_the_fixed_ones() -> None:
    assert line_of("job.finished", role="forged", ts="forged")["role"] == "api"


def test_exceptions_are_fields() -> None:
    try:
        int("bad\nthing")
    except ValueError:
        line = line_of("job.failed", exc_info=sys.exc_info())
    assert line["error"].startswith("ValueError: ")
    assert "test_exceptions_are_fields" in line["trace"]


def test_a_message_that_does_not_fit_its_arguments_is_still_logged() -> None:
    assert "%d" in line_of("%d jobs", args=("many",))["event"]


def test_what_json_does_not_know_is_text() -> None:
    line = line_of("x", number=float("nan"), thing=b"a", nested={"a": {1}}, items=(1, "b"))
    assert line["number"] == "nan"
    assert line["thing"] == "b'a'"
    assert line["nested"] == {"a": [1]}
    assert line["items"] == [1, "b"]


@given(st.text(), st.text())
def test_one_printable_ascii_line_whatever_is_logged(message: str, value: str) -> None:
    record = logging.makeLogRecord({"msg": message, "value": value})
    text = FORMATTER.format(record)
    assert text.isascii()
    assert text.isprintable()
    assert json.loads(text)["value"] == value


def test_long_values_are_cut() -> None:
    line = line_of("x" * (MAX_TEXT + 5), body="y" * (MAX_TEXT * 2))
    assert line["event"].endswith("… 5 more")
    assert len(line["body"]) < MAX_TEXT + 30


def test_deep_values_are_cut() -> None:
    deep: list[object] = []
    deep.append(deep)
    assert len(json.dumps(line_of("x", deep=deep))) < MAX_TEXT


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("GET https://h.example/a?token=1&b=2 failed", "GET https://h.example/a?… failed"),
        ("at 'https://h.example/?a'", "at 'https://h.example/?…'"),
        ("/v1/jobs/job_1?ticket=1.abc.def", "/v1/jobs/job_1?…"),
        ("redis://user:pass@store:6379/0?x=y", "redis://…@store:6379/0?…"),
        ("wss://h.example/?a#b", "wss://h.example/?…"),
        ("the key gwk_0123456789abc is unknown", "the key gwk_… is unknown"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw,whsk_x/y+z=", "whsec_…,whsk_…"),
        ("https://h.example/a/b is fine? yes", "https://h.example/a/b is fine? yes"),
        ("who@h.example asked why?", "who@h.example asked why?"),
        ("x" * (MAX_TEXT - 3) + "gwk_0123456789", "x" * (MAX_TEXT - 3) + "gwk… 11 more"),
    ],
)
def test_secrets_are_masked_wherever_they_stand(text: str, shown: str) -> None:
    assert line_of(text)["event"] == shown
    assert line_of("e", more=[{"deep": text}])["more"] == [{"deep": shown}]
    line = line_of("job.failed", exc_info=(ValueError, ValueError(text), None))
    assert line["error"].startswith(f"ValueError: {shown}"[:MAX_TEXT])


@given(st.text(max_size=50), st.text("abc123&=%", min_size=1, max_size=20))
def test_no_query_of_a_url_is_written(before: str, query: str) -> None:
    secret = "s3cr3t" + query
    line = line_of(f"{before}https://h.example/hook?{secret}")
    assert "s3cr3t" not in line["event"]


def test_libraries_write_the_same_lines(
    root_logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = logging.getLogger("dramatiq.worker.test")
    own.addHandler(logging.StreamHandler(io.StringIO()))
    own.propagate = False
    configure("worker")
    # Replaced after the configuration, as Dramatiq does in its children.
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    own.warning("consumer %s", "gone", extra={"queue": "jobs"})
    line = json.loads(stream.getvalue())
    assert (line["role"], line["logger"]) == ("worker", "dramatiq.worker.test")
    assert (line["event"], line["queue"], line["level"]) == ("consumer gone", "jobs", "warning")


def test_request_lines_of_libraries_are_quiet(
    root_logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    configure("api")
    logging.getLogger("uvicorn.access").info("GET /v1/jobs/1?ticket=secret")
    logging.getLogger("httpx").info("HTTP Request: POST https://h/?token=secret")
    assert stream.getvalue() == ""


def test_a_closed_stream_stops_nothing(
    root_logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    configure("api")
    logging.getLogger("api").error("nobody.reads")
    assert root_logger.handlers


async def test_lines_say_what_they_are_about(
    root_logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    configure("worker")

    async def later() -> None:
        logging.getLogger("a.library").warning("later")

    def elsewhere() -> None:
        logging.getLogger("a.library").warning("elsewhere")

    with about(request="req_1", job="job_1"):
        assert subject("request") == "req_1"
        await asyncio.to_thread(elsewhere)
        task = asyncio.create_task(later())
        with about(job="job_2"):
            root_logger.warning("inner")
        root_logger.warning("again")
        root_logger.warning("own", extra={"job": "job_3"})
    await task
    root_logger.warning("outside")
    assert subject("request") is None
    lines = [json.loads(each) for each in capsys.readouterr().err.splitlines()]
    assert [(each["event"], each.get("request"), each.get("job")) for each in lines] == [
        ("elsewhere", "req_1", "job_1"),
        ("inner", "req_1", "job_2"),
        ("again", "req_1", "job_1"),
        ("own", "req_1", "job_3"),
        ("later", "req_1", "job_1"),
        ("outside", None, None),
    ]


def test_what_a_line_is_about_cannot_replace_the_fixed_ones(
    root_logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    configure("worker")
    with about(role="forged", levelname="forged", event="forged"):
        root_logger.warning("something")
    line = json.loads(capsys.readouterr().err)
    assert (line["role"], line["level"], line["event"]) == ("worker", "warning", "something")


def test_an_unknown_level_is_refused(root_logger: logging.Logger) -> None:
    with pytest.raises(ValueError, match="loud"):
        configure("api", "loud")
