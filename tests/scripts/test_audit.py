"""Auditing the locks: what an advisory affects, and what is said of it."""

from __future__ import annotations

import json
import zipfile
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.settings import environment
from scripts.advisories import NPM, PYPI, Locked, find, rank
from scripts.audit import MAX_RECORD, VARIABLE, main, read_locks
from tests.running import ROOT


def record(*events: dict[str, str], package: str = "aiohttp", **members: Any) -> dict[str, Any]:
    """Return an advisory on a package of PyPI, with one range."""
    affected: dict[str, Any] = {"package": {"ecosystem": PYPI, "name": package}}
    if events:
        affected["ranges"] = [{"type": "ECOSYSTEM", "events": list(events)}]
    return {"id": "TEST-1", "modified": "2026-11-20T10:00:00Z", "affected": [affected]} | members


def is_found(said: dict[str, Any], version: str, ecosystem: str = PYPI) -> bool:
    locked = Locked(package=(ecosystem, "aiohttp"), version=version)
    return bool(list(find(said, [locked])))


RANGES = {
    "from the first on": ([{"introduced": "0"}], {"0.1": True, "99": True}),
    "fixed": (
        [{"introduced": "0"}, {"fixed": "3.9.2"}],
        {"3.9.1": True, "3.9.2": False, "3.9.10": False, "3.9.2rc1": True, "3.9": True},
    ),
    "from a version on": (
        [{"introduced": "3.1"}, {"fixed": "3.2"}],
        {"3.0.9": False, "3.1": True, "3.1.0": True, "3.2": False},
    ),
    "the last one affected": (
        [{"introduced": "0"}, {"last_affected": "3.9.2"}],
        {"3.9.2": True, "3.9.2.post1": False, "3.9.3": False},
    ),
    "twice": (
        [{"introduced": "1"}, {"fixed": "1.5"}, {"introduced": "2"}, {"fixed": "2.5"}],
        {"1.4": True, "1.5": False, "1.9": False, "2.4": True, "2.5": False},
    ),
    "in any order": (
        [{"fixed": "2.5"}, {"introduced": "2"}, {"fixed": "1.5"}, {"introduced": "1"}],
        {"1.4": True, "1.9": False, "2.4": True, "3": False},
    ),
    "in one event": ([{"introduced": "1", "fixed": "2"}], {"1.5": True, "2": False}),
    "limited": (
        [{"introduced": "0"}, {"limit": "2"}],
        {"1.9": True, "2": False},
    ),
    "without a limit": ([{"introduced": "0"}, {"limit": "*"}], {"9": True}),
    "a version that cannot be read": (
        [{"introduced": "0"}, {"fixed": "3.x-final"}],
        {"1": True, "99": True},
    ),
}


@pytest.mark.parametrize(("events", "versions"), RANGES.values(), ids=RANGES)
def test_a_range_holds_a_version(events: list[dict[str, str]], versions: dict[str, bool]) -> None:
    said = record(*events)
    assert {version: is_found(said, version) for version in versions} == versions


def test_versions_may_be_listed() -> None:
    said = record()
    said["affected"][0]["versions"] = ["3.9", "2004c-final"]
    assert is_found(said, "3.9.0")
    assert is_found(said, "2004c-final")
    assert not is_found(said, "3.9.1")


def test_a_withdrawn_advisory_says_nothing() -> None:
    said = record({"introduced": "0"})
    assert is_found(said, "1")
    assert not is_found(said | {"withdrawn": "2026-01-01T00:00:00Z"}, "1")


def test_commits_say_nothing_of_a_version() -> None:
    said = record({"introduced": "0"})
    said["affected"][0]["ranges"][0]["type"] = "GIT"
    assert not is_found(said, "1")


@pytest.mark.parametrize(
    ("ecosystem", "name", "is_it"),
    [
        (PYPI, "aiohttp", True),
        (PYPI, "AioHTTP", True),
        ("PyPI:main", "aiohttp", True),
        (PYPI, "aiohttp-cors", False),
        (NPM, "aiohttp", False),
        ("Debian:12", "aiohttp", False),
        ("", "aiohttp", False),
    ],
)
def test_a_package_is_one_name_in_one_ecosystem(ecosystem: str, name: str, is_it: bool) -> None:
    said = record({"introduced": "0"})
    said["affected"][0]["package"] = {"ecosystem": ecosystem, "name": name}
    assert is_found(said, "1") == is_it


