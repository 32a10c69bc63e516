"""Spans, and the collector that they are sent to: recorded as decided, bounded whatever it does."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest
from opentelemetry import trace as api

from config.sections import TracingSettings
from config.settings import environment
from config.spans import Tracer, _Seldom
from config.tracing import open_tracer, within
from tests.collector import Collector, collecting
from tests.processes import eventually
from tests.running import ROOT

TRACE = "0af7651916cd43dd8448eb211c80319c"
SAMPLED, UNSAMPLED = f"00-{TRACE}-b7ad6b7169203331-01", f"00-{TRACE}-b7ad6b7169203331-00"
SECRET = "a text that only the log may have"
LOADED = """
import sys
import gateway.app, gateway.child, gateway.worker, gateway.zygote, delivery.process
from config.sections import TracingSettings
from config.tracing import open_tracer, within
off = TracingSettings(endpoint="", sample_ratio=1, service_name="gateway")
assert open_tracer(off, "api") is None
with within(None):
    pass
# The store's client loads some of it by itself, if it is there.
ours = {"config.spans", "opentelemetry.sdk.trace", "opentelemetry.exporter", "requests"}
print(*(ours & set(sys.modules)))
"""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as opened:
        yield opened


@pytest.fixture(autouse=True)
def silence() -> Iterator[None]:
    """Wait for what a test leaves under way: it may have something to say of its collector."""
    yield
    assert eventually(
        lambda: (
            not any(
                each.name == "flush" or each.name.startswith("Otel")
                for each in threading.enumerate()
            )
        )
    )


def tracer_to(url: str, ratio: float = 1.0) -> Tracer:
    settings = TracingSettings(endpoint=url, sample_ratio=ratio, service_name="gateway")
    tracer = open_tracer(settings, "api")
    assert tracer is not None
    return tracer


def test_nothing_is_loaded_where_no_collector_is_named() -> None:
    said = subprocess.run(
        [sys.executable, "-c", LOADED],
        cwd=ROOT,
        env=environment() | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.strip() == ""


@pytest.mark.parametrize(
    ("ratio", "trace", "is_recorded"),
    [
        pytest.param(1.0, None, True, id="all-that-begin-here"),
        pytest.param(0.0, None, False, id="none-that-begins-here"),
        pytest.param(1.0, "", True, id="an-empty-one-is-none"),
        pytest.param(0.0, SAMPLED, True, id="a-client-wants-it"),
        pytest.param(1.0, UNSAMPLED, False, id="a-client-does-not"),
        pytest.param(0.0, f"{SAMPLED} a=b c,d=e", True, id="others-state"),
    ],
)
def test_what_is_recorded(
    collector: Collector, ratio: float, trace: str | None, is_recorded: bool
) -> None:
    tracer = tracer_to(collector.url, ratio)
    # Whatever is current does not count: what goes on from what is said.
    with (
        within(SAMPLED),
        tracer.begin("one", "server", trace, {"gateway.a": 1}) as one,
        one.child("two", "client", {"gateway.b": None}) as two,
    ):
        two.note({"gateway.c": "x", "gateway.d": None})
    tracer.close()
    flags = 1 if is_recorded else 0
    for span in (one, two):
        parent, _, state = span.trace.partition(" ")
        assert state == (trace or "").partition(" ")[2]
        assert int(parent.split("-")[3], 16) & 1 == flags
        assert not trace or parent.split("-")[1] == TRACE
    assert two.trace.split("-")[1] == one.trace.split("-")[1]
    assert two.trace != one.trace
    assert [(span.name, span.kind, dict(span.attributes)) for span in collector.spans] == [
        ("two", "CLIENT", {"gateway.c": "x"}),
        ("one", "SERVER", {"gateway.a": 1}),
    ][: 2 * flags]


def test_an_error_is_told_by_its_kind(collector: Collector) -> None:
    tracer = tracer_to(collector.url)
    with pytest.raises(LookupError), tracer.begin("one", "server", None, {}):
        raise LookupError(SECRET)
    with tracer.begin("two", "client", None, {}) as span:
        span.fail("connect", "nobody answered")
        span.end()
        # Over is over.
        span.note({"gateway.late": 1})
        span.fail("late")
    tracer.close()
    assert [(span.failed, dict(span.attributes), span.why) for span in collector.spans] == [
        (True, {"error.type": "LookupError"}, ""),
        (True, {"error.type": "connect"}, "nobody answered"),
    ]
    assert SECRET.encode() not in b"".join(collector.bodies)


def test_a_long_text_is_cut(collector: Collector) -> None:
    tracer = tracer_to(collector.url)
    with tracer.begin("one", "server", None, {"gateway.a": "x" * 10_000}):
        pass
    tracer.close()
    assert collector.spans[0].attributes["gateway.a"] == "x" * 1_024


def test_it_is_current_where_it_is_made_so(collector: Collector) -> None:
    tracer = tracer_to(collector.url)
    with tracer.begin("one", "consumer", f"{SAMPLED} a=b", {}) as span, span.current():
        inside = api.get_current_span().get_span_context()
        assert span.trace == f"00-{inside.trace_id:032x}-{inside.span_id:016x}-01 a=b"
        with within(UNSAMPLED):
            elsewhere = api.get_current_span().get_span_context()
            assert (elsewhere.trace_id, elsewhere.trace_flags) == (int(TRACE, 16), 0)
    assert not api.get_current_span().get_span_context().is_valid
    tracer.close()


def test_the_librarys_own_switch_is_heeded(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    tracer = tracer_to(collector.url)
    with tracer.begin("one", "server", SAMPLED, {}) as going_on:
        assert going_on.trace == SAMPLED
    with tracer.begin("two", "server", None, {}) as begun:
        assert begun.trace == ""
    tracer.close()
    assert not collector.spans


def test_proxies_and_passwords_of_the_environment_are_ignored(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-team=blue")
    tracer = tracer_to(collector.url)
    with tracer.begin("one", "server", None, {}):
        pass
    tracer.close()
    [headers] = collector.headers
    # The one way to say who sends, of the library's variables.
    assert headers["X-Team"] == "blue"
    assert "Authorization" not in headers


def test_what_does_not_fit_is_lost_and_said(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    collector.hold = goes_on = threading.Event()
    tracer = tracer_to(collector.url)
    for _ in range(6_000):
        with tracer.begin("one", "server", None, {}):
            pass
    goes_on.set()
    tracer.close()
    assert 512 <= len(collector.spans) <= 2_048 + 2 * 512
    [said] = [record for record in caplog.records if record.message == "tracing.trouble"]
    assert "Queue full" in vars(said)["said"]


def test_a_deaf_collector_does_not_hold_up_the_end(caplog: pytest.LogCaptureFixture) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as deaf:
        tracer = tracer_to(f"http://127.0.0.1:{deaf.getsockname()[1]}")
        with tracer.begin("one", "server", None, {}):
            pass
        tracer.close()
    assert "tracing.not_flushed" in caplog.messages


def test_a_collector_that_refuses_is_told_of(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    collector.status = 404
    tracer = tracer_to(collector.url)
    with tracer.begin("one", "server", None, {}):
        pass
    assert eventually(lambda: "tracing.trouble" in caplog.messages)
    tracer.close()
    [said] = [record for record in caplog.records if record.message == "tracing.trouble"]
    assert "404" in vars(said)["said"]


class _Clock:
    """Stands where it is put."""

    def __init__(self) -> None:
        self.seconds = 1_000.0

    def now(self) -> int:
        return 0

    def monotonic(self) -> float:
        return self.seconds


def test_troubles_are_told_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    clock = _Clock()
    library = logging.getLogger("tests.library")
    library.handlers[:] = [_Seldom(clock)]
    library.propagate = False
    for pause in (0, 1, 58, 1, 0, 3_600):
        clock.seconds += pause
        library.warning("at %s", clock.seconds - 1_000)
        library.info("no trouble")
    told = [vars(each) for each in caplog.records if each.message == "tracing.trouble"]
    assert [(each["said"], each["unsaid"]) for each in told] == [
        ("at 0.0", 0),
        ("at 60.0", 2),
        ("at 3660.0", 1),
    ]
