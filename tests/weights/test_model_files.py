"""GGUF files that a user names, from a hub on this machine and from paths."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("huggingface_hub", reason="needs duologue[local]")

from duologue.errors import ConfigError
from duologue.weights import GgufError, ModelFiles, WeightsError, parse_source
from duologue.weights._errors import WrongHashError
from duologue.weights._hub import HubFile
from gguf_files import CHAT, gguf
from loopback_hub import LoopbackHub, loopback_hub

MODEL = gguf({**CHAT, "padding": "x" * 3_000_000})
OTHER = gguf({**CHAT, "padding": "y" * 3_000_000})
NAME = "hf:acme/Toy-GGUF/toy-q4.gguf"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    monkeypatch.delenv("DUOLOGUE_OFFLINE", raising=False)
    with loopback_hub(monkeypatch) as made:
        made.files = {"acme/Toy-GGUF/toy-q4.gguf": MODEL}
        yield made


@pytest.fixture
def files(tmp_path: Path) -> ModelFiles:
    return ModelFiles(tmp_path / "cache")


def ensure(files: ModelFiles, source: str | Path = NAME) -> Path:
    return files.ensure(source, progress=False)


def parts(files: ModelFiles) -> list[Path]:
    return sorted(path for path in (files.root / "partial").rglob("*") if path.is_file())


def test_a_file_is_fetched_once_and_its_hash_is_recorded(
    hub: LoopbackHub, files: ModelFiles
) -> None:
    path = ensure(files)
    assert path.name == "toy-q4.gguf"
    assert path.read_bytes() == MODEL
    assert parts(files) == []
    [entry] = files.entries()
    assert entry == files.recorded(NAME)
    assert (entry.source, entry.path) == (NAME, str(path))
    assert entry.sha256 == hashlib.sha256(MODEL).hexdigest()
    asked = len(hub.requests)
    assert files.ensure(NAME, offline=True) == path
    assert len(hub.requests) == asked
    assert files.verify(NAME) == "ready"


def test_a_revision_is_a_file_of_its_own(hub: LoopbackHub, files: ModelFiles) -> None:
    assert ensure(files) != ensure(files, f"{NAME}@v1")
    assert {entry.source for entry in files.entries()} == {NAME, f"{NAME}@v1"}
    assert str(HubFile.parse(f"{NAME}@main")) == NAME


@pytest.mark.parametrize("how", ["hub", "path"])
def test_a_file_that_changed_since_its_first_use_is_refused(
    hub: LoopbackHub, files: ModelFiles, tmp_path: Path, how: str
) -> None:
    own = tmp_path / "own.gguf"
    own.write_bytes(MODEL)
    source = NAME if how == "hub" else str(own)
    path = ensure(files, source)
    os.utime(path, ns=(0, 0))
    assert ensure(files, source) == path  # another time, the same content
    path.write_bytes(OTHER)
    with pytest.raises(WrongHashError) as caught:
        ensure(files, source)
    told = str(caught.value)
    assert told.startswith(f"{source} has changed since its first use (SHA-256 ")
    assert f"'duologue models forget {source}'" in told
    assert ("'duologue models prune" in told) is (how == "hub")
    assert files.verify(source) == "broken"
    assert files.forget(source)
    assert not files.forget(source)
    assert files.verify(source) == "missing"
    assert ensure(files, source) == path
    assert files.verify(source) == "ready"


def test_another_file_of_the_same_name_on_the_hub_is_refused(
    hub: LoopbackHub, files: ModelFiles
) -> None:
    path = ensure(files)
    path.unlink()
    hub.files["acme/Toy-GGUF/toy-q4.gguf"] = OTHER
    with pytest.raises(WrongHashError, match="is another file on the hub now than at its first"):
        ensure(files)
    assert not path.exists()
    assert parts(files) == []
    files.forget(NAME)
    assert ensure(files).read_bytes() == OTHER


def test_a_download_that_was_cut_off_is_continued(
    hub: LoopbackHub, files: ModelFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants, file_download

    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 16)  # 10 MB otherwise
    # The client tries five times by itself, a second apart.
    monkeypatch.setattr(file_download.time, "sleep", lambda _: hub.__setattr__("status", 503))
    hub.drop_after = 1_000_000
    with pytest.raises(WeightsError, match=r"try again later|continues where it ended"):
        ensure(files)
    [part] = parts(files)
    kept = part.stat().st_size
    assert 0 < kept < len(MODEL)
    hub.status = hub.drop_after = None
    assert ensure(files).read_bytes() == MODEL
    assert hub.requests[-1] == ("GET", "/acme/Toy-GGUF/resolve/main/toy-q4.gguf", f"bytes={kept}-")
    assert parts(files) == []


def test_what_came_of_an_older_version_is_not_continued(
    hub: LoopbackHub, files: ModelFiles
) -> None:
    folder = files.root / "partial" / HubFile.parse(NAME).key
    folder.mkdir(parents=True)
    (folder / f"{'0' * 64}.part").write_bytes(b"old")
    assert ensure(files).read_bytes() == MODEL


def test_a_download_can_be_stopped(hub: LoopbackHub, files: ModelFiles) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(WeightsError, match="was stopped; the next one continues it"):
        files.ensure(NAME, progress=False, stop=stop)
    assert files.entries() == []


def test_a_file_that_came_damaged_is_not_kept(hub: LoopbackHub, files: ModelFiles) -> None:
    hub.announced["acme/Toy-GGUF/toy-q4.gguf"] = "0" * 64
    with pytest.raises(WrongHashError, match=r"came damaged .*; nothing was kept: run it again"):
        ensure(files)
    assert parts(files) == []


def test_a_file_that_is_no_chat_model_is_not_kept(
    hub: LoopbackHub, files: ModelFiles, tmp_path: Path
) -> None:
    hub.files["acme/Toy-GGUF/toy-q4.gguf"] = gguf({"general.architecture": "toy"})
    with pytest.raises(GgufError, match=r"^hf:acme/.* has no chat template.*; nothing was kept$"):
        ensure(files)
    assert parts(files) == []
    own = tmp_path / "notes.gguf"
    own.write_text("notes")
    with pytest.raises(GgufError, match="no GGUF file"):
        ensure(files, own)
    assert files.entries() == []


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("hf:acme/Toy-GGUF/toy.gguf", "acme/Toy-GGUF has no such file; it has toy-q4.gguf"),
        ("hf:acme/Plain/toy.gguf", "no other GGUF file: take a repository with 'GGUF' in"),
        (
            "hf:acme/Many/x.gguf",
            "it has a0.gguf, a1.gguf, a2.gguf, a3.gguf, a4.gguf, a5.gguf and 3 ",
        ),
        ("hf:acme/Nothing/toy.gguf", "there is no repository acme/Nothing at http://127.0.0.1:"),
        ("hf:acme/Private/toy.gguf", "or it is private: check the name; for a private one set HF"),
        ("hf:acme/Gated/toy.gguf", "accept their terms at http://127.0.0.1:"),
        (f"{NAME}@v9", "acme/Toy-GGUF has no revision 'v9'"),
    ],
)
def test_what_the_hub_does_not_give_is_explained(
    hub: LoopbackHub, files: ModelFiles, name: str, told: str
) -> None:
    hub.files |= {f"acme/Many/a{n}.gguf": b"" for n in range(9)}
    hub.files |= {f"acme/{repo}/README.md": b"" for repo in ("Plain", "Private", "Gated")}
    hub.private, hub.gated = {"acme/Private"}, {"acme/Gated"}
    with pytest.raises(WeightsError) as caught:
        ensure(files, name)
    assert str(caught.value).startswith(f"can't get {name}: ")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (403, "may not read acme/Toy-GGUF"),
        (404, "there is no such file at http://127.0.0.1:"),
        (429, "the hub has had too many requests: try again later"),
        (500, r"the hub fails \(status 500\): try again later"),
        (418, "it continues where it ended"),
    ],
)
def test_a_failing_hub_is_explained(
    hub: LoopbackHub, files: ModelFiles, status: int, told: str
) -> None:
    hub.status = status
    with pytest.raises(WeightsError, match=told):
        ensure(files)


def test_a_key_that_is_not_accepted_is_not_shown(
    hub: LoopbackHub, files: ModelFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with pytest.raises(WeightsError, match="the hub does not accept the key in HF_TOKEN") as caught:
        ensure(files)
    assert "hf_secret" not in str(caught.value)
    hub.keys = {"hf_secret"}
    assert ensure(files).read_bytes() == MODEL


def test_a_hub_that_is_away_is_explained(
    hub: LoopbackHub, files: ModelFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(WeightsError, match="9 does not answer: check the network, or HF_ENDPOINT"):
        ensure(files)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match="HF_HUB_OFFLINE forbids fetching; unset it"):
        ensure(files)


def test_offline_fetches_nothing(
    hub: LoopbackHub, files: ModelFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = f"run 'duologue models fetch {NAME}' where there is a network"
    with pytest.raises(WeightsError, match=told):
        files.ensure(NAME, offline=True)
    monkeypatch.setenv("DUOLOGUE_OFFLINE", "1")
    with pytest.raises(WeightsError, match="fetching is off"):
        ensure(files)
    assert hub.requests == []


def test_a_full_disk_is_explained(
    hub: LoopbackHub, files: ModelFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import file_download

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(file_download, "http_get", fail)
    with pytest.raises(WeightsError, match="no space left on device: make room, or set DUOLOGUE_C"):
        ensure(files)


@pytest.mark.parametrize(
    "name",
    [
        *("hf:", "hf:acme", "hf:acme/Toy", "hf:acme/Toy/x.bin", "hf:acme/Toy/x.gguf@"),
        *("hf:acme/../x.gguf", "hf:acme/Toy/../../x.gguf", "hf:/Toy/x.gguf", "hf:a b/Toy/x.gguf"),
    ],
)
def test_a_malformed_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"must be hf:ORG/REPO/FILE\.gguf"):
        parse_source(name)


def test_a_file_in_a_folder_of_a_repository_has_a_name_too(
    hub: LoopbackHub, files: ModelFiles
) -> None:
    hub.files["acme/Toy-GGUF/q8/toy.gguf"] = MODEL
    assert ensure(files, "hf:acme/Toy-GGUF/q8/toy.gguf").name == "toy.gguf"


def test_paths_that_are_no_file_are_refused(files: ModelFiles, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no file .*none\.gguf"):
        ensure(files, tmp_path / "none.gguf")
    with pytest.raises(ConfigError, match="is a folder: name a file in it"):
        ensure(files, tmp_path)


def test_a_file_of_the_hub_can_be_deleted_and_your_own_cannot(
    hub: LoopbackHub, files: ModelFiles, tmp_path: Path
) -> None:
    path = ensure(files)
    assert files.delete(NAME) == len(MODEL)
    assert not path.exists()
    assert files.entries() == []
    own = tmp_path / "own.gguf"
    own.write_bytes(MODEL)
    ensure(files, own)
    with pytest.raises(ConfigError, match="is your own file: delete it yourself"):
        files.delete(own)
    assert own.exists()


def test_a_hash_that_can_not_be_recorded_is_reported(
    files: ModelFiles, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = tmp_path / "own.gguf"
    own.write_bytes(MODEL)
    files.root.write_text("a file where the cache should be")
    with caplog.at_level(logging.WARNING):
        assert ensure(files, own) == own
    assert "can't be recorded, so a change of it will not be noticed" in caplog.text
    own.write_bytes(OTHER)
    with pytest.raises(WrongHashError):  # this process knows it
        ensure(files, own)


def test_a_damaged_record_is_an_error(files: ModelFiles, tmp_path: Path) -> None:
    own = tmp_path / "own.gguf"
    own.write_bytes(MODEL)
    ensure(files, own)
    [record] = (files.root / "models").glob("*.json")
    record.write_text(json.dumps({"source": "x"}))
    with pytest.raises(WeightsError, match=r"can't be read .*: delete it; the next use"):
        ensure(files, own)


def test_two_processes_fetch_a_file_once(hub: LoopbackHub, files: ModelFiles) -> None:
    def fetch() -> None:
        ensure(files)

    threads = [threading.Thread(target=fetch) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(method == "GET" for method, *_ in hub.requests) == 1