def test_the_next_fixed_version_is_named() -> None:
    said = record(
        *({"introduced": "1"}, {"fixed": "1.5"}, {"introduced": "2"}, {"fixed": "2.5"}),
        *({"introduced": "3"}, {"fixed": "not a version"}),
    )
    for version, fixed in (("1.4", "1.5"), ("2.0", "2.5"), ("3.1", "")):
        [found] = find(said, [Locked(package=(PYPI, "aiohttp"), version=version)])
        assert found.fixed == fixed


# Semantic Versioning 2.0.0, section 11, and what it says of numbers.
ASCENDING = (
    *("0", "0.0.1", "0.9.0", "1.0.0-0", "1.0.0-2", "1.0.0-11", "1.0.0-alpha", "1.0.0-alpha.1"),
    *("1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1", "1.0.0"),
    *("1.0.1", "1.2.0", "1.10.0", "2.0.0"),
)


def test_versions_of_npm_are_semantic() -> None:
    for lower, higher in pairwise(ASCENDING):
        assert rank(NPM, lower) < rank(NPM, higher), (lower, higher)
    assert rank(NPM, "1.0.0+build.5") == rank(NPM, "1.0.0")


@pytest.mark.parametrize("text", ["1", "1.0", "", "latest", "1.0.0.0", "01.a.b", "1.0.0-", "1.0.٣"])
def test_what_is_no_semantic_version_is_not_read(text: str) -> None:
    with pytest.raises(ValueError, match="semantic"):
        rank(NPM, text)


_NUMBERS = st.integers(0, 20)


@given(st.lists(_NUMBERS, min_size=2, max_size=2, unique=True), _NUMBERS)
def test_a_version_is_affected_exactly_between_two_events(bounds: list[int], at: int) -> None:
    first, last = sorted(bounds)
    said = record({"introduced": f"1.{first}"}, {"fixed": f"1.{last}"})
    assert is_found(said, f"1.{at}") == (first <= at < last)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["affected", "package", "ecosystem", "name", "ranges", "type", "events"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=20,
    )
)
def test_a_record_of_any_shape_is_evaluated_or_refused(affected: Any) -> None:
    locked = [Locked(package=(PYPI, "aiohttp"), version="1")]
    with suppress(ValueError):
        assert len(list(find({"id": "TEST-1", "affected": [affected]}, locked))) <= 1


# The command

LOCK = """\
aiohttp==3.9.1 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
colorama==0.4.6 ; sys_platform == 'win32' \\
    --hash=sha256:cc
"""


@pytest.fixture
def locks(tmp_path: Path) -> Path:
    """Return a folder of locks."""
    folder = tmp_path / "locks"
    (folder / "npm").mkdir(parents=True)
    (folder / "a.lock").write_text(LOCK)
    (folder / "b.lock").write_text(LOCK + "aiohttp==3.14.5 ; python_version > '4'\n")
    packages: dict[str, Any] = {
        "": {"name": "own", "version": "0.0.1"},
        "node_modules/svix": {"version": "1.99.1"},
        "node_modules/svix/node_modules/@a/b": {"version": "1.0.0-rc.1"},
        "node_modules/alias": {"name": "real", "version": "2.0.0"},
        "node_modules/linked": {"link": True},
    }
    (folder / "npm" / "package-lock.json").write_text(json.dumps({"packages": packages}))
    return folder


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """Return a folder with a record that affects nothing."""
    folder = tmp_path / "osv"
    folder.mkdir()
    (folder / "TEST-0.json").write_text(json.dumps(record({"introduced": "0"}, package="other")))
    return folder


