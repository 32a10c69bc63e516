"""The sections of the settings.

`defaults.toml` beside this module explains every setting, section by section.
"""

from typing import Annotated, get_args

from pydantic import BaseModel, ConfigDict, Field

from config.ids import MAX_PARTITIONS
from config.values import (
    MAX_REQUEST_SECONDS,
    Ack,
    ArtifactsUrl,
    Bytes,
    CollectorAddress,
    Count,
    DurableUrl,
    Gap,
    HeaderName,
    HeaderValue,
    HostRule,
    Method,
    Network,
    OperatorUrl,
    Origin,
    ParsedNetwork,
    Port,
    ProxyAddress,
    Role,
    SealingKeys,
    Seconds,
    StoreUrl,
    Tenant,
    UpstreamAddress,
    VerifyEndpoints,
)


class Section(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True
    )


class StoreSettings(Section):
    """The durable store."""

    url: DurableUrl
    partitions: Annotated[int, Field(ge=1, le=MAX_PARTITIONS)]
    socket_timeout_seconds: Seconds
    max_connections: Annotated[int, Field(ge=1, le=10_000)]
    maxmemory_bytes: Annotated[int, Field(ge=16 * 2**20, le=2**50)]
    ack: Ack
    replica_wait_seconds: Annotated[float, Field(ge=0.001, le=60)]

    @property
    def replica_wait(self) -> float | None:
        """Seconds that a write waits for a replica; None where it need not."""
        return self.replica_wait_seconds if self.ack == "replica" else None


class BrokerSettings(Section):
    """The soft store."""

    url: StoreUrl
    namespace: Annotated[str, Field(min_length=1, max_length=64)]


class AdminSettings(Section):
    """The admin port of each process; 0 is none."""

    host: Annotated[str, Field(min_length=1)]
    api_port: Annotated[int, Field(ge=0, le=65_535)]
    relay_port: Annotated[int, Field(ge=0, le=65_535)]
    worker_port: Annotated[int, Field(ge=0, le=65_535)]
    delivery_port: Annotated[int, Field(ge=0, le=65_535)]
    fd: Annotated[int, Field(ge=-1)]

    def port_of(self, role: Role) -> int:
        """The port of a process with this role; 0 is none."""
        port: int = getattr(self, f"{role}_port")
        return port


class ApiSettings(Section):
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
    max_connections: Annotated[int, Field(ge=1, le=1_000_000)]
    head_limit_bytes: Annotated[int, Field(ge=4096, le=2**20)]
    head_timeout_seconds: Seconds
    read_timeout_seconds: Seconds
    write_timeout_seconds: Seconds
    keep_alive_seconds: Annotated[int, Field(ge=1, le=3600)]
    max_watchers: Annotated[int, Field(ge=1, le=1_000_000)]
    heartbeat_seconds: Annotated[float, Field(gt=0, le=3600)]
    send_timeout_seconds: Annotated[float, Field(gt=0, le=3600)]
    ws_origins: Annotated[tuple[Origin, ...], Field(max_length=1000)]
    audit_max_records: Annotated[int, Field(ge=100, le=1_000_000)]
    audit_retention_seconds: Seconds


class JobsSettings(Section):
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


class WorkerSettings(Section):
    """The Dramatiq processes."""

    processes: Annotated[int, Field(ge=1, le=1000)]
    threads: Annotated[int, Field(ge=1, le=1000)]
    grace_seconds: Annotated[float, Field(ge=0, le=3600)]


class DeliverySettings(Section):
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
    allow_networks: Annotated[tuple[ParsedNetwork, ...], Field(max_length=1000)]
    deny_networks: Annotated[tuple[ParsedNetwork, ...], Field(max_length=1000)]
    allow_hosts: Annotated[tuple[HostRule, ...], Field(max_length=1000)]
    deny_hosts: Annotated[tuple[HostRule, ...], Field(max_length=1000)]
    egress_proxy: ProxyAddress
    endpoint_limit_initial: Annotated[int, Field(ge=1, le=100_000)]
    endpoint_limit_max: Annotated[int, Field(ge=1, le=100_000)]
    host_limit: Annotated[int, Field(ge=1, le=100_000)]
    max_endpoints_per_tenant: Count
    dead_retention_seconds: Seconds
    dead_max_count: Count
    dead_max_bytes: Bytes
    delivered_retention_seconds: Seconds
    delivered_max_count: Count
    delivered_max_bytes: Bytes
    redelivery_seconds: Seconds
    secret_overlap_seconds: Annotated[float, Field(ge=0, le=30 * 86_400)]
    verify_endpoints: VerifyEndpoints
    verify_endpoints_of: Annotated[dict[Tenant, VerifyEndpoints], Field(max_length=10_000)]
    unverified_rate_per_second: Annotated[float, Field(gt=0, le=1000)]
    contact: Annotated[str, Field(max_length=200, pattern=r"^[ -~]*$")]


class OperatorSettings(Section):
    """Who is told of dead deliveries and disabled URLs."""

    url: OperatorUrl
    tenant: Tenant


class ArtifactsSettings(Section):
    """Where artifacts are kept."""

    url: ArtifactsUrl
    shared: bool
    max_bytes_per_tenant: Bytes


class SealingSettings(Section):
    """The keys of what is sealed at rest; `keys` holds them wherever they came from."""

    keys: SealingKeys
    keys_file: str


class UpstreamSettings(Section):
    """A service that `http.request` may call; `defaults.toml` explains each setting."""

    base_url: UpstreamAddress
    headers: Annotated[
        dict[
            HeaderName,
            HeaderValue,
        ],
        Field(max_length=50),
    ] = {}
    methods: Annotated[tuple[Method, ...], Field(min_length=1, max_length=100)] = get_args(Method)
    timeout_seconds: Annotated[float, Field(gt=0, le=MAX_REQUEST_SECONDS)] = 60
    max_answer_bytes: Bytes = 64 * 2**20
    breaker_failures: Annotated[int, Field(ge=1, le=1_000_000)] = 5
    breaker_wait_seconds: Seconds = 30


class HttpRequestSettings(Section):
    """What `http.request` may call besides the upstreams."""

    allow_any_url: bool
    timeout_seconds: Annotated[float, Field(gt=0, le=MAX_REQUEST_SECONDS)]
    max_answer_bytes: Bytes
    breaker_failures: Annotated[int, Field(ge=1, le=1_000_000)]
    breaker_wait_seconds: Seconds


class TracingSettings(Section):
    """Where spans of traces are sent, and of how many traces."""

    endpoint: CollectorAddress
    sample_ratio: Annotated[float, Field(ge=0, le=1)]
    service_name: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[!-~]+$")]


class VideoSettings(Section):
    """What `video.transcode` takes on."""

    max_source_bytes: Bytes
    max_output_bytes: Bytes
    max_duration_seconds: Seconds
    fetch_timeout_seconds: Seconds
    threads: Annotated[int, Field(ge=0, le=1000)]
