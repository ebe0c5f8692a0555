"""Credentials of a Gemini session: keys, ephemeral tokens, and Vertex AI's bearer tokens."""

# ruff: noqa: S105, S106, S107 - none of these lets anybody in

import asyncio
import dataclasses
import json
import logging
import sys
import threading

import pytest
from gemini_codec_harness import MODEL, Harness

from duologue.errors import ConfigError, ErrorKind, SessionError
from duologue.providers import gemini
from duologue.providers.gemini._auth import ApiKeyAuth, resolve_auth
from duologue.providers.gemini._vertex import BearerTokens, Vertex
from duologue.testing import GeminiSimulator, virtual_time
from fake_edge import FakeEdge, join_agent

auth = pytest.importorskip("google.auth", reason="the vertex extra is not installed")
httpx = pytest.importorskip("httpx", reason="the vertex extra is not installed")

GOOGLE = "wss://generativelanguage.googleapis.com/ws/google.ai.generativelanguage"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch):
    for name in ("GEMINI_API_KEY", "GOOGLE_API_KEY", "GOOGLE_GEMINI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("GOOGLE_VERTEX_BASE_URL", raising=False)


def access(**given):
    names = ("api_key", "token", "vertex", "base_url", "api_version")
    return resolve_auth(**{**dict.fromkeys(names), **given})


class Fake:
    """Fake credentials of google-auth."""

    quota_project_id = None

    def __init__(self, *, valid=False, error=None, token="bearer-1"):
        self.valid = valid
        self.token = token if valid else None
        self.next_token = token
        self.error = error
        self.threads = []

    def refresh(self, request):
        self.threads.append(threading.current_thread())
        if self.error is not None:
            raise self.error
        self.token, self.valid = self.next_token, True


def bearer(credentials):
    return asyncio.run(BearerTokens(credentials).headers())


# Keys and tokens


@pytest.mark.parametrize("name", ["GEMINI_API_KEY", "GOOGLE_API_KEY"])
def test_the_key_is_read_from_the_environment(monkeypatch, name):
    with pytest.raises(ConfigError, match="set GEMINI_API_KEY, or give api_key, token or vertex"):
        gemini.Realtime()
    monkeypatch.setenv(name, "from-there\n")
    assert asyncio.run(access().headers()) == {"x-goog-api-key": "from-there"}
    assert asyncio.run(access(api_key="given").headers()) == {"x-goog-api-key": "given"}
    assert gemini.Realtime().capabilities.model == MODEL


def test_a_key_uses_the_first_version_and_a_token_the_constrained_service():
    by_key = access(api_key="k")
    assert by_key.url == f"{GOOGLE}.v1.GenerativeService.BidiGenerateContent"
    assert by_key.resource_name(MODEL) == f"models/{MODEL}"
    assert by_key.resource_name("tunedModels/x") == "tunedModels/x"
    by_token = access(token="auth_tokens/t")
    assert by_token.url == f"{GOOGLE}.v1alpha.GenerativeService.BidiGenerateContentConstrained"
    assert asyncio.run(by_token.headers()) == {"Authorization": "Token auth_tokens/t"}
    assert ".v1beta." in access(api_key="k", api_version="v1beta").url
    assert ".v1beta." in access(token="auth_tokens/t", api_version="v1beta").url


@pytest.mark.parametrize(
    "asked", [{"affective_dialog": True}, {"proactivity": gemini.Proactivity()}]
)
def test_alpha_features_use_the_alpha_version(asked):
    old = gemini.Realtime("gemini-2.5-flash-native-audio-preview-12-2025", api_key="k", **asked)
    assert ".v1alpha." in old._auth.url
    assert ".v1." in gemini.Realtime("gemini-2.5-flash-native-audio", api_key="k")._auth.url
    new = gemini.Realtime(api_key="k", proactivity=gemini.Proactivity(video=True))
    assert ".v1." in new._auth.url


def test_the_base_url_is_read_from_the_environment_and_must_be_valid(monkeypatch):
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", "http://127.0.0.1:8765/below/")
    url = "/ws/google.ai.generativelanguage.v1.GenerativeService.BidiGenerateContent"
    assert access(api_key="k").url == f"ws://127.0.0.1:8765/below{url}"
    assert access(api_key="k", base_url="https://here").url == f"wss://here{url}"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"api_key": "k", "token": "auth_tokens/t"}, "one of api_key, token and vertex"),
        ({"api_key": "k", "vertex": Vertex("p")}, "one of api_key, token and vertex"),
        ({"token": "auth_tokens/t", "vertex": Vertex("p")}, "one of api_key, token and vertex"),
        ({"token": "AIza"}, "must be an ephemeral token: auth_tokens/"),
        ({"token": ""}, "must be an ephemeral token: auth_tokens/"),
        ({"api_key": "auth_tokens/t"}, "give it as token"),
        ({"api_key": ""}, "no API key"),
        ({"api_key": "two words"}, "printable ASCII without spaces"),
        ({"api_key": "a\r\nHost: evil"}, "printable ASCII without spaces"),
        ({"api_key": "schlüssel"}, "printable ASCII without spaces"),
        ({"token": "auth_tokens/\u2603"}, "printable ASCII without spaces"),
        ({"api_key": "k", "api_version": "../v1"}, "v1 or v1beta"),
        ({"api_key": "k", "base_url": "127.0.0.1:1"}, "base_url must be an address"),
        ({"api_key": "k", "base_url": "ftp://x"}, "base_url must be an address"),
        ({"api_key": "k", "base_url": "https://x/?a=b"}, "base_url must be an address"),
        ({"api_key": "k", "base_url": "https://x:port"}, "base_url must be an address"),
        ({"api_key": "k", "base_url": "https://[x"}, "base_url must be an address"),
        ({"vertex": Vertex("p"), "base_url": "x"}, "base_url must be an address"),
    ],
)
def test_none_or_several_credentials_are_one_line_errors(given, words):
    with pytest.raises(ConfigError, match=words) as caught:
        access(**given)
    assert "\n" not in str(caught.value)
    assert "evil" not in str(caught.value)


