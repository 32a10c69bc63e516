"""The settings as people may see them: each with its value, masked, and where it comes from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, get_args, get_origin

from pydantic import BaseModel, SecretStr

from config.layers import DEFAULTS, ENVIRONMENT, Draft
from config.settings import Settings, variable_of

MASK: Final = "***"
"""What stands for a secret."""

_USER: Final = re.compile(r"(?<=://)[^/?#\s]*@")
_QUERY: Final = re.compile(r"(?<=\?)[^#\s]+")
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One setting.

    Attributes:
        name: as in `delivery.lease_seconds`.
        value: what it is set to, or `MASK`; of a URL, user and query are masked.
        source: `defaults.toml`, a profile, a file, or a variable.
        is_known: whether there is such a setting; of one that there is not, nothing is shown.
    """

    name: str
    value: object
    source: str
    is_known: bool


def shown_settings(draft: Draft) -> Iterator[Shown]:
    """Yield every setting of `draft`, usable or not, in the order of the defaults."""
    for path, value, annotation in _leaves(draft.values, Settings, ()):
        is_known = annotation is not None
        secret = not is_known or (_is_secret(annotation) and value not in ("", None))
        yield Shown(
            name=".".join(map(_key, path)),
            value=MASK if secret else _masked(value),
            source=_source(path, draft),
            is_known=is_known,
        )


def _leaves(value: Any, annotation: Any, path: Path) -> Iterator[tuple[Path, Any, Any]]:
    """Yield path, value and type of what is no table; the type is None where none is known."""
    if not isinstance(value, dict) or not value:
        yield path, value, annotation
        return
    for key, inner in value.items():
        yield from _leaves(inner, _inner_type(annotation, key), (*path, key))


def _inner_type(annotation: Any, key: str) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get(key)
        return None if field is None else field.annotation
    arguments = get_args(annotation)
    if get_origin(annotation) is dict and len(arguments) == 2:
        return _plain(arguments[1])
    return None


def _plain(annotation: Any) -> Any:
    """Return a type without what is annotated to it."""
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _is_secret(annotation: Any) -> bool:
    return annotation is SecretStr or any(map(_is_secret, get_args(annotation)))


def _masked(value: Any) -> object:
    match value:
        case str():
            return _QUERY.sub(MASK, _USER.sub(f"{MASK}@", value)) if "://" in value else value
        case list():
            return [_masked(each) for each in value]
        case dict():
            return {name: _masked(each) for name, each in value.items()}
        case bool() | int() | float() | None:
            return value
        case _:  # TOML has dates, and no setting is one
            return str(value)


def _source(path: Path, draft: Draft) -> str:
    origin = _origin(path, draft.origins)
    match origin:
        case None:
            return DEFAULTS.name
        case "":
            return f"profile {draft.text('profile')}"
        case _ if origin == ENVIRONMENT:
            return variable_of(path)
        case _:
            return origin


def _origin(path: Path, origins: Mapping[Path, str]) -> str | None:
    """Return the origin of the setting that `path` is, or is a part of."""
    for length in range(len(path), 0, -1):
        if path[:length] in origins:
            return origins[path[:length]]
    return None


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else f'"{key}"'
