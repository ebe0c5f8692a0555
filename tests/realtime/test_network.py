"""The base of networked models: key, headers, errors and images."""

import asyncio
import ssl

import numpy as np
import pytest

from duologue.errors import ConfigError, ErrorKind, SessionError
from duologue.realtime import Capabilities, NetworkRealtime, SessionSetup, WireConnection
from duologue.video import VideoFrame

URL = "wss://service.example/v1"


class Model(NetworkRealtime[bytes]):
    def __init__(self, *, video=False, **options):
        options.setdefault("base_url", URL)
        super().__init__(Capabilities("p", "m", video=video), **options)

    def make_codec(self, setup):
        return object()

    def make_wire(self, codec, setup):
        return self.websocket()


@pytest.mark.parametrize(
    ("api_key", "headers", "expected"),
    [
        ("", {}, {}),
        ("k\n", {}, {"Authorization": "Bearer k"}),
        ("k", {"X-A": "1"}, {"Authorization": "Bearer k", "X-A": "1"}),
        ("k", {"Authorization": "Basic x"}, {"Authorization": "Basic x"}),
    ],
)
async def test_the_key_is_a_bearer_token_beside_other_headers(api_key, headers, expected):
    assert await Model(api_key=api_key, headers=headers).make_headers() == expected


async def test_a_function_returns_a_key_for_each_connection():
    keys = iter(["one", "two", "three"])

    async def rotating():
        return next(keys)

    assert await Model(api_key=lambda: next(keys)).find_key() == "one"
    model = Model(api_key=rotating)
    assert [await model.find_key(), await model.find_key()] == ["two", "three"]


@pytest.mark.parametrize(
    ("key", "kind", "match"),
    [
        (lambda: 1 / 0, ErrorKind.RETRY, "division by zero"),
        (lambda: None, ErrorKind.FATAL, "must return a string"),
        (lambda: "a b", ErrorKind.FATAL, "must be printable ASCII without spaces"),
    ],
)
async def test_a_function_that_returns_no_key_is_an_error(key, kind, match):
    with pytest.raises(SessionError, match=match) as caught:
        await Model(api_key=key).find_key()
    assert (caught.value.kind, caught.value.code) == (kind, "api_key")


@pytest.mark.parametrize(
    "options",
    [
        {"base_url": "service.example"},
        {"base_url": "ftp://service.example"},
        {"api_key": "a key"},
        {"headers": {"a b": "c"}},
        {"proxy": "nowhere"},
        {"ssl_context": "yes"},
    ],
)
async def test_a_value_that_can_not_work_is_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        Model(**options)


async def test_the_table_of_errors_goes_before_the_defaults():
    model = Model(errors={"503": ErrorKind.FATAL, "4001": ErrorKind.FATAL, "slow": ErrorKind.RETRY})
    assert model.http_error(503, b" out  of\norder").kind is ErrorKind.FATAL
    assert str(model.http_error(503, b" out  of\norder")) == "out of order"
    assert [model.http_error(status, b"").kind for status in (401, 429, 500, 302)] == [
        ErrorKind.FATAL, ErrorKind.RETRY, ErrorKind.RETRY, ErrorKind.UNKNOWN,
    ]  # fmt: skip
    assert str(model.http_error(401, b"")) == "the server answered with HTTP 401"
    assert [model.close_error(code, "").kind for code in (4001, 1000, 1006, 1008)] == [
        ErrorKind.FATAL, ErrorKind.RECYCLE, ErrorKind.RECYCLE, ErrorKind.FATAL,
    ]  # fmt: skip
    assert str(model.close_error(1006, "gone")) == "gone (close code 1006)"
    assert [model.error(code, "x").kind for code in ("slow", "new")] == [
        ErrorKind.RETRY, ErrorKind.UNKNOWN,
    ]  # fmt: skip


async def test_each_connection_has_its_own_codec_and_the_backlog_of_the_policy():
    model = Model()
    first, second = model.open(SessionSetup()), model.open(SessionSetup())
    assert isinstance(first, WireConnection)
    assert first.codec is not second.codec
    assert first._audio_limit_s == model.input_backlog_s > 10


async def test_images_are_jpeg_only_for_a_model_that_accepts_them():
    pytest.importorskip("PIL", reason="needs duologue[video]")
    assert Model().encode_image is None
    encode = Model(video=True).encode_image
    jpeg = await asyncio.to_thread(encode, VideoFrame(np.zeros((8, 8, 3), np.uint8), 0.0))
    assert jpeg.startswith(b"\xff\xd8")
    own = Model(video=True, encode_image=lambda frame: b"mine")
    assert own.encode_image(None) == b"mine"


async def test_the_wire_has_all_that_was_set():
    context = ssl.create_default_context()
    model = Model(api_key="k", proxy="http://proxy.example:3128", ssl_context=context)
    wire = model.websocket()
    assert (wire._url, wire._proxy, wire._ssl_context) == (URL, model.proxy, context)
    assert model.websocket("wss://other.example")._url == "wss://other.example"
