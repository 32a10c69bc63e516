from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
from pydantic import BaseModel, Field

from gateway.faults import Fault
from gateway.jobcontext import (
    Artifact,
    FileRef,
    JobCancelled,
    JobContext,
    JobError,
    JobModel,
    artifact_name,
    artifact_uri,
)
from gateway.jobtypes import (
    DefinitionError,
    InputInvalid,
    JobType,
    Registry,
    ResultInvalid,
    UnknownJobType,
    file_refs,
    job_type,
)
from gateway.testing import run_handler


class Inner(JobModel):
    photo: FileRef
    page_count: int = 1


class GreetInput(JobModel):
    first_name: str
    attachments: tuple[Inner, ...] = ()
    by_key: dict[str, FileRef] = Field(default_factory=dict)


class GreetResult(JobModel):
    greeting: str
    card: Artifact | None = None


class Loose(BaseModel):
    anything: int = 0


@job_type("greet.person", timeout=5, max_attempts=2, example={"firstName": "Ada"})
def greet(job: JobContext, given: GreetInput) -> GreetResult:
    """Greet somebody by name.

    More about it.
    """
    job.progress(50, "Writing")
    card = job.save("card.txt", given.first_name.encode(), "text/plain")
    return GreetResult(greeting=f"Hello, {given.first_name}", card=card)


@job_type("greet.later", timeout=5, example={"firstName": "Ada"}, profiles={"development"})
async def greet_later(job: JobContext, given: GreetInput) -> GreetResult:
    """Greet somebody in due time."""
    job.progress(100, f"Attempt {job.attempt} of {job.max_attempts}")
    return GreetResult(greeting=f"Hello at last, {given.first_name}")


def test_a_declaration_is_all_there_is_to_know_of_a_type() -> None:
    assert greet.name == "greet.person"
    assert greet.summary == "Greet somebody by name."
    assert (greet.timeout, greet.max_attempts, greet.is_async) == (5, 2, False)
    assert greet.input_model is GreetInput
    assert greet.result_model is GreetResult
    assert greet.profiles == {"development", "production"}
    assert greet_later.is_async


def test_schemas_name_members_as_clients_write_them() -> None:
    schema = greet.input_schema()
    assert schema["required"] == ["firstName"]
    assert schema["additionalProperties"] is False
    assert "greeting" in greet.result_schema()["properties"]
    together = Registry([greet, greet_later]).schemas()["$defs"]
    assert {"GreetInput", "GreetResult", "FileRef"} <= together.keys()


def test_input_is_read_in_camel_case() -> None:
    assert greet.parse_input({"firstName": "Ada"}) == GreetInput(first_name="Ada")


@pytest.mark.parametrize(
    ("given", "pointer"),
    [
        ({}, "/firstName"),
        ({"first_name": "Ada"}, "/firstName"),
        ({"firstName": "Ada", "age": 36}, "/age"),
        ({"firstName": "Ada", "a/b~c": 1}, "/a~1b~0c"),
        ({"firstName": 7}, "/firstName"),
        (
            {"firstName": "Ada", "attachments": [{"photo": {"part": "p"}}, {"photo": {}}]},
            "/attachments/1/photo",
        ),
        (
            {"firstName": "Ada", "attachments": [{"photo": {"part": "p", "fileId": "f"}}]},
            "/attachments/0/photo",
        ),
        (
            {"firstName": "Ada", "attachments": [{"photo": {"fileId": ""}}]},
            "/attachments/0/photo/fileId",
        ),
        ([], ""),
        (None, ""),
    ],
)
def test_unfit_input_names_the_member(given: object, pointer: str) -> None:
    with pytest.raises(InputInvalid) as caught:
        greet.parse_input(given)
    assert pointer in [fault.pointer for fault in caught.value.faults]


def test_faults_do_not_repeat_rejected_values() -> None:
    with pytest.raises(InputInvalid) as caught:
        greet.parse_input({"firstName": ["hunter2"], "token": "hunter2"})
    assert len(caught.value.faults) == 2
    assert "hunter2" not in str(caught.value)


def test_every_file_of_an_input_is_found_where_it_is_named() -> None:
    given = greet.parse_input(
        {
            "firstName": "Ada",
            "attachments": [{"photo": {"part": "a"}}, {"photo": {"part": "b"}, "pageCount": 3}],
            "byKey": {"x/y": {"fileId": "c"}},
        }
    )
    assert file_refs(given) == {
        "/attachments/0/photo": FileRef(part="a"),
        "/attachments/1/photo": FileRef(part="b"),
        "/byKey/x~1y": FileRef(file_id="c"),
    }


def test_results_are_written_in_camel_case() -> None:
    run = run_handler(greet, {"firstName": "Ada"})
    assert run.result["greeting"] == "Hello, Ada"
    assert run.result["card"]["contentType"] == "text/plain"
    assert run.result["card"]["href"] == artifact_uri("card.txt")
    assert run.result["card"]["expiresAt"] is None
    assert run.artifacts == {"card.txt": b"Ada"}


def test_a_handler_must_return_what_it_promised() -> None:
    with pytest.raises(ResultInvalid, match=r"greet.person must return GreetResult, not dict"):
        greet.dump_result({"greeting": "Hello"})


def test_artifact_uris_are_told_from_other_text() -> None:
    assert artifact_name(artifact_uri("report.pdf")) == "report.pdf"
    assert artifact_name("https://example.com/artifact:x") is None


def test_async_handlers_run_in_the_test_kit() -> None:
    run = run_handler(greet_later, {"firstName": "Ada"}, attempt=2)
    assert run.result["greeting"] == "Hello at last, Ada"
    assert run.progress[0].message == "Attempt 2 of 3"


