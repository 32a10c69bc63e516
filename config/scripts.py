"""The scripts that run in a store, and the names of its keys.

A store's every change is one Lua script, kept as `lua/<transition>.lua` in the package that owns
the transition. A line `-- include: <name>` is replaced by the fragment `lua/<name>.lua` of that
package, or of another by `-- include: <package>/<name>`; a fragment is included once however often
it is named.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

Argument = str | bytes | int | float
_READER = re.compile(r"#!lua flags=(?:[a-z-]+,)*no-writes\b")
_INCLUDE = re.compile(r"^-- include: (?:(?P<package>\w+)/)?(?P<name>\w+)\n", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Script:
    """One transition, ready to be run by its digest.

    Attributes:
        name: the package and the file.
        source: of it and of what it includes.
        sha: SHA-1 of the source, by which the server knows it.
        writes: whether it may change something.
    """

    name: str
    source: str
    sha: str
    writes: bool


@dataclass(frozen=True, slots=True)
class Call:
    """A script with the partition it runs in and its arguments."""

    script: Script
    prefix: str
    args: Sequence[Argument]


@cache
def load_script(package: str, name: str) -> Script:
    """Return the script `lua/<name>.lua` of `package`, its includes resolved.

    Raises:
        FileNotFoundError: there is no such script or fragment.
    """
    source = _assemble(package, name, set())
    return Script(
        name=f"{package}/{name}",
        source=source,
        sha=hashlib.sha1(source.encode()).hexdigest(),  # noqa: S324
        writes=_READER.match(source) is None,
    )


def _assemble(package: str, name: str, seen: set[tuple[str, str]]) -> str:
    text = resources.files(package).joinpath("lua", f"{name}.lua").read_text("utf-8")

    def include(match: re.Match[str]) -> str:
        fragment = (match["package"] or package, match["name"])
        if fragment in seen:
            return ""
        seen.add(fragment)
        return _assemble(*fragment, seen)

    return _INCLUDE.sub(include, text)


def partition_prefix(partition: int) -> str:
    """Return what every key of `partition` begins with; its hash tag keeps them in one slot."""
    return f"gw:{{p{partition:02d}}}:"


def pairs(flat: Iterable[bytes]) -> dict[str, bytes]:
    """Return a hash from the flat list of names and values that a script replies with."""
    names = iter(flat)
    return {name.decode(): value for name, value in zip(names, names, strict=True)}


META_PREFIX = "gw:{meta}:"
"""What the few keys begin with that belong to no partition."""
