"""Settings: merged from four layers, validated whole before anything starts.

`defaults.toml` beside this module lists and explains every setting. `load_settings` returns a
frozen `Settings` or raises one `SettingsError` with every problem found.
"""

import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Final, Literal, get_args
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
)

from config.ids import MAX_PARTITIONS
from config.keys import parse_keys
from config.layers import DEFAULTS, ENVIRONMENT, PREFIX, Draft, Tree, Variable, gather

LEASE_MARGIN_SECONDS: Final = 10
"""Time left between the end of the slowest attempt and the end of its lease, to record it."""

MAX_REQUEST_SECONDS: Final = 3_600
"""The longest that `http.request` waits for an answer."""

_STORE_SCHEMES: Final = ("redis://", "rediss://", "unix://")
_ARTIFACT_SCHEMES: Final = ("file://", "s3://", "gs://", "az://")

# Not the grammar for what clients send: an operator may name a service beside the gateway, by a
# short name or a private address. What is built on it is still one URL to every parser.
_UPSTREAM_ADDRESS: Final = re.compile(
    r"https?://(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\])(?P<port>:\d{1,5})?"
    r"(?P<path>(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})*)*)",
    re.ASCII,
)
_ROUTE: Final = re.compile(r"(?:/[A-Za-z0-9._~-]{1,100}){1,8}", re.ASCII)
_OWN_PATHS: Final = frozenset(
    {"v1", "problems", "docs", "openapi.json", "jobs", "livez", "readyz", "metrics", ".well-known"}
)
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}", re.ASCII)
_HEADER_VALUE: Final = re.compile(r"[!-~](?:[ -~]{0,8190}[!-~])?", re.ASCII)

Profile = Literal["development", "production"]
Method = Literal["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"]


