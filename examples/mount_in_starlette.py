"""The page inside a web app of yours, at /voice/.

    python examples/mount_in_starlette.py      # then open http://localhost:8000

A FastAPI app mounts it the same way: app.mount("/voice", voice).
"""

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Mount, Route

from duologue import Agent, User
from duologue.edges.protocol import Edge
from duologue.hosting import create_app
from duologue.providers import local
from duologue.server import ServerConfig


def make_agent(edge: Edge) -> Agent:
    """Called once for each caller."""
    return Agent(
        edge=edge,
        llm=local.Realtime("tiny"),
        agent_user=User("Ada", "ada"),
        instructions="You are Ada. Answer in one short spoken sentence.",
    )


async def home(request: Request) -> HTMLResponse:
    return HTMLResponse('<a href="/voice/">Talk to Ada</a>')


# Where other machines reach your server, say so: ServerConfig(host="0.0.0.0", token=...).
voice = create_app(lambda edge: make_agent(edge), ServerConfig(max_sessions=4))
app = Starlette(routes=[Route("/", home), Mount("/voice", voice)])


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=8000, ws_max_size=64 * 1024)
