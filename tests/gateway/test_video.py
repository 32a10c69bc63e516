"""`video.transcode` on real videos, made and transcoded by the same ffmpeg."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest_httpserver import HTTPServer
from werkzeug import Response

from config.clock import SystemClock
from config.settings import current_settings
from gateway.artifacts import ArtifactStore
from gateway.handlers_.ffmpeg import Picture, find, probe
from gateway.handlers_.video import fit, transcode
from gateway.isolation import Isolation
from gateway.jobcontext import JobCancelled, JobContext, JobError
from gateway.jobtypes import InputInvalid
from gateway.models import Job, StoredFile
from gateway.testing import HandlerRun, run_handler
from tests.gateway.in_force import put_in_force

Clip = Callable[..., Path]

PICTURE = ("-f", "lavfi", "-i", "testsrc=size={size}:duration={seconds}:rate=10")
SOUND = ("-f", "lavfi", "-i", "sine=duration={seconds}")
H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")


@pytest.fixture(autouse=True)
def _development(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put the settings of a development profile in force for each test, and leave none behind."""
    put_in_force(monkeypatch)
    yield
    current_settings.cache_clear()


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    """Make a video once for each way it is asked for."""
    made: dict[object, Path] = {}

    def make(
        *options: str,
        size: str = "320x240",
        seconds: float = 1,
        inputs: tuple[str, ...] = PICTURE + SOUND,
        name: str = "clip.mp4",
    ) -> Path:
        key = (options, size, seconds, inputs, name)
        if key not in made:
            made[key] = tmp_path_factory.mktemp("clip") / name
            given_inputs = [each.format(size=size, seconds=seconds) for each in inputs]
            command = [find(), "-loglevel", "error", *given_inputs, *(options or H264)]
            subprocess.run([*command, str(made[key])], check=True)
        return made[key]

    return make


def run(file: Path | bytes, *formats: str, **options: Any) -> HandlerRun:
    given_input = {"video": {"part": "v"}, "formats": formats or ["480p"]}
    return run_handler(transcode, given_input, {"v": file}, **options)


def failure(file: Path | bytes, *formats: str) -> JobError:
    with pytest.raises(JobError) as caught:
        run(file, *formats)
    return caught.value


def ffmpegs() -> list[str]:
    """Return the processes of ffmpeg that this one has, ended ones not reaped included."""
    mine = Path("/proc/self/task").glob("*/children") if sys.platform == "linux" else ()
    children = [pid for listed in mine for pid in listed.read_text().split()]
    names = [Path(f"/proc/{pid}/comm") for pid in children]
    return [name.read_text() for name in names if name.exists() and "ffmpeg" in name.read_text()]


# What is made


def test_an_upload_is_transcoded_to_each_format(clip: Clip, tmp_path: Path) -> None:
    done = run(clip(seconds=2), "720p", "480p")
    assert [(each["format"], each["width"], each["height"]) for each in done.result["outputs"]] == [
        ("720p", 960, 720),
        ("480p", 640, 480),
    ]
    for each in done.result["outputs"]:
        name = each["artifact"]["name"]
        assert name == f"{each['format']}.mp4"
        assert each["artifact"]["contentType"] == "video/mp4"
        assert each["durationSeconds"] == pytest.approx(2, abs=0.2)
        made = tmp_path / name
        made.write_bytes(done.artifacts[name])
        assert len(done.artifacts[name]) == each["artifact"]["size"]
        with made.open("rb") as file:
            seen = probe(file.fileno(), lambda: None)
        assert (seen.width, seen.height) == (each["width"], each["height"])


def test_an_output_starts_before_it_is_loaded_whole_and_is_h264_and_aac(clip: Clip) -> None:
    data = run(clip()).artifacts["480p.mp4"]
    assert data[4:8] == b"ftyp"
    assert data.index(b"moov") < data.index(b"mdat")
    assert b"avc1" in data
    assert b"mp4a" in data


def test_progress_is_true_and_says_what_is_made(clip: Clip) -> None:
    done = run(clip(seconds=20, size="640x480"), "480p", "1080p")
    percents = [report.percent for report in done.progress]
    assert percents == sorted(percents)
    assert (percents[0], percents[-1]) == (0, 100)
    messages = [report.message for report in done.progress]
    assert list(dict.fromkeys(messages)) == [
        "Reading video",
        "Transcoding to 480p",
        "Transcoding to 1080p",
        "Done",
    ]
    # Five sixths of the pixels are in the larger one.
    begun = percents[messages.index("Transcoding to 1080p")]
    assert begun == 99 * 640 * 480 // (640 * 480 + 1440 * 1080)
    assert any(begun < percent < 99 for percent in percents)


