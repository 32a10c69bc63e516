"""The client's flows without a network: how long they pause, and what they ask next."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.client.core import Calls
from gateway.client.exchange import Exchange, Patience
from gateway.client.files import Body, Source, form, source_of
from gateway.client.models import Job, JobCancelled, NoAnswer, ProblemError, WaitTimeout
from gateway.client.steps import Ask, Flow, NoReply, Pause, Reply, Step, T
from gateway.client.stream import Message, StreamParser

PATIENCE = Patience(attempts=4, total=60, first_pause=1, longest_pause=3)
LOST = NoReply(error=ConnectionResetError("reset"), repeatable=True)


@dataclass
class Walk:
    """Drives flows: plays the answers, lets no time pass but the pauses, remembers the steps."""

    answers: list[Reply | NoReply]
    takes: float = 0.0
    chance: float = 1.0
    now: float = 100.0
    pauses: list[float] = field(default_factory=list)
    asked: list[Ask] = field(default_factory=list)

    def calls(self) -> Calls:
        exchange = Exchange(
            "https://gateway.example/under",
            "key",
            patience=PATIENCE,
            clock=lambda: self.now,
            chance=lambda: self.chance,
        )
        return Calls(exchange)

    def through(self, start: Callable[[Calls], Flow[T]]) -> T:
        flow = start(self.calls())
        came: Any = None
        while True:
            try:
                came = self._take(flow.send(came))
            except StopIteration as end:
                outcome: T = end.value
                return outcome

    def _take(self, step: Step) -> object:
        match step:
            case Ask():
                self.asked.append(step)
                self.now += self.takes
                return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            case Pause(seconds):
                self.pauses.append(seconds)
                self.now += seconds
                return None
            case _:
                raise AssertionError(step)


def reply(status: int, document: object = None, **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(
        status=status,
        headers={"content-type": "application/json", **named},
        content=json.dumps(document).encode(),
    )


def job(status: str = "processing", **headers: str) -> Reply:
    document = {
        "jobId": "job_1",
        "type": "t",
        "status": status,
        "createdAt": "2026-11-24T06:00:00Z",
    }
    return reply(303 if status == "completed" else 200, document, **headers)


@pytest.mark.parametrize(
    ("answers", "pauses"),
    [
        pytest.param([job()], [], id="at-once"),
        pytest.param([LOST, LOST, job()], [1, 2], id="doubling"),
        pytest.param([LOST, LOST, LOST, job()], [1, 2, 3], id="up-to-the-longest"),
        pytest.param([reply(429, retry_after="7"), job()], [7.7], id="as-asked"),
        pytest.param([reply(503, retry_after="0"), job()], [1], id="never-sooner"),
        pytest.param([reply(502), reply(504), job()], [1, 2], id="a-proxy"),
        pytest.param([reply(409, {"code": "request_in_progress"}), job()], [1], id="in-progress"),
        pytest.param([reply(503, retry_after="nan"), job()], [1], id="no-number"),
        pytest.param(
            [
                reply(
                    503,
                    date="Tue, 24 Nov 2026 06:00:00 GMT",
                    retry_after="Tue, 24 Nov 2026 06:00:10 GMT",
                ),
                job(),
            ],
            [11],
            id="as-a-date",
        ),
    ],
)
def test_a_request_is_repeated_after_pauses(
    answers: list[Reply | NoReply], pauses: Sequence[float]
) -> None:
    walk = Walk(answers)
    assert walk.through(lambda calls: calls.get("job_1")).id == "job_1"
    assert walk.pauses == pytest.approx(pauses)


@pytest.mark.parametrize(
    ("answer", "asked"),
    [
        pytest.param(reply(503), 4, id="attempts"),
        pytest.param(reply(429, retry_after="40"), 2, id="time"),
        pytest.param(reply(429, retry_after="99999999999"), 4, id="nonsense-is-not-obeyed"),
        pytest.param(reply(429, retry_after="3600"), 1, id="too-long-to-wait-for"),
        pytest.param(reply(404), 1, id="no-use"),
        pytest.param(reply(500), 1, id="unforeseen"),
        pytest.param(reply(409, {"code": "job_not_ended"}), 1, id="conflict"),
    ],
)
def test_repeating_is_bounded(answer: Reply, asked: int) -> None:
    walk = Walk([answer])
    with pytest.raises(ProblemError) as caught:
        walk.through(lambda calls: calls.get("job_1"))
    assert (len(walk.asked), caught.value.status) == (asked, answer.status)


def test_what_would_fail_again_is_not_repeated() -> None:
    walk = Walk([NoReply(error=ValueError("no such scheme"), repeatable=False)])
    with pytest.raises(NoAnswer, match="no such scheme"):
        walk.through(lambda calls: calls.get("job_1"))
    assert len(walk.asked) == 1


@given(chance=st.floats(0, 1, exclude_max=True))
def test_chance_spreads_pauses_over_their_upper_half(chance: float) -> None:
    walk = Walk([LOST, LOST, job()], chance=chance)
    walk.through(lambda calls: calls.get("job_1"))
    assert 0.5 <= walk.pauses[0] <= 1
    assert 1 <= walk.pauses[1] <= 2


@pytest.mark.parametrize(
    ("answers", "takes", "pauses"),
    [
        pytest.param([job(retry_after="4"), job("completed")], 0, [4], id="as-asked"),
        pytest.param([job(), job(), job("completed")], 0, [1.2, 1.8], id="unasked"),
        pytest.param([job(retry_after="0"), job("completed")], 0, [1], id="a-second-at-least"),
        pytest.param(
            [job(preference_applied="wait=30", retry_after="9"), job("completed")],
            30,
            [0],
            id="long-poll",
        ),
        pytest.param(
            [job(preference_applied="wait=30"), job("completed")],
            0.25,
            [0.75],
            id="hasty-long-poll",
        ),
    ],
)
def test_waiting_pauses_between_polls(
    answers: list[Reply | NoReply], takes: float, pauses: Sequence[float]
) -> None:
    walk = Walk(answers, takes=takes)
    assert walk.through(lambda calls: calls.wait("job_1", 600)).status == "completed"
    assert walk.pauses == pytest.approx(pauses)
    assert {ask.headers["Prefer"] for ask in walk.asked} == {"wait=30"}


def test_waiting_polls_once_more_when_its_time_is_over() -> None:
    walk = Walk([job(retry_after="30")])
    with pytest.raises(WaitTimeout) as caught:
        walk.through(lambda calls: calls.wait("job_1", 40))
    assert walk.pauses == [30, 10]
    assert [ask.headers.get("Prefer") for ask in walk.asked] == ["wait=30", "wait=10", None]
    assert isinstance(caught.value.job, Job)


def test_waiting_takes_no_answer_for_longer_than_its_time() -> None:
    walk = Walk([reply(503, retry_after="30")])
    with pytest.raises(WaitTimeout) as caught:
        walk.through(lambda calls: calls.wait("job_1", 10))
    assert isinstance(caught.value.__cause__, ProblemError)
    assert walk.pauses == []


def test_a_cancelled_job_is_no_completed_one() -> None:
    with pytest.raises(JobCancelled):
        Walk([job("cancelled")]).through(lambda calls: calls.wait("job_1", 10))


def test_the_base_urls_path_is_kept() -> None:
    walk = Walk([job()])
    walk.through(lambda calls: calls.get("job_1"))
    assert walk.asked[0].url == "https://gateway.example/under/v1/jobs/job_1"
    assert walk.asked[0].headers["Authorization"] == "Bearer key"


def test_a_submission_says_what_was_given_and_no_more() -> None:
    at = datetime(2026, 11, 24, 8, 0, tzinfo=timezone(timedelta(hours=2)))
    walk = Walk([job()])
    walk.through(
        lambda calls: calls.submit(
            "t",
            {"a": 1},
            {
                "callback_url": "https://h/",
                "run_at": at,
                "result_ttl_seconds": 60,
                "metadata": None,
                "idempotency_key": "k",
            },
        )
    )
    body = walk.asked[0].body
    assert body is not None
    assert json.loads(b"".join(body.chunks())) == {
        "type": "t",
        "input": {"a": 1},
        "callbackUrl": "https://h/",
        "runAt": "2026-11-24T06:00:00.000Z",
        "resultTtlSeconds": 60,
    }
    assert walk.asked[0].headers["Idempotency-Key"] == "k"


@pytest.mark.parametrize(
    "options", [{"run_at": datetime.fromisoformat("2026-11-24")}, {"metadata": {"a": 1e999}}]
)
def test_what_cannot_be_said_is_refused_before_it_is_sent(options: Any) -> None:
    walk = Walk([job()])
    with pytest.raises(ValueError, match=r"time zone|JSON"):
        walk.through(lambda calls: calls.submit("t", {}, options))
    assert walk.asked == []


def test_two_submissions_have_two_keys() -> None:
    walk = Walk([job()])
    for _ in range(2):
        walk.through(lambda calls: calls.submit("t", {}, {}))
    assert len({ask.headers["Idempotency-Key"] for ask in walk.asked}) == 2


@given(
    request=st.binary(max_size=40),
    files=st.dictionaries(st.sampled_from("abc"), st.binary(max_size=200_000), max_size=3),
)
def test_a_body_is_as_long_as_it_says_however_often_it_is_sent(
    request: bytes, files: dict[str, bytes]
) -> None:
    sources: dict[str, Source] = {name: source_of(data, name) for name, data in files.items()}
    body: Body = form(request, sources, "boundary")
    sent = [b"".join(body.chunks()) for _ in range(2)]
    assert sent[0] == sent[1]
    assert len(sent[0]) == body.length
    assert all(body.chunks())


STREAM = (
    "\ufeff: comment\r\n"
    "event: progress\rid: 7\ndata: über\ndata:  two\r\n\r\n"
    "id: nul\0ignored\nretry: 1500\nretry: -1\nretry: ١\n\n"
    "data\n\n"
    "event: unfinished\ndata: x\n"
).encode()


@given(cuts=st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_a_stream_means_the_same_however_it_is_cut(cuts: list[int]) -> None:
    parser = StreamParser()
    edges = sorted({0, *cuts, len(STREAM)})
    messages: list[Message] = []
    for start, end in pairwise(edges):
        messages += parser.feed(STREAM[start:end])
    assert messages == [
        Message(event="progress", data="über\n two", id="7"),
        Message(event="message", data="", id="7"),
    ]
    assert parser.retry == 1.5


def test_times_are_read_with_their_zone() -> None:
    found = Walk([job()]).through(lambda calls: calls.get("job_1"))
    assert found.created_at == datetime(2026, 11, 24, 6, tzinfo=UTC)
    assert found.started_at is None
