"""SIP software that is not ours on the other side: baresip, SIPp and linphonec, on loopback.

`.ci/run` installs them; without one, its tests are skipped.
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile

from duologue.edges import telephone
from duologue.errors import DuologueError
from duologue.events import AgentTurnEndedEvent, DigitEvent, UserTurnStartedEvent
from duologue.testing import Reply
from sip_desk import serving, until
from sip_peer import free_port

pytest.importorskip("baresip", reason="the extra sip is not installed")
SPEECH = Path(__file__).parents[2] / "data/speech/austen-0930.wav"
CALLER = SPEECH.parents[1] / "sip/caller.xml"
MODULES = Path("/usr/lib/baresip/modules")


def needs(program, package):
    return pytest.mark.skipif(
        shutil.which(program) is None, reason=f"{package} is not installed: {program}"
    )


def write_speech(path, rate=8000):
    """Write 1.5 s of speech and a pause, at 8 kHz."""
    samples, original = soundfile.read(SPEECH, dtype="int16")
    samples = samples[: original * 3 // 2 : original // rate]
    soundfile.write(path, np.concatenate([samples, np.zeros(rate * 4, np.int16)]), rate)
    return path


class DebianBaresip:
    """The baresip of Debian, with a loop of audio, or with a file as its voice."""

    def __init__(self, folder, *, voice=None, codecs="pcma", answer="auto"):
        self.folder = folder
        self.port = free_port()
        self.control = free_port()
        audio = "aubridge,loop" if voice is None else f"aufile,{voice}"
        player = "aubridge,loop" if voice is None else "aubridge,other"
        modules = ["g711", "g722", "aubridge", "aufile", "srtp"]
        lines = [
            f"sip_listen 127.0.0.1:{self.port}",
            "net_interface 127.0.0.1",
            f"module_path {MODULES}",
            *(f"module {name}.so" for name in modules if (MODULES / f"{name}.so").exists()),
            "module_tmp account.so",
            "module_app menu.so",
            "module_app ctrl_tcp.so",
            f"ctrl_tcp_listen 127.0.0.1:{self.control}",
            f"audio_source {audio}",
            f"audio_player {player}",
        ]
        (folder / "config").write_text("\n".join(lines) + "\n")
        account = f"<sip:deb@127.0.0.1;transport=udp>;regint=0;answermode={answer}"
        (folder / "accounts").write_text(f"{account};audio_codecs={codecs}\n")

    @property
    def address(self):
        return f"sip:deb@127.0.0.1:{self.port}"

    async def __aenter__(self):
        self.process = subprocess.Popen(
            ["baresip", "-f", str(self.folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        async with asyncio.timeout(10):
            while True:
                try:
                    self.reader, self.writer = await asyncio.open_connection(
                        "127.0.0.1", self.control
                    )
                    return self
                except OSError:
                    await asyncio.sleep(0.05)

    async def __aexit__(self, *_):
        self.writer.close()
        self.process.terminate()
        await asyncio.to_thread(self.process.wait)

    async def command(self, name, params=""):
        message = json.dumps({"command": name, "params": params})
        self.writer.write(f"{len(message)}:{message},".encode())
        await self.writer.drain()
        await asyncio.sleep(0.05)


@needs("baresip", "baresip-core")
async def test_baresip_echoes_what_the_agent_says(tmp_path):
    async def conduct(agent):
        await agent.say("Go.")

    async with DebianBaresip(tmp_path) as debian, serving(conduct=conduct) as desk:
        await desk.sip.dial(debian.address)
        await until(lambda: desk.of(UserTurnStartedEvent))
        await debian.command("hold")
        await until(lambda: desk.edges[0].on_hold)
        await debian.command("resume")
        await until(lambda: not desk.edges[0].on_hold)
        await debian.command("hangup")
        await until(lambda: desk.sip.counters["calls"] == 0)


@needs("baresip", "baresip-core")
async def test_baresip_calls_and_asks_and_presses_keys(tmp_path):
    voice = write_speech(tmp_path / "voice.wav", 16000)
    options = {"codecs": ("g722", "pcma", "pcmu")}
    async with (
        DebianBaresip(tmp_path, voice=voice, codecs="g722/16000/1") as debian,
        serving([Reply("Good morning.")], **options) as desk,
    ):
        await debian.command("dial", desk.address)
        await until(lambda: desk.of(AgentTurnEndedEvent), 15)
        assert desk.edges[0]._leg.rate == 16000
        for key in "42":
            await debian.command("sndcode", key)
            await asyncio.sleep(0.2)
        await until(lambda: len(desk.of(DigitEvent)) >= 2)
        assert [event.digit for event in desk.of(DigitEvent)][:2] == ["4", "2"]
        await debian.command("hangup")
        await until(lambda: desk.sip.counters["calls"] == 0)


@asynccontextmanager
async def sipp(tmp_path, *arguments):
    """Run SIPp; its exit code is 0 if every call went as its scenario says."""
    process = await asyncio.create_subprocess_exec(
        "sipp",
        *map(str, arguments),
        *("-i", "127.0.0.1", "-mi", "127.0.0.1", "-nostdin", "-timeout", "30"),
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TERM": "dumb"},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


REGISTRAR = """<?xml version="1.0"?><scenario name="registrar">
<recv request="REGISTER"/>
<send><![CDATA[
SIP/2.0 401 Unauthorized
[last_Via:]
[last_From:]
[last_To:];tag=[call_number]
[last_Call-ID:]
[last_CSeq:]
WWW-Authenticate: Digest realm="test", nonce="47364c23432d2e131a5fb210812c", algorithm=MD5
Content-Length: 0

]]></send>
<recv request="REGISTER" auth="true"><action>
<verifyauth assign_to="right" username="ext7" password="open-sesame"/></action></recv>
<nop hide="true" test="right" next="good"/>
<send next="end"><![CDATA[
SIP/2.0 403 Forbidden
[last_Via:]
[last_From:]
[last_To:];tag=[call_number]
[last_Call-ID:]
[last_CSeq:]
Content-Length: 0

]]></send>
<label id="good"/>
<send><![CDATA[
SIP/2.0 200 OK
[last_Via:]
[last_From:]
[last_To:];tag=[call_number]
[last_Call-ID:]
[last_CSeq:]
Contact: <sip:ext7@127.0.0.1>;expires=600
Content-Length: 0

]]></send>
<label id="end"/>
</scenario>"""


@needs("sipp", "sip-tester")
async def test_ten_calls_of_sipp_within_a_second(tmp_path):
    async with serving(max_calls=10) as desk:
        caller = ["-sf", CALLER, desk.sip.listening, "-s", "bot", "-p", free_port()]
        async with sipp(tmp_path, *caller, "-m", 10, "-r", 10, "-d", 500) as process:
            assert await process.wait() == 0
        await until(lambda: desk.sip.counters["calls"] == 0)
        assert len(desk.agents) == 10


@needs("sipp", "sip-tester")
async def test_sipp_echoes_a_call_of_ours(tmp_path):
    async def conduct(agent):
        await agent.say("Go.")

    port = free_port()
    async with (
        sipp(tmp_path, "-sn", "uas", "-p", port, "-rtp_echo", "-m", 1),
        serving(conduct=conduct) as desk,
    ):
        await desk.sip.dial(f"sip:echo@127.0.0.1:{port}")
        await until(lambda: desk.of(UserTurnStartedEvent))


@needs("sipp", "sip-tester")
@pytest.mark.parametrize("password", ["open-sesame", "wrong"])
async def test_sipp_is_the_registrar(tmp_path, password):
    (tmp_path / "registrar.xml").write_text(REGISTRAR)
    port = free_port()
    sip = telephone.SIP(
        f"sip:bot@127.0.0.1:{port}",
        register=True,
        auth_user="ext7",
        password=password,
        listen="127.0.0.1:0",
    )
    async with sipp(tmp_path, "-sf", "registrar.xml", "-p", port, "-m", 1):
        await asyncio.sleep(0.3)
        if password == "wrong":  # noqa: S105
            with pytest.raises(DuologueError, match="registrar refused") as refused:
                async with serving(sip=sip):
                    pass
            assert refused.value.status == 403
            assert "wrong" not in str(refused.value)
        else:
            async with serving(sip=sip):
                pass


APP = """
import asyncio
import json
from duologue import Agent
from duologue.testing import Reply, ScriptedRealtime


