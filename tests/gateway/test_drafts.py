"""A request is judged whole before anything outside is touched."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from config.clock import SystemClock
from config.ids import choose_partition, partition_of
from config.settings import load_settings
from delivery.sealing import KeyRing
from gateway.auth import SCOPES, Principal
from gateway.drafts import MAX_FILES, Draft, Drafter
from gateway.jobcontext import FileRef, JobContext, JobModel
from gateway.jobtypes import Registry, job_type
from gateway.problems import Problem
from gateway.schemas.jobs import parse_submit
from tests.gateway.conftest import SEALING

ACME = Principal(tenant="acme", scopes=SCOPES, key_id="key_1")
ECHO: dict[str, Any] = {"type": "demo.echo", "input": {"payload": {"part": "none"}}}
DOCUMENT: dict[str, Any] = {"type": "document.analyze", "input": {"document": {"part": "file"}}}
ALBUM: dict[str, Any] = {"type": "album.bind", "input": {"photos": []}}
HOOK = {"callbackUrl": "http://127.0.0.1:9000/hook?token=t"}
PARTITIONS = 4


def drafter_of(registry: Registry | None = None) -> Drafter:
    """Return a drafter with the settings of development, for the job types in them or others."""
    settings = load_settings(
        {
            "GATEWAY_PROFILE": "development",
            "GATEWAY_STORE_URL": "redis://store.example",
            "GATEWAY_STORE_PARTITIONS": str(PARTITIONS),
            "GATEWAY_BROKER_URL": "redis://broker.example",
            "GATEWAY_ARTIFACTS_URL": "file:///nowhere",
            "GATEWAY_SEALING_KEYS": SEALING,
        }
    )
    registry = registry or Registry.load(settings.jobs.modules, settings.profile)
    return Drafter(settings, registry=registry, ring=KeyRing.parse(SEALING), clock=SystemClock())


@pytest.fixture
def drafter() -> Drafter:
    """Return a drafter for the job types of development."""
    return drafter_of()


def draft(drafter: Drafter, body: dict[str, Any], **more: object) -> Draft:
    """Return the draft of a body."""
    return drafter.draft(ACME, parse_submit({**body, **more}, metadata_limit=4096))


def test_a_job_lives_where_its_callback_does(drafter: Drafter) -> None:
    drafted = draft(drafter, ECHO, **HOOK)
    assert drafted.destination is not None
    assert drafted.registration is not None
    assert drafted.destination.origin == drafted.registration.origin == "http://127.0.0.1:9000"
    partition = choose_partition("127.0.0.1", PARTITIONS)
    assert partition_of(drafted.job_id) == partition_of(drafted.registration.id) == partition


def test_a_job_without_a_callback_lives_anywhere(drafter: Drafter) -> None:
    drafted = [draft(drafter, ECHO) for _ in range(200)]
    assert all(each.registration is None for each in drafted)
    assert {partition_of(each.job_id) for each in drafted} == set(range(PARTITIONS))


def test_the_files_that_an_input_names(drafter: Drafter) -> None:
    along = draft(drafter, DOCUMENT)
    assert (along.parts, along.uploads) == ({"file": "/input/document"}, {})
    before = draft(drafter, DOCUMENT, input={"document": {"fileId": "file_1"}})
    assert (before.parts, before.uploads) == ({}, {"file_1": "/input/document"})
    none = draft(drafter, ECHO)
    assert (none.parts, none.uploads) == ({}, {})


class AlbumInput(JobModel):
    photos: list[FileRef]


@job_type("album.bind", timeout=5, queue_timeout=60, example={"photos": []})
def bind(job: JobContext, given: AlbumInput) -> AlbumInput:
    """Bind photographs to an album."""
    return given


def test_the_files_of_an_input_are_bounded() -> None:
    drafter = drafter_of(Registry([bind]))
    photos = [{"fileId": f"file_{number}"} for number in range(MAX_FILES)]
    assert len(draft(drafter, ALBUM, input={"photos": photos}).uploads) == MAX_FILES
    with pytest.raises(Problem) as caught:
        draft(drafter, ALBUM, input={"photos": [*photos, {"part": "a"}]})
    assert caught.value.code == "invalid_input"
    assert [fault.pointer for fault in caught.value.faults] == ["/input"]


def test_how_long_a_job_may_wait(drafter: Drafter) -> None:
    assert draft(drafter, ECHO).queue_timeout is None
    assert draft(drafter, ECHO, queueTimeoutSeconds=0.5).queue_timeout == 0.5
    album = drafter_of(Registry([bind]))
    assert draft(album, ALBUM).queue_timeout == 60
    assert draft(album, ALBUM, queueTimeoutSeconds=120).queue_timeout == 120


def test_what_was_asked_goes_before_what_the_type_says(drafter: Drafter) -> None:
    plain = draft(drafter, ECHO)
    assert (plain.timeout, plain.max_attempts) == (7200, 3)
    asked = draft(drafter, ECHO, timeoutSeconds=1.5, maxAttempts=1)
    assert (asked.timeout, asked.max_attempts) == (1.5, 1)


@pytest.mark.parametrize(
    ("body", "code", "where"),
    [
        ({**ECHO, "type": "demo.nothing"}, "unknown_job_type", "/type"),
        ({**ECHO, "input": {}}, "invalid_input", "/input/payload"),
        ({**ECHO, "input": {"payload": 1, "x": 2}}, "invalid_input", "/input/x"),
        ({**ECHO, "callbackUrl": "ftp://h.example/"}, "invalid_callback_url", "/callbackUrl"),
        ({**ECHO, "callbackUrl": "http://10.0.0.1/"}, "invalid_callback_url", "/callbackUrl"),
        (
            {**ECHO, **HOOK, "callback": {"headers": {"Host": "h"}}},
            "invalid_request",
            "/callback/headers/Host",
        ),
        (
            {**ECHO, **HOOK, "callback": {"headers": {"X-A": "a\r\nb"}}},
            "invalid_request",
            "/callback/headers/X-A",
        ),
    ],
)
def test_refused(drafter: Drafter, body: dict[str, Any], code: str, where: str) -> None:
    with pytest.raises(Problem) as caught:
        draft(drafter, body)
    assert caught.value.code == code
    assert [fault.pointer for fault in caught.value.faults] == [where]


def test_a_key_that_may_not_submit(drafter: Drafter) -> None:
    reader = replace(ACME, scopes=frozenset({"read"}))
    with pytest.raises(Problem, match="insufficient_scope"):
        drafter.draft(reader, parse_submit(ECHO, metadata_limit=10))
