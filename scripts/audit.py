#!/usr/bin/env python3
"""Audits the locked packages: tells which of them an advisory speaks of.

    OSV_EXPORT=osv ./scripts/audit.py
    ./scripts/audit.py osv/PyPI/all.zip

Works offline, on an export of advisories as https://osv.dev gives them out: a folder or a zip of
records in the OSV schema; those of PyPI and npm are looked at. Exit codes: 0 none is affected, or
there is no export to look in, which it says; 1 some are; 2 the export or a lock cannot be read.
"""

import argparse
import json
import os
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_VENV_PYTHON = ROOT / ".venv" / "bin" / "python"

if __name__ == "__main__" and _VENV_PYTHON.exists() and Path(sys.prefix) != ROOT / ".venv":
    # Run by whatever python3 is first on the path: go on in the one that has the libraries.
    os.execv(_VENV_PYTHON, [str(_VENV_PYTHON), "-P", __file__, *sys.argv[1:]])  # noqa: S606

from packaging.requirements import InvalidRequirement, Requirement  # noqa: E402
from packaging.utils import canonicalize_name  # noqa: E402

from config.settings import environment  # noqa: E402
from scripts.advisories import NPM, PYPI, Finding, Locked, find, package_of  # noqa: E402

VARIABLE = "OSV_EXPORT"
"""The environment variable that names the export."""

MAX_RECORD = 8 * 2**20
"""Bytes of one record: far more than the longest that was ever published."""


class AuditError(Exception):
    """Something cannot be read; the text says what and why."""


def main(argv: Sequence[str]) -> int:
    """Audit locks and return the exit code."""
    parser = argparse.ArgumentParser(
        description="Tell which locked packages an advisory speaks of, by an export of OSV records."
    )
    parser.add_argument(
        "export", nargs="?", default=environment().get(VARIABLE), help=f"${VARIABLE} unless given"
    )
    parser.add_argument(
        "--locks", type=Path, default=ROOT / "config", help="where the locks are; config"
    )
    options = parser.parse_args(argv)
    if not options.export:
        print(f"Not audited: {VARIABLE} names no export of advisories.")
        return 0
    try:
        findings = audit(read_locks(options.locks), Path(options.export))
    except AuditError as error:
        print(f"audit: {error}", file=sys.stderr)
        return 2
    return 1 if findings else 0


def audit(locked: Sequence[Locked], export: Path) -> list[Finding]:
    """Look for `locked` in `export`, say what came of it, and return what is affected.

    Raises:
        AuditError: the export cannot be read, or there is nothing in it.
    """
    findings: list[Finding] = []
    records: Counter[str] = Counter()
    newest = ""
    for name, record in read_export(export):
        try:
            findings += find(record, locked)
            records.update({package_of(each)[0] for each in record.get("affected", ())})
        except (ValueError, AttributeError) as error:
            raise AuditError(f"{name}: {error}") from error
        newest = max(newest, str(record.get("modified", "")))
    if not records:
        raise AuditError(f"{export} holds no OSV record")
    for each in sorted(findings, key=lambda each: (each.locked.package, each.advisory)):
        ecosystem, package = each.locked.package
        fixed = f"fixed in {each.fixed}" if each.fixed else "no fixed version is named"
        print(f"{each.advisory}  {ecosystem} {package} {each.locked.version}  {fixed}")
    for ecosystem in (PYPI, NPM):
        count = sum(each.package[0] == ecosystem for each in locked)
        print(f"{ecosystem}: {count} locked packages, {records[ecosystem]} records.")
    print(f"The newest record is of {newest[:10] or 'an unknown day'}.")
    return findings


# Locks


def read_locks(folder: Path) -> list[Locked]:
    """Return every version of every package in the locks of `folder`, each once.

    Raises:
        AuditError: one cannot be read, or there is none.
    """
    found: dict[Locked, None] = {}
    for lock in sorted(folder.glob("*.lock")):
        found |= dict.fromkeys(_of_pip(lock))
    npm = folder / "npm" / "package-lock.json"
    if npm.exists():
        found |= dict.fromkeys(_of_npm(npm))
    if not found:
        raise AuditError(f"there is no lock in {folder}")
    return list(found)


def _of_pip(lock: Path) -> Iterator[Locked]:
    for number, line in enumerate(lock.read_text(encoding="utf-8").splitlines(), 1):
        text = line.rstrip("\\").strip()
        if not text or text.startswith(("#", "--hash=")):
            continue
        try:
            wanted = Requirement(text)
        except InvalidRequirement:
            raise AuditError(f"{lock}:{number} is no requirement") from None
        pins = [each.version for each in wanted.specifier if each.operator == "=="]
        if len(pins) != 1:
            raise AuditError(f"{lock}:{number} pins no version")
        yield Locked(package=(PYPI, canonicalize_name(wanted.name)), version=pins[0])


def _of_npm(lock: Path) -> Iterator[Locked]:
    try:
        for path, entry in json.loads(lock.read_bytes())["packages"].items():
            if path and not entry.get("link"):
                name = entry.get("name") or path.rpartition("node_modules/")[2]
                yield Locked(package=(NPM, name), version=entry["version"])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise AuditError(f"{lock} is no lock of npm's") from None


# The export


def read_export(export: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the records of a folder or a zip, and of the zips in the folder, with their names.

    Raises:
        AuditError: the export, or a record in it, cannot be read.
    """
    try:
        if export.is_dir():
            for each in sorted(export.rglob("*.json")):
                with each.open("rb") as opened:
                    yield _record(opened.read(MAX_RECORD + 1), str(each))
            for each in sorted(export.rglob("*.zip")):
                yield from _zipped(each)
        else:
            yield from _zipped(export)
    except (OSError, zipfile.BadZipFile) as error:
        raise AuditError(f"{export} cannot be read: {error}") from error


def _zipped(archive: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    with zipfile.ZipFile(archive) as opened:
        for each in opened.infolist():
            if each.filename.endswith(".json"):
                with opened.open(each) as member:
                    yield _record(member.read(MAX_RECORD + 1), f"{each.filename} in {archive}")


def _record(text: bytes, name: str) -> tuple[str, Mapping[str, Any]]:
    if len(text) > MAX_RECORD:
        raise AuditError(f"{name} is longer than {MAX_RECORD} bytes")
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        raise AuditError(f"{name} is no JSON") from None
    if not isinstance(record, dict) or not isinstance(record.get("id"), str):
        raise AuditError(f"{name} is no OSV record: it has no id")
    return name, record


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
