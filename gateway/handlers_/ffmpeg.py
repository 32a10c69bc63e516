"""ffmpeg as a child process: what is in a file, and encoding it anew.

The source reaches ffmpeg as an open file and by no name, and ffmpeg may open nothing else: a
playlist or a reference inside the source leads nowhere. Only containers of video are recognised.
ffmpeg sees none of this process's environment, and does not outlive the call.
"""

from __future__ import annotations

import importlib
import os
import re
import selectors
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast

from gateway.handlers import JobError

_CONTAINERS: Final = "mov,matroska,avi,flv,mpegts,mpeg,asf,ogg,mxf,ivf,nut,dv,gif,h264,hevc,m4v"
_MAX_PIXELS: Final = 36_000_000  # of one decoded picture: a little more than 8K
_LOOK_SECONDS: Final = 0.2
_BLOCK: Final = 64 * 1024
_KEPT_HEAD: Final = 64 * 1024
_KEPT_TAIL: Final = 4 * 1024

_DIMENSIONS = re.compile(r"^#dimensions 0: (\d+)x(\d+)$", re.MULTILINE)
_ASPECT = re.compile(r"^#sar 0: (\d+)/(\d+)$", re.MULTILINE)
_PICTURE = re.compile(r"^0,", re.MULTILINE)
# Metadata, which may hold anything, is indented further.
_DURATION = re.compile(r"^  Duration: (\d+):(\d\d):(\d\d(?:\.\d+)?),", re.MULTILINE)

Look = Callable[[], object]
"""Called several times a second while ffmpeg runs; what it raises ends ffmpeg."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What a video looks like.

    Attributes:
        width: in square pixels, after any rotation that the file asks for.
        height: the same.
        duration: in seconds.
    """

    width: int
    height: int
    duration: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """What to make of a video.

    Attributes:
        width: in pixels, even.
        height: in pixels, even.
        max_seconds: what is longer is cut there.
        threads: 0 for as many as there are processors.
    """

    width: int
    height: int
    max_seconds: float
    threads: int


@dataclass(slots=True)
class _Kept:
    """The beginning and the end of a stream of any length."""

    head: bytearray = field(default_factory=bytearray)
    tail: bytearray = field(default_factory=bytearray)

    def feed(self, data: bytes) -> None:
        self.head += data[: _KEPT_HEAD - len(self.head)]
        self.tail = (self.tail + data)[-_KEPT_TAIL:]

    def text(self) -> str:
        return self.head.decode("utf-8", "replace")

    def end(self) -> str:
        return self.tail.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ended:
    code: int
    output: _Kept
    errors: _Kept


def find() -> str:
    """Return the path of ffmpeg.

    Raises:
        JobError: `ffmpeg_missing`, saying how to install it.
    """
    try:
        return cast("str", importlib.import_module("imageio_ffmpeg").get_ffmpeg_exe())
    except (ImportError, RuntimeError) as error:
        raise JobError(
            "Transcoding needs ffmpeg, which is not installed here. Run scripts/setup video, then "
            "start the gateway again.",
            code="ffmpeg_missing",
        ) from error


def probe(source: int, look: Look) -> Picture:
    """Return what the video in the open file `source` looks like; decodes its first picture.

    Raises:
        JobError: `video_unreadable`, `video_has_no_picture`.
    """
    ended = _run(
        [*_input(source), "-map", "0:V:0", "-frames:v", "1", "-f", "framecrc", "-"], source, look
    )
    said = ended.errors.text()
    if "matches no streams" in said:
        raise JobError("The file holds no video, only sound.", code="video_has_no_picture")
    shown = ended.output.text()
    size, aspect = _DIMENSIONS.search(shown), _ASPECT.search(shown)
    if ended.code != 0 or size is None or not _PICTURE.search(shown):
        raise _unreadable(ended)
    width, height = int(size[1]), int(size[2])
    wide, high = (int(aspect[1]), int(aspect[2])) if aspect else (1, 1)
    duration = _duration(said)
    if duration is None:
        duration = _measure(source, look)
    # 0/1 stands for "unknown".
    square = round(width * wide / high) if wide and high else width
    return Picture(width=max(square, 1), height=height, duration=duration)