@pytest.mark.parametrize(
    ("options", "inputs", "name"),
    [
        (H264, PICTURE, "silent.mp4"),
        (("-c:v", "mpeg4"), PICTURE + SOUND, "old.avi"),
        (("-c:v", "libvpx", "-deadline", "realtime"), PICTURE, "web.webm"),
        (("-c:v", "mpeg2video", "-ar", "48000"), PICTURE + SOUND, "broadcast.ts"),
        (("-c:v", "libx265", "-x265-params", "log-level=error"), PICTURE + SOUND, "new.mov"),
        ((), PICTURE, "picture.gif"),
        ((*H264, "-f", "h264"), PICTURE, "raw.h264"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_common_containers_are_read(
    clip: Clip, options: tuple[str, ...], inputs: tuple[str, ...], name: str
) -> None:
    source = clip(*(options or ("-loop", "0")), inputs=inputs, name=name)
    (made,) = run(source).result["outputs"]
    assert (made["width"], made["height"]) == (640, 480)
    assert made["durationSeconds"] == pytest.approx(1, abs=0.3)


@pytest.mark.parametrize(
    ("options", "size", "made"),
    [
        (H264, "240x320", (480, 640)),
        ((*H264, "-vf", "setsar=2"), "160x240", (640, 480)),
        (H264, "640x270", (854, 360)),
        (H264, "1280x720", (854, 480)),
        (H264, "254x254", (480, 480)),
    ],
    ids=["upright", "anamorphic", "wide", "down", "square"],
)
def test_the_shape_is_kept(
    clip: Clip, options: tuple[str, ...], size: str, made: tuple[int, int]
) -> None:
    (output,) = run(clip(*options, size=size)).result["outputs"]
    assert (output["width"], output["height"]) == made


def test_a_turned_video_is_turned(clip: Clip, tmp_path: Path) -> None:
    turned = tmp_path / "turned.mp4"
    given_input = ["-display_rotation", "90", "-i", str(clip())]
    subprocess.run(
        [find(), "-loglevel", "error", *given_input, "-c", "copy", str(turned)], check=True
    )
    (output,) = run(turned).result["outputs"]
    assert (output["width"], output["height"]) == (480, 640)


def test_metadata_is_left_out(clip: Clip) -> None:
    source = clip(*H264, "-metadata", "title=Holiday at 47.37N 8.54E")
    assert b"Holiday at" in source.read_bytes()
    assert b"Holiday at" not in run(source).artifacts["480p.mp4"]


@given(
    st.integers(1, 8_000),
    st.integers(1, 8_000),
    st.sampled_from([(854, 480), (1280, 720), (3840, 2160)]),
)
def test_what_is_made_fits_the_box_and_is_even(
    width: int, height: int, box: tuple[int, int]
) -> None:
    wide, high = fit(Picture(width=width, height=height, duration=1), box)
    assert wide % 2 == high % 2 == 0
    assert max(wide, high) <= box[0]
    assert min(wide, high) <= box[1]
    assert wide in box or high in box
    assert (wide >= high) == (width >= height) or wide == high


# What cannot be used


def playlist(path: Path) -> bytes:
    return f"#EXTM3U\n#EXTINF:1,\nfile://{path}\n#EXT-X-ENDLIST\n".encode()


def concatenation(path: Path) -> bytes:
    return f"ffconcat version 1.0\nfile '{path}'\n".encode()


def manifest(path: Path) -> bytes:
    return (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT1S"><Period><AdaptationSet contentType="video">'
        f'<Representation id="1" bandwidth="1"><BaseURL>file://{path}</BaseURL>'
        "</Representation></AdaptationSet></Period></MPD>"
    ).encode()


@pytest.mark.parametrize("kind", [playlist, concatenation, manifest])
def test_a_list_of_files_leads_nowhere(clip: Clip, kind: Callable[[Path], bytes]) -> None:
    error = failure(kind(clip()))
    assert (error.code, error.retry) == ("video_unreadable", False)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"no video at all",
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        b"%PDF-1.7\n",
        bytes(100_000),
    ],
    ids=["empty", "one byte", "text", "image", "pdf", "zeros"],
)
def test_what_is_no_video_fails_the_job(data: bytes) -> None:
    error = failure(data)
    assert (error.code, error.retry) == ("video_unreadable", False)


def test_a_damaged_video_fails_the_job(clip: Clip) -> None:
    whole = clip(seconds=2).read_bytes()
    assert failure(whole[: len(whole) // 2]).code == "video_unreadable"


def test_sound_alone_is_no_video(clip: Clip) -> None:
    error = failure(clip("-c:a", "aac", inputs=SOUND, name="sound.mp4"))
    assert error.code == "video_has_no_picture"
    assert error.message == "The file holds no video, only sound."


@settings(deadline=None, max_examples=20)
@given(st.binary(max_size=300), st.integers(0, 2**32))
def test_a_damaged_video_never_does_worse_than_fail(clip: Clip, noise: bytes, where: int) -> None:
    whole = clip().read_bytes()
    at = where % len(whole)
    with suppress(JobError), pytest.MonkeyPatch.context() as patch:
        put_in_force(patch)
        run(whole[:at] + noise + whole[at + len(noise) :])
    assert ffmpegs() == []


def test_limits_of_the_settings(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    source = clip(seconds=2)
    put_in_force(monkeypatch, GATEWAY_VIDEO_MAX_DURATION_SECONDS="1.5")
    error = failure(source)
    assert (error.code, error.message) == (
        "video_too_long",
        "The video is 2.0 seconds long; the limit is 1.5.",
    )
    put_in_force(monkeypatch, GATEWAY_VIDEO_MAX_SOURCE_BYTES="1000")
    assert failure(source).code == "video_too_large"
    put_in_force(monkeypatch, GATEWAY_VIDEO_MAX_OUTPUT_BYTES="1000")
    assert failure(source).code == "video_too_large"


def test_without_ffmpeg_the_job_says_how_to_install_it(
    clip: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = clip()
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    error = failure(source)
    assert (error.code, error.retry) == ("ffmpeg_missing", False)
    assert "scripts/setup video" in error.message


# Stopping


@pytest.mark.parametrize("percent", [0, 1, 5])
def test_cancelling_ends_ffmpeg(clip: Clip, percent: int) -> None:
    with pytest.raises(JobCancelled):
        run(clip(seconds=60, size="640x480"), "4k", cancel_at=percent)
    assert ffmpegs() == []


class Watcher:
    """Hears what a child process reports, and stops it at a percentage."""

    def __init__(self, stop_at: int = 101) -> None:
        self.stop = threading.Event()
        self.kept: list[StoredFile] = []
        self._stop_at = stop_at

    def progress(self, percent: int, message: str) -> None:
        if message.startswith("Transcoding") and percent >= self._stop_at:
            self.stop.set()

    def keep(self, file: StoredFile) -> None:
        self.kept.append(file)


def in_child(source: Path, tmp_path: Path, watcher: Watcher, *formats: str) -> dict[str, Any]:
    """Transcode as a worker does, in a child process whose temporary files are in `tmp_path`."""
    store = ArtifactStore((tmp_path / "artifacts").as_uri())
    stored = store.save("in", source.read_bytes(), limit=2**30)
    isolation = Isolation(
        modules=["gateway.handlers_.video"],
        profile="development",
        artifacts_url=(tmp_path / "artifacts").as_uri(),
    )
    job = Job(
        id="job_00video",
        tenant="acme",
        type="video.transcode",
        status="processing",
        rev=1,
        input={"video": {"part": "v"}, "formats": list(formats)},
        files={
            "v": StoredFile(
                path="in",
                name="v",
                size=stored.size,
                sha256=stored.sha256,
                content_type="video/mp4",
            )
        },
    )
    deadline = SystemClock().monotonic() + 60
    try:
        return isolation.run(job, watcher, deadline=deadline, stop=watcher.stop)
    finally:
        isolation.close()


def test_it_runs_in_a_process_of_its_own(
    clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert transcode.isolation == "process"
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    watcher = Watcher()
    results = in_child(clip(), tmp_path, watcher, "480p")
    assert results["outputs"][0]["width"] == 640
    assert [file.name for file in watcher.kept] == ["480p.mp4"]
    assert [each.name for each in tmp_path.iterdir()] == ["artifacts"]


@pytest.mark.skipif(sys.platform != "linux", reason="finds processes by /proc")
def test_cancelling_the_process_leaves_nothing_behind(
    clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = clip(seconds=60, size="640x480")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with pytest.raises(JobCancelled):
        in_child(source, tmp_path, Watcher(stop_at=1), "4k")
    assert [each.name for each in tmp_path.iterdir()] == ["artifacts"]
    assert [name for name in command_lines() if str(tmp_path) in name and "ffmpeg" in name] == []


def command_lines() -> Iterator[str]:
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            yield each.read_text(errors="replace")


# Fetching


def from_url(url: str) -> HandlerRun:
    return run_handler(transcode, {"videoUrl": url, "formats": ["480p"]})


def url_failure(url: str) -> JobError:
    with pytest.raises(JobError) as caught:
        from_url(url)
    return caught.value


def test_a_url_is_fetched_first(clip: Clip, httpserver: HTTPServer) -> None:
    data = clip().read_bytes()
    httpserver.expect_request("/v.mp4", method="GET").respond_with_data(data)
    done = from_url(httpserver.url_for("/v.mp4?token=x"))
    assert done.result["outputs"][0]["width"] == 640
    assert (10, "Fetching video") in [(each.percent, each.message) for each in done.progress]
    percents = [report.percent for report in done.progress]
    assert percents == sorted(percents)
    transcoding = [each.percent for each in done.progress if each.message.startswith("Trans")]
    assert min(transcoding) == 10


@pytest.mark.parametrize(
    ("status", "again"),
    [
        (301, False),
        (307, False),
        (404, False),
        (403, False),
        (206, False),
        (429, True),
        (503, True),
    ],
)
def test_a_url_that_gives_no_video_fails_the_job(
    httpserver: HTTPServer, status: int, again: bool
) -> None:
    answer = Response(status=status, headers={"Location": httpserver.url_for("/v.mp4")})
    httpserver.expect_request("/v.mp4").respond_with_response(answer)
    error = url_failure(httpserver.url_for("/v.mp4"))
    assert (error.code, error.retry) == ("video_not_fetched", again)
    assert str(status) in error.message
    assert len(httpserver.log) == 1


def test_a_url_without_an_answer_is_tried_again(httpserver: HTTPServer) -> None:
    url = httpserver.url_for("/v.mp4")
    httpserver.stop()
    error = url_failure(url)
    assert (error.code, error.retry) == ("video_not_fetched", True)
    httpserver.start()


def test_a_large_source_is_not_fetched_to_its_end(
    httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_in_force(monkeypatch, GATEWAY_VIDEO_MAX_SOURCE_BYTES="1000")
    httpserver.expect_request("/v.mp4").respond_with_data(bytes(1001))
    assert url_failure(httpserver.url_for("/v.mp4")).code == "video_too_large"


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/v.mp4",
        "https://127.0.0.1/v.mp4",
        "https://10.0.0.1/v.mp4",
        "https://169.254.169.254/v.mp4",
        "https://example.com:8080/v.mp4",
        "file:///etc/passwd",
        "concat:/etc/passwd",
        "https://localhost/v.mp4",
    ],
)
def test_production_refuses_at_submit_what_it_would_not_fetch(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    put_in_force(
        monkeypatch,
        GATEWAY_PROFILE="production",
        GATEWAY_PUBLIC_URL="https://gateway.example.com",
        GATEWAY_ARTIFACTS_URL="s3://bucket",
    )
    with pytest.raises(InputInvalid) as caught:
        transcode.parse_input({"videoUrl": url, "formats": ["480p"]})
    assert [fault.pointer for fault in caught.value.faults] == ["/videoUrl"]


def test_a_host_that_is_no_longer_allowed_fails_the_job(
    httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_later(job: JobContext, accepted: Any) -> Any:
        put_in_force(monkeypatch, GATEWAY_DELIVERY_ALLOW_LOOPBACK="false")
        return transcode.function(job, accepted)

    url = httpserver.url_for("/v.mp4").replace("localhost", "127.0.0.1")
    with pytest.raises(JobError) as caught:
        run_handler(replace(transcode, function=run_later), {"videoUrl": url, "formats": ["480p"]})
    assert (caught.value.code, caught.value.retry) == ("destination_not_allowed", False)
    assert httpserver.log == []


# What is refused


@pytest.mark.parametrize(
    ("given_input", "pointer"),
    [
        ({"formats": ["480p"]}, ""),
        ({"videoUrl": "https://h.example/", "video": {"part": "v"}, "formats": ["480p"]}, ""),
        ({"video": {"part": "v"}}, "/formats"),
        ({"video": {"part": "v"}, "formats": []}, "/formats"),
        ({"video": {"part": "v"}, "formats": ["480p", "480p"]}, "/formats"),
        ({"video": {"part": "v"}, "formats": ["8k"]}, "/formats/0"),
        ({"video": {"part": "v"}, "formats": "480p"}, "/formats"),
        ({"video": {"part": "v"}, "formats": ["480p"], "codec": "av1"}, "/codec"),
        ({"videoUrl": "", "formats": ["480p"]}, "/videoUrl"),
    ],
)
def test_inputs_have_limits(given_input: dict[str, Any], pointer: str) -> None:
    with pytest.raises(InputInvalid) as caught:
        transcode.parse_input(given_input)
    assert pointer in [fault.pointer for fault in caught.value.faults]
