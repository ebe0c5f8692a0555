"""The carriers' REST interfaces on this machine: dial, answer, transfer, keys, hang up.

A dialled call is answered at once by a simulated person, who calls the app's webhook, or its socket
with Telnyx, as the carrier does. The official SDKs talk to this service in the tests.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import uuid
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Self

import aiohttp
import jwt
from aiohttp import web

from duologue.errors import ConfigError
from duologue.simulators._bounded_log import BoundedLog
from duologue.simulators.telephone.caller import (
    CallRejectedError,
    LineFaults,
    PhoneCaller,
    PlivoCaller,
    TelnyxCaller,
    TelnyxKey,
    TwilioCaller,
    VonageCaller,
)

if TYPE_CHECKING:
    from duologue.simulators.telephone._transport import AsgiApp

logger = logging.getLogger(__name__)

MAX_CALLS = 64
"""Most calls at once; a further one is refused with status 429."""

type Person = Callable[[PhoneCaller], Awaitable[None]]
"""What a simulated person does in a call that the app has dialled; the call ends with it."""


async def listen(call: PhoneCaller) -> None:
    """Say nothing, until the app hangs up or for a minute."""
    try:
        async with asyncio.timeout(60):
            await call.ended.wait()
    except TimeoutError:
        logger.info("the simulated person hangs up after a minute")


@dataclass(frozen=True, slots=True)
class RestOrder:
    """A request of the app: ``dial``, ``answer``, ``reject``, ``hang_up``, ``transfer`` or
    ``digits``, with the number or the keys.
    """

    what: str
    call_id: str
    detail: str = ""


class PhoneSimulator(ABC):
    """A simulated carrier; use it as ``async with``.

    Args:
        public_url: The public address of the app that it calls.
        key: The key that the app sends, and that signs the webhooks.
        app: The app itself, if it runs in this process.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        person: What the person does in a call that the app has dialled.
        faults: What goes wrong on the lines.

    Attributes:
        orders: What the app has asked for, oldest first.
    """

    name: ClassVar[str]
    outlives_socket: ClassVar[bool] = False
    """Whether a call goes on when its socket has been closed."""

    def __init__(
        self,
        public_url: str,
        *,
        key: str,
        app: AsgiApp | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        person: Person = listen,
        faults: LineFaults | None = None,
    ) -> None:
        self.public_url = public_url
        self.key = key
        self.app = app
        self.person = person
        self.faults = faults
        self._host = host
        self._port = port
        self._orders: BoundedLog[RestOrder] = BoundedLog(1000)
        self._calls: dict[str, PhoneCaller] = {}
        self._recent: deque[PhoneCaller] = deque(maxlen=MAX_CALLS)
        self._tasks: asyncio.TaskGroup | None = None
        self._stack = AsyncExitStack()

    @property
    def url(self) -> str:
        """The address of the REST interface, for ``base_url``."""
        return f"http://{self._host}:{self._port}"

    @property
    def orders(self) -> list[RestOrder]:
        """What the app has asked for, oldest first."""
        return self._orders.entries

    @property
    def calls(self) -> list[PhoneCaller]:
        """The newest calls that the app has dialled, oldest first."""
        return list(self._recent)

    @property
    def failures(self) -> list[str]:
        """What the app has sent and the carrier does not take."""
        return [text for call in self._recent for text in call.violations]

    @abstractmethod
    def caller(self, **options: object) -> PhoneCaller:
        """Return a call of this carrier; its options are those of `PhoneCaller`."""

    @abstractmethod
    def _routes(self) -> list[web.RouteDef]:
        """Return the routes of the REST interface."""

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.add_routes(self._routes())
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0, handle_signals=False)
        try:
            self._tasks = await self._stack.enter_async_context(asyncio.TaskGroup())
            self._stack.push_async_callback(self._end_calls)
            self._stack.push_async_callback(runner.cleanup)
            await runner.setup()
            await web.TCPSite(runner, self._host, self._port).start()
        except OSError as error:
            await self._stack.aclose()
            reason = (error.strerror or str(error)).lower()
            raise ConfigError(f"can't listen on {self._host} port {self._port}: {reason}") from None
        except BaseException:
            await self._stack.aclose()
            raise
        self._port = int(runner.addresses[0][1])
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    async def _end_calls(self) -> None:
        for call in list(self._calls.values()):
            await call.hang_up()

    def register(self, call: PhoneCaller) -> None:
        """Let REST requests name a call that this simulator did not dial."""
        self._calls[call.call_id] = call
        self._recent.append(call)

    def _dial(self, call: PhoneCaller, connect: Callable[[], Awaitable[None]]) -> None:
        """Begin a dialled call soon, after the response to the request."""
        if len(self._calls) >= MAX_CALLS:
            raise web.HTTPTooManyRequests(text="too many calls")
        self.register(call)
        self._record("dial", call.call_id, call.called)
        assert self._tasks is not None  # noqa: S101 - it is open while the service runs
        self._tasks.create_task(self._run(call, connect), name="phone call")

    async def _run(self, call: PhoneCaller, connect: Callable[[], Awaitable[None]]) -> None:
        try:
            await connect()
            if call.detected:
                await call.report_detection()
            await self.person(call)
        except (CallRejectedError, aiohttp.ClientError) as error:
            logger.warning("the app did not take the call that it had dialled: %s", error)
        finally:
            await call.hang_up()
            self._calls.pop(call.call_id, None)

    def _record(self, what: str, call_id: str, detail: str = "") -> None:
        self._orders.add(RestOrder(what, call_id, detail))

    def _live(self, call_id: str) -> PhoneCaller | None:
        call = self._calls.get(call_id)
        if call is None:
            return None
        over = call.hung_up if self.outlives_socket else call.ended.is_set()
        return None if over else call

    def _basic(self, request: web.Request, account: str) -> bool:
        """Return whether the request has the account's name and key."""
        text = base64.b64encode(f"{account}:{self.key}".encode()).decode()
        return request.headers.get("authorization", "") == f"Basic {text}"


