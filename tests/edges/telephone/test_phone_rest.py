"""Outbound calls, transfers, keys and hanging up, by each carrier's REST interface."""

import asyncio

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from starlette.applications import Starlette

from duologue import Agent, AudioFrame
from duologue.edges import telephone
from duologue.edges.telephone import telnyx
from duologue.edges.telephone._rest import RestRequest, send
from duologue.errors import ConfigError, UnsupportedError
from duologue.testing import (
    CallRejectedError,
    PlivoSimulator,
    Reply,
    ScriptedRealtime,
    TelnyxSimulator,
    TwilioSimulator,
    VonageSimulator,
)

URL = "https://talk.example.org"
KEY = "0123456789abcdef0123456789abcdef"
SIMULATORS = {
    "twilio": TwilioSimulator,
    "telnyx": TelnyxSimulator,
    "plivo": PlivoSimulator,
    "vonage": VonageSimulator,
}


@pytest.fixture(scope="module")
def private_key():
    key = rsa.generate_private_key(65537, 2048)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def carrier_of(service, private_key):
    base_url = service.url
    match service.name:
        case "twilio":
            return telephone.Twilio(URL, auth_token=KEY, account_sid="AC1", base_url=base_url)
        case "plivo":
            return telephone.Plivo(URL, auth_token=KEY, auth_id="MA1", base_url=base_url)
        case "vonage":
            return telephone.Vonage(
                URL,
                signature_secret=KEY,
                application_id="app",
                private_key=private_key,
                base_url=base_url,
            )
        case "telnyx":
            return telephone.Telnyx(
                URL,
                api_key=KEY,
                public_key=service.signing_key.public,
                connection_id="1",
                base_url=base_url,
            )


class Office:
    """An app whose agents greet, and a simulated carrier that calls it."""

    def __init__(self, service, private_key, **options):
        self.service = service
        self.carrier = carrier_of(service, private_key)
        self.agents = []
        self.app = service.app = Starlette()
        telephone.mount(self.app, self.make_agent, self.carrier, **options)

    def make_agent(self, edge):
        agent = Agent(edge=edge, llm=ScriptedRealtime([Reply("Hello.", seconds=0.3)]))
        self.agents.append(agent)
        return agent


@pytest.fixture(params=list(SIMULATORS))
async def office(request, private_key):
    async with SIMULATORS[request.param](URL, key=KEY) as service:
        yield Office(service, private_key)


async def until(condition, seconds=10.0):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def orders(office):
    return [(order.what, order.detail) for order in office.service.orders]


async def test_a_dialled_call_comes_to_make_agent(office):
    call_id = await telephone.dial(
        office.carrier,
        "+15550001111",
        from_="+15552223333",
        parameters={"appointment": "42"},
        detect_machine=True,
    )
    assert call_id == office.service.calls[0].call_id
    await until(lambda: office.agents and office.agents[0].llm.connected)
    call = office.agents[0].edge.call
    assert (call.direction, call.parameters) == ("outbound", {"appointment": "42"})
    assert call.called.removeprefix("+") == "15550001111"
    assert call.caller.removeprefix("+") == "15552223333"
    silent = office.service.name == "plivo"  # Its simulator does not look for machines.
    found = await office.agents[0].edge.wait_answered_by(0.0 if silent else 5.0)
    assert found == ("" if silent else "human")
    await office.agents[0].edge.hang_up()
    await until(lambda: office.service.calls[0].ended.is_set())
    assert office.service.failures == []


async def begin(office):
    await telephone.dial(office.carrier, "+15550001111", from_="+15552223333")
    await until(lambda: office.agents and office.agents[0].llm.connected)
    return office.agents[0].edge


async def test_a_transfer(office):
    edge = await begin(office)
    with pytest.raises(ConfigError, match="number such as"):
        await edge.transfer("the boss")
    await edge.transfer("+15550009999")
    await until(lambda: len(office.service.orders) == 2)
    what, detail = orders(office)[1]
    assert what == "transfer"
    assert "15550009999" in detail
    await until(lambda: office.service.calls[0].ended.is_set())
    await until(lambda: not office.agents[0]._live)
    assert "hang_up" not in dict(orders(office))  # which would end the transferred call


async def test_an_agent_that_leaves_after_a_transfer_does_not_end_the_call(private_key):
    async with VonageSimulator(URL, key=KEY) as service:
        office = Office(service, private_key)
        edge = await begin(office)
        edge._control.transfer = lambda to: asyncio.sleep(0)  # The stream goes on for a while.
        await edge.transfer("+15550009999")
        await office.agents[0].close()
        await until(lambda: service.calls[0].ended.is_set())
        assert orders(office) == [("dial", "15550001111")]


async def test_a_caller_who_was_transferred_stays_although_the_stream_is_not_stopped(monkeypatch):
    async def fail_to_stop(request, *, gone=()):
        if request.url.endswith("streaming_stop"):
            raise telephone.TelephoneError("api.telnyx.com could not be reached")
        return await send(request, gone=gone)

    monkeypatch.setattr(telnyx, "send", fail_to_stop)
    async with TelnyxSimulator(URL, key=KEY) as service:
        office = Office(service, None)
        edge = await begin(office)
        await edge.transfer("+15550009999")
        await office.agents[0].close()
        await until(lambda: not office.agents[0]._live)
        assert [what for what, _ in orders(office)] == ["dial", "transfer"]