def test_the_test_kit_misses_files_as_the_gateway_does() -> None:
    given = {"firstName": "Ada", "attachments": [{"photo": {"part": "p"}}]}
    with pytest.raises(InputInvalid) as caught:
        run_handler(greet, given)
    assert caught.value.faults == (Fault("/attachments/0/photo", "there is no file named 'p'"),)
    assert run_handler(greet, given, {"p": b"..."}).result["greeting"] == "Hello, Ada"


def test_a_cancel_is_not_caught_by_mistake() -> None:
    @job_type("greet.stubborn", timeout=5, example={"firstName": "Ada"})
    def stubborn(job: JobContext, given: GreetInput) -> GreetResult:
        try:
            job.progress(50, "Half-way")
        except Exception:  # noqa: BLE001 - the habit this is about
            job.progress(99, "Carrying on regardless")
        return GreetResult(greeting=given.first_name)

    with pytest.raises(JobCancelled):
        run_handler(stubborn, {"firstName": "Ada"}, cancel_at=50)


def test_an_error_says_what_programs_and_people_need() -> None:
    error = JobError("The moon is full.", code="full_moon", retry=True)
    assert (str(error), error.message, error.code, error.retry) == (
        "The moon is full.",
        "The moon is full.",
        "full_moon",
        True,
    )
    assert (JobError("No.").code, JobError("No.").retry) == ("handler_error", False)


def _no_annotations(job, given):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    return GreetResult(greeting="")


def _one_parameter(job: JobContext) -> GreetResult:
    return GreetResult(greeting=job.id)


def _loose_input(job: JobContext, given: Loose) -> GreetResult:
    return GreetResult(greeting=job.id)


def _dict_input(job: JobContext, given: dict[str, Any]) -> GreetResult:
    return GreetResult(greeting=job.id)


def _dict_result(job: JobContext, given: GreetInput) -> dict[str, Any]:
    return {}


def _good(job: JobContext, given: GreetInput) -> GreetResult:
    return GreetResult(greeting=job.id)


@pytest.mark.parametrize(
    ("function", "changed", "message"),
    [
        (_no_annotations, {}, "annotate 'job' as JobContext"),
        (_one_parameter, {}, r"a handler takes \(job, input\)"),
        (_loose_input, {}, "Loose must forbid unknown members"),
        (_dict_input, {}, "annotate given with a pydantic model"),
        (_dict_result, {}, "annotate the return value with a pydantic model"),
        (_good, {"name": "Report Build"}, "a name is lower case"),
        (_good, {"name": "x" * 65}, "a name is lower case"),
        (_good, {"timeout": 0}, "timeout must be a positive number"),
        (_good, {"timeout": float("inf")}, "timeout must be a positive number"),
        (_good, {"timeout": float("nan")}, "timeout must be a positive number"),
        (_good, {"max_attempts": 0}, "max_attempts must be at least 1"),
        (_good, {"profiles": {"staging"}}, "profiles must be among"),
        (_good, {"profiles": ()}, "profiles must be among"),
        (_good, {"example": {"name": "Ada"}}, "its example is not valid: .*firstName"),
    ],
)
def test_a_wrong_declaration_says_what_to_change(
    function: Callable[..., Any], changed: dict[str, Any], message: str
) -> None:
    declared: dict[str, Any] = {
        "name": "test.type",
        "timeout": 1.0,
        "example": {"firstName": "Ada"},
    } | changed
    name = declared.pop("name")
    with pytest.raises(DefinitionError, match=message):
        job_type(name, **declared)(function)


@pytest.fixture
def module() -> Iterator[Callable[..., str]]:
    """Make importable modules with given members, gone after the test."""
    made: list[str] = []

    def make(**members: object) -> str:
        name = f"handlers_of_test_{len(made)}"
        made.append(name)
        sys.modules[name] = ModuleType(name)
        vars(sys.modules[name]).update(members)
        return name

    yield make
    for name in made:
        del sys.modules[name]


def test_a_registry_collects_what_the_modules_hold(module: Callable[..., str]) -> None:
    modules = [module(first=greet, unrelated=3), module(again=greet, second=greet_later)]
    assert Registry.load(modules, "development").types() == (greet_later, greet)
    production = Registry.load(modules, "production")
    assert production.types() == (greet,)
    assert production.get("greet.person") is greet
    with pytest.raises(UnknownJobType, match=r"greet\.later"):
        production.get("greet.later")


def test_two_types_of_one_name_stop_the_start(module: Callable[..., str]) -> None:
    twin: JobType = job_type("greet.person", timeout=1, example={"firstName": "Ada"})(_good)
    with pytest.raises(DefinitionError, match=r"'greet\.person' is declared twice"):
        Registry.load([module(first=greet), module(second=twin)], "development")


def test_a_module_that_is_missing_or_empty_stops_the_start(module: Callable[..., str]) -> None:
    with pytest.raises(DefinitionError, match="cannot be imported"):
        Registry.load(["no_such_module_anywhere"], "production")
    with pytest.raises(DefinitionError, match="declares no job type"):
        Registry.load([module(unrelated=3)], "production")


def test_the_built_in_types_load() -> None:
    modules = ["gateway.handlers_.document", "gateway.handlers_.echo"]
    development = Registry.load(modules, "development")
    assert [kind.name for kind in development.types()] == ["demo.echo", "document.analyze"]
    assert [kind.name for kind in Registry.load(modules, "production").types()] == [
        "document.analyze"
    ]
    for kind in development.types():
        assert kind.summary
        assert run_handler(kind, kind.example).progress[-1].percent == 100