def make_agent(edge):
    agent = Agent(edge=edge, llm=ScriptedRealtime([Reply("Good morning.")]))
    agent.events.tap(show)
    return agent


def show(event):
    print(json.dumps([type(event).__name__, getattr(event, "digit", "")]), flush=True)
"""


def may_make_a_network():
    """Return whether this process may have a network of its own, with nothing but loopback."""
    if sys.platform != "linux" or shutil.which("unshare") is None or shutil.which("ip") is None:
        return False
    command = ["unshare", "-n", "ip", "link", "set", "lo", "up"]
    return subprocess.run(command, capture_output=True).returncode == 0


@needs("linphonec", "linphone-cli")
@pytest.mark.skipif(not may_make_a_network(), reason="no network namespaces without root and ip")
async def test_linphone_calls_and_presses_keys(tmp_path):
    (tmp_path / "app.py").write_text(APP)
    write_speech(tmp_path / "voice.wav")
    (tmp_path / ".local/share/linphone").mkdir(parents=True)
    (tmp_path / "linphonerc").write_text(
        "[sip]\nsip_port=5095\nsip_tcp_port=-1\nsip_tls_port=-1\nuse_ipv6=0\n"
        "contact=sip:lin@127.0.0.1\n[video]\ncapture=0\ndisplay=0\n"
    )
    program = (
        "ip link set lo up; "
        f"{sys.executable} -m duologue serve app.py:make_agent --port 0 "
        "--sip sip:bot@127.0.0.1 --sip-listen 127.0.0.1:5070 > server.log 2>&1 & "
        "until grep -q 'Calls over SIP' server.log 2>/dev/null; do sleep 0.1; done; "
        "(sleep 1; echo soundcard use files; echo play voice.wav; "
        "echo call sip:bot@127.0.0.1:5070; sleep 3; echo 7; sleep 0.6; echo terminate; "
        "sleep 0.2; echo quit) "
        "| linphonec -c linphonerc > linphone.log 2>&1; kill -9 $!"
    )
    process = await asyncio.create_subprocess_exec(
        *("unshare", "-n", "sh", "-c", program),
        cwd=tmp_path,
        env={**os.environ, "HOME": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    async with asyncio.timeout(60):
        await process.wait()
    log = (tmp_path / "server.log").read_text()
    assert '["UserTurnStartedEvent", ""]' in log, log + (tmp_path / "linphone.log").read_text()
    assert '["DigitEvent", "7"]' in log
