import numpy as np
import pytest

from duologue._companding import compress, expand

ALL = np.arange(-32768, 32768).astype(np.int16)


def test_a_byte_holds_a_sample():
    packed = compress(ALL)
    assert (packed.dtype, packed.shape) == (np.uint8, ALL.shape)
    assert expand(packed).dtype == np.int16


def test_all_bytes_are_used_and_mean_the_same_again():
    samples = expand(np.arange(256, dtype=np.uint8))
    assert len(set(samples.tolist())) == 255  # 0 has two
    np.testing.assert_array_equal(expand(compress(samples)), samples)


def test_order_and_sign_are_kept():
    there_and_back = expand(compress(ALL)).astype(int)
    assert (np.diff(there_and_back) >= 0).all()
    np.testing.assert_array_equal(there_and_back[1:], -there_and_back[:0:-1])


@pytest.mark.parametrize("level", [300, 3000, 9000])
def test_the_noise_is_far_below_the_signal(level):
    rng = np.random.default_rng(2)
    samples = np.clip(rng.laplace(0, level / 1.4, 100_000), -32768, 32767).astype(np.int16)
    error = expand(compress(samples)).astype(float) - samples
    signal = samples.astype(float)
    assert 10 * np.log10((signal**2).mean() / (error**2).mean()) > 35


def test_silence_stays_silence():
    assert not expand(compress(np.zeros(5, np.int16))).any()