class SettingsError(Exception):
    """The settings cannot be used. `problems` has one line for each thing to mend."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems: Final = tuple(problems)
        lines = "\n".join(f"  {problem}" for problem in self.problems)
        super().__init__(f"the settings cannot be used:\n{lines}")


def _scheme_of(*schemes: str) -> AfterValidator:
    def check(url: str) -> str:
        if url and not url.startswith(schemes):
            raise ValueError(f"must start with {', '.join(schemes)}")
        return url

    return AfterValidator(check)


def _web_address(url: str) -> str:
    if not url:
        return url
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must be an http or https URL with a host")
    if parts.query or parts.fragment or parts.username or parts.password:
        raise ValueError("must have no query, fragment or user name")
    return url.rstrip("/")


def _folders(value: object) -> object:
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


Origin = Annotated[str, AfterValidator(_origin)]
Network = Annotated[str, AfterValidator(_network)]
Seconds = Annotated[float, Field(gt=0, le=366 * 86_400)]
Gap = Annotated[float, Field(ge=0, le=366 * 86_400)]
Bytes = Annotated[int, Field(ge=1, le=2**50)]
Port = Annotated[int, Field(ge=1, le=65_535)]
StoreUrl = Annotated[str, Field(repr=False), _scheme_of(*_STORE_SCHEMES)]
Folder = Annotated[Path, AfterValidator(_existing_folder)]


class _Section(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True
    )


class StoreSettings(_Section):
    """The durable store."""

    url: StoreUrl
    partitions: Annotated[int, Field(ge=1, le=MAX_PARTITIONS)]
    socket_timeout_seconds: Seconds
    max_connections: Annotated[int, Field(ge=1, le=10_000)]
    maxmemory_bytes: Annotated[int, Field(ge=16 * 2**20, le=2**50)]


class BrokerSettings(_Section):
    """The soft store."""

    url: StoreUrl
    namespace: Annotated[str, Field(min_length=1, max_length=64)]


class ApiSettings(_Section):
    """The HTTP API."""

    host: Annotated[str, Field(min_length=1)]
    port: Annotated[int, Field(ge=0, le=65_535)]
    fd: Annotated[int, Field(ge=-1)]
    body_limit_bytes: Bytes
    json_depth: Annotated[int, Field(ge=1, le=200)]
    upload_limit_bytes: Bytes
    metadata_limit_bytes: Bytes
    require_idempotency_key: bool
    ticket_seconds: Seconds
    redirect_ticket_seconds: Seconds
    rate_limits: bool
    polls_per_minute: Annotated[int, Field(ge=1, le=1_000_000)]
    submits_per_minute: Annotated[int, Field(ge=1, le=1_000_000)]
    cors_origins: Annotated[tuple[Origin, ...], Field(max_length=1000)]
    trusted_proxies: Annotated[tuple[Network, ...], Field(max_length=1000)]
    max_concurrent_requests: Annotated[int, Field(ge=1, le=1_000_000)]
    head_limit_bytes: Annotated[int, Field(ge=4096, le=2**20)]
    head_timeout_seconds: Seconds
    read_timeout_seconds: Seconds
    write_timeout_seconds: Seconds
    keep_alive_seconds: Annotated[int, Field(ge=1, le=3600)]
    max_watchers: Annotated[int, Field(ge=1, le=1_000_000)]
    heartbeat_seconds: Annotated[float, Field(gt=0, le=3600)]
    send_timeout_seconds: Annotated[float, Field(gt=0, le=3600)]
    ws_origins: Annotated[tuple[Origin, ...], Field(max_length=1000)]


class JobsSettings(_Section):
    """The life of a job."""

    modules: Annotated[tuple[str, ...], Field(min_length=1, max_length=1000)]
    lease_seconds: Annotated[float, Field(ge=3, le=3600)]
    result_ttl_seconds: Seconds
    tombstone_seconds: Seconds
    retry_gaps_seconds: Annotated[tuple[Gap, ...], Field(min_length=1, max_length=100)]
    inline_limit_bytes: Bytes
    ring_again_seconds: Seconds
    ring_again_max_seconds: Seconds
    sweep_seconds: Annotated[float, Field(gt=0, le=60)]
    max_pending: Annotated[int, Field(ge=1)]
    max_pending_per_tenant: Annotated[int, Field(ge=1)]
    file_ttl_seconds: Seconds


class WorkerSettings(_Section):
    """The Dramatiq processes."""

    processes: Annotated[int, Field(ge=1, le=1000)]
    threads: Annotated[int, Field(ge=1, le=1000)]
    grace_seconds: Annotated[float, Field(ge=0, le=3600)]


class DeliverySettings(_Section):
    """Sending callbacks. `gaps_seconds` and the deadlines are those of the webhook contract."""

    concurrency: Annotated[int, Field(ge=1, le=100_000)]
    lease_seconds: Seconds
    gaps_seconds: Annotated[tuple[Gap, ...], Field(min_length=1, max_length=100)]
    max_age_seconds: Seconds
    jitter: Annotated[float, Field(ge=0, le=1)]
    dns_timeout_seconds: Seconds
    connect_timeout_seconds: Seconds
    first_byte_timeout_seconds: Seconds
    total_timeout_seconds: Annotated[float, Field(gt=0, le=3600)]
    allow_http: bool
    allow_loopback: bool
    ports: Annotated[tuple[Port, ...], Field(max_length=1000)]
    endpoint_limit_initial: Annotated[int, Field(ge=1, le=100_000)]
    endpoint_limit_max: Annotated[int, Field(ge=1, le=100_000)]
    dead_retention_seconds: Seconds
    delivered_retention_seconds: Seconds
    contact: Annotated[str, Field(max_length=200, pattern=r"^[ -~]*$")]


class ArtifactsSettings(_Section):
    """Where artifacts are kept."""

    url: Annotated[str, _scheme_of(*_ARTIFACT_SCHEMES)]
    shared: bool


class SealingSettings(_Section):
    """The keys of what is sealed at rest; `keys` holds them wherever they came from."""

    keys: Annotated[SecretStr, AfterValidator(_sealing_keys)]
    keys_file: str


class UpstreamSettings(_Section):
    """A service that `http.request` may call; `defaults.toml` explains each setting."""

    base_url: Annotated[str, AfterValidator(_upstream_address)]
    headers: Annotated[
        dict[
            Annotated[str, AfterValidator(_header_name)],
            Annotated[SecretStr, AfterValidator(_header_value)],
        ],
        Field(max_length=50),
    ] = {}
    methods: Annotated[tuple[Method, ...], Field(min_length=1, max_length=100)] = get_args(Method)
    timeout_seconds: Annotated[float, Field(gt=0, le=MAX_REQUEST_SECONDS)] = 60
    max_answer_bytes: Bytes = 64 * 2**20
    breaker_failures: Annotated[int, Field(ge=1, le=1_000_000)] = 5
    breaker_wait_seconds: Seconds = 30


class HttpRequestSettings(_Section):
    """What `http.request` may call besides the upstreams."""

    allow_any_url: bool
    timeout_seconds: Annotated[float, Field(gt=0, le=MAX_REQUEST_SECONDS)]
    max_answer_bytes: Bytes
    breaker_failures: Annotated[int, Field(ge=1, le=1_000_000)]
    breaker_wait_seconds: Seconds


class VideoSettings(_Section):
    """What `video.transcode` takes on."""

    max_source_bytes: Bytes
    max_output_bytes: Bytes
    max_duration_seconds: Seconds
    fetch_timeout_seconds: Seconds
    threads: Annotated[int, Field(ge=0, le=1000)]


RoutePath = Annotated[str, AfterValidator(_route_path)]
UpstreamName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]


class Settings(_Section):
    """Every setting of one process, checked against each other."""

    profile: Profile
    public_url: Annotated[str, AfterValidator(_web_address)]
    bootstrap_api_key: SecretStr
    handlers_path: Annotated[tuple[Folder, ...], BeforeValidator(_folders)]
    store: StoreSettings
    broker: BrokerSettings
    api: ApiSettings
    jobs: JobsSettings
    worker: WorkerSettings
    delivery: DeliverySettings
    artifacts: ArtifactsSettings
    sealing: SealingSettings
    upstreams: Annotated[dict[UpstreamName, UpstreamSettings], Field(max_length=1000)]
    routes: Annotated[dict[RoutePath, Annotated[str, Field(max_length=64)]], Field(max_length=1000)]
    http_request: HttpRequestSettings
    video: VideoSettings

    @property
    def is_development(self) -> bool:
        return self.profile == "development"


def _variables() -> Iterator[Variable]:
    for top, field in Settings.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            for name, inner in section.model_fields.items():
                yield _variable((top, name), inner.annotation)
        else:
            yield _variable((top,), field.annotation)


def _variable(path: tuple[str, ...], annotation: object) -> Variable:
    is_text = annotation in {str, SecretStr} or all(
        isinstance(arg, str) for arg in get_args(annotation) or (0,)
    )
    return Variable(name=PREFIX + "_".join(path).upper(), path=path, is_text=is_text)


VARIABLES: Final[Mapping[str, Variable]] = {v.name: v for v in _variables()}
"""Every GATEWAY_ variable that is a setting, by name."""


def environment() -> dict[str, str]:
    """A copy of this process's environment."""
    return dict(os.environ)


