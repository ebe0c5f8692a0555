"""The server's side of the Gemini Live protocol; needs the ``simulate`` extra."""

from duologue._optional import optional

with optional("simulate"):
    import aiohttp  # noqa: F401 - checked early
    import orjson  # noqa: F401 - checked early
    import pybase64  # noqa: F401 - checked early
