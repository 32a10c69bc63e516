"""Options and arguments that commands share, and how their texts are read."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any, ClassVar
from urllib.parse import urlsplit

import click

from config.clock import SECOND, SystemClock
from config.ids import is_id

MAX_INPUT = 64 * 2**20
"""Bytes that are read of a file or of standard input."""

_ROOT = Path(__file__).resolve().parents[2]
_AGO = re.compile(r"(?P<count>\d{1,6})(?P<unit>[smhd])", re.ASCII)
_PORTS = {"http": 80, "https": 443}
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def checkout() -> Path | None:
    """Return the folder of the checkout that this runs from; None where it was installed."""
    return _ROOT if (_ROOT / "scripts" / "setup").exists() else None


def default_data_dir() -> Path:
    """Return where `gateway up` keeps everything unless it is told where."""
    return (checkout() or Path.cwd()) / ".data"


as_json = click.option(
    "--json", "as_json", is_flag=True, help="For programs: one JSON object a line."
)

data_dir = click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    default=default_data_dir,
    help="Of the `gateway up` to ask (.data), unless GATEWAY_API_URL names another gateway.",
)


class Identifier(click.ParamType[str]):
    """An identifier such as `job_00…`."""

    def __init__(self, prefix: str, noun: str) -> None:
        self.name = noun
        self._prefix = prefix

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the identifier."""
        if is_id(self._prefix, value):
            return value
        looks = f"{value!r} is not the identifier of a {self.name}: {self._prefix}_00… is one"
        return self.fail(looks, param, ctx)


JOB = Identifier("job", "job")
DELIVERY = Identifier("msg", "delivery")
ENDPOINT = Identifier("ep", "endpoint")


class Callee(click.ParamType[str]):
    """An endpoint: by its identifier, its origin, or any URL there."""

    name = "endpoint"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the identifier, or the origin as the gateway writes it."""
        if is_id("ep", value):
            return value
        reason = (
            f"{value!r} is neither an endpoint, such as ep_00…, nor an origin: https://a.example"
        )
        try:
            parts = urlsplit(value)
            host, port = parts.hostname, parts.port
        except ValueError:
            return self.fail(reason, param, ctx)
        default = _PORTS.get(parts.scheme)
        if default is None or not host:
            return self.fail(reason, param, ctx)
        shown = f"[{host}]" if ":" in host else host
        return f"{parts.scheme}://{shown}" + ("" if port in {None, default} else f":{port}")


class Instant(click.ParamType[datetime]):
    """An instant: RFC 3339, or how long ago, such as `90s`, `30m`, `2h`, `7d`."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the instant, as a datetime with an offset."""
        if isinstance(value, datetime):
            return value
        if ago := _AGO.fullmatch(value):
            now = datetime.fromtimestamp(SystemClock().now() / SECOND, UTC)
            return now - timedelta(**{_UNITS[ago["unit"]]: int(ago["count"])})
        try:
            instant = datetime.fromisoformat(value)
        except ValueError:
            instant = None
        if instant is None or instant.tzinfo is None:
            reason = f"{value!r} is neither a time such as 2030-01-31T12:00:00Z nor one such as 2h"
            return self.fail(reason, param, ctx)
        return instant


class Number(click.ParamType[float]):
    """A number within bounds, whole ones included; `WholeNumber` takes only those."""

    name = "number"
    parse: ClassVar[Callable[[str], float]] = float

    def __init__(self, low: float, high: float = math.inf, *, noun: str = "") -> None:
        self._low, self._high = low, high
        self._noun = noun or self.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number."""
        try:
            number = type(self).parse(value)
        except ValueError:
            number = math.nan
        if self._low <= number <= self._high:
            return number
        upper = "" if self._high == math.inf else f" to {self._high}"
        reason = f"{str(value)!r} is not a {self._noun} from {self._low}{upper}"
        return self.fail(reason, param, ctx)


class WholeNumber(Number):
    """A whole number within bounds."""

    name = "whole number"
    parse = int


class Json(click.ParamType[Any]):
    """JSON: written out, `@` and the name of a file, or `-` for standard input."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the decoded value."""
        if not isinstance(value, str):
            return value
        text = value.encode() if value != "-" and value[:1] != "@" else read_bytes(value)
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            return self.fail(f"this is not JSON: {error}", param, ctx)


class Secret(click.ParamType[str]):
    """A secret, or `@` and the name of a file that holds it: a command line is no secret."""

    name = "secret"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the secret."""
        if value[:1] != "@":
            return value
        try:
            return read_bytes(value).decode("ascii").strip()
        except UnicodeDecodeError:
            return self.fail(f"{value[1:]} does not hold a secret", param, ctx)


def read_bytes(place: str) -> bytes:
    """Return the bytes of standard input for `-`, else of the file, whose name may follow an `@`.

    Raises:
        click.UsageError: there is no such file, or it is too large.
    """
    try:
        if place == "-":
            return _bounded(sys.stdin.buffer, "standard input")
        name = place.removeprefix("@")
        with Path(name).open("rb") as file:
            return _bounded(file, name)
    except OSError as error:
        raise click.UsageError(f"{error.filename or place}: {error.strerror}") from error


def _bounded(file: IO[bytes], name: str) -> bytes:
    content = file.read(MAX_INPUT + 1)
    if len(content) > MAX_INPUT:
        raise click.UsageError(f"{name} has more than {MAX_INPUT} bytes")
    return content