@cache
def current_settings() -> Settings:
    """The settings of this process, for job handlers and their inputs; read at first use.

    Raises SettingsError as `load_settings` does.
    """
    return load_settings(environment())


@cache
def default_routes() -> Mapping[str, str]:
    """The routes of the defaults file: job types by path."""
    routes: Mapping[str, str] = tomllib.loads(DEFAULTS.read_text(encoding="utf-8"))["routes"]
    return routes


def draft_settings(environ: Mapping[str, str]) -> Draft:
    """The layers for `environ`, merged and not yet judged."""
    return gather(environ, VARIABLES)


def load_settings(environ: Mapping[str, str]) -> Settings:
    """The settings for `environ`: defaults, profile, file, environment, in rising precedence.

    Raises SettingsError naming every unknown key, unusable value and contradiction.
    """
    draft = draft_settings(environ)
    values, problems = draft.values, list(draft.problems)
    problems += _read_keys_file(values)
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsError([*problems, *_explain(error, draft.origins)]) from None
    problems += conflicts(settings)
    if problems:
        raise SettingsError(problems)
    return settings


def _read_keys_file(values: Tree) -> Iterator[str]:
    """Puts the keys of `sealing.keys_file` into `sealing.keys`; yields what is wrong with it."""
    sealing = values.get("sealing")
    if not isinstance(sealing, dict) or not (name := sealing.get("keys_file")):
        return
    if sealing.get("keys"):
        yield "sealing.keys, sealing.keys_file: set one of them, not both"
        return
    try:
        values["sealing"] = {**sealing, "keys": Path(str(name)).read_text(encoding="ascii")}
    except OSError as error:
        yield f"sealing.keys_file: cannot read {name}: {error.strerror}"
    except UnicodeDecodeError:
        yield f"sealing.keys_file: {name} is not a text file of keys"