class TwilioSimulator(PhoneSimulator):
    """Twilio's REST interface for calls; see `PhoneSimulator`."""

    name = "twilio"

    def caller(self, **options: object) -> TwilioCaller:
        """Return a call over Twilio."""
        options = {"faults": self.faults, "app": self.app} | options
        return TwilioCaller(self.public_url, auth_token=self.key, **options)

    def _routes(self) -> list[web.RouteDef]:
        calls = "/2010-04-01/Accounts/{account}/Calls"
        return [
            web.post(f"{calls}.json", self._create),
            web.post(f"{calls}/{{call}}.json", self._update),
        ]

    async def _create(self, request: web.Request) -> web.Response:
        account = request.match_info["account"]
        if not self._basic(request, account):
            return _twilio_error(401, 20003, "Authenticate")
        form = await request.post()
        to, from_, url = (str(form.get(name, "")) for name in ("To", "From", "Url"))
        if not (to and from_):
            return _twilio_error(400, 21201, "No 'To' number is specified")
        if not url:
            return _twilio_error(400, 21205, "Url parameter is required")
        call = self.caller(caller=from_, called=to)
        call.webhook_url = url
        if "MachineDetection" in form:
            call.answered_by = "human"
        self._dial(call, call.answer_webhook)
        return web.json_response(_twilio_call(call, account, "queued"), status=201)

    async def _update(self, request: web.Request) -> web.Response:
        account, call_id = request.match_info["account"], request.match_info["call"]
        if not self._basic(request, account):
            return _twilio_error(401, 20003, "Authenticate")
        call = self._live(call_id)
        if call is None:
            return _twilio_error(404, 20404, f"The requested resource {request.path} was not found")
        form = await request.post()
        if form.get("Status") == "completed":
            self._record("hang_up", call_id)
        elif "Twiml" in form:
            self._record("transfer", call_id, str(form["Twiml"]))
        else:
            return _twilio_error(400, 20001, "Unknown parameters")
        await call.hang_up()
        return web.json_response(_twilio_call(call, account, "in-progress"))


def _twilio_call(call: PhoneCaller, account: str, status: str) -> dict[str, str]:
    return {
        "sid": call.call_id,
        "account_sid": account,
        "to": call.called,
        "from": call.caller,
        "status": status,
        "direction": "outbound-api",
        "uri": f"/2010-04-01/Accounts/{account}/Calls/{call.call_id}.json",
    }


def _twilio_error(status: int, code: int, message: str) -> web.Response:
    body = {"code": code, "message": message, "more_info": "", "status": status}
    return web.json_response(body, status=status)


