"""What a single setting may be, and why one is refused."""

import os
import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from config.keys import parse_keys

MAX_REQUEST_SECONDS: Final = 3_600
"""The longest that `http.request` waits for an answer."""

SENTINEL_SCHEMES: Final = ("redis+sentinel://", "rediss+sentinel://")
"""What the URL of a store begins with that is found by its Sentinels."""

_STORE_SCHEMES: Final = ("redis://", "rediss://", "unix://")
_ARTIFACT_SCHEMES: Final = ("file://", "s3://", "gs://", "az://")

# Not the grammar for what clients send: an operator may name a service beside the gateway, by a
# short name or a private address. What is built on it is still one URL to every parser.
_UPSTREAM_ADDRESS: Final = re.compile(
    r"https?://(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\])(?P<port>:\d{1,5})?"
    r"(?P<path>(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})*)*)",
    re.ASCII,
)

_PLACE: Final = r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?"
_SENTINELS: Final = re.compile(
    rf"rediss?\+sentinel://(?:[^/?#@\s]*@)?(?P<places>{_PLACE}(?:,{_PLACE}){{0,15}})"
    r"/[A-Za-z0-9._-]{1,100}(?:\?[^#\s]*)?",
    re.ASCII,
)

_HOST_RULE: Final = re.compile(
    r"\.?(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)"
    r"(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*",
    re.ASCII,
)

_PROXY: Final = re.compile(
    r"http://(?:(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+"
    r"(?::(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)?@)?"
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\]):(?P<port>\d{1,5})/?",
    re.ASCII,
)

_ROUTE: Final = re.compile(r"(?:/[A-Za-z0-9._~-]{1,100}){1,8}", re.ASCII)
_OWN_PATHS: Final = frozenset(
    {"v1", "problems", "docs", "openapi.json", "jobs", "livez", "readyz", "metrics", ".well-known"}
)
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}", re.ASCII)
_HEADER_VALUE: Final = re.compile(r"[!-~](?:[ -~]{0,8190}[!-~])?", re.ASCII)

Role = Literal["api", "relay", "worker", "delivery"]
"""What a process is."""

Ack = Literal["fsync", "replica"]
"""What keeps a write once it is answered: the store's disk, or one more server."""

VerifyEndpoints = Literal["off", "low_rate", "refuse"]
Tenant = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
Method = Literal["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"]


def _scheme_of(*schemes: str) -> AfterValidator:
    def check(url: str) -> str:
        if url and not url.startswith(schemes):
            raise ValueError(f"must start with {', '.join(schemes)}")
        return url

    return AfterValidator(check)


def _sentinels(url: str) -> str:
    if not url.startswith(SENTINEL_SCHEMES):
        return url
    found = _SENTINELS.fullmatch(url)
    if found is None:
        scheme = url.partition("://")[0]
        raise ValueError(f"must be {scheme}://host:port,host:port/name")
    for place in found["places"].split(","):
        _, colon, port = place.rpartition(":")
        if colon and port.isdecimal() and not 1 <= int(port) <= 65_535:
            raise ValueError("must have ports from 1 to 65535")
    return url


def web_address(url: str) -> str:
    if not url:
        return url
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must be an http or https URL with a host")
    if parts.query or parts.fragment or parts.username or parts.password:
        raise ValueError("must have no query, fragment or user name")
    return url.rstrip("/")


def folders(value: object) -> object:
    if isinstance(value, str):
        return tuple(part for part in value.split(os.pathsep) if part)
    return value


def _existing_folder(path: Path) -> Path:
    if not path.is_dir():
        raise ValueError(f"no such folder: {path}")
    return path


def _sealing_keys(secret: SecretStr) -> SecretStr:
    """Judge keys that are given; that some are needed is judged with the other settings."""
    text = secret.get_secret_value()
    if text.strip():
        parse_keys(text)
    return secret


def _upstream_address(url: str) -> str:
    found = _UPSTREAM_ADDRESS.fullmatch(url)
    if found is None:
        raise ValueError(
            "must be http or https, a host, and perhaps a port and a path; no query, fragment or "
            "user name"
        )
    if found["port"] and not 1 <= int(found["port"][1:]) <= 65_535:
        raise ValueError("must have a port from 1 to 65535")
    if not {".", ".."}.isdisjoint(found["path"].lower().replace("%2e", ".").split("/")):
        raise ValueError("must have no . or .. in its path")
    return url.rstrip("/")