def _explain(error: ValidationError, origins: Mapping[tuple[str, ...], str]) -> Iterator[str]:
    for detail in error.errors(include_url=False, include_context=False, include_input=False):
        where = detail["loc"]
        names = tuple(str(part) for part in where if isinstance(part, str))
        source = origins.get(names, "")
        if source == ENVIRONMENT:
            source = _variable_of(names)
        suffix = f" (from {source})" if source else ""
        match detail["type"]:
            case "extra_forbidden":
                message = "no such setting"
            case "missing":
                message = "is missing"
            case _:
                message = detail["msg"].removeprefix("Value error, ")
        yield f"{'.'.join(map(str, where))}: {message}{suffix}"


def _variable_of(path: tuple[str, ...]) -> str:
    """The variable that holds the setting at `path`, which may lie inside a table."""
    for variable in VARIABLES.values():
        if path[: len(variable.path)] == variable.path:
            return variable.name
    return PREFIX + "_".join(path).upper()


def conflicts(settings: Settings) -> Iterator[str]:
    """What is wrong between settings that are each well-formed; one line a problem."""
    yield from _missing(settings)
    yield from _timing(settings)
    if not settings.is_development:
        yield from _not_in_production(settings)


def _missing(settings: Settings) -> Iterator[str]:
    needed = {
        "public_url": settings.public_url,
        "store.url": settings.store.url,
        "broker.url": settings.broker.url,
        "artifacts.url": settings.artifacts.url,
        "sealing.keys": settings.sealing.keys.get_secret_value().strip(),
    }
    for path, value in needed.items():
        if not value:
            yield f"{path}: must be set ({PREFIX}{path.replace('.', '_').upper()})"
    if settings.store.url and settings.store.url == settings.broker.url:
        yield "broker.url: must be another server than store.url"


def _timing(settings: Settings) -> Iterator[str]:
    delivery, jobs = settings.delivery, settings.jobs
    shortest = delivery.total_timeout_seconds + LEASE_MARGIN_SECONDS
    if delivery.lease_seconds < shortest:
        yield (
            f"delivery.lease_seconds: must be at least {shortest:g}, "
            f"{LEASE_MARGIN_SECONDS} more than delivery.total_timeout_seconds"
        )
    for name in ("dns", "connect", "first_byte"):
        if getattr(delivery, f"{name}_timeout_seconds") > delivery.total_timeout_seconds:
            yield f"delivery.{name}_timeout_seconds: must not exceed delivery.total_timeout_seconds"
    if delivery.endpoint_limit_initial > delivery.endpoint_limit_max:
        yield "delivery.endpoint_limit_initial: must not exceed delivery.endpoint_limit_max"
    if jobs.ring_again_seconds > jobs.ring_again_max_seconds:
        yield "jobs.ring_again_seconds: must not exceed jobs.ring_again_max_seconds"


def _not_in_production(settings: Settings) -> Iterator[str]:
    if settings.public_url.startswith("http://"):
        yield "public_url: production takes https only"
    for name in ("allow_http", "allow_loopback"):
        if getattr(settings.delivery, name):
            yield f"delivery.{name}: only the development profile may open it"
    if settings.artifacts.url.startswith("file://") and not settings.artifacts.shared:
        yield (
            "artifacts.url: production refuses a local folder; name an object store, or set "
            "artifacts.shared when every host sees the same folder"
        )
