"""The schemas of the document: each model once, under its name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from gateway.openapi.events import Message
from gateway.openapi.models.problems import ProblemDocument
from gateway.openapi.operations import Operation

Mode = Literal["validation", "serialization"]
Json = dict[str, Any]


class _Untitled(GenerateJsonSchema):
    """Leaves out the titles that only say a member's name again."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002
        """Tell that no title is wanted."""
        return False


class Definitions:
    """The schemas of models, each under one name in the whole document."""

    def __init__(self, wanted: Iterable[tuple[type[BaseModel], Mode]]) -> None:
        self._refs, made = models_json_schema(
            list(dict.fromkeys(wanted)),
            by_alias=True,
            ref_template="#/components/schemas/{model}",
            schema_generator=_Untitled,
        )
        self.schemas: Json = made.get("$defs", {})
        for schema in self.schemas.values():
            schema.pop("title", None)

    def resolved(self, schema: Any, mode: Mode) -> Any:
        """Return `schema` with every model in it made a reference."""
        match schema:
            case type():
                return self._refs[schema, mode]
            case Mapping():
                return {key: self.resolved(value, mode) for key, value in schema.items()}
            case list() | tuple():
                return [self.resolved(value, mode) for value in schema]
            case _:
                return schema


def models_of(
    declared: Iterable[Operation], told: Iterable[Message]
) -> Iterator[tuple[type[BaseModel], Mode]]:
    """Yield the models that operations and callbacks speak of, and to which end each is."""
    yield ProblemDocument, "serialization"
    for operation in declared:
        for content in operation.body:
            yield from _models_in(content.schema, "validation")
        for answer in operation.answers:
            for content in answer.content:
                yield from _models_in(content.schema, "serialization")
    for message in told:
        yield from _models_in(message.body.schema, "serialization")
        if message.answer is not None:
            yield from _models_in(message.answer.schema, "serialization")


def _models_in(schema: Any, mode: Mode) -> Iterator[tuple[type[BaseModel], Mode]]:
    match schema:
        case type():
            yield schema, mode
        case Mapping():
            for value in schema.values():
                yield from _models_in(value, mode)
        case list() | tuple():
            for value in schema:
                yield from _models_in(value, mode)
