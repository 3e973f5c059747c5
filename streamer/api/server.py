"""The API on a socket."""

import socket
import ssl
import threading
from typing import Final, Self

import uvicorn

from streamer.api.app import create_app
from streamer.api.auth import asks_for_tokens
from streamer.api.site import open_site
from streamer.errors import SettingsError, UnavailableError
from streamer.settings import Settings

_LEAVE_S: Final = 3
_START_S: Final = 20.0
_BACKLOG: Final = 512
_KEEP_ALIVE_S: Final = 75


class ApiServer:
    """Serves until `stop`.

    Args:
        settings: Name a Redis.
        is_embedded: The Redis is ours alone.

    Raises:
        SettingsError: The address cannot be listened on, or the certificate cannot be read.
    """

    def __init__(self, settings: Settings, *, is_embedded: bool = False) -> None:
        api = settings.api
        self._socket = _listen(api.host, api.port)
        is_tls = bool(api.tls_certificate)
        host = f"[{api.host}]" if ":" in api.host else api.host
        self.url = f"{'https' if is_tls else 'http'}://{host}:{self._socket.getsockname()[1]}"
        config = uvicorn.Config(
            create_app(open_site(settings), asks=asks_for_tokens(settings.api, is_embedded=is_embedded)),
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            proxy_headers=bool(api.trusted_proxies),
            forwarded_allow_ips=list(api.trusted_proxies),
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_LEAVE_S,
            ssl_certfile=api.tls_certificate or None,
            ssl_keyfile=api.tls_key or None,
        )
        try:
            config.load()
        except (OSError, ssl.SSLError) as error:
            self._socket.close()
            raise SettingsError(f"api.tls_certificate or api.tls_key cannot be used: {error}") from error
        self._server = uvicorn.Server(config)
        self._thread: threading.Thread | None = None

    def run(self) -> None:
        """Serve; on the main thread, SIGTERM and SIGINT end it."""
        self._server.run(sockets=[self._socket])

    @property
    def is_started(self) -> bool:
        """It answers."""
        return self._server.started

    def stop(self) -> None:
        """Leave: answer what was asked, and end."""
        self._server.should_exit = True

    def __enter__(self) -> Self:
        """Serve on a thread."""
        self._thread = threading.Thread(target=self.run, name="api", daemon=True)
        self._thread.start()
        deadline = threading.Event()
        waited_s = 0.0
        while not self._server.started:
            if not self._thread.is_alive() or waited_s > _START_S:
                raise UnavailableError("the API did not start; its log says why")
            deadline.wait(0.01)
            waited_s += 0.01
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self._thread is not None:
            self._thread.join()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise SettingsError(
            f"api.host {host}, api.port {port} cannot be listened on: {error.strerror}; choose others, or port 0 for a"
            " free one"
        ) from error
    return listening
