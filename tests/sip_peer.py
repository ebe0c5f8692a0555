"""The other side of a call over SIP, in a few hundred lines: G.711, on loopback, with faults.

It shares nothing with the stack under test, and keeps times and bytes of all that arrives.
"""

import asyncio
import itertools
import re
import socket
import struct
import time
from contextlib import suppress

import numpy as np

from duologue import _g711

SIZE = 160
SILENCE = _g711.encode(np.zeros(SIZE, np.int16), "mulaw")
KEYS = "0123456789*#ABCD"
_ids = itertools.count(1)


def free_port(host="127.0.0.1"):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, handle):
        self.handle = handle

    def datagram_received(self, data, addr):
        self.handle(data, addr)


async def open_udp(host, handle, port=0):
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        lambda: _Datagrams(handle), local_addr=(host, port)
    )
    return transport, transport.get_extra_info("sockname")[1]


class Message:
    def __init__(self, data):
        head, _, self.body = data.decode("utf-8", "replace").partition("\r\n\r\n")
        lines = head.split("\r\n")
        self.start = lines[0]
        self.headers = [tuple(part.strip() for part in line.split(":", 1)) for line in lines[1:]]
        self.method = "" if self.start.startswith("SIP/") else self.start.split()[0]
        self.status = int(self.start.split()[1]) if self.start.startswith("SIP/") else 0

    def all(self, name):
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def get(self, name):
        return next(iter(self.all(name)), "")


class SipPeer:
    """Places and takes calls.

    Args:
        host: Address to be at.
        answer: Status of calls that come in.
        options: For each `PeerCall`.
    """

    def __init__(self, host="127.0.0.1", answer=200, **options):
        self.host = host
        self.answer = answer
        self.options = options
        self.calls = {}
        self._tasks = set()
        self.incoming = asyncio.Queue()

    async def __aenter__(self):
        self.transport, self.port = await open_udp(self.host, self._received)
        return self

    async def __aexit__(self, *_):
        for call in list(self.calls.values()):
            with suppress(TimeoutError):
                await call.close()
        self.transport.close()

    @property
    def address(self):
        return f"sip:peer@{self.host}:{self.port}"

    async def call(self, target, headers=(), **options):
        """Call; return the call, whose `status` says how it went."""
        call = PeerCall(self, f"call-{next(_ids)}@{self.host}", **{**self.options, **options})
        call.target = call.remote = target
        host, _, port = target.partition("@")[2].partition(":")
        call.to = (host, int(port))
        call.local_tag = f"<{self.address}>;tag=p{next(_ids)}"
        call.remote_tag = f"<{target}>"
        await call.open()
        self.calls[call.id] = call
        answer = await call.invite("sendrecv", headers)
        call.status = answer.status
        return call

    def send(self, text, to):
        self.transport.sendto(text.encode(), to)

    def _received(self, data, addr):
        if not data.strip():
            return
        message = Message(data)
        call = self.calls.get(message.get("Call-ID"))
        if message.status:
            if call is not None:
                call.on_response(message)
            return
        if call is None and message.method == "INVITE" and ";tag=" not in message.get("To"):
            self._spawn(self._incoming(message, addr))
        elif call is not None:
            self._spawn(call.on_request(message, addr))

    def _spawn(self, work):
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _incoming(self, message, addr):
        call_id = message.get("Call-ID")
        call = PeerCall(self, call_id, **self.options)
        self.calls[call_id] = call
        call.to = addr
        call.remote = re.search(r"<([^>;]+)", message.get("Contact"))[1]
        call.local_tag = f"{message.get('To')};tag=p{next(_ids)}"
        call.remote_tag = message.get("From")
        call.first = message
        await call.open()
        if self.answer == 200:
            call.read_sdp(message.body)
            call.reply(message, addr, 200, call.sdp("sendrecv"))
            call.begin_audio()
        else:
            call.reply(message, addr, self.answer)
            self.calls.pop(call_id)
        self.incoming.put_nowait(call)


