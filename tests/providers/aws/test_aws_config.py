import ssl
from dataclasses import replace

import pytest

pytest.importorskip("pybase64", reason="the aws extra is not installed")
pytest.importorskip("earshot", reason="the aws extra is not installed")

from duologue.errors import ConfigError, UnsupportedError
from duologue.providers import aws
from duologue.realtime.codec import SessionSetup
from duologue.realtime.options import ManualTurns, SemanticVAD
from duologue.testing import run_virtual
from duologue.vad.earshot import EarshotVAD
from duologue.vad.energy import EnergyVAD

NOVA_1 = "amazon.nova-sonic-v1:0"
ARN = "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.amazon.nova-sonic-v1:0"


@pytest.fixture(autouse=True)
def no_endpoint(monkeypatch):
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.delenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", raising=False)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": ""}, "model must be the id of a model"),
        ({"region": "US East"}, "region must be an AWS region such as us-east-1, not 'US East'"),
        ({"voice": " "}, "voice must be one of amy, ambre"),
        ({"proxy": "127.0.0.1:3128"}, "proxy must be an address such as http://proxy.example:3128"),
        (
            {"input_rate": 16000.0},
            "input_rate must be one of 8000, 16000, 24000, not 16000.0",
        ),
        (
            {"turn_detection": "high"},
            "turn_detection must be SemanticVAD or ServerVAD, because the model ends",
        ),
        (
            {"turn_detection": ManualTurns()},
            "turn_detection must be SemanticVAD or ServerVAD, because the",
        ),
        (
            {"turn_detection": SemanticVAD("high", silence_duration_ms=300)},
            "Nova Sonic does not support SemanticVAD.silence_duration_ms: leave it out",
        ),
        ({"turn_detection": SemanticVAD("low"), "model": NOVA_1}, "turn_detection needs Nova 2"),
        ({"extra": {"maxTokens": 3}}, "extra must have fields by event: sessionStart or promptS"),
        ({"headers": {"a b": "c"}}, "headers must have names of HTTP headers, not 'a b'"),
        ({"ssl_context": True}, "ssl_context must be an ssl.SSLContext, not bool"),
        ({"reconnect": 3}, "reconnect must be a ReconnectPolicy, not 3"),
        (
            {"max_output_tokens": 0},
            "max_output_tokens must be an integer between 1 and 10000, not 0",
        ),
        ({"temperature": 1.5}, "temperature must be between 0 and 1, not 1.5"),
        ({"top_p": -0.1}, "top_p must be between 0 and 1, not -0.1"),
        (
            {"input_rate": 48000},
            "input_rate must be one of 8000, 16000, 24000, not 48000",
        ),
        ({"output_rate": 22050}, "output_rate must be one of 8000, 16000, 24000"),
        ({"tool_choice": "none"}, "tool_choice must be auto, any or the name of a tool"),
        ({"profile": "p", "credentials": aws.Credentials("a", "b")}, "not both"),
        ({"credentials": "AKID"}, "credentials must be aws.Credentials or a function"),
        ({"model": None}, "model must be the id of a model"),
        ({"region": None}, "region must be an AWS region such as us-east-1, not None"),
        ({"voice": None}, "voice must be one of amy, ambre"),
        (
            {"max_output_tokens": 10.5},
            "max_output_tokens must be an integer between 1 and 10000, not 10.5",
        ),
        (
            {"max_output_tokens": True},
            "max_output_tokens must be an integer between 1 and 10000, not True",
        ),
        ({"temperature": "hot"}, "temperature must be between 0 and 1, not 'hot'"),
        ({"top_p": None}, "top_p must be between 0 and 1, not None"),
        ({"temperature": float("nan")}, "temperature must be between 0 and 1, not nan"),
        ({"tool_choice": 3}, "tool_choice must be auto, any or the name of a tool"),
        ({"base_url": "https://127.0.0.1:99999"}, "base_url must be an address such as"),
        ({"base_url": "https://127.0.0.1:abc"}, "base_url must be an address such as"),
        ({"base_url": "http://[::1"}, "base_url must be an address such as"),
        ({"base_url": "bedrock"}, "base_url must be an address such as https://bedrock"),
        ({"base_url": "http://10.0.0.1"}, "must use https: except on this machine"),
    ],
)
def test_invalid_values_are_refused_at_once(given, message):
    with pytest.raises(ConfigError) as caught:
        aws.Realtime(**given)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_unknown_voices_may_be_new(caplog):
    assert aws.Realtime(voice="somebody").capabilities.model == "amazon.nova-2-sonic-v1:0"
    assert "voice 'somebody' is not known here" in caplog.text