def encode(
    source: int,
    target: Path,
    encoding: Encoding,
    on_progress: Callable[[float, int], object],
    look: Look,
) -> None:
    """Make an MP4 with H.264 and AAC of the first video and sound in the open file `source`.

    Args:
        source: a descriptor.
        target: is overwritten.
        encoding: what to make.
        on_progress: told how many seconds are done and how many bytes that took.
        look: may stop it.

    Raises:
        JobError: `video_unreadable`, or `handler_error` where another attempt may help.
    """
    seconds, size = 0.0, 0

    def on_line(line: str) -> None:
        nonlocal seconds, size
        name, _, value = line.partition("=")
        match name:
            case "out_time_us":
                # Now and then, not only at the start, ffmpeg says N/A.
                seconds = max(seconds, _number(value) / 1e6)
            case "total_size":
                size = max(size, _number(value))
            case "progress":
                on_progress(seconds, size)

    ended = _run(
        [
            *("-loglevel", "error", "-nostats", "-progress", "pipe:1", "-stats_period", "0.5"),
            *_input(source),
            *("-map", "0:V:0", "-map", "0:a:0?", "-map_metadata", "-1", "-map_chapters", "-1"),
            *("-t", f"{encoding.max_seconds:g}", "-threads", str(encoding.threads)),
            *("-vf", f"scale={encoding.width}:{encoding.height}:flags=lanczos,setsar=1"),
            *("-c:v", "libx264", "-preset", "veryfast", "-crf", "23", "-pix_fmt", "yuv420p"),
            *("-c:a", "aac", "-b:a", "128k", "-ac", "2", "-ar", "48000"),
            *("-movflags", "+faststart", "-f", "mp4", "-y", f"file:{target}"),
        ],
        source,
        look,
        on_line,
    )
    if ended.code != 0:
        raise _failed(ended)


def _input(source: int) -> list[str]:
    return [
        *("-max_pixels", str(_MAX_PIXELS), "-protocol_whitelist", "fd"),
        *("-format_whitelist", _CONTAINERS, "-fd", str(source), "-i", "fd:"),
    ]


def _duration(said: str) -> float | None:
    found = _DURATION.search(said)
    if found is None:
        return None
    return int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3])


def _measure(source: int, look: Look) -> float:
    """Read a file that does not say how long it is to its end, decoding nothing."""
    seconds = 0.0

    def on_line(line: str) -> None:
        nonlocal seconds
        name, _, value = line.partition("=")
        if name == "out_time_us":
            seconds = max(seconds, _number(value) / 1e6)

    ended = _run(
        [
            *("-loglevel", "error", "-nostats", "-progress", "pipe:1", *_input(source)),
            *("-map", "0:V:0", "-c", "copy", "-f", "null", "-"),
        ],
        source,
        look,
        on_line,
    )
    if ended.code != 0:
        raise _unreadable(ended)
    return seconds


def _number(text: str) -> int:
    """Return a figure that ffmpeg told, 0 where it told none."""
    return int(text) if text.strip().isdecimal() else 0


def _unreadable(ended: _Ended) -> JobError:
    if ended.code < 0:
        return _failed(ended)
    return JobError(
        "The file is not a video of a known kind, or it is damaged.", code="video_unreadable"
    )


def _failed(ended: _Ended) -> JobError:
    if ended.code < 0:
        return JobError(f"ffmpeg was ended by signal {-ended.code}.", retry=True)
    if "No space left on device" in ended.errors.end():
        return JobError("There was no room on the disk for the video.", retry=True)
    return JobError(
        "The video could not be transcoded; it seems to be damaged.", code="video_unreadable"
    )


def _run(
    arguments: Sequence[str],
    source: int,
    look: Look,
    on_line: Callable[[str], object] | None = None,
) -> _Ended:
    """Run ffmpeg to its end, whatever that is; it is killed when `look` or `on_line` raises."""
    os.lseek(source, 0, os.SEEK_SET)  # ffmpeg moves on in the very same open file
    with subprocess.Popen(  # noqa: S603  arguments of our own making, no shell
        [find(), "-hide_banner", "-nostdin", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=(source,),
        env={"LC_ALL": "C"},
    ) as process:
        try:
            output, errors = _follow(process, look, on_line)
        except BaseException:
            process.kill()
            raise
        return _Ended(code=process.wait(), output=output, errors=errors)


def _follow(
    process: subprocess.Popen[bytes], look: Look, on_line: Callable[[str], object] | None
) -> tuple[_Kept, _Kept]:
    output, errors = _Kept(), _Kept()
    unfinished = b""
    with selectors.DefaultSelector() as selector:
        selector.register(cast("int", process.stdout), selectors.EVENT_READ, output)
        selector.register(cast("int", process.stderr), selectors.EVENT_READ, errors)
        while selector.get_map():
            for key, _ in selector.select(_LOOK_SECONDS):
                data = os.read(key.fd, _BLOCK)
                if not data:
                    selector.unregister(key.fileobj)
                key.data.feed(data)
                if key.data is output and on_line is not None:
                    *lines, unfinished = (unfinished + data)[-_BLOCK:].split(b"\n")
                    for line in lines:
                        on_line(line.decode("ascii", "replace"))
            look()
    return output, errors