async def test_an_answer_that_is_known_before_the_socket_is_not_lost(private_key):
    async with VonageSimulator(URL, key=KEY) as service:
        office = Office(service, private_key)
        call = service.caller()
        call.detected = "machine"
        await call.report_detection()
        async with call:
            await until(lambda: office.agents)
            assert await office.agents[0].edge.wait_answered_by() == "machine"
            call.detected = "human"
            await call.report_detection()
            await until(lambda: office.agents[0].edge.call.answered_by == "human")


async def test_keys_for_the_other_side(office):
    edge = await begin(office)
    if office.service.name == "twilio":
        with pytest.raises(UnsupportedError, match="while it streams"):
            await edge.send_digits("12w3#")
        return
    await edge.send_digits("12w3#")
    keys = "12p3#" if office.service.name == "vonage" else "12w3#"
    assert orders(office)[1:] == [("digits", keys)]


async def test_hanging_up_by_rest_may_come_twice(office):
    edge = await begin(office)
    control = office.carrier.control(edge.call)
    await control.hang_up()
    await control.hang_up()
    assert orders(office)[1:] == [("hang_up", "")]
    await until(lambda: office.service.calls[0].ended.is_set())


async def test_a_wrong_key_is_a_sentence(office):
    office.service.key = "another"
    if office.service.name == "vonage":
        return  # the simulator does not know the application's public key
    with pytest.raises(telephone.TelephoneError, match="refused: ") as refused:
        await telephone.dial(office.carrier, "+15550001111", from_="+15552223333")
    assert refused.value.status == 401
    assert KEY not in str(refused.value)


async def test_an_incoming_call_over_vonage_is_hung_up_by_rest(private_key):
    async with VonageSimulator(URL, key=KEY) as service:
        office = Office(service, private_key)
        call = service.caller()
        service.register(call)
        async with call:
            await until(lambda: office.agents and office.agents[0].llm.connected)
            await office.agents[0].edge.hang_up()
            await until(lambda: service.orders)
        assert orders(office) == [("hang_up", "")]


async def test_telnyx_answers_and_rejects_by_rest(private_key):
    voice = AudioFrame(np.tile(np.repeat([8000, -8000], 20), 400).astype(np.int16), 16000)
    async with TelnyxSimulator(URL, key=KEY) as service:
        office = Office(service, private_key, max_calls=1)
        async with service.caller() as call:
            await until(lambda: office.agents and office.agents[0].llm.connected)
            with pytest.raises(CallRejectedError):
                await service.caller().call_webhook()
            await call.say(voice)
            await until(lambda: call.played_samples > 0)
        assert orders(office) == [("answer", ""), ("reject", "USER_BUSY")]
        assert call.violations == []


@pytest.mark.parametrize("to", ["", "tel", "+1 555", "+1<x>", 5, "+" * 30])
async def test_a_number_that_can_not_be_called_is_refused(to):
    carrier = telephone.Twilio(URL, auth_token=KEY)
    with pytest.raises(ConfigError, match="to must be a number"):
        await telephone.dial(carrier, to, from_="+1555")
    with pytest.raises(ConfigError, match="ring_s"):
        await telephone.dial(carrier, "+1555", from_="+1555", ring_s=0)
    with pytest.raises(UnsupportedError, match="account_sid"):
        await telephone.dial(carrier, "+1555", from_="+1555")


async def test_a_carrier_that_is_not_there_is_a_sentence():
    carrier = telephone.Plivo(URL, auth_token=KEY, auth_id="M", base_url="http://127.0.0.1:9")
    with pytest.raises(telephone.TelephoneError, match=r"127\.0\.0\.1 could not be reached"):
        await telephone.dial(carrier, "+1555", from_="+1555")


def test_keys_do_not_show(private_key):
    request = telephone.Vonage(
        URL, signature_secret=KEY, application_id="app", private_key=private_key
    ).request("POST", "", {})
    assert "Bearer" not in repr(request)
    assert isinstance(request, RestRequest)
    with pytest.raises(ConfigError, match="RSA"):
        telephone.Vonage(
            URL, signature_secret=KEY, application_id="app", private_key="nonsense"
        ).request("POST", "", {})


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: telephone.Plivo(URL, auth_token=KEY, rate=11025), "8000 or 16000"),
        (lambda: telephone.Vonage(URL, signature_secret=KEY, rate=11025), "24000"),
        (lambda: telephone.Telnyx(URL, api_key=KEY, public_key=KEY, codec="OPUS"), "PCMU"),
        (lambda: telephone.Twilio(URL + "?x=1", auth_token=KEY), "no query"),
        (lambda: telephone.Twilio("talk.example.org", auth_token=KEY), "public_url must be"),
        (lambda: telephone.Twilio(URL, auth_token="a b"), "without spaces"),  # noqa: S106
    ],
)
def test_options_that_can_not_work_are_refused(make, words):
    with pytest.raises(ConfigError, match=words):
        make()