def test_capabilities_of_each_model():
    nova_2 = aws.Realtime(input_rate=8000, output_rate=16000).capabilities
    assert (nova_2.input_rate, nova_2.output_rate) == (8000, 16000)
    assert not nova_2.video
    assert nova_2.speech_detection == "local"
    assert nova_2.say == "instructed"
    assert aws.Realtime("amazon.nova-3-sonic-v1:0").capabilities.say == "instructed"
    newer = aws.Realtime("amazon.nova-2-5-sonic", turn_detection=SemanticVAD("low")).capabilities
    assert newer == replace(aws.Realtime().capabilities, model="amazon.nova-2-5-sonic")
    for name in (NOVA_1, ARN):
        assert aws.Realtime(name).capabilities.say == "none"


def test_nova_1_replies_to_speech_only():
    with pytest.raises(UnsupportedError, match=r"replies to speech only: use amazon\.nova-2-sonic"):
        aws.Realtime(NOVA_1).request_reply("r")


def test_default_vad_is_that_of_the_package():
    assert isinstance(aws.Realtime().vad, EarshotVAD)
    ear = EnergyVAD()
    assert aws.Realtime(vad=ear).vad is ear


def test_streams_roll_over_in_a_silence_after_five_minutes_and_at_six_in_any_case():
    begin, end = aws.ROLL_OVER.roll_over_at(480.0)
    assert begin == pytest.approx(300, abs=0.1)
    assert end == pytest.approx(360, abs=0.1)
    assert aws.ROLL_OVER.roll_over_at(60.0)[1] < 60


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "AWS_ENDPOINT_URL"])
def test_endpoint_comes_from_the_region_or_the_environment(monkeypatch, name):
    assert aws.Realtime(region="eu-north-1").base_url == (
        "https://bedrock-runtime.eu-north-1.amazonaws.com"
    )
    monkeypatch.setenv(name, "http://127.0.0.1:1234/")
    assert aws.Realtime().base_url == "http://127.0.0.1:1234"
    given = "https://vpce-1.bedrock-runtime.us-east-1.vpce.amazonaws.com"
    assert aws.Realtime(base_url=given).base_url == given


def test_public_names_and_no_others():
    assert sorted(aws.__all__) == [
        "Credentials",
        "ROLL_OVER",
        "Realtime",
        "SemanticVAD",
        "ServerVAD",
        "Transcription",
    ]
    assert "Realtime" in dir(aws)
    with pytest.raises(AttributeError, match="has no attribute 'Nova'"):
        aws.Nova  # noqa: B018


def test_missing_certificate_bundle_is_reported(monkeypatch):
    monkeypatch.setenv("AWS_CA_BUNDLE", "/nowhere/ca.pem")
    pytest.importorskip("aws_sdk_bedrock_runtime", reason="the aws extra is not installed")
    with pytest.raises(ConfigError, match="AWS_CA_BUNDLE can't be read: No such file"):
        run_virtual(aws.Realtime().prepare(SessionSetup()), grace=0.0)


def test_certificates_to_trust_can_be_given():
    context = ssl.create_default_context()
    assert aws.Realtime(ssl_context=context).ssl_context is context
