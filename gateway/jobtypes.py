"""Job types: how a function becomes work that clients can submit.

The decorator turns a function into a `JobType`, a value in the module's namespace. A `Registry` is
built from the modules that the settings name and collects the job types it finds there; importing
a module registers nothing anywhere.

HandlersError(GatewayError): the root of what is raised here.
    DefinitionError: a job type is declared wrongly, or a module cannot be loaded. Stops the start.
    UnknownJobType: no job type of that name exists under this profile.
    InputInvalid: a job's input does not fit its type; carries the members at fault.
    ResultInvalid: a handler returned something other than it promised.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import re
import typing
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.json_schema import models_json_schema

from gateway.errors import GatewayError
from gateway.faults import Fault, details_of, fault_of, step
from gateway.jobcontext import FileRef, JobContext

PROFILES = frozenset({"development", "production"})

Isolation = Literal["thread", "process"]
"""Where a handler runs.

thread: in a thread of the worker, which nothing can interrupt: a cancel and the time limit take
    effect at its next `progress` or `sleep`. An attempt that ignores its limit is ended in its
    handler's place, and the worker process replaced; a crash in C code takes it along too.
process: in a child process forked for the attempt, which is killed when its time is up, when it
    does not heed a cancel, and together with every process it started. It costs some milliseconds.
    Modules are imported before the fork: what they open or seed, all attempts share.
"""

MIN_MEMORY = 16 * 1024**2
"""The least that `memory_bytes` may be."""

_NAME = re.compile(r"[a-z][a-z0-9]*(?:[._-][a-z0-9]+)*")
_NAME_LENGTH = 64


class HandlersError(GatewayError):
    """A job type, its input or its result is not what it has to be."""


class DefinitionError(HandlersError):
    """A job type is declared wrongly; the message names it and what to change."""


class UnknownJobType(HandlersError):
    """No job type of this name exists under the profile in force."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no job type {name!r}")
        self.name = name


class InputInvalid(HandlersError):
    """The input does not fit the job type.

    Attributes:
        faults: the members at fault, by JSON pointers that start at the input itself.
    """

    def __init__(self, name: str, faults: Sequence[Fault]) -> None:
        listed = "; ".join(f"{fault.pointer or '/'}: {fault.detail}" for fault in faults)
        super().__init__(f"the input does not fit {name}: {listed}")
        self.faults = tuple(faults)


class ResultInvalid(HandlersError):
    """A handler returned something that is not its declared result."""