def _collector_address(url: str) -> str:
    return _upstream_address(url) if url else url


def _route_path(path: str) -> str:
    if not _ROUTE.fullmatch(path) or not {".", ".."}.isdisjoint(path.split("/")):
        raise ValueError("must be a path such as /api/reports, without a slash at its end")
    first = path.split("/")[1]
    if first in _OWN_PATHS:
        raise ValueError(f"must not begin with /{first}, which is the gateway's own")
    return path


def _header_name(name: str) -> str:
    if not _HEADER_NAME.fullmatch(name):
        raise ValueError("must be the name of an HTTP header")
    return name.lower()


def _header_value(value: SecretStr) -> SecretStr:
    if not _HEADER_VALUE.fullmatch(value.get_secret_value()):
        raise ValueError("must be printable ASCII without spaces around it")
    return value


def _origin(origin: str) -> str:
    parts = urlsplit(origin)
    is_plain = origin == f"{parts.scheme}://{parts.netloc}".lower() and "@" not in origin
    is_web = parts.scheme in {"http", "https"} and bool(parts.hostname)
    if origin != "*" and not (is_plain and is_web):
        raise ValueError("must be * or a scheme and a host, such as https://app.example.com")
    return origin


def _network(network: str) -> str:
    try:
        return str(ip_network(network))
    except ValueError:
        raise ValueError("must be an address or a network, such as 10.0.0.0/8") from None


def _host_rule(rule: str) -> str:
    if not _HOST_RULE.fullmatch(rule) or rule.rpartition(".")[2].isdigit():
        raise ValueError(
            "must be a name such as hooks.example.com, or the end of names with a dot in front, "
            "such as .example.com"
        )
    return rule.lower()


def _parsed_network(network: object) -> IPv4Network | IPv6Network:
    return ip_network(_network(str(network)))


def _proxy_address(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value()
    found = _PROXY.fullmatch(text)
    if text and (found is None or not 1 <= int(found["port"]) <= 65_535):
        raise ValueError(
            "must be http://host:port or http://user:password@host:port, the user name and the "
            "password percent-encoded"
        )
    return secret


Origin = Annotated[str, AfterValidator(_origin)]
HostRule = Annotated[str, AfterValidator(_host_rule)]
ParsedNetwork = Annotated[IPv4Network | IPv6Network, BeforeValidator(_parsed_network)]
Network = Annotated[str, AfterValidator(_network)]
Seconds = Annotated[float, Field(gt=0, le=366 * 86_400)]
Gap = Annotated[float, Field(ge=0, le=366 * 86_400)]
Bytes = Annotated[int, Field(ge=1, le=2**50)]
Count = Annotated[int, Field(ge=1, le=2**40)]
Port = Annotated[int, Field(ge=1, le=65_535)]
StoreUrl = Annotated[str, Field(repr=False), _scheme_of(*_STORE_SCHEMES)]
DurableUrl = Annotated[
    str,
    Field(repr=False),
    _scheme_of(*_STORE_SCHEMES, *SENTINEL_SCHEMES),
    AfterValidator(_sentinels),
]
Folder = Annotated[Path, AfterValidator(_existing_folder)]
RoutePath = Annotated[str, AfterValidator(_route_path)]
UpstreamName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
ProxyAddress = Annotated[SecretStr, AfterValidator(_proxy_address)]
OperatorUrl = Annotated[str, Field(repr=False, max_length=2048), _scheme_of("https://", "http://")]
ArtifactsUrl = Annotated[str, _scheme_of(*_ARTIFACT_SCHEMES)]
SealingKeys = Annotated[SecretStr, AfterValidator(_sealing_keys)]
UpstreamAddress = Annotated[str, AfterValidator(_upstream_address)]
HeaderName = Annotated[str, AfterValidator(_header_name)]
HeaderValue = Annotated[SecretStr, AfterValidator(_header_value)]
CollectorAddress = Annotated[str, AfterValidator(_collector_address)]