class PeerCall:
    """One call.

    Args:
        echo: Whether it sends back what it receives, packet by packet.
        loss: Part of the packets, in either direction, that are lost; every n-th, no chance.
        sends: Whether it sends audio at all.
    """

    def __init__(self, peer, call_id, *, echo=False, loss=0.0, sends=True, refer_status=202):
        self.peer = peer
        self.id = call_id
        self.echo = echo
        self.loss = loss
        self.sends = sends
        self.refer_status = refer_status
        self.status = 0
        self.cseq = 0
        self.ended = asyncio.Event()
        self.referred = asyncio.Queue()
        self.notified = asyncio.Queue()
        self.invited = asyncio.Queue()
        self.waiting = {}
        self.to_send = []
        self.packets = []
        self.digits = ""
        self.stalled = False
        self.backlog = []
        self.direction = "sendrecv"
        self.sending = None
        self.rtp_to = None
        self.sequence = 0
        self.sent_at = []
        self.branch = ""
        self.counter = 0

    async def open(self):
        self.rtp, self.rtp_port = await open_udp(self.peer.host, self._rtp_received)

    async def close(self):
        if self.sending is not None:
            self.sending.cancel()
        if not self.ended.is_set() and self.status in (0, 200):
            await self.request("BYE", wait=1)
        self.rtp.close()
        self.peer.calls.pop(self.id, None)

    def vanish(self):
        """Say and answer nothing any more."""
        self.sending.cancel()
        self.rtp.close()
        self.peer.calls.pop(self.id, None)
        self.ended.set()

    # --- SIP

    async def invite(self, direction, headers=()):
        self.direction = direction
        answer = await self.request("INVITE", self.sdp(direction), headers)
        tag = answer.get("To")
        if ";tag=" in tag:
            self.remote_tag = tag
        if answer.status == 200:
            contact = re.search(r"<([^>;]+)", answer.get("Contact"))
            self.remote = contact[1]
            self._send("ACK", self.cseq)
            self.read_sdp(answer.body)
            self.begin_audio()
        else:
            self._send("ACK", self.cseq, branch=self.branch)
        return answer

    async def hold(self):
        return (await self.invite("sendonly")).status

    async def resume(self):
        return (await self.invite("sendrecv")).status

    async def refer(self, target):
        """Ask the other side to call another address."""
        return (await self.request("REFER", headers=[f"Refer-To: <{target}>"])).status

    async def hang_up(self):
        await self.request("BYE")
        self.ended.set()

    async def request(self, method, body="", headers=(), wait=5):
        self.cseq += 1
        answer = self.waiting[method] = asyncio.get_running_loop().create_future()
        self.branch = self._send(method, self.cseq, body, headers)
        async with asyncio.timeout(wait):
            return await answer

    def _send(self, method, cseq, body="", headers=(), branch=""):
        branch = branch or f"z9hG4bK{next(_ids)}"
        lines = [
            f"{method} {self.remote} SIP/2.0",
            f"Via: SIP/2.0/UDP {self.peer.host}:{self.peer.port};branch={branch};rport",
            "Max-Forwards: 70",
            f"From: {self.local_tag}",
            f"To: {self.remote_tag}",
            f"Call-ID: {self.id}",
            f"CSeq: {cseq} {method}",
            f"Contact: <{self.peer.address}>",
            "Allow: INVITE,ACK,BYE,CANCEL,OPTIONS,REFER,NOTIFY",
            "Supported: replaces",
            *headers,
        ]
        if body:
            lines.append("Content-Type: application/sdp")
        lines += [f"Content-Length: {len(body)}", "", body]
        self.peer.send("\r\n".join(lines), self.to)
        return branch

    def reply(self, message, addr, status, body="", headers=()):
        to = message.get("To")
        if ";tag=" not in to:
            to = self.local_tag
        lines = [f"SIP/2.0 {status} X"]
        lines += [f"Via: {via}" for via in message.all("Via")]
        lines += [f"Record-Route: {route}" for route in message.all("Record-Route")]
        lines += [
            f"From: {message.get('From')}",
            f"To: {to}",
            f"Call-ID: {self.id}",
            f"CSeq: {message.get('CSeq')}",
            f"Contact: <{self.peer.address}>",
            "Allow: INVITE,ACK,BYE,CANCEL,OPTIONS,REFER,NOTIFY",
            "Supported: replaces",
            *headers,
        ]
        if body:
            lines.append("Content-Type: application/sdp")
        lines += [f"Content-Length: {len(body)}", "", body]
        self.peer.send("\r\n".join(lines), addr)

    def on_response(self, message):
        if message.status < 200:
            return
        method = message.get("CSeq").split()[1]
        answer = self.waiting.get(method)
        if answer is not None and not answer.done():
            answer.set_result(message)

    async def on_request(self, message, addr):
        match message.method:
            case "INVITE":
                self.read_sdp(message.body)
                direction = re.search(r"a=(sendrecv|sendonly|recvonly|inactive)", message.body)
                offered = direction[1] if direction else "sendrecv"
                mine = {"sendonly": "recvonly", "recvonly": "sendonly"}.get(offered, offered)
                self.direction = mine
                self.reply(message, addr, 200, self.sdp(mine))
                self.invited.put_nowait(offered)
            case "BYE":
                self.reply(message, addr, 200)
                self.ended.set()
            case "REFER":
                self.reply(message, addr, self.refer_status)
                self.referred.put_nowait(message.get("Refer-To"))
            case "NOTIFY":
                self.reply(message, addr, 200)
                self.notified.put_nowait(message.body.strip())
            case "ACK":
                pass
            case _:
                self.reply(message, addr, 200)

    async def notify(self, status):
        """Report how the transfer that the other side asked for went."""
        headers = [
            "Event: refer",
            f"Subscription-State: {'terminated;reason=noresource' if status >= 200 else 'active'}",
            "Content-Type: message/sipfrag",
        ]
        self.cseq += 1
        body = f"SIP/2.0 {status} X"
        lines = [
            f"NOTIFY {self.remote} SIP/2.0",
            f"Via: SIP/2.0/UDP {self.peer.host}:{self.peer.port};branch=z9hG4bK{next(_ids)};rport",
            "Max-Forwards: 70",
            f"From: {self.local_tag}",
            f"To: {self.remote_tag}",
            f"Call-ID: {self.id}",
            f"CSeq: {self.cseq} NOTIFY",
            f"Contact: <{self.peer.address}>",
            *headers,
            f"Content-Length: {len(body)}",
            "",
            body,
        ]
        answer = self.waiting["NOTIFY"] = asyncio.get_running_loop().create_future()
        self.peer.send("\r\n".join(lines), self.to)
        async with asyncio.timeout(5):
            return (await answer).status

    def sdp(self, direction):
        lines = [
            "v=0",
            "o=- 1 1 IN IP4 127.0.0.1",
            "s=-",
            f"c=IN IP4 {self.peer.host}",
            "t=0 0",
            f"m=audio {self.rtp_port} RTP/AVP 0 101",
            "a=rtpmap:0 PCMU/8000",
            "a=rtpmap:101 telephone-event/8000",
            "a=fmtp:101 0-15",
            f"a={direction}",
            "",
        ]
        return "\r\n".join(lines)

    def read_sdp(self, body):
        host = re.search(r"c=IN IP4 (\S+)", body)
        port = re.search(r"m=audio (\d+)", body)
        if host and port:
            self.rtp_to = (host[1], int(port[1]))

    # --- audio

    def begin_audio(self):
        if self.sending is None and self.sends:
            self.sending = asyncio.ensure_future(self._send_audio())

    def say(self, samples):
        """Send int16 samples at 8 kHz, after what is being said."""
        data = _g711.encode(samples, "mulaw")
        self.to_send += [data[i : i + SIZE] for i in range(0, len(data) - SIZE + 1, SIZE)]

    async def _send_audio(self):
        due = time.monotonic()
        while True:
            if self.direction in ("sendrecv", "sendonly") and not self.echo:
                spoken = bool(self.to_send)
                data = self.to_send.pop(0) if spoken else SILENCE
                if spoken:
                    self.sent_at.append(time.monotonic())
                self._send_rtp(0, data, marker=False)
            due += 0.02
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    def _send_rtp(self, kind, data, marker, timestamp=None):
        self.sequence = (self.sequence + 1) & 0xFFFF
        stamp = self.sequence * SIZE if timestamp is None else timestamp
        header = struct.pack("!BBHII", 0x80, kind | (marker << 7), self.sequence, stamp, 0x1234)
        if self._is_lost() or self.rtp_to is None:
            return
        if self.stalled:
            self.backlog.append(header + data)
        else:
            self.rtp.sendto(header + data, self.rtp_to)

    def _is_lost(self):
        self.counter += 1
        return bool(self.loss) and self.counter % round(1 / self.loss) == 0

    async def stall(self, seconds):
        """Keep packets back, and send them all at once."""
        self.stalled = True
        await asyncio.sleep(seconds)
        self.stalled = False
        for packet in self.backlog:
            self.rtp.sendto(packet, self.rtp_to)
        self.backlog.clear()

    async def press(self, digits):
        """Press keys, as RFC 4733 has it."""
        for digit in digits:
            stamp = self.sequence * SIZE
            for step in range(1, 8):
                end = step > 4
                data = struct.pack("!BBH", KEYS.index(digit), 10 | (end << 7), 160 * min(step, 5))
                self._send_rtp(101, data, marker=step == 1, timestamp=stamp)
                await asyncio.sleep(0.02 if step < 5 else 0)
            await asyncio.sleep(0.06)

    def _rtp_received(self, data, addr):
        if len(data) < 12:
            return
        kind = data[1] & 127
        if kind == 101:
            event, flags = data[12], data[13]
            stamp = data[4:8]
            if flags & 0x80 and getattr(self, "_last_event", None) != stamp:
                self._last_event = stamp
                self.digits += KEYS[event]
            return
        if kind or self._is_lost():
            return
        self.packets.append((time.monotonic(), data[12:]))
        if self.echo and not self.stalled:
            self._send_rtp(0, data[12:], marker=False)

    @property
    def heard(self):
        """All audio received, as int16 samples at 8 kHz."""
        return _g711.decode(b"".join(data for _, data in self.packets), "mulaw")

    def loud_times(self, threshold=1000):
        """When a packet with sound arrived whose predecessor had none."""
        times, loud_before = [], False
        for when, data in self.packets:
            loud = np.abs(_g711.decode(data, "mulaw").astype(int)).max() > threshold
            if loud and not loud_before:
                times.append(when)
            loud_before = loud
        return times