# Vertex AI


@pytest.mark.parametrize(
    ("location", "host"),
    [
        ("us-central1", "us-central1-aiplatform.googleapis.com"),
        ("global", "aiplatform.googleapis.com"),
        ("eu", "aiplatform.eu.rep.googleapis.com"),
    ],
)
def test_vertex_has_its_own_host_and_full_resource_names(location, host):
    there = access(vertex=Vertex("p", location))
    service = "google.cloud.aiplatform.v1beta1.LlmBidiService/BidiGenerateContent"
    assert there.url == f"wss://{host}/ws/{service}"
    full = f"projects/p/locations/{location}/publishers/google/models/m"
    for name in ("m", "models/m", "publishers/google/models/m", full):
        assert there.resource_name(name) == full
    assert there.resource_name("projects/q/x/m") == "projects/q/x/m"


def test_vertex_can_have_another_address(monkeypatch):
    monkeypatch.setenv("GOOGLE_VERTEX_BASE_URL", "http://127.0.0.1:1")
    assert access(vertex=Vertex("p"), api_version="v1").url.startswith(
        "ws://127.0.0.1:1/ws/google.cloud.aiplatform.v1."
    )


def test_a_bearer_token_is_refreshed_in_a_thread_only_when_it_has_expired():
    credentials = Fake()
    there = BearerTokens(credentials)
    assert asyncio.run(there.headers()) == {"Authorization": "Bearer bearer-1"}
    assert asyncio.run(there.headers()) == {"Authorization": "Bearer bearer-1"}
    assert len(credentials.threads) == 1
    assert credentials.threads[0] is not threading.main_thread()
    credentials.valid, credentials.next_token = False, "bearer-2"
    assert asyncio.run(there.headers()) == {"Authorization": "Bearer bearer-2"}
    assert len(credentials.threads) == 2


def test_the_quota_project_of_the_credentials_is_sent():
    credentials = Fake(valid=True)
    credentials.quota_project_id = "payer"
    assert bearer(credentials)["x-goog-user-project"] == "payer"


def test_the_default_credentials_are_looked_up_once(monkeypatch):
    asked = []

    def default(*, scopes):
        asked.append(scopes)
        return Fake(), "project"

    monkeypatch.setattr(auth, "default", default)
    there = BearerTokens(None)
    for _ in range(2):
        assert asyncio.run(there.headers())["Authorization"] == "Bearer bearer-1"
    assert asked == [["https://www.googleapis.com/auth/cloud-platform"]]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (auth.exceptions.RefreshError("invalid_grant:\n  gone"), ErrorKind.FATAL),
        (auth.exceptions.RefreshError("later", retryable=True), ErrorKind.RETRY),
        (auth.exceptions.TransportError("no route"), ErrorKind.RETRY),
        (auth.exceptions.DefaultCredentialsError("none here"), ErrorKind.FATAL),
        (ConnectionResetError("gone"), ErrorKind.RETRY),
    ],
)
def test_failing_credentials_are_one_line_with_an_error_kind(error, kind):
    with pytest.raises(SessionError, match="no credentials for Vertex AI: ") as caught:
        bearer(Fake(error=error))
    assert caught.value.kind is kind
    assert "\n" not in str(caught.value)


def test_a_missing_token_is_reported():
    with pytest.raises(SessionError, match="returned no token"):
        bearer(Fake(token=""))


