"""Every example runs as its first lines say."""

import ast
import asyncio
import importlib.util
import inspect
import json
import subprocess
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import pytest

from duologue.testing import ScriptedRealtime, run_virtual

EXAMPLES = Path(__file__).parents[1] / "examples"
CLIPS = Path(__file__).parent / "data" / "speech"


def run(name: str, *arguments: object, cwd: Path, timeout: float = 30) -> str:
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def load(name: str) -> ModuleType:
    """Load an example as a module without running it."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@asynccontextmanager
async def chat_server(words: Sequence[str]) -> AsyncGenerator[tuple[str, list[dict[str, Any]]]]:
    """Serve a text model that always replies ``words``; yield its address and its requests."""
    requests: list[dict[str, Any]] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
        requests.append(json.loads(await reader.readexactly(length)))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
        for text in words:
            chunk = {
                "id": "1",
                "object": "chat.completion.chunk",
                "created": 0,
                "model": "test",
                "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}],
            }
            writer.write(f"data: {json.dumps(chunk)}\n\n".encode())
        writer.write(b"data: [DONE]\n\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", requests


@pytest.fixture(scope="module")
def weights():
    pytest.importorskip("xllamacpp", reason="needs duologue[local]")
    from duologue.providers.local.engine import profile_weights
    from duologue.weights import Store, WeightsError

    try:
        for name in profile_weights("tiny"):
            Store().ensure(name, progress=False)
    except WeightsError as error:
        pytest.skip(f"the weights can't be had here: {error}")


# toy_provider.py and toy_server.py run in tests/realtime/test_toy_provider.py,
# websocket_client.py in tests/edges/test_websocket_clients.py.


def test_every_example_is_run_here():
    text = Path(__file__).read_text("utf-8")
    names = [path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".ipynb")]
    assert names
    missing = [name for name in names if name not in text and f'"{Path(name).stem}"' not in text]
    assert not missing


def test_scripted_agent(tmp_path):
    out = run("scripted_agent.py", cwd=tmp_path)
    assert "text='Breakfast is from seven to ten.', state='heard'" in out


def test_tools(tmp_path):
    out = run("tools.py", cwd=tmp_path)
    assert 'free_rooms done: [{"number":7,"price":90.0}]' in out
    assert "heard: We have room seven, for ninety euros." in out


def test_barge_in(tmp_path):
    out = run("barge_in.py", cwd=tmp_path)
    assert "resumed after 600 ms" in out
    assert "heard: 'Guests park behind the house,'" in out
    assert "text='A double room is ninety euros.', state='heard'" in out
    assert out.count("held:") == 2
    assert out.count("interrupted after") == 1


def test_half_cascade(tmp_path):
    for package in ("websockets", "aiohttp"):
        pytest.importorskip(package, reason="needs duologue[openai,elevenlabs,simulate]")
    out = run("half_cascade.py", cwd=tmp_path)
    assert out == "person: When is breakfast?\nagent:  From seven to ten.\n"
    assert (tmp_path / "half_cascade.wav").stat().st_size > 48000


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("three_vendors", "person: When is breakfast?\nagent:  From seven to ten.\n"),
        ("chinese", "person: 早餐几点开始\nagent:  早餐从七点到十点。欢迎您来。\n"),
    ],
)
def test_a_pipeline_of_vendors_runs_without_keys(tmp_path, name, said):
    for package in ("websockets", "aiohttp", "httpx", "earshot"):
        pytest.importorskip(package, reason="needs duologue[cartesia,openai,simulate]")
    out = run(f"{name}.py", cwd=tmp_path)
    assert out == said
    assert (tmp_path / f"{name}.wav").stat().st_size > 48000


@pytest.mark.parametrize(
    ("name", "hears", "words"),
    [
        ("three_vendors", "deepgram", ["From seven ", "to ten."]),
        ("chinese", "elevenlabs", ["早餐从七点", "到十点。"]),
    ],
)
async def test_a_pipeline_of_vendors_talks_to_a_text_model(
    tmp_path, monkeypatch, capsys, name, hears, words
):
    for package in ("websockets", "aiohttp", "httpx", "earshot"):
        pytest.importorskip(package, reason="needs duologue[cartesia,openai,simulate]")
    from duologue.providers import cartesia, deepgram, elevenlabs, openai
    from duologue.testing import CartesiaSimulator, DeepgramSimulator, ElevenLabsSimulator

    monkeypatch.chdir(tmp_path)
    module = load(name)
    simulator = {"deepgram": DeepgramSimulator, "elevenlabs": ElevenLabsSimulator}[hears]
    recogniser = {"deepgram": deepgram.STT, "elevenlabs": elevenlabs.STT}[hears]
    async with (
        chat_server(words) as (address, requests),
        simulator(transcripts=["Breakfast?", ""]) as service,
        CartesiaSimulator() as voices,
    ):
        llm = openai.LLM("text-model", base_url=address)
        stt = recogniser(base_url=service.url, api_key=service.key)
        tts = cartesia.TTS("voice", base_url=voices.url, api_key=voices.key)
        await module.talk(module.QUESTION, llm, stt, tts)
        await llm.close()
    told = capsys.readouterr()
    assert told.out == f"person: Breakfast?\nagent:  {''.join(words)}\n"
    assert told.err == ""
    messages = requests[-1]["messages"]
    assert module.INSTRUCTIONS in str(messages[0])
    assert messages[-1]["content"] == "Breakfast?"


@pytest.mark.parametrize("name", ["history.py", "history_sql.py"])
def test_history(tmp_path, name):
    out = run(name, cwd=tmp_path)
    assert "the first conversation began with 0 items\nthe second began with 2 items\n" in out
    assert "AgentItem(" in out
    assert "text='You are Robin.'" in out
    again = run(name, cwd=tmp_path)
    assert "the first conversation began with 4 items\n" in again


def cells(notebook: Path) -> list[str]:
    content = json.loads(notebook.read_text("utf-8"))
    return ["".join(cell["source"]) for cell in content["cells"] if cell["cell_type"] == "code"]


def test_notebook(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}

    async def execute() -> None:
        for number, cell in enumerate(cells(EXAMPLES / "notebook.ipynb")):
            code = compile(cell, f"cell {number}", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            assert isinstance(code, CodeType)
            result = eval(code, names)  # noqa: S307 - the notebook is ours
            if inspect.iscoroutine(result):
                await result

    run_virtual(execute())
    assert "heard" in capsys.readouterr().out
    assert (tmp_path / "talk.wav").stat().st_size > 48000


def test_mount_in_starlette(monkeypatch):
    pytest.importorskip("starlette", reason="needs duologue[server]")
    pytest.importorskip("aiortc", reason="needs duologue[webrtc]")
    from starlette.testclient import TestClient

    from duologue import Agent

    module = load("mount_in_starlette")
    made = []

    def make_agent(edge):
        made.append(edge)
        return Agent(edge=edge, llm=ScriptedRealtime())

    monkeypatch.setattr(module, "make_agent", make_agent)
    client = TestClient(module.app, base_url="http://localhost:8000")
    assert 'href="/voice/"' in client.get("/").text
    assert "static/app.js" in client.get("/voice/").text
    assert client.get("/voice/static/app.js").status_code == 200
    assert client.get("/voice/health").json() == {
        "status": "ok",
        "sessions": 0,
        "limit": 4,
        "tick_delay_ms": 0,
        "late": False,
        "refused": 0,
    }
    headers = {"origin": "http://localhost:8000", "host": "localhost:8000"}
    with client.websocket_connect("/voice/call", headers=headers) as socket:
        socket.send_json({"type": "hello", "token": ""})
        assert socket.receive_json()["type"] == "config"
        assert socket.receive_json() == {"type": "agent", "name": "Agent"}
        socket.send_json({"type": "bye"})
    assert len(made) == 1


def refused_or_introduced(client: Any, path: str) -> dict[str, object]:
    """Return the messages that a page gets after its configuration; then hang up."""
    with client.websocket_connect(path) as socket:
        socket.send_json({"type": "hello", "token": ""})
        assert socket.receive_json()["type"] == "config"
        message: dict[str, object] = socket.receive_json()
        socket.send_json({"type": "bye"})
    return message


def test_mount_with_user(monkeypatch):
    pytest.importorskip("starlette", reason="needs duologue[server]")
    pytest.importorskip("aiortc", reason="needs duologue[webrtc]")
    from starlette.testclient import TestClient

    module = load("mount_with_user")
    monkeypatch.setattr(module, "model", ScriptedRealtime)
    client = TestClient(
        module.app,
        base_url="http://127.0.0.1:8000",
        headers={"origin": "http://127.0.0.1:8000", "host": "127.0.0.1:8000"},
    )
    address = "ws://127.0.0.1:8000/voice/call"
    assert refused_or_introduced(client, address)["message"] == "Please sign in first."
    assert "static/app.js" in client.get("/sign-in?name=Grace").text
    assert refused_or_introduced(client, address) == {"type": "agent", "name": "Ada"}


async def test_end_of_call(monkeypatch, tmp_path):
    websockets = pytest.importorskip("websockets", reason="needs duologue[server]")
    pytest.importorskip("aiortc", reason="needs duologue[webrtc]")
    from duologue.hosting import create_app
    from duologue.server import ServerConfig, serve_app

    module = load("end_of_call")
    monkeypatch.setattr(module, "model", ScriptedRealtime)
    monkeypatch.setattr(module, "CALLS", tmp_path / "calls.jsonl")
    config = ServerConfig(port=0, max_tick_delay_ms=None)
    app = create_app(module.make_agent, config, on_end=module.on_end)
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    server = asyncio.create_task(serve_app(app, config, ready=ready.set_result, signals=False))
    address = (await ready).replace("http", "ws") + "call?room=7"
    async with websockets.connect(address) as socket:
        await socket.send('{"type": "hello"}')
        assert json.loads(await socket.recv())["type"] == "config"
        assert json.loads(await socket.recv())["type"] == "agent"
        await socket.send('{"type": "bye"}')
    async with asyncio.timeout(5):
        while not module.CALLS.is_file():
            await asyncio.sleep(0.02)
    server.cancel()
    await asyncio.wait({server})
    written = json.loads(module.CALLS.read_text("utf-8"))
    assert written["room"] == "7"
    assert written["words"] == []


def test_microphone_is_importable():
    assert inspect.iscoroutinefunction(load("microphone").main)


@pytest.mark.weights
def test_hello(tmp_path, weights):
    out = run("hello.py", CLIPS / "austen-0930.wav", "tiny", cwd=tmp_path, timeout=120)
    assert "person: He might even have been made amiable himself" in out
    assert "agent:" in out
    assert "ms after the end of speech" in out
    assert (tmp_path / "hello.wav").stat().st_size > 100_000


@pytest.mark.weights
async def test_pipeline_ollama(tmp_path, weights):
    pytest.importorskip("httpx", reason="needs duologue[openai]")
    async with chat_server(["He may ", "well have been."]) as (address, requests):
        out = await asyncio.to_thread(
            run,
            "pipeline_ollama.py",
            CLIPS / "austen-0930.wav",
            address,
            "test",
            cwd=tmp_path,
            timeout=120,
        )
    assert "text='He may well have been.', state='heard'" in out
    messages = requests[-1]["messages"]
    assert "amiable himself" in str(messages)
    assert requests[-1]["temperature"] == 0.3