def audited(locks: Path, export: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = main(["--locks", str(locks), str(export)])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_locks_are_read(locks: Path) -> None:
    assert {(*each.package, each.version) for each in read_locks(locks)} == {
        (PYPI, "aiohttp", "3.9.1"),
        (PYPI, "aiohttp", "3.14.5"),
        (PYPI, "colorama", "0.4.6"),
        (NPM, "svix", "1.99.1"),
        (NPM, "@a/b", "1.0.0-rc.1"),
        (NPM, "real", "2.0.0"),
    }


def test_the_locks_of_the_checkout_are_read() -> None:
    found = read_locks(ROOT / "config")
    names = {each.package for each in found}
    assert {(PYPI, "aiohttp"), (PYPI, "uvicorn"), (NPM, "svix")} <= names
    assert all(rank(*each.package[:1], each.version) for each in found)


def test_nothing_affected(locks: Path, export: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = audited(locks, export, capsys)
    assert code == 0
    assert "PyPI: 3 locked packages, 1 records." in out
    assert "npm: 3 locked packages, 0 records." in out
    assert "newest record is of 2026-11-20" in out


def test_what_is_affected_is_named_with_what_mends_it(
    locks: Path, export: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = record({"introduced": "0"}, {"fixed": "3.9.2"})
    (export / "deep").mkdir()
    (export / "deep" / "TEST-1.json").write_text(json.dumps(said))
    npm = {"package": {"ecosystem": NPM, "name": "@a/b"}}
    ranges = [{"type": "SEMVER", "events": [{"introduced": "0"}, {"last_affected": "1.0.0"}]}]
    with zipfile.ZipFile(export / "all.zip", "w") as archive:
        archive.writestr(
            "TEST-2.json", json.dumps({"id": "TEST-2", "affected": [npm | {"ranges": ranges}]})
        )
        archive.writestr("README", "no record")
    code, out, _ = audited(locks, export, capsys)
    assert code == 1
    assert "TEST-1  PyPI aiohttp 3.9.1  fixed in 3.9.2\n" in out
    assert "TEST-2  npm @a/b 1.0.0-rc.1  no fixed version is named\n" in out
    assert "aiohttp 3.14.5" not in out
    code, out, _ = audited(locks, export / "all.zip", capsys)
    assert (code, "TEST-2" in out, "TEST-1" in out) == (1, True, False)


def test_the_environment_names_the_export(
    locks: Path, export: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert main(["--locks", str(locks)]) == 0
    assert capsys.readouterr().out == f"Not audited: {VARIABLE} names no export of advisories.\n"
    monkeypatch.setenv(VARIABLE, str(export))
    assert environment()[VARIABLE] == str(export)
    assert main(["--locks", str(locks)]) == 0
    assert "newest" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.json", b"{", "a.json is no JSON"),
        ("a.json", b"[" * 100_000, "a.json is no JSON"),
        ("a.json", b"[]", "a.json is no OSV record"),
        ("a.json", b'{"id":"X","affected":[{"package":1}]}', "a.json: "),
        ("a.json", b" " * (MAX_RECORD + 1), "longer than"),
        ("a.zip", b"PK", "cannot be read"),
    ],
)
def test_an_export_that_cannot_be_read_is_an_error(
    locks: Path,
    export: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    content: bytes,
    complaint: str,
) -> None:
    (export / name).write_bytes(content)
    code, _, err = audited(locks, export, capsys)
    assert code == 2
    assert err.startswith("audit: ")
    assert complaint in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("named", ["nowhere", "empty"])
def test_an_export_without_records_is_no_clean_bill(
    locks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], named: str
) -> None:
    (tmp_path / "empty").mkdir()
    assert audited(locks, tmp_path / named, capsys)[0] == 2


@pytest.mark.parametrize(
    ("lock", "complaint"),
    [
        ("aiohttp>=3\n", "pins no version"),
        ("-r other.lock\n", "is no requirement"),
        ("", "no lock"),
    ],
)
def test_a_lock_that_pins_nothing_is_an_error(
    tmp_path: Path, export: Path, capsys: pytest.CaptureFixture[str], lock: str, complaint: str
) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.lock").write_text(lock)
    code, _, err = audited(tmp_path / "bad", export, capsys)
    assert code == 2
    assert complaint in err