def test_google_auth_makes_its_requests_with_httpx(monkeypatch):
    """Refresh with google-auth itself: where it goes, and what it makes of the responses."""
    monkeypatch.setitem(sys.modules, "requests", None)  # The extra does not contain it.
    from google.oauth2.credentials import Credentials

    asked = []

    def answer(request):
        asked.append((request.method, str(request.url), request.content))
        if len(asked) == 1:
            return httpx.Response(200, json={"access_token": "real", "expires_in": 3600})
        if len(asked) == 2:
            raise httpx.ConnectError("no route")
        return httpx.Response(400, json={"error": "invalid_grant"})

    client = httpx.Client(transport=httpx.MockTransport(answer))
    monkeypatch.setattr(httpx, "request", client.request)
    credentials = Credentials(
        None,
        refresh_token="r",
        token_uri="https://127.0.0.1/token",
        client_id="c",
        client_secret="s",
    )
    there = BearerTokens(credentials)
    assert asyncio.run(there.headers())["Authorization"] == "Bearer real"
    assert asked[0][:2] == ("POST", "https://127.0.0.1/token")
    assert b"refresh_token=r" in asked[0][2]
    for kind in (ErrorKind.RETRY, ErrorKind.FATAL):
        credentials.token = None
        with pytest.raises(SessionError) as caught:
            asyncio.run(there.headers())
        assert caught.value.kind is kind


# With the simulator


@virtual_time
async def test_an_ephemeral_token_opens_one_session_and_may_resume_it():
    async with GeminiSimulator(replies=["Hi."]) as simulator:
        token = simulator.auth.create_token({})["name"]
        model = gemini.Realtime(base_url=simulator.url, token=token)
        async with join_agent(model) as agent:
            assert (await agent.simple_response("Hello.")).heard_text == "Hi."
            await asyncio.sleep(5)
            await simulator.kill()
            await asyncio.sleep(3)
            assert model.connected
            assert simulator.sessions[-1].resumed
        again = gemini.Realtime(base_url=simulator.url, token=token)
        with pytest.raises(SessionError, match="Token has been used too many times") as caught:
            async with join_agent(again):
                pass
        assert caught.value.kind is ErrorKind.FATAL


@virtual_time
async def test_vertex_gets_the_model_name_and_a_fresh_bearer_token():
    async with GeminiSimulator(replies=["Hi."]) as simulator:
        credentials = Fake(token=simulator.key)
        vertex = Vertex("p", credentials=credentials)
        model = gemini.Realtime(
            "gemini-live-2.5-flash-native-audio", base_url=simulator.url, vertex=vertex
        )
        async with join_agent(model) as agent:
            setup = simulator.sessions[0].setup
            assert setup["model"] == vertex.resource_name("gemini-live-2.5-flash-native-audio")
            assert setup["sessionResumption"] == {"transparent": True}
            assert (await agent.simple_response("Hello.")).heard_text == "Hi."
            credentials.valid = False
            await simulator.kill()
            await asyncio.sleep(3)
            assert model.connected
            assert len(credentials.threads) == 2


@virtual_time
async def test_an_invalid_bearer_token_is_reported_in_the_servers_words():
    async with GeminiSimulator() as simulator:
        vertex = Vertex("p", credentials=Fake(token="other"))
        model = gemini.Realtime(base_url=simulator.url, vertex=vertex)
        with pytest.raises(SessionError, match="invalid authentication credentials") as caught:
            async with join_agent(model):
                pass
        assert (caught.value.kind, caught.value.code) == (ErrorKind.FATAL, "UNAUTHENTICATED")


SECRET = "s3cr3t-of-mine"


@pytest.mark.parametrize(
    "given",
    [
        {"api_key": SECRET},
        {"token": f"auth_tokens/{SECRET}"},
        {"vertex": Vertex("p", credentials=Fake(token=SECRET, valid=True))},
    ],
)
def test_no_repr_contains_a_secret(given):
    model = gemini.Realtime(**given)
    shown = [repr(model), repr(model._auth), repr(given.get("vertex")), repr(model._config)]
    found = access(**given)
    shown.append(repr(found))
    if dataclasses.is_dataclass(found) and isinstance(found, ApiKeyAuth):
        shown.append(str(found))
    assert not [text for text in shown if SECRET in text]


@virtual_time
async def test_neither_events_nor_logs_contain_a_key_a_handle_or_transcripts(caplog):
    caplog.set_level(logging.DEBUG, "duologue")
    async with GeminiSimulator(replies=["Hi."], transcripts=["Hello."], key=SECRET) as simulator:
        model = gemini.Realtime(base_url=simulator.url, api_key=SECRET)
        phone = FakeEdge()
        async with join_agent(model, phone) as agent:
            await phone.speak(0.5)
            await phone.be_silent(4)
            await simulator.kill()
            await asyncio.sleep(2)
            assert simulator.sessions[-1].resumed
            handle = simulator.sessions[-1].setup["sessionResumption"]["handle"]
            told = repr(agent.recorded)
    for secret in (SECRET, handle):
        assert secret not in told
        assert secret not in caplog.text
    assert "Hello." not in caplog.text


def test_the_reported_session_config_has_no_handle():
    first = Harness()
    first.handle("h-1")
    second = Harness(resumption=first.resumption)
    assert second.opening["setup"]["sessionResumption"] == {"handle": "h-1"}
    assert "h-1" not in json.dumps(dict(second.started[0].config))
