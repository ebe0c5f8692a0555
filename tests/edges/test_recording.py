import os
import resource
import wave
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from duologue.edges._recording import RecordingTimeline
from duologue.edges.audio_file import read_audio
from duologue.errors import ConfigError


def read(path):
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (2, 2)
        data = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
    return data[:, 0], data[:, 1]


steps = st.lists(
    st.one_of(
        st.tuples(st.just("person"), st.integers(0, 40), st.just(0)),
        st.tuples(st.just("agent"), st.integers(0, 40), st.integers(0, 60)),
        st.tuples(st.just("clear"), st.just(0), st.integers(0, 60)),
        st.tuples(st.just("commit"), st.just(0), st.integers(0, 60)),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(steps)
def test_the_file_equals_that_of_a_plain_model(tmp_path_factory, steps):
    path = tmp_path_factory.mktemp("recording") / "out.wav"
    recording = RecordingTimeline(path, 8000)
    left, right = [], []
    written = now = 0
    for value, (kind, length, step) in enumerate(steps, 1):
        now += step
        if kind == "person":
            recording.add_person(np.full(length, value, np.int16))
            left += [0] * (written - len(left)) + [value] * length
        elif kind == "agent":
            recording.add_agent(now, np.full(length, value, np.int16))
            if length:
                right += [0] * (max(now, written) - len(right)) + [value] * length
        elif kind == "clear":
            recording.clear_agent(now)
            del right[max(now, written) :]
        else:
            recording.commit(now - 30)
            written = max(written, now - 30)
    recording.close()
    recording.close()
    length = max(len(left), len(right), written)
    got_left, got_right = read(path)
    assert got_right.tolist() == right + [0] * (length - len(right))
    assert got_left.tolist() == left + [0] * (length - len(left))
    assert [p.name for p in path.parent.iterdir()] == ["out.wav"]


def test_memory_stays_bounded_and_the_file_appears_at_the_end(tmp_path):
    path = tmp_path / "out.wav"
    recording = RecordingTimeline(path, 24000)
    for second in range(120):
        recording.add_person(np.full(24000, 7, np.int16))
        recording.add_agent(second * 24000, np.full(24000, -7, np.int16))
        recording.commit(second * 24000)
        assert recording.person_end - second * 24000 <= 24000
    assert not path.exists()
    recording.close()
    left, right = read(path)
    assert len(left) == 120 * 24000
    assert set(left.tolist()) == {7}
    assert set(right.tolist()) == {-7}


def test_discard_leaves_nothing(tmp_path):
    recording = RecordingTimeline(tmp_path / "out.wav", 24000)
    recording.discard()
    recording.close()
    assert list(tmp_path.iterdir()) == []


def test_a_path_that_can_not_be_written_causes_one_line(tmp_path):
    for path in (tmp_path, tmp_path / "none" / "out.wav"):
        with pytest.raises(ConfigError, match="can't write"):
            RecordingTimeline(path, 24000)


@contextmanager
def full_disk(free):
    """Limit the files of this process to ``free`` bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (free, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_ends_the_recording_and_keeps_the_rest(tmp_path, caplog):
    path = tmp_path / "out.wav"
    recording = RecordingTimeline(path, 8000)
    with full_disk(100_000):
        for second in range(6):
            recording.add_person(np.full(8000, 7, np.int16))
            recording.commit(second * 8000)
        recording.close()
    left, _ = read(path)
    assert len(left) == 24_000
    assert set(left.tolist()) == {7}
    assert recording.seconds == 3.0
    assert recording.failure == "file too large"
    (record,) = caplog.records
    assert record.getMessage() == (
        f"can't write {path}: file too large; the recording ends after 3.0 s, "
        "the conversation continues"
    )
    assert [p.name for p in tmp_path.iterdir()] == ["out.wav"]


def test_a_disk_that_is_full_from_the_start_causes_one_line_and_leaves_no_file(tmp_path):
    with full_disk(10), pytest.raises(ConfigError, match=r"can't write .*: file too large"):
        RecordingTimeline(tmp_path / "out.wav", 8000)
    assert list(tmp_path.iterdir()) == []


def test_the_file_of_a_killed_recorder_can_be_read(tmp_path):
    recording = RecordingTimeline(tmp_path / "out.wav", 8000)
    recording.add_person(np.full(8000, 7, np.int16))
    recording.commit(8000)
    (part,) = tmp_path.iterdir()
    left_behind = part.read_bytes()
    recording.discard()
    (tmp_path / "left.wav").write_bytes(left_behind)
    assert len(read_audio(tmp_path / "left.wav")) == 8000


def test_no_device_is_replaced_and_a_link_stays_a_link(tmp_path):
    with pytest.raises(ConfigError, match="a device, not a file"):
        RecordingTimeline("/dev/null", 24000)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="not a file"):
        RecordingTimeline(tmp_path / "pipe", 24000)
    (tmp_path / "real.wav").write_bytes(b"old")
    (tmp_path / "real.wav").chmod(0o600)
    (tmp_path / "link.wav").symlink_to(tmp_path / "real.wav")
    RecordingTimeline(tmp_path / "link.wav", 24000).close()
    assert (tmp_path / "link.wav").is_symlink()
    assert (tmp_path / "real.wav").stat().st_mode & 0o777 == 0o600
    assert len(read(tmp_path / "real.wav")[0]) == 0
