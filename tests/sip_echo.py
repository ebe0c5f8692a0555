"""A process that answers a call over SIP and sends back what it hears: ``PORT CODEC [SRTP]``."""

import asyncio
import sys

import baresip


async def echo(call):
    await call.answer()
    while call.state is not baresip.CallState.CLOSED:
        try:
            if data := call.audio.read(65536):
                call.audio.write(data)
        except baresip.BaresipError:
            pass
        await asyncio.sleep(0.005)


async def main(port, codec, *encryption):
    runtime = baresip.Runtime()
    await runtime.start(
        baresip.Config(net_interface="127.0.0.1", extra_config_text=f"sip_listen 127.0.0.1:{port}")
    )
    account = baresip.Account(
        user="echo",
        domain="127.0.0.1",
        password="",
        reg_interval=0,
        audio_codecs=(codec,),
        extra_params=tuple(f"mediaenc={each}" for each in encryption),
    )
    agent = await baresip.UserAgent.create(runtime, account)
    tasks = []
    agent.on_incoming(lambda call: tasks.append(asyncio.ensure_future(echo(call))))
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runtime.close()


asyncio.run(main(*sys.argv[1:]))
