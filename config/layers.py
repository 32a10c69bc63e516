"""The layers settings come from, merged: defaults, profile, file, environment.

Nothing here knows what a setting means; `config.settings` judges the merged values.
"""

import difflib
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

DEFAULTS: Final = Path(__file__).with_name("defaults.toml")
PREFIX: Final = "GATEWAY_"
PROCESS_VARIABLES: Final = frozenset(
    {"GATEWAY_CONFIG", "GATEWAY_PARENT_FD", "GATEWAY_API_KEY", "GATEWAY_API_URL"}
)
"""GATEWAY_ variables that are not settings: the file to read, the parent's pipe, and what scripts
that are clients of the API use."""

ENVIRONMENT: Final = "environment"
"""The origin of a value that a variable set; of others it is the file's name."""

Tree = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """One environment variable and the setting it stands for."""

    name: str
    path: tuple[str, ...]
    is_text: bool
    """The value is taken as it is written; otherwise it is a TOML value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """The merged layers before validation: where a launcher sees what is still to be filled in."""

    values: Tree
    origins: Mapping[tuple[str, ...], str]
    problems: tuple[str, ...]

    def text(self, *path: str) -> str:
        """The value at `path` as text; empty where it is not set or not text."""
        node: object = self.values
        for key in path:
            node = node.get(key) if isinstance(node, dict) else None
        return node if isinstance(node, str) else ""

    def is_given(self, *path: str) -> bool:
        """Whether the file or the environment sets `path`, not only the defaults."""
        return bool(self.origins.get(path))


def gather(environ: Mapping[str, str], variables: Mapping[str, Variable]) -> Draft:
    """Merge the layers without judging the values; never raises for what they hold."""
    defaults = tomllib.loads(DEFAULTS.read_text(encoding="utf-8"))
    profiles: Tree = defaults.pop("profiles")
    problems: list[str] = []
    file_name = environ.get("GATEWAY_CONFIG", "")
    from_file = _read_file(file_name, problems) if file_name else {}
    from_environment = _read_environment(environ, variables, problems)
    profile = defaults["profile"]
    for layer in (from_file, from_environment):
        profile = layer.get("profile", profile)
    overlay = profiles.get(profile, {}) if isinstance(profile, str) else {}

    origins: dict[tuple[str, ...], str] = {}
    values = defaults
    for layer, source in ((overlay, ""), (from_file, file_name), (from_environment, ENVIRONMENT)):
        values = _merge(values, layer)
        origins.update((path, source) for path in _leaves(layer))
    return Draft(values=values, origins=origins, problems=tuple(problems))


def _read_file(name: str, problems: list[str]) -> Tree:
    try:
        return tomllib.loads(Path(name).read_text(encoding="utf-8"))
    except OSError as error:
        problems.append(f"GATEWAY_CONFIG: cannot read {name}: {error.strerror}")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        problems.append(f"GATEWAY_CONFIG: {name} is not TOML: {error}")
    return {}


def _read_environment(
    environ: Mapping[str, str], variables: Mapping[str, Variable], problems: list[str]
) -> Tree:
    tree: Tree = {}
    for name in sorted(environ):
        if not name.startswith(PREFIX) or name in PROCESS_VARIABLES or not environ[name]:
            continue
        variable = variables.get(name)
        if variable is None:
            near = difflib.get_close_matches(name, variables, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            problems.append(f"{name}: no such setting{hint}")
            continue
        node = tree
        for key in variable.path[:-1]:
            node = node.setdefault(key, {})
        text = environ[name]
        node[variable.path[-1]] = text if variable.is_text else _toml_value(text)
    return tree


def _toml_value(text: str) -> object:
    try:
        document = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return document["value"] if len(document) == 1 else text


def _merge(under: Tree, over: Tree) -> Tree:
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        both = isinstance(below, dict) and isinstance(value, dict)
        merged[key] = _merge(below, value) if both else value  # type: ignore[arg-type]
    return merged


def _leaves(tree: Tree, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key)
