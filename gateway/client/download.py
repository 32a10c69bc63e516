"""Fetching the bytes of an artifact, as a flow: taken up where they broke off, and checked."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from gateway.client.exchange import Exchange, turns
from gateway.client.files import Sink
from gateway.client.models import DownloadFailed, NoAnswer, UnexpectedAnswer
from gateway.client.steps import Ask, Do, Flow, NoReply, Pause, Read, Reply, reason_of

_RANGE = re.compile(r"bytes (\d+)-\d+/(?:\d+|\*)", re.ASCII)

ArtifactLike: TypeAlias = Mapping[str, Any] | str
"""An artifact as a result holds it, `{"href": …, "size": …, "sha256": …}`, or its href alone."""


class Downloader:
    """Fetches what one gateway keeps."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def download(self, artifact: ArtifactLike, sink: Sink) -> Flow[None]:
        """Fetch the bytes of `artifact` into `sink`."""
        wanted = _wanted(artifact)
        try:
            yield Do(sink.open)
            yield from self._fetch(wanted, sink)
            yield Do(sink.commit)
        finally:
            sink.discard()

    def _fetch(self, wanted: _Wanted, sink: Sink) -> Flow[None]:
        taken = _Taken(wanted)
        for attempt in turns(1):
            reply = yield from self._exchange.call(self._ask_for(wanted, taken))
            if not taken.continues(reply):
                taken = _Taken(wanted)
                yield Do(sink.restart)
            taken.etag = reply.headers.get("etag")
            broken = yield from self._take_pieces(taken, sink)
            if broken is None or taken.is_full:
                taken.check()
                return
            if not broken.repeatable or attempt >= self._exchange.patience.attempts:
                why = reason_of(broken.error)
                raise NoAnswer(f"the download broke off: {why}") from broken.error
            yield Pause(self._exchange.backoff(attempt))

    def _take_pieces(self, taken: _Taken, sink: Sink) -> Flow[NoReply | None]:
        """Write what comes; return what broke it off, None at its end."""
        while True:
            piece: bytes | NoReply | None = yield Read()
            if not isinstance(piece, bytes):
                return piece
            taken.add(piece)
            yield Do(partial(sink.write, piece))

    def _ask_for(self, wanted: _Wanted, taken: _Taken) -> Ask:
        headers = {"Accept": "*/*", "Accept-Encoding": "identity"}
        if taken.size and taken.etag and not taken.etag.startswith("W/"):
            headers |= {"Range": f"bytes={taken.size}-", "If-Range": taken.etag}
        return self._exchange.ask_for(wanted.href, headers)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """An artifact to download, as far as it is described."""

    href: str
    size: int | None
    sha256: str | None


class _Taken:
    """What came of a download so far."""

    def __init__(self, wanted: _Wanted) -> None:
        self._wanted = wanted
        self._digest = hashlib.sha256()
        self.size = 0
        self.etag: str | None = None

    def continues(self, reply: Reply) -> bool:
        """Whether `reply` begins where this ends."""
        if reply.status != 206:
            return self.size == 0
        found = _RANGE.fullmatch(reply.headers.get("content-range", ""))
        if found is None or int(found[1]) != self.size:
            raise UnexpectedAnswer("the download was taken up at another place")
        return True

    def add(self, piece: bytes) -> None:
        """Count the next bytes."""
        self.size += len(piece)
        self._digest.update(piece)
        if self._wanted.size is not None and self.size > self._wanted.size:
            raise DownloadFailed(f"more than the {self._wanted.size} bytes announced came")

    @property
    def is_full(self) -> bool:
        """Whether every byte that was announced came."""
        return self.size == self._wanted.size

    def check(self) -> None:
        """Pass when the bytes are those that were announced."""
        if self._wanted.size not in {None, self.size}:
            raise DownloadFailed(f"{self.size} bytes came of {self._wanted.size}")
        if self._wanted.sha256 not in {None, self._digest.hexdigest()}:
            raise DownloadFailed("the bytes do not have the SHA-256 that was announced")


def _wanted(artifact: ArtifactLike) -> _Wanted:
    match artifact:
        case str():
            return _Wanted(href=artifact, size=None, sha256=None)
        case {"href": str(href)}:
            size, sha256 = artifact.get("size"), artifact.get("sha256")
            return _Wanted(href=href, size=size, sha256=sha256)
        case _:
            raise ValueError("an artifact has an href")
