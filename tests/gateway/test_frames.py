"""Messages between a worker and the process of a handler."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.frames import MAX_FRAME, ChildJob, FrameError, Frames, encode_frame
from gateway.models import JsonObject, StoredFile

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(
    messages=st.lists(st.dictionaries(st.text(max_size=5), _JSON, max_size=4), max_size=5),
    cuts=st.lists(st.integers(1, 64), min_size=1),
)
def test_messages_survive_any_cutting(messages: list[JsonObject], cuts: list[int]) -> None:
    stream = b"".join(map(encode_frame, messages))
    frames, taken, at = Frames(), [], 0
    while at < len(stream):
        size = cuts[at % len(cuts)]
        frames.feed(stream[at : at + size])
        at += size
        while (message := frames.take()) is not None:
            taken.append(message)
    assert taken == messages


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ((MAX_FRAME + 1).to_bytes(4, "big"), "the limit is"),
        (b"\0\0\0\2{]", "not JSON"),
        (b"\0\0\0\2\xff\xff", "not JSON"),
        (b"\0\0\0\2[]", "not a JSON object"),
        (b"\0\1\x86\xa0" + b"[" * 100_000, "not JSON"),
    ],
)
def test_what_is_no_message_is_refused(data: bytes, said: str) -> None:
    frames = Frames()
    frames.feed(data)
    with pytest.raises(FrameError, match=said):
        frames.take()


def test_a_job_travels_whole() -> None:
    file = StoredFile(path="p", name="n", size=1, sha256="ab", content_type="text/plain")
    job = ChildJob(
        id="job_00isolated",
        type="isolated.read",
        attempt=2,
        max_attempts=5,
        metadata={"a": [1, None]},
        input={"x": "é"},
        input_file=file,
        files={"part": file},
    )
    frames = Frames()
    frames.feed(encode_frame(job.encode()))
    message = frames.take()
    assert message is not None
    assert ChildJob.decode(message) == job
