"""Settings: merged from four layers, validated whole before anything starts.

`defaults.toml` beside this module lists and explains every setting. `load_settings` returns a
frozen `Settings` or raises one `SettingsError` with every problem found.
"""

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Final, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
)

from config.layers import DEFAULTS, ENVIRONMENT, PREFIX, Draft, Tree, Variable, gather
from config.sections import (
    AdminSettings,
    ApiSettings,
    ArtifactsSettings,
    BrokerSettings,
    DeliverySettings,
    HttpRequestSettings,
    JobsSettings,
    OperatorSettings,
    SealingSettings,
    Section,
    StoreSettings,
    TracingSettings,
    UpstreamSettings,
    VideoSettings,
    WorkerSettings,
)
from config.tracing import can_record
from config.values import Folder, RoutePath, UpstreamName, folders, web_address
from config.variables import environment as environment  # noqa: PLC0414  asked for with them

LEASE_MARGIN_SECONDS: Final = 10
"""Time left between the end of the slowest attempt and the end of its lease, to record it."""

Profile = Literal["development", "production"]


class SettingsError(Exception):
    """The settings cannot be used. `problems` has one line for each thing to mend."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems: Final = tuple(problems)
        lines = "\n".join(f"  {problem}" for problem in self.problems)
        super().__init__(f"the settings cannot be used:\n{lines}")


class Settings(Section):
    """Every setting of one process, checked against each other."""

    profile: Profile
    public_url: Annotated[str, AfterValidator(web_address)]
    bootstrap_api_key: SecretStr
    handlers_path: Annotated[tuple[Folder, ...], BeforeValidator(folders)]
    store: StoreSettings
    broker: BrokerSettings
    admin: AdminSettings
    api: ApiSettings
    jobs: JobsSettings
    worker: WorkerSettings
    delivery: DeliverySettings
    operator: OperatorSettings
    artifacts: ArtifactsSettings
    sealing: SealingSettings
    upstreams: Annotated[dict[UpstreamName, UpstreamSettings], Field(max_length=1000)]
    routes: Annotated[dict[RoutePath, Annotated[str, Field(max_length=64)]], Field(max_length=1000)]
    http_request: HttpRequestSettings
    video: VideoSettings
    tracing: TracingSettings

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
            source = variable_of(names)
        suffix = f" (from {source})" if source else ""
        match detail["type"]:
            case "extra_forbidden":
                message = "no such setting"
            case "missing":
                message = "is missing"
            case _:
                message = detail["msg"].removeprefix("Value error, ")
        yield f"{'.'.join(map(str, where))}: {message}{suffix}"


def variable_of(path: tuple[str, ...]) -> str:
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
    if settings.tracing.endpoint and not can_record():
        yield (
            "tracing.endpoint: traces need packages that are not installed here; run "
            "scripts/setup otel, or install the project with its extra otel"
        )


def _timing(settings: Settings) -> Iterator[str]:
    store, delivery, jobs = settings.store, settings.delivery, settings.jobs
    # The server's "nobody has it" must come before its silence counts as its absence.
    if store.replica_wait is not None and store.replica_wait > store.socket_timeout_seconds / 2:
        yield "store.replica_wait_seconds: must not exceed half of store.socket_timeout_seconds"
    # A store that is away for a third of a lease costs no attempt its own.
    total = delivery.total_timeout_seconds
    shortest = max(total + LEASE_MARGIN_SECONDS, 1.5 * total)
    if delivery.lease_seconds < shortest:
        yield (
            f"delivery.lease_seconds: must be at least {shortest:g}, "
            f"{LEASE_MARGIN_SECONDS} more than delivery.total_timeout_seconds, "
            "and half as long again"
        )
    for name in ("dns", "connect", "first_byte"):
        if getattr(delivery, f"{name}_timeout_seconds") > delivery.total_timeout_seconds:
            yield f"delivery.{name}_timeout_seconds: must not exceed delivery.total_timeout_seconds"
    if delivery.endpoint_limit_initial > delivery.endpoint_limit_max:
        yield "delivery.endpoint_limit_initial: must not exceed delivery.endpoint_limit_max"
    if delivery.redelivery_seconds > delivery.delivered_retention_seconds:
        yield "delivery.redelivery_seconds: must not exceed delivery.delivered_retention_seconds"
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