Handler = Callable[[JobContext, Any], Any]
InputT = TypeVar("InputT", bound=BaseModel)
ResultT = TypeVar("ResultT", bound=BaseModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobType:
    """A kind of job: its function and the contract of its input and result.

    Attributes:
        name: as clients submit it.
        function: sync or async, called with (context, input).
        is_async: whether it is a coroutine function.
        input_model: pydantic model of the input.
        result_model: pydantic model of the result.
        timeout: seconds an attempt may take where the client asks for nothing else.
        max_attempts: how often it may run where the client asks for nothing else.
        example: an input that is valid, as JSON.
        summary: first line of the function's docstring.
        profiles: under which profiles it exists.
        isolation: where it runs.
        memory_bytes: how much address space a child process may take beyond what the loaded
            modules have; None for no limit. Each process it starts gets the same limit.
        queue_timeout: seconds it may wait for its first attempt where the client asks for nothing
            else; None for ever.
    """

    name: str
    function: Handler
    is_async: bool
    input_model: type[BaseModel]
    result_model: type[BaseModel]
    timeout: float
    max_attempts: int
    example: Mapping[str, Any]
    summary: str
    profiles: frozenset[str]
    isolation: Isolation = "thread"
    memory_bytes: int | None = None
    queue_timeout: float | None = None

    def parse_input(self, value: object) -> BaseModel:
        """Return `value`, decoded JSON, as the input model.

        Raises:
            InputInvalid: with every member at fault.
        """
        try:
            return self.input_model.model_validate(value, by_alias=True, by_name=False)
        except ValidationError as error:
            raise InputInvalid(self.name, _faults(error)) from None

    def run(self, job: JobContext, given: BaseModel) -> dict[str, Any]:
        """Call the handler and return its result as JSON; an async one gets a loop of its own.

        Raises:
            ResultInvalid: it is not of the declared model.
            JobError, JobCancelled: as the handler raised them; so does any other exception.
        """
        result = self.function(job, given)
        if self.is_async:
            result = asyncio.run(result)
        return self.dump_result(result)

    def dump_result(self, result: object) -> dict[str, Any]:
        """Return a handler's result as JSON.

        Raises:
            ResultInvalid: it is not of the declared model.
        """
        if not isinstance(result, self.result_model):
            expected, got = self.result_model.__name__, type(result).__name__
            raise ResultInvalid(f"{self.name} must return {expected}, not {got}")
        return result.model_dump(mode="json", by_alias=True)

    def input_schema(self) -> dict[str, Any]:
        """Return the JSON Schema of the input."""
        return self.input_model.model_json_schema()

    def result_schema(self) -> dict[str, Any]:
        """Return the JSON Schema of the result, as it is written."""
        return self.result_model.model_json_schema(mode="serialization")


def job_type(
    name: str,
    *,
    timeout: float,
    max_attempts: int = 3,
    example: Mapping[str, Any],
    profiles: Iterable[str] = PROFILES,
    isolation: Isolation = "thread",
    memory_bytes: int | None = None,
    queue_timeout: float | None = None,
) -> Callable[[Callable[[JobContext, InputT], ResultT | Awaitable[ResultT]]], JobType]:
    """Declare the decorated function as the job type `name`.

    The function takes a `JobContext` and a pydantic model that forbids unknown members, returns a
    pydantic model, and says so by annotations; `JobModel` is the base to derive both from.

    Args:
        name: lower case, such as `report.build`; at most 64 characters.
        timeout: seconds an attempt may take.
        max_attempts: at least 1.
        example: a valid input as JSON, shown to clients.
        profiles: the profiles under which the type exists.
        isolation: `thread` is cooperative; only `process` holds against C code, hangs and crashes.
        memory_bytes: of a child process, on top of what is loaded; at least MIN_MEMORY.
        queue_timeout: seconds a job may wait for its first attempt; None for ever.

    Raises:
        DefinitionError: any of that does not hold.
    """

    def declare(function: Callable[[JobContext, InputT], ResultT | Awaitable[ResultT]]) -> JobType:
        input_model, result_model = _models(name, function)
        declared = JobType(
            name=name,
            function=function,
            is_async=inspect.iscoroutinefunction(function),
            input_model=input_model,
            result_model=result_model,
            timeout=timeout,
            max_attempts=max_attempts,
            example=example,
            summary=(inspect.getdoc(function) or "").partition("\n")[0],
            profiles=frozenset(profiles),
            isolation=isolation,
            memory_bytes=memory_bytes,
            queue_timeout=queue_timeout,
        )
        _check(declared)
        return declared

    return declare


class Registry:
    """The job types that exist in this process. Immutable."""

    def __init__(self, types: Iterable[JobType]) -> None:
        """Hold `types`.

        Raises:
            DefinitionError: two of them share a name.
        """
        self._types: dict[str, JobType] = {}
        for kind in types:
            known = self._types.setdefault(kind.name, kind)
            if known is not kind:
                places = f"{known.function.__module__} and {kind.function.__module__}"
                raise DefinitionError(f"job type {kind.name!r} is declared twice: {places}")

    @classmethod
    def load(cls, modules: Iterable[str], profile: str) -> Registry:
        """Import `modules` and collect the job types in them that exist under `profile`.

        Raises:
            DefinitionError: a module cannot be imported, holds no job type, or two share a name.
        """
        found = [kind for module in modules for kind in _collect(module)]
        return cls(kind for kind in found if profile in kind.profiles)

    def get(self, name: str) -> JobType:
        """Return the job type `name`.

        Raises:
            UnknownJobType: there is none.
        """
        try:
            return self._types[name]
        except KeyError:
            raise UnknownJobType(name) from None

    def types(self) -> tuple[JobType, ...]:
        """Return every job type, by name."""
        return tuple(self._types[name] for name in sorted(self._types))

    def schemas(self) -> dict[str, Any]:
        """Return one JSON Schema document whose `$defs` hold every input and result model."""
        wanted: list[tuple[type[BaseModel], typing.Literal["validation", "serialization"]]] = []
        for kind in self.types():
            wanted.append((kind.input_model, "validation"))
            wanted.append((kind.result_model, "serialization"))
        return models_json_schema(wanted)[1]


def file_refs(value: object, pointer: str = "") -> dict[str, FileRef]:
    """Return every file that an input names, by the JSON pointer of the member that names it."""
    match value:
        case FileRef():
            return {pointer: value}
        case BaseModel():
            fields = type(value).model_fields
            members = {spec.alias or name: getattr(value, name) for name, spec in fields.items()}
        case Mapping():
            members = {str(key): member for key, member in value.items()}
        case list() | tuple():
            members = {str(index): member for index, member in enumerate(value)}
        case _:
            return {}
    found: dict[str, FileRef] = {}
    for key, member in members.items():
        found |= file_refs(member, f"{pointer}{step(key)}")
    return found


def _collect(module: str) -> list[JobType]:
    try:
        namespace = vars(importlib.import_module(module))
    except ImportError as error:
        raise DefinitionError(f"handler module {module!r} cannot be imported: {error}") from error
    found = [value for value in namespace.values() if isinstance(value, JobType)]
    if not found:
        raise DefinitionError(f"handler module {module!r} declares no job type")
    return found


def _models(name: str, function: Callable[..., Any]) -> tuple[type[BaseModel], type[BaseModel]]:
    """Read input and result model off a handler's annotations."""
    try:
        hints = typing.get_type_hints(function)
    except NameError as error:
        raise DefinitionError(
            f"job type {name!r}: {error}; declare models at module level"
        ) from error
    parameters = list(inspect.signature(function).parameters)
    if len(parameters) != 2:
        raise DefinitionError(f"job type {name!r}: a handler takes (job, input), not {parameters}")
    if hints.get(parameters[0]) is not JobContext:
        raise DefinitionError(f"job type {name!r}: annotate {parameters[0]!r} as JobContext")
    input_model = _model(name, parameters[1], hints.get(parameters[1]))
    if input_model.model_config.get("extra") != "forbid":
        raise DefinitionError(
            f"job type {name!r}: {input_model.__name__} must forbid unknown members"
        )
    return input_model, _model(name, "the return value", hints.get("return"))


def _model(name: str, what: str, hint: object) -> type[BaseModel]:
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return hint
    raise DefinitionError(f"job type {name!r}: annotate {what} with a pydantic model, not {hint!r}")


def _check(kind: JobType) -> None:
    """Refuse limits, names and examples that could not be honoured."""
    if len(kind.name) > _NAME_LENGTH or not _NAME.fullmatch(kind.name):
        raise DefinitionError(
            f"job type {kind.name!r}: a name is lower case, such as 'report.build'"
        )
    if not 0 < kind.timeout < float("inf"):
        raise DefinitionError(
            f"job type {kind.name!r}: timeout must be a positive number of seconds"
        )
    if kind.max_attempts < 1:
        raise DefinitionError(f"job type {kind.name!r}: max_attempts must be at least 1")
    if not kind.profiles or not kind.profiles <= PROFILES:
        raise DefinitionError(f"job type {kind.name!r}: profiles must be among {sorted(PROFILES)}")
    if kind.queue_timeout is not None and not 0 < kind.queue_timeout < float("inf"):
        raise DefinitionError(
            f"job type {kind.name!r}: queue_timeout must be a positive number of seconds"
        )
    _check_isolation(kind)
    try:
        kind.parse_input(kind.example)
    except InputInvalid as error:
        raise DefinitionError(
            f"job type {kind.name!r}: its example is not valid: {error}"
        ) from error


def _check_isolation(kind: JobType) -> None:
    if kind.isolation not in typing.get_args(Isolation):
        raise DefinitionError(f"job type {kind.name!r}: isolation must be 'thread' or 'process'")
    if kind.memory_bytes is None:
        return
    if kind.isolation != "process":
        raise DefinitionError(
            f"job type {kind.name!r}: memory_bytes needs isolation='process'; threads share memory"
        )
    if kind.memory_bytes < MIN_MEMORY:
        raise DefinitionError(f"job type {kind.name!r}: memory_bytes must be at least {MIN_MEMORY}")


def _faults(error: ValidationError) -> list[Fault]:
    details = details_of(error)
    if not details:
        return [Fault("", f"has {error.error_count()} faults: too many to be listed")]
    return [fault_of(detail) for detail in details]
