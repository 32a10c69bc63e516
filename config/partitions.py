"""How many partitions a store is made with."""

from __future__ import annotations

from config.errors import StoreError, translated
from config.scripts import META_PREFIX
from config.store import Store


class PartitionsDiffer(StoreError):
    """The store was made with another number of partitions than the settings ask for."""

    def __init__(self, *, kept: int, asked: int) -> None:
        super().__init__(
            f"store.partitions is {asked}, but this store was made with {kept}: "
            f"set it to {kept}, or start with an empty store"
        )


_PARTITIONS = f"{META_PREFIX}partitions"


async def agree_on_partitions(store: Store, partitions: int) -> None:
    """Write the number of partitions into a new store, or demand that it is the one written there.

    Every identifier names its partition, so another number would look for objects where they are
    not.

    Raises:
        PartitionsDiffer: the store was made with another number.
        StoreUnavailable: no answer.
    """
    with translated("SET"):
        await store.client.set(_PARTITIONS, partitions, nx=True)
    kept = await kept_partitions(store)
    if kept is not None and kept != partitions:
        raise PartitionsDiffer(kept=kept, asked=partitions)


async def kept_partitions(store: Store) -> int | None:
    """Return the number of partitions that the store was made with; None for a new one.

    Raises:
        StoreUnavailable: no answer.
    """
    with translated("GET"):
        kept = await store.client.get(_PARTITIONS)
    return None if kept is None else int(kept)
