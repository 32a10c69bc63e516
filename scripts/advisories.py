"""What an advisory says of a locked package: records in the OSV schema, evaluated. No I/O.

The algorithm is the schema's own (https://ossf.github.io/osv-schema/#evaluation): a version is
affected where it is listed, or where a range holds it. What cannot be told for certain, because a
version in a range cannot be read, counts as affected.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

PYPI, NPM = "PyPI", "npm"

Package = tuple[str, str]
"""An ecosystem, and a name in it."""

Rank = tuple[Any, ...]
"""Orders the versions of one ecosystem."""

_FIRST = "0"
_BEFORE_ALL: Rank = (0,)
_ANY_LIMIT = "*"
_SEMVER = re.compile(r"v?(\d+)\.(\d+)\.(\d+)(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Locked:
    """A package in a lock.

    Attributes:
        package: what it is.
        version: the one that is installed.
    """

    package: Package
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A locked package that an advisory speaks of.

    Attributes:
        advisory: its identifier.
        locked: the package.
        fixed: the next version that is named as fixed; empty where there is none.
    """

    advisory: str
    locked: Locked
    fixed: str


def find(record: Mapping[str, Any], locked: Iterable[Locked]) -> Iterator[Finding]:
    """Yield the locked packages that `record` says are affected; a withdrawn one says nothing.

    Raises:
        ValueError: the record is not in the OSV schema; the text says where.
    """
    if record.get("withdrawn"):
        return
    try:
        said = [(package_of(each), each) for each in record.get("affected", ())]
        for each in locked:
            of_it = [affected for package, affected in said if package == each.package]
            if any(_is_affected(each, affected) for affected in of_it):
                yield Finding(
                    advisory=str(record["id"]), locked=each, fixed=_next_fixed(each, of_it)
                )
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"not in the OSV schema: {error!r}") from error


def package_of(affected: Mapping[str, Any]) -> Package:
    """Return the package that a member of `affected` is about."""
    package = affected.get("package", {})
    ecosystem, name = package.get("ecosystem", "").partition(":")[0], package.get("name", "")
    return ecosystem, canonicalize_name(name) if ecosystem == PYPI else name


def rank(ecosystem: str, version: str) -> Rank:
    """Return what orders `version` among others; the schema's `0` comes before them all.

    Raises:
        ValueError: the ecosystem has no such versions.
    """
    if version == _FIRST:
        return _BEFORE_ALL
    if ecosystem == PYPI:
        try:
            return (1, Version(version))
        except InvalidVersion as error:
            raise ValueError(str(error)) from error
    return (1, *_semver(version))


def _semver(version: str) -> Rank:
    """Return the precedence of Semantic Versioning 2.0.0, section 11."""
    match = _SEMVER.fullmatch(version)
    if match is None:
        raise ValueError(f"{version!r} is no semantic version")
    *numbers, before = match.groups()
    if before is None:
        return (*map(int, numbers), (1,))
    # Numbers come before words; of two that begin alike the longer one comes later.
    parts = ((0, int(each), "") if each.isdigit() else (1, 0, each) for each in before.split("."))
    return (*map(int, numbers), (0, *parts))


def _is_affected(locked: Locked, affected: Mapping[str, Any]) -> bool:
    ecosystem, _ = locked.package
    if any(_is_same(ecosystem, locked.version, each) for each in affected.get("versions", ())):
        return True
    return any(_is_within(ecosystem, locked.version, each) for each in _ranges(affected))


def _ranges(affected: Mapping[str, Any]) -> Iterator[Sequence[tuple[str, str]]]:
    """Yield the events of each range that is one of versions, as kind and version."""
    for each in affected.get("ranges", ()):
        if each["type"] in {"ECOSYSTEM", "SEMVER"}:
            yield [pair for event in each["events"] for pair in event.items()]


def _is_same(ecosystem: str, one: str, other: str) -> bool:
    try:
        return rank(ecosystem, one) == rank(ecosystem, other)
    except ValueError:
        return one == other


def _is_within(ecosystem: str, version: str, events: Sequence[tuple[str, str]]) -> bool:
    try:
        here = rank(ecosystem, version)
        ranked = [(rank(ecosystem, at), kind) for kind, at in events if at != _ANY_LIMIT]
    except ValueError:
        return True
    limits = [at for at, kind in ranked if kind == "limit"]
    if limits and all(here >= limit for limit in limits):
        return False
    is_in = False
    for at, kind in sorted(ranked, key=lambda each: each[0]):
        match kind:
            case "introduced" if here >= at:
                is_in = True
            case "fixed" if here >= at:
                is_in = False
            case "last_affected" if here > at:
                is_in = False
    return is_in


def _next_fixed(locked: Locked, of_it: Iterable[Mapping[str, Any]]) -> str:
    ecosystem, _ = locked.package
    later: list[tuple[Rank, str]] = []
    for kind, at in (
        event for affected in of_it for events in _ranges(affected) for event in events
    ):
        if kind == "fixed":
            try:
                ranked = rank(ecosystem, at)
                if ranked > rank(ecosystem, locked.version):
                    later.append((ranked, at))
            except ValueError:
                continue
    return min(later)[1] if later else ""
