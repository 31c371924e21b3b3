"""The explorer's site over HTTP, for those who prefer it to opening files: on this machine alone, and nothing but the site."""

from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

from linrep.errors import RecipeError
from linrep.places import Place

HOST = "127.0.0.1"


class SiteServer(ThreadingHTTPServer):
    """Serves a site at the loopback address.

    Args:
        folder: The site's folder.
        port: Where to listen; 0 for any that is free.

    Raises:
        RecipeError: The port is taken, or the site lies in an object store.
    """

    daemon_threads = True

    def __init__(self, folder: Place, port: int) -> None:
        if not folder.local:
            raise RecipeError(f"--serve is for a workspace on this machine, and {folder} is not on a disk: copy it first")
        try:
            super().__init__((HOST, port), partial(_Files, directory=folder.path))
        except OSError as error:
            raise RecipeError(f"--port {port}: {error.strerror}; name another, for example --port {port % 65535 + 1}") from None

    @property
    def address(self) -> str:
        """What a browser opens."""
        return f"http://{HOST}:{self.server_port}/"


class _Files(SimpleHTTPRequestHandler):
    """Files of a folder, without lists of what lies there; who reached this address by another name is refused."""

    server_version, sys_version = "linrep", ""

    def send_head(self) -> Any:
        """The file that was asked for, or why there is none."""
        port = cast("SiteServer", self.server).server_port
        if self.headers.get("Host") not in (f"{HOST}:{port}", f"localhost:{port}"):
            self.send_error(HTTPStatus.FORBIDDEN, "another site may not read these pages")
            return None
        return super().send_head()

    def list_directory(self, path: Any) -> None:
        """Nothing: folders are no pages."""
        self.send_error(HTTPStatus.NOT_FOUND)

    def end_headers(self) -> None:
        """The same headers for every answer."""
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is printed."""
