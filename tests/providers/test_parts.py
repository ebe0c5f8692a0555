"""Parts of a pipeline by name: those of this package, and those of other distributions."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from duologue.errors import ConfigError, MissingExtraError
from duologue.pipeline.interfaces import StreamingSTT, StreamingTTS
from duologue.providers.parts import PartKind, make_llm, make_stt, make_tts, part_names

pytest.importorskip("websockets", reason="the speech extras are not installed")

MODULE = """
class TTS:
    rate = 16000

    def __init__(self, voice="plain", *, base_url="none"):
        self.voice, self.base_url = voice, base_url

def make(): return TTS("made")

not_callable = 7
"""

ENTRY_POINTS = """
[duologue.tts]
acme = duologue_acme_parts:TTS
made = duologue_acme_parts:make
cartesia = duologue_acme_parts:TTS
seven = duologue_acme_parts:not_callable
absent = duologue_acme_parts:NoSuchClass
broken = duologue_acme_broken:TTS
unpacked = duologue_acme_extra:TTS
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The distribution ``duologue-acme``, as an installer leaves it."""
    (tmp_path / "duologue_acme_parts.py").write_text(MODULE)
    (tmp_path / "duologue_acme_broken.py").write_text("raise RuntimeError('out of\\nluck')")
    (tmp_path / "duologue_acme_extra.py").write_text(
        "from duologue.errors import MissingExtraError\n"
        "raise MissingExtraError(\"foo is not installed: pip install 'duologue-acme[foo]'\")"
    )
    info = tmp_path / "duologue_acme-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: duologue-acme\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


KEYS = ("CARTESIA_API_KEY", "DEEPGRAM_API_KEY", "ELEVENLABS_API_KEY", "OPENAI_API_KEY")


@pytest.mark.parametrize("name", ["cartesia", "deepgram", "elevenlabs", "openai"])
def test_recognisers_of_this_package_are_made_by_name(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in KEYS:
        monkeypatch.setenv(key, "secret")
    assert name in part_names("stt")
    stt = make_stt(name)
    assert isinstance(stt, StreamingSTT)
    assert type(stt).__module__.startswith(f"duologue.providers.{name}.")
    assert isinstance(make_stt(f"{name}:some-model", base_url="wss://gateway.example"), type(stt))


@pytest.mark.parametrize("name", ["cartesia", "deepgram", "elevenlabs", "openai"])
def test_voices_of_this_package_are_made_by_name_and_voice(name: str) -> None:
    assert name in part_names("tts")
    tts = make_tts(f"{name}:some-voice", api_key="secret")
    assert isinstance(tts, StreamingTTS) == (name != "openai")
    assert type(tts).__module__.startswith(f"duologue.providers.{name}.")


def test_text_models_of_this_package_are_made_by_name_and_model() -> None:
    llm = make_llm("openai:org/model:latest", base_url="http://127.0.0.1:11434/v1")
    assert llm.model == "org/model:latest"
    assert make_llm("anthropic:claude-haiku-4-5", api_key="secret").model == "claude-haiku-4-5"
    assert make_llm("gemini:gemini-3.5-flash", api_key="secret").model == "gemini-3.5-flash"
    assert {"anthropic", "gemini", "openai"} <= set(part_names("llm"))


def test_voice_of_another_distribution_is_made_with_its_argument_and_options(site: Path) -> None:
    names = part_names("tts")
    assert names == sorted(names)
    assert {"acme", "cartesia", "local", "made"} <= set(names)
    assert len(names) == len(set(names))
    assert "acme" not in part_names("stt")
    assert vars(make_tts("acme")) == {"voice": "plain", "base_url": "none"}
    assert vars(make_tts("acme:mary", base_url="x")) == {"voice": "mary", "base_url": "x"}
    assert vars(make_tts("made"))["voice"] == "made"


def test_part_of_this_package_comes_before_one_of_the_same_name(site: Path) -> None:
    tts = make_tts("cartesia:some-voice", api_key="secret")
    assert type(tts).__module__.startswith("duologue.")


@pytest.mark.parametrize(
    ("kind", "spec", "message"),
    [
        ("stt", "nobody", r"there is no stt 'nobody'; there are: cartesia, deepgram, .*openai$"),
        ("llm", "", r"there is no llm ''; there are: .*openai"),
        ("tts", "openai", r"tts 'openai': missing a required argument: 'voice'; write 'openai:VOI"),
        ("llm", "openai", r"'openai': missing a required argument: 'model'; write 'openai:MODEL'"),
        ("stt", "local:x", r"stt 'local:x': too many positional arguments; write 'local'$"),
        ("tts", "cartesia", "voice must be the id of a voice"),
        ("tts", "made:mary", r"tts 'made:mary': too many positional arguments; write 'made'"),
        ("tts", "seven", "duologue_acme_parts:not_callable, must be a class or a function, not 7"),
        ("tts", "absent", r"'absent', .*:NoSuchClass, can't be loaded: AttributeError: module"),
        ("tts", "broken", r"_broken:TTS, can't be loaded: RuntimeError: out of luck"),
    ],
)
def test_part_that_cannot_be_made_is_an_error_of_one_line(
    kind: PartKind, spec: str, message: str, site: Path
) -> None:
    make = {"llm": make_llm, "stt": make_stt, "tts": make_tts}[kind]
    with pytest.raises(ConfigError, match=message) as caught:
        make(spec)
    assert "\n" not in str(caught.value)


def test_part_that_lacks_its_own_extra_says_so_in_its_words(site: Path) -> None:
    with pytest.raises(MissingExtraError, match=r"pip install 'duologue-acme\[foo\]'"):
        make_tts("unpacked")


def test_names_are_listed_without_loading_any_provider() -> None:
    code = (
        "import sys; from duologue.providers.parts import part_names; part_names('tts')\n"
        "print([name for name in sys.modules if name.startswith('duologue.providers.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "['duologue.providers.parts']"


def test_voice_on_the_page_about_writing_a_part_has_under_60_lines() -> None:
    page = (Path(__file__).parents[2] / "docs" / "writing-a-part.md").read_text()
    program = page.partition("```python\n")[2].partition("```")[0]
    part, service, _ = program.partition("async def toy_server")
    assert "class ToyTTS" in part
    assert service
    assert len([line for line in part.splitlines() if line.strip()]) < 60
