"""The server's side of the Gemini Live protocol."""

from duologue.extras import require

require("aiohttp", "simulate")
require("orjson", "simulate")
require("pybase64", "simulate")
