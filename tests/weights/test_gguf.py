from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duologue.weights import GgufError, check_chat_model
from duologue.weights._gguf import read_header
from gguf_files import CHAT, gguf

TENSOR = [("output", [64, 4], 2, 32)]
"""Q4_0: blocks of 32 numbers in 18 bytes, so 144 bytes behind the first 32."""


def test_keys_are_read_and_arrays_are_skipped() -> None:
    values = {
        **CHAT,
        "a": ("s", ["one", "two"]),
        "b": ("f", [1.0, 2.0]),
        "c": ("[", [("I", [1]), ("s", ["x"])]),
        "d": True,
        "e": 0.5,
        "f": "\u4f60\u597d",
    }
    header = read_header(gguf(values))
    assert header.values == {**CHAT, "a": None, "b": None, "c": None, "d": True, "e": 0.5} | {
        "f": "\u4f60\u597d"
    }
    assert header.architecture == "toy"
    assert header.get("context_length") == 2048
    assert header.get("nothing") is None
    assert read_header(gguf({})).architecture == "unknown"


def test_the_size_of_the_whole_file_follows_from_its_tensors() -> None:
    whole = gguf(CHAT, TENSOR, data=bytes(32 + 144))
    assert read_header(whole).min_bytes == len(whole)
    assert read_header(whole[:-100]).min_bytes == len(whole)
    aligned = gguf({**CHAT, "general.alignment": 64}, TENSOR)
    assert read_header(aligned).min_bytes % 64 == (32 + 144) % 64
    unknown = gguf(CHAT, [("output", [64], 250, 32)])
    assert read_header(unknown).min_bytes == len(unknown) + 32


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "it is empty: download it again"),
        (b"not a model", "it is no GGUF file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "run 'git lfs pull'"),
        (gguf(version=1), "it is of version 1 of GGUF"),
        (gguf()[:60], "it is cut off or damaged: download it again"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0), "cut off or damaged"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 60), "cut off or damaged"),
        (b"GGUF" + struct.pack("<IQQQI", 3, 0, 1, 0, 99), "cut off or damaged"),
        (b"GGUF" + struct.pack("<IQQQIIQ", 3, 0, 1, 0, 9, 99, 1), "cut off or damaged"),
        (gguf(CHAT, [("x", [1, 1, 1, 1, 1], 0, 0)]), "cut off or damaged"),
        (gguf(CHAT, TENSOR, data=bytes(32)), "it is cut off after"),
        (gguf({"general.architecture": "toy"}), "has no chat template, so it was not trained to"),
        (gguf({**CHAT, "tokenizer.chat_template": ""}), "has no chat template"),
        (gguf({**CHAT, "toy.pooling_type": 1}), "is an embedding model: take a chat model"),
        (gguf({**CHAT, "general.type": "adapter"}), "it is a 'adapter' for another model"),
        (gguf({**CHAT, "split.count": 3}), "it is one of 3 parts: take a file in one piece"),
    ],
)
def test_what_is_no_chat_model_is_refused_in_one_line(
    tmp_path: Path, content: bytes, complaint: str
) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(content)
    with pytest.raises(GgufError) as caught:
        check_chat_model(file)
    assert str(caught.value).startswith("m.gguf can't be the language model: ")
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_chat_model_is_accepted(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    values = {**CHAT, "general.type": "model", "split.count": 1, "toy.pooling_type": 0}
    file.write_bytes(gguf(values, TENSOR, data=bytes(32 + 144)))
    assert check_chat_model(file).values["tokenizer.chat_template"] == "{{ messages }}"


def test_arrays_within_arrays_end_somewhere() -> None:
    array: object = ("I", [1])
    for _ in range(9):
        array = ("[", [array])
    with pytest.raises(GgufError, match="damaged"):
        read_header(gguf({"deep": array}))


@given(st.integers(0, 400), st.binary(max_size=12))
def test_damage_anywhere_is_an_error_of_this_kind_or_none(at: int, noise: bytes) -> None:
    content = gguf({**CHAT, "a": ("s", ["one", "two"]), "b": ("f", [1.0])}, TENSOR)
    damaged = content[:at] + noise + content[at + len(noise) :]
    try:
        header = read_header(damaged)
    except GgufError:
        return
    assert header.min_bytes >= 0
