"""`video.transcode`: a video in the formats that were asked for, each an MP4 with H.264 and AAC.

A format is a box, such as 1280 × 720 for 720p, turned upright for upright videos. The picture is
scaled to fit it, up as well as down: who asks for 4k gets 4k, and the results say the exact size.
The aspect ratio is kept. Titles, places and other metadata of the source are left out.

Every way a source can be unusable is a `JobError` that another attempt would not mend:
`video_unreadable`, `video_has_no_picture`, `video_too_long`, `video_too_large`,
`destination_not_allowed`. A source that cannot be fetched is `video_not_fetched`, and is tried
again where that may help.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO, Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from config.sections import VideoSettings
from config.settings import Settings, current_settings
from delivery.configure import policy_of, proxy_of, user_agent
from delivery.deadlines import Deadlines
from delivery.egress import MAX_URL, parse_destination
from delivery.engine import TransportFailed
from delivery.errors import DestinationDenied, DestinationRefused
from delivery.fetch import AnswerTooLarge, Fetched, Guarded, Request, fetch
from gateway.handlers import Artifact, FileRef, JobContext, JobError, JobModel, job_type
from gateway.handlers_ import ffmpeg
from gateway.handlers_.watch import run_watched

Format = Literal["480p", "720p", "1080p", "1440p", "4k"]

_BOXES: Final[Mapping[Format, tuple[int, int]]] = {
    "480p": (854, 480),
    "720p": (1280, 720),
    "1080p": (1920, 1080),
    "1440p": (2560, 1440),
    "4k": (3840, 2160),
}
_FETCHING: Final = "Fetching video"
_FETCHED: Final = 10  # percent, when the source had to be fetched
_SAVED: Final = 99
_FIRST_BYTE_SECONDS: Final = 60.0
_SMALLEST = 16  # pixels: what H.264 takes in either direction, and then some


class TranscodeInput(JobModel):
    """Exactly one of a URL and an uploaded video.

    Attributes:
        video_url: where to fetch the video, under the rules for callback URLs; no redirects.
        video: an uploaded video; what it is, its content decides.
        formats: what to make, in this order.
    """

    video_url: Annotated[str, Field(strict=True, min_length=1, max_length=MAX_URL)] | None = None
    video: FileRef | None = None
    formats: Annotated[tuple[Format, ...], Field(min_length=1, max_length=len(_BOXES))]

    @field_validator("video_url")
    @classmethod
    def _allowed(cls, url: str | None) -> str | None:
        if url is not None:
            try:
                parse_destination(url, policy_of(current_settings()))
            except DestinationRefused as error:
                raise ValueError(error.detail) from None
        return url

    @field_validator("formats")
    @classmethod
    def _unique(cls, formats: tuple[Format, ...]) -> tuple[Format, ...]:
        if len(set(formats)) != len(formats):
            raise ValueError("must name each format once")
        return formats

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.video_url is None) == (self.video is None):
            raise ValueError("give exactly one of 'videoUrl' and 'video'")
        return self


class Output(JobModel):
    """One video that was made.

    Attributes:
        format: as it was asked for.
        width: in pixels.
        height: in pixels.
        duration_seconds: as the file itself says.
        artifact: the file.
    """

    format: Format
    width: int
    height: int
    duration_seconds: float
    artifact: Artifact


class TranscodeResult(JobModel):
    """The videos, in the order they were asked for."""

    outputs: tuple[Output, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """One output to be made, and where that stands in the whole.

    Attributes:
        start: percent when it begins.
        end: percent when it is done.
    """

    format: Format
    width: int
    height: int
    start: float
    end: float


@job_type(
    "video.transcode",
    timeout=6 * 3600,
    max_attempts=2,
    example={"video": {"part": "holiday.mov"}, "formats": ["720p", "1080p"]},
    isolation="process",
)
def transcode(job: JobContext, given: TranscodeInput) -> TranscodeResult:
    """Transcode a video to MP4 in the formats asked for."""
    ffmpeg.find()
    settings = current_settings()
    job.progress(0, "Reading video")
    with _source(job, given, settings) as source, _workspace() as folder:
        picture = _examine(job, source, settings.video)
        begun = _FETCHED if given.video_url is not None else 0
        outputs = [
            _make(job, source, picture, step, folder, settings.video)
            for step in _plan(given.formats, picture, begun)
        ]
    job.progress(100, "Done")
    return TranscodeResult(outputs=tuple(outputs))


@contextmanager
def _workspace() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="gateway-video-") as name:
        yield Path(name)


@contextmanager
def _source(job: JobContext, given: TranscodeInput, settings: Settings) -> Iterator[BinaryIO]:
    """Give the source as a file of the operating system, without a name where it is a copy."""
    if given.video is not None:
        if job.file_info(given.video).size > settings.video.max_source_bytes:
            raise _too_large(settings.video.max_source_bytes)
        with job.open(given.video) as upload:
            if _is_real(upload):
                yield upload
                return
            with tempfile.TemporaryFile() as copy:
                shutil.copyfileobj(upload, copy)
                copy.flush()
                yield copy
        return
    with tempfile.TemporaryFile() as copy:
        _fetch(job, given.video_url or "", copy, settings)
        copy.flush()
        yield copy


def _is_real(file: BinaryIO) -> bool:
    try:
        file.fileno()
    except OSError:
        return False
    return True


def _fetch(job: JobContext, url: str, into: BinaryIO, settings: Settings) -> None:
    """Fetch the source, reporting the first tenth of the job's progress.

    Raises:
        JobError: it could not be fetched.
    """
    policy = policy_of(settings)
    try:
        destination = parse_destination(url, policy)
    except DestinationRefused as error:
        raise JobError(error.detail, code="destination_not_allowed") from error
    meter = _Meter(into)
    exchange = fetch(
        Request(
            method="GET",
            url=destination.url,
            headers={
                "accept": "video/*, */*",
                "accept-encoding": "identity",
                "user-agent": user_agent(settings),
            },
        ),
        meter.write,
        limit=settings.video.max_source_bytes,
        reach=Guarded(policy=policy, proxy=proxy_of(settings)),
        deadlines=Deadlines(
            first_byte=_FIRST_BYTE_SECONDS, total=settings.video.fetch_timeout_seconds
        ),
        on_head=meter.on_head,
    )
    try:
        answer = run_watched(job, exchange, lambda: job.progress(meter.percent(), _FETCHING))
    except TransportFailed as failure:
        raise JobError(
            f"The video could not be fetched: {failure}.", code="video_not_fetched", retry=True
        ) from failure
    except DestinationDenied as error:
        raise JobError(
            "The video's host is not allowed.", code="destination_not_allowed"
        ) from error
    except AnswerTooLarge as error:
        raise _too_large(error.limit) from error
    _check_status(answer)
    job.progress(_FETCHED, _FETCHING)


class _Meter:
    """Writes what is fetched, and knows how much of it there will be if the answer said so."""

    def __init__(self, into: BinaryIO) -> None:
        self._into = into
        self._expected = 0
        self._size = 0

    def on_head(self, _status: int, headers: Mapping[str, str]) -> None:
        length = headers.get("content-length", "")
        self._expected = int(length) if length.isdecimal() else 0

    def write(self, block: bytes) -> None:
        self._into.write(block)
        self._size += len(block)

    def percent(self) -> int:
        return _FETCHED * self._size // self._expected if self._expected else 0


def _check_status(answer: Fetched) -> None:
    status = answer.status
    if status == 200:
        return
    if 300 <= status < 400:
        raise JobError(
            f"The video's address answered with a redirect ({status}). Give the address that it "
            "leads to.",
            code="video_not_fetched",
        )
    raise JobError(
        f"The video's address answered with status {status}.",
        code="video_not_fetched",
        retry=status in {408, 429} or status >= 500,
    )


def _examine(job: JobContext, source: BinaryIO, limits: VideoSettings) -> ffmpeg.Picture:
    if os.fstat(source.fileno()).st_size == 0:
        raise JobError("The video is empty.", code="video_unreadable")
    picture = ffmpeg.probe(source.fileno(), _looking(job))
    if picture.duration > limits.max_duration_seconds:
        raise JobError(
            f"The video is {picture.duration:,.1f} seconds long; the limit is "
            f"{limits.max_duration_seconds:,.1f}.",
            code="video_too_long",
        )
    return picture


def _plan(formats: tuple[Format, ...], picture: ffmpeg.Picture, begun: int) -> list[_Step]:
    """Divide the work: an output takes as long as it has pixels."""
    sizes = [fit(picture, _BOXES[each]) for each in formats]
    whole = sum(width * height for width, height in sizes)
    steps: list[_Step] = []
    start = float(begun)
    for each, (width, height) in zip(formats, sizes, strict=True):
        end = start + (_SAVED - begun) * width * height / whole
        steps.append(_Step(format=each, width=width, height=height, start=start, end=end))
        start = end
    return steps


def fit(picture: ffmpeg.Picture, box: tuple[int, int]) -> tuple[int, int]:
    """Return the largest even size in `box`, turned like the picture, of the picture's shape."""
    long, short = box
    wide, high = (long, short) if picture.width >= picture.height else (short, long)
    scale = min(wide / picture.width, high / picture.height)
    return _even(picture.width * scale), _even(picture.height * scale)