class TelnyxSimulator(PhoneSimulator):
    """Telnyx's Call Control; see `PhoneSimulator`. ``signing_key`` signs the webhooks."""

    name = "telnyx"
    outlives_socket = True

    def __init__(self, public_url: str, *, key: str, **options: object) -> None:
        super().__init__(public_url, key=key, **options)  # type: ignore[arg-type]
        self.signing_key = TelnyxKey(key)

    def caller(self, **options: object) -> TelnyxCaller:
        """Return a call over Telnyx, which the app can answer by REST."""
        options = {"faults": self.faults, "app": self.app} | options
        call = TelnyxCaller(self.public_url, key=self.signing_key, **options)
        self.register(call)
        return call

    def _routes(self) -> list[web.RouteDef]:
        return [
            web.post("/v2/calls", self._create),
            web.post("/v2/calls/{call}/actions/{action}", self._act),
        ]

    def _authorized(self, request: web.Request) -> bool:
        return request.headers.get("authorization", "") == f"Bearer {self.key}"

    async def _create(self, request: web.Request) -> web.Response:
        if not self._authorized(request):
            return _telnyx_error(401, "10009", "Authentication failed")
        body = await _json(request)
        missing = [name for name in ("connection_id", "to", "from") if not body.get(name)]
        if missing:
            return _telnyx_error(422, "10015", f"{missing[0]} is missing")
        call = self.caller(caller=str(body["from"]), called=str(body["to"]))
        if error := call.answer(body):
            return _telnyx_error(422, "10015", error)
        if body.get("answering_machine_detection", "disabled") != "disabled":
            call.detected = "human"
        self._dial(call, lambda: call.connect(*call.stream_of(body)))
        data = {
            "call_control_id": call.call_id,
            "call_leg_id": uuid.uuid4().hex,
            "call_session_id": uuid.uuid4().hex,
            "is_alive": False,
            "record_type": "call",
        }
        return web.json_response({"data": data})

    async def _act(self, request: web.Request) -> web.Response:
        if not self._authorized(request):
            return _telnyx_error(401, "10009", "Authentication failed")
        call_id, action = request.match_info["call"], request.match_info["action"]
        call, body = self._live(call_id), await _json(request)
        if not isinstance(call, TelnyxCaller):
            return _telnyx_error(422, "90018", "Call has already ended")
        match action:
            case "answer":
                if error := call.answer(body):
                    return _telnyx_error(422, "10015", error)
                self._record("answer", call_id)
            case "reject":
                self._record("reject", call_id, str(body.get("cause", "")))
            case "hangup":
                self._record("hang_up", call_id)
                await call.hang_up()
            case "transfer":
                self._record("transfer", call_id, str(body.get("to", "")))
            case "streaming_stop":
                await call.stop_stream()
            case "send_dtmf":
                self._record("digits", call_id, str(body.get("digits", "")))
            case _:
                return _telnyx_error(404, "10005", "Resource not found")
        return web.json_response({"data": {"result": "ok"}})


def _telnyx_error(status: int, code: str, detail: str) -> web.Response:
    body = {"errors": [{"code": code, "title": detail, "detail": detail}]}
    return web.json_response(body, status=status)


