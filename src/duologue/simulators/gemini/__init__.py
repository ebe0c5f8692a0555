"""The server's side of the Gemini Live protocol."""

from duologue._optional import optional

optional("aiohttp", "simulate")
optional("orjson", "simulate")
optional("pybase64", "simulate")
