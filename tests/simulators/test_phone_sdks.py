"""The carriers' own SDKs accept the simulated REST interfaces."""

import asyncio

import plivo
import plivo.rest.client
import pytest
import telnyx
import vonage_http_client
import vonage_voice
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from twilio.base.exceptions import TwilioRestException
from twilio.http.http_client import TwilioHttpClient
from twilio.rest import Client as TwilioClient
from vonage_http_client.errors import NotFoundError

from duologue.testing import PlivoSimulator, TelnyxSimulator, TwilioSimulator, VonageSimulator

APP = "http://127.0.0.1:9"
"""Where no app is: the calls themselves are tested elsewhere."""
KEY = "0123456789abcdef0123456789abcdef"


class Loopback(TwilioHttpClient):
    def __init__(self, url):
        super().__init__()
        self.loopback = url

    def request(self, method, url, *args, **kwargs):
        url = url.replace("https://api.twilio.com", self.loopback)
        return super().request(method, url, *args, **kwargs)


def keep(service):
    """Keep a dialled call, though no app takes it."""
    service._run = lambda call, connect: asyncio.sleep(0)


def orders(service):
    return [(order.what, order.detail) for order in service.orders]


async def test_twilio():
    async with TwilioSimulator(APP, key=KEY) as service:
        keep(service)
        client = TwilioClient("AC1", KEY, http_client=Loopback(service.url))

        def work():
            call = client.calls.create(to="+1", from_="+2", url=APP, timeout=20)
            assert (call.status, call.direction, call.to) == ("queued", "outbound-api", "+1")
            client.calls(call.sid).update(twiml="<Response><Dial>+3</Dial></Response>")
            with pytest.raises(TwilioRestException) as gone:
                client.calls(call.sid).update(status="completed")
            assert (gone.value.status, gone.value.code) == (404, 20404)
            other = client.calls.create(to="+1", from_="+2", url=APP)
            client.calls(other.sid).update(status="completed")
            with pytest.raises(TwilioRestException) as wrong:
                TwilioClient("AC1", "x", http_client=Loopback(service.url)).calls.create(
                    to="+1", from_="+2", url=APP
                )
            assert wrong.value.status == 401

        await asyncio.to_thread(work)
        assert orders(service) == [
            ("dial", "+1"),
            ("transfer", "<Response><Dial>+3</Dial></Response>"),
            ("dial", "+1"),
            ("hang_up", ""),
        ]


async def test_telnyx():
    async with TelnyxSimulator(APP, key=KEY) as service:
        keep(service)
        async with telnyx.AsyncTelnyx(api_key=KEY, base_url=f"{service.url}/v2") as client:
            made = await client.calls.dial(
                connection_id="1",
                from_="+2",
                to="+1",
                stream_url="wss://h/m",
                stream_bidirectional_mode="rtp",
                stream_bidirectional_codec="PCMU",
            )
            call_id = made.data.call_control_id
            await client.calls.actions.send_dtmf(call_id, digits="1w2")
            await client.calls.actions.transfer(call_id, to="+3")
            await client.calls.actions.stop_streaming(call_id)
            await client.calls.actions.hangup(call_id)
            with pytest.raises(telnyx.UnprocessableEntityError, match="90018"):
                await client.calls.actions.hangup(call_id)
            with pytest.raises(telnyx.UnprocessableEntityError, match="MP3"):
                await client.calls.dial(connection_id="1", from_="+2", to="+1")
        assert orders(service) == [
            ("dial", "+1"),
            ("digits", "1w2"),
            ("transfer", "+3"),
            ("hang_up", ""),
        ]


async def test_plivo(monkeypatch):
    async with PlivoSimulator(APP, key=KEY) as service:
        keep(service)
        base = f"{service.url}/v1/Account"
        for name in (
            "PLIVO_API_BASE_URI",
            "API_VOICE_BASE_URI",
            "API_VOICE_BASE_URI_FALLBACK_1",
            "API_VOICE_BASE_URI_FALLBACK_2",
        ):
            monkeypatch.setattr(plivo.rest.client, name, base, raising=False)
        client = plivo.RestClient("MAXXXXXXXXXXXXXXXXXX", KEY)

        def work():
            made = client.calls.create(
                from_="12025550000", to_="12025551111", answer_url="https://h/a"
            )
            client.calls.send_digits(made.request_uuid, "1w2", leg="aleg")
            client.calls.delete(made.request_uuid)

        await asyncio.to_thread(work)
        assert orders(service) == [("dial", "12025551111"), ("digits", "1w2"), ("hang_up", "")]


async def test_vonage():
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    async with VonageSimulator(APP, key=KEY) as service:
        keep(service)
        auth = vonage_http_client.Auth(application_id="app", private_key=pem)
        http = vonage_http_client.HttpClient(auth)
        send = http._session.request

        def request(method, url, **options):
            return send(method, url.replace("https://api.nexmo.com", service.url), **options)

        http._session.request = request
        voice = vonage_voice.Voice(http)

        def work():
            made = voice.create_call(
                {
                    "to": [{"type": "phone", "number": "12025551111"}],
                    "from_": {"type": "phone", "number": "12025550000"},
                    "answer_url": ["https://h/a"],
                }
            )
            assert made.status == "started"
            voice.play_dtmf_into_call(made.uuid, "1p2")
            voice.hangup(made.uuid)
            with pytest.raises(NotFoundError):
                voice.hangup(made.uuid)

        await asyncio.to_thread(work)
        assert orders(service) == [("dial", "12025551111"), ("digits", "1p2"), ("hang_up", "")]