class PlivoSimulator(PhoneSimulator):
    """Plivo's REST interface for calls; see `PhoneSimulator`."""

    name = "plivo"

    def caller(self, **options: object) -> PlivoCaller:
        """Return a call over Plivo."""
        options = {"faults": self.faults, "app": self.app} | options
        return PlivoCaller(self.public_url, auth_token=self.key, **options)

    def _routes(self) -> list[web.RouteDef]:
        calls = "/v1/Account/{account}/Call/"
        return [
            web.post(calls, self._create),
            web.post(f"{calls}{{call}}/", self._transfer),
            web.delete(f"{calls}{{call}}/", self._hang_up),
            web.post(f"{calls}{{call}}/DTMF/", self._digits),
        ]

    def _check(self, request: web.Request) -> PhoneCaller | web.Response:
        """Return the call that a request names, or what refuses the request."""
        if not self._basic(request, request.match_info["account"]):
            return web.json_response({"error": "authentication failed"}, status=401)
        call = self._live(request.match_info["call"])
        return web.json_response({"error": "call not found"}, status=404) if call is None else call

    async def _create(self, request: web.Request) -> web.Response:
        if not self._basic(request, request.match_info["account"]):
            return web.json_response({"error": "authentication failed"}, status=401)
        body = await _json(request)
        for name in ("from", "to", "answer_url"):
            if not body.get(name):
                return web.json_response({"error": f"{name} is missing"}, status=400)
        call = self.caller(caller=str(body["from"]), called=str(body["to"]))
        call.webhook_url = str(body["answer_url"])
        self._dial(call, call.answer_webhook)
        answer = {"api_id": uuid.uuid4().hex, "message": "call fired"}
        return web.json_response(answer | {"request_uuid": call.call_id}, status=201)

    async def _transfer(self, request: web.Request) -> web.Response:
        call = self._check(request)
        if isinstance(call, web.Response):
            return call
        url = str((await _json(request)).get("aleg_url", ""))
        xml = await call.fetch(url) if isinstance(call, PlivoCaller) else ""
        self._record("transfer", call.call_id, xml)
        await call.hang_up()
        return web.json_response({"message": "call transferred", "api_id": "1"}, status=202)

    async def _hang_up(self, request: web.Request) -> web.Response:
        call = self._check(request)
        if isinstance(call, web.Response):
            return call
        self._record("hang_up", call.call_id)
        await call.hang_up()
        return web.Response(status=204)

    async def _digits(self, request: web.Request) -> web.Response:
        call = self._check(request)
        if isinstance(call, web.Response):
            return call
        self._record("digits", call.call_id, str((await _json(request)).get("digits", "")))
        return web.json_response({"message": "digits sent", "api_id": "1"}, status=202)


class VonageSimulator(PhoneSimulator):
    """Vonage's Voice API; see `PhoneSimulator`. It does not check who signed the app's tokens."""

    name = "vonage"
    outlives_socket = True

    def caller(self, **options: object) -> VonageCaller:
        """Return a call over Vonage."""
        options = {"faults": self.faults, "app": self.app} | options
        return VonageCaller(self.public_url, signature_secret=self.key, **options)

    def _routes(self) -> list[web.RouteDef]:
        return [
            web.post("/v1/calls", self._create),
            web.put("/v1/calls/{call}", self._modify),
            web.put("/v1/calls/{call}/dtmf", self._digits),
        ]

    def _refusal(self, request: web.Request) -> web.Response | None:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        try:
            claims = jwt.decode(token, options={"verify_signature": False})
        except jwt.PyJWTError:
            claims = {}
        if {"application_id", "iat", "exp", "jti"} <= claims.keys():
            return None
        return web.json_response({"title": "Unauthorized", "type": "UNAUTHORIZED"}, status=401)

    async def _create(self, request: web.Request) -> web.Response:
        if refusal := self._refusal(request):
            return refusal
        match await _json(request):
            case {
                "to": [{"number": str(to)}],
                "from": {"number": str(from_)},
                "answer_url": [str(url)],
                **options,
            }:
                call = self.caller(caller=from_, called=to)
            case _:
                return web.json_response({"title": "Bad Request"}, status=400)
        if "machine_detection" in options:
            call.detected = "human"
        call.webhook_url = url
        self._dial(call, call.answer_webhook)
        answer = {"uuid": call.call_id, "status": "started", "direction": "outbound"}
        return web.json_response(answer | {"conversation_uuid": "CON-1"}, status=201)

    async def _modify(self, request: web.Request) -> web.Response:
        if refusal := self._refusal(request):
            return refusal
        call = self._live(request.match_info["call"])
        if call is None:
            return web.json_response({"title": "Not Found"}, status=404)
        match await _json(request):
            case {"action": "hangup"}:
                self._record("hang_up", call.call_id)
            case {"action": "transfer", "destination": {"type": "ncco", "ncco": list(ncco)}}:
                self._record("transfer", call.call_id, json.dumps(ncco))
            case _:
                return web.json_response({"title": "Bad Request"}, status=400)
        await call.hang_up()
        return web.Response(status=204)

    async def _digits(self, request: web.Request) -> web.Response:
        if refusal := self._refusal(request):
            return refusal
        call_id = request.match_info["call"]
        if self._live(call_id) is None:
            return web.json_response({"title": "Not Found"}, status=404)
        self._record("digits", call_id, str((await _json(request)).get("digits", "")))
        return web.json_response({"message": "DTMF sent", "uuid": call_id})


async def _json(request: web.Request) -> Mapping[str, object]:
    try:
        value = await request.json()
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