def _even(length: float) -> int:
    return max(_SMALLEST, 2 * round(length / 2))


def _make(
    job: JobContext,
    source: BinaryIO,
    picture: ffmpeg.Picture,
    step: _Step,
    folder: Path,
    limits: VideoSettings,
) -> Output:
    message = f"Transcoding to {step.format}"
    job.progress(int(step.start), message)

    def on_progress(seconds: float, size: int) -> None:
        if size > limits.max_output_bytes:
            raise _too_large(limits.max_output_bytes)
        done = min(seconds / picture.duration, 1.0) if picture.duration else 0.0
        job.progress(int(step.start + (step.end - step.start) * done), message)

    target = folder / f"{step.format}.mp4"
    encoding = ffmpeg.Encoding(
        width=step.width,
        height=step.height,
        max_seconds=limits.max_duration_seconds,
        threads=limits.threads,
    )
    ffmpeg.encode(source.fileno(), target, encoding, on_progress, _looking(job))
    with target.open("rb") as made:
        seen = ffmpeg.probe(made.fileno(), _looking(job))
    with target.open("rb") as made:  # anew: ffmpeg moved on in the other one
        artifact = job.save(target.name, made, "video/mp4")
    target.unlink()
    return Output(
        format=step.format,
        width=seen.width,
        height=seen.height,
        duration_seconds=round(seen.duration, 3),
        artifact=artifact,
    )


def _looking(job: JobContext) -> Callable[[], None]:
    return lambda: job.sleep(0)


def _too_large(limit: int) -> JobError:
    return JobError(
        f"The video is larger than the limit of {limit:,} bytes.", code="video_too_large"
    )
