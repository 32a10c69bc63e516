"""Uploaded files that belong to no job yet: their records, and how long they live.

The bytes are in the artifact store, written before the record. A file lives for its time to live,
and each job that uses it begins that anew; the job has a copy of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from config.ids import is_id, partition_of
from config.scripts import pairs
from gateway.models import StoredFile
from gateway.transitions import Transitions

PREFIX = "file"
"""What the identifiers of files begin with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadedFile:
    """A file as the store has it.

    Attributes:
        id: its identifier.
        tenant: whose it is.
        file: what it holds.
        expires_at: when it goes unless it is used before, µs.
    """

    id: str
    tenant: str
    file: StoredFile
    expires_at: int

    @classmethod
    def decode(cls, file_id: str, kept: Mapping[str, bytes]) -> Self:
        """Return the file that the hash fields `kept` describe."""
        return cls(
            id=file_id,
            tenant=kept["tenant"].decode(),
            file=StoredFile(
                path=kept["path"].decode(),
                name=kept["name"].decode(),
                size=int(kept["size"]),
                sha256=kept["sha256"].decode(),
                content_type=kept["contentType"].decode(),
            ),
            expires_at=int(kept["expiresAt"]),
        )


class FileStore(Transitions):
    """The files of all partitions. Every method may be called again after `StoreUnavailable`."""

    async def put(self, file_id: str, tenant: str, file: StoredFile, *, life: int) -> UploadedFile:
        """Keep the record of a file whose bytes are kept; one that exists is returned as it is.

        Args:
            file_id: fresh.
            tenant: whose it is.
            file: what it holds.
            life: µs until it expires unless it is used.

        Raises:
            StoreFull: nothing was written.
        """
        fields = {"tenant": tenant, **file.encode()}
        reply = await self._run(
            "put_file",
            partition_of(file_id),
            file_id,
            life,
            *(part for field in fields.items() for part in field),
        )
        return self._file(file_id, reply)

    async def find(self, file_id: str, tenant: str) -> UploadedFile | None:
        """Return the file if it is there and is `tenant`'s."""
        if not self._can_be(file_id):
            return None
        reply = await self._run("find_file", partition_of(file_id), file_id)
        if reply is None:
            return None
        found = self._file(file_id, reply)
        return found if found.tenant == tenant else None

    async def use(
        self, file_ids: Sequence[str], tenant: str, *, life: int
    ) -> dict[str, UploadedFile]:
        """Begin the lives of files anew, in one round trip; return those that are `tenant`'s."""
        known = [file_id for file_id in file_ids if self._can_be(file_id)]
        replies = await self._store.run_all(
            [
                self._call("use_file", partition_of(file_id), file_id, tenant, life)
                for file_id in known
            ]
        )
        return {
            file_id: self._file(file_id, reply)
            for file_id, reply in zip(known, replies, strict=True)
            if reply is not None
        }

    async def expire(self, *, at_most: int) -> list[str]:
        """Forget files past their time, `at_most` in each partition.

        Returns:
            Those whose bytes are to be deleted; they come again until `forget` is told so.
        """
        replies = await self._everywhere("expire_files", at_most)
        return [file_id.decode() for reply in replies for file_id in reply]

    async def forget(self, file_id: str) -> None:
        """Note that the bytes of an expired file are deleted."""
        await self._run("forget_file", partition_of(file_id), file_id)

    def _can_be(self, file_id: str) -> bool:
        return is_id(PREFIX, file_id) and partition_of(file_id) < self.partitions

    def _file(self, file_id: str, reply: list[Any]) -> UploadedFile:
        now, flat = reply
        self._clock.heard(now)
        return UploadedFile.decode(file_id, pairs(flat))
