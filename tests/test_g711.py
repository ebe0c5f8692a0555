"""G.711 as ITU-T G.711 defines it."""

import numpy as np
import pytest

from duologue import _g711


@pytest.mark.parametrize("law", ["mulaw", "alaw"])
def test_every_byte_survives_a_round_trip(law):
    data = bytes(range(256))
    assert _g711.encode(_g711.decode(data, law), law) == data


def test_known_values_of_mu_law():
    assert _g711.decode(b"\x00\x80\xff\x7f", "mulaw").tolist() == [-32124, 32124, 0, -1]
    assert _g711.encode(np.zeros(3, np.int16), "mulaw") == b"\xff\xff\xff"


def test_known_values_of_a_law():
    assert _g711.decode(b"\xd5\x55\xaa\x2a", "alaw").tolist() == [8, -8, 32256, -32256]


@pytest.mark.parametrize(("law", "low"), [("mulaw", 37), ("alaw", 35)])
def test_the_noise_of_a_tone_is_low(law, low):
    tone = (8000 * np.sin(np.arange(8000) * 0.3)).astype(np.int16)
    noise = _g711.decode(_g711.encode(tone, law), law).astype(float) - tone
    assert 10 * np.log10(np.mean(tone.astype(float) ** 2) / np.mean(noise**2)) > low


@pytest.mark.parametrize("law", ["mulaw", "alaw"])
def test_each_sample_has_the_nearest_byte(law):
    samples = np.arange(-32768, 32768, 7).astype(np.int16)
    values = _g711.decode_table(law).astype(int)
    best = np.abs(values[None, :] - samples[:, None].astype(int)).min(axis=1)
    found = np.abs(_g711.decode(_g711.encode(samples, law), law).astype(int) - samples)
    assert (found - best).max() <= (1 if law == "mulaw" else 0)


@pytest.mark.parametrize("law", ["mulaw", "alaw"])
def test_a_stream_is_decoded_whatever_its_pieces(law):
    data = bytes(range(256))
    decoder = _g711.G711Decoder(law)
    assert decoder.push(data[:7]).tolist() == _g711.decode(data[:7], law).tolist()
    assert decoder.whole(data[7:]).tolist() == _g711.decode(data[7:], law).tolist()
    assert decoder.whole(b"") is None
    assert decoder.push(b"").size == 0
