"""What may go wrong with a store.

StoreError: the root.
    StoreUnavailable: no answer, or no replica that follows; the script may have run, so ask
        again with the same arguments.
    StoreFull: the store is at its memory limit and refused an admission; nothing was written.
    ScriptFailed: the script raised; a fault in our code or a wrong key's content.
    PartitionsDiffer: the store was made with another number of partitions, see `partitions`.
"""

from __future__ import annotations

from redis.exceptions import (
    BusyLoadingError,
    ClusterDownError,
    ConnectionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,
    TryAgainError,
)

_PASSING = ("BUSY", "NOREPLICAS", "MISCONF", "UNBLOCKED", "WAIT cannot")
"""Refusals that pass, and that the driver has no class for.

The last two are of a server that became a replica while somebody waited, or was about to.
"""


class StoreError(Exception):
    """The store did not do what was asked."""


class StoreUnavailable(StoreError):
    """No usable answer: whether the script ran is unknown, and asking again is safe."""


class StoreFull(StoreError):
    """The memory limit is reached: an admission was refused and nothing was written."""


class ScriptFailed(StoreError):
    """The script itself raised."""


class translated:  # noqa: N801
    """Turns the driver's errors into ours, once, where they leave the store."""

    def __init__(self, step: str) -> None:
        self._step = step

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        match error:
            case OutOfMemoryError():
                raise StoreFull(self._step) from error
            case ResponseError() if str(error).startswith("OOM"):
                raise StoreFull(self._step) from error
            case BusyLoadingError() | ConnectionError() | TimeoutError() | OSError():
                reason = str(error) or "no answer in time"
                raise StoreUnavailable(f"{self._step}: {reason}") from error
            case ReadOnlyError() | ClusterDownError() | TryAgainError():
                raise StoreUnavailable(f"{self._step}: {error}") from error
            case ResponseError() if str(error).startswith(_PASSING):
                raise StoreUnavailable(f"{self._step}: {error}") from error
            case RedisError():
                raise ScriptFailed(f"{self._step}: {error}") from error
            case _:
                return
