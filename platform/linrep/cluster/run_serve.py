"""The page to ask from, on this machine alone: Ray Serve holds the model and answers at the loopback address until Ctrl-C."""

import asyncio
import logging
import os
import socket
import threading
from typing import Any

from linrep.cluster.commands import job
from linrep.cluster.session import cluster
from linrep.errors import RecipeError, ServiceError
from linrep.places import Place, place
from linrep.recipe import Recipe, Request
from linrep.shell import python_command

HOST = "127.0.0.1"


def run_serve(request: Request, workspace: Place, port: int) -> None:
    """Serve the page until the process is stopped.

    Args:
        request: The command line.
        workspace: Where everything lies.
        port: Where to listen.

    Raises:
        ServiceError: Ray Serve is not installed, or does not start.
        RecipeError: The port is taken, or the cluster is elsewhere.
        LinrepError: There is no harvest, or its model cannot be loaded.
    """
    serve = _ray_serve()
    if os.environ.get("RAY_ADDRESS"):
        raise RecipeError("--serve is for this machine alone: unset RAY_ADDRESS")
    _check_port(port)
    logging.getLogger("ray.serve").setLevel(logging.ERROR)  # what a person must know is printed here
    with cluster():
        serve.start(http_options={"host": HOST, "port": port, "location": "HeadOnly"})
        deployed = serve.deployment(Served, name="ask", num_replicas=1, max_ongoing_requests=4, ray_actor_options={"num_cpus": 0})
        serve.run(deployed.bind(request, workspace.uri, port), name="ask", route_prefix="/")
        print(f"Ask at http://{HOST}:{port}/   (Ctrl-C ends it)", flush=True)
        try:
            threading.Event().wait()
        finally:
            serve.shutdown()


def _ray_serve() -> Any:
    try:
        from ray import serve
    except ImportError as error:
        command = python_command("-m", "pip", "install", "-c", "constraints.txt", "-e", ".[serve]")
        raise ServiceError(
            f"--serve needs Ray Serve, which is not installed ({error.name} is missing); install it: {command}"
        ) from None
    return serve


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise RecipeError(f"--port {port}: {error.strerror}; name another, for example --port {port % 65535 + 1}") from None


class Served:
    """The page in a replica of Ray Serve: requests wait for each other, as the model answers one at a time.

    Args:
        request: The command line.
        workspace: Address of the workspace.
        port: Where it is served.
    """

    def __init__(self, request: Request, workspace: str, port: int) -> None:
        from linrep.cluster.asking import Asker
        from linrep.cluster.local_page import LocalPage

        recipe: Recipe = request.recipe
        self._page = LocalPage(Asker(recipe, place(workspace), lambda name: job(name, request)), port)
        self._turn = asyncio.Lock()

    async def __call__(self, request: Any) -> Any:
        """Answer a request of HTTP; no more of a body is read than a question may have."""
        from starlette.responses import Response

        from linrep.cluster.local_page import MOST_BODY

        headers = {name.lower(): value for name, value in request.headers.items()}
        found = self._page.refusal(request.method, request.url.path, headers)
        if found is None:
            body = bytearray()
            async for piece in request.stream():
                body += piece
                if len(body) > MOST_BODY:
                    break
            async with self._turn:
                found = await asyncio.to_thread(self._page.answer, request.method, request.url.path, headers, bytes(body))
        return Response(found.body, found.status, dict(found.headers), found.content_type)
