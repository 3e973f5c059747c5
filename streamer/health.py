"""``/metrics``, ``/healthz`` and ``/readyz`` over HTTP, on a thread of their own."""

import json
import socket
import threading
from collections.abc import Callable, Iterable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Self

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from streamer.errors import SettingsError

_SLOW_CLIENT_S = 10.0
_STOP_WITHIN_S = 0.1
_JSON = "application/json"

Check = Callable[[], str | None]


class Conditions:
    """Named conditions that must all hold; safe to use from any thread.

    Args:
        unmet: Names of those that do not hold yet, until `meet`.
    """

    def __init__(self, unmet: Iterable[str] = ()) -> None:
        self._lock = threading.Lock()
        self._unmet = dict.fromkeys(unmet, "not yet")
        self._checks: dict[str, Check] = {}

    def meet(self, name: str) -> None:
        """It holds."""
        with self._lock:
            self._unmet.pop(name, None)

    def fail(self, name: str, reason: str) -> None:
        """It does not hold, for this reason, until `meet`."""
        with self._lock:
            self._unmet[name] = reason

    def watch(self, name: str, check: Check) -> None:
        """Ask each time: ``check`` gives None while the condition holds, else the reason."""
        with self._lock:
            self._checks[name] = check

    def reasons(self) -> dict[str, str]:
        """Name to reason of all that do not hold; empty: all is well."""
        with self._lock:
            reasons, checks = dict(self._unmet), dict(self._checks)
        for name, check in checks.items():
            reason = check()
            if reason is not None:
                reasons[name] = reason
        return reasons


class HealthServer:
    """Serves until `close`.

    Args:
        registry: What ``/metrics`` shows.
        ready: ``/readyz`` is 503 with the reasons until all of them hold.
        alive: The same for ``/healthz``; None: alive while it answers.
        host: Address to listen on.
        port: 0: a free one.

    Raises:
        SettingsError: The address cannot be listened on.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        ready: Conditions,
        *,
        alive: Conditions | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        pages = {"/metrics": _metrics_page(registry), "/healthz": _page(alive or Conditions()), "/readyz": _page(ready)}
        handler = type("Handler", (_Handler,), {"pages": pages})
        kind = type("Server", (_Server,), {"address_family": socket.AF_INET6 if ":" in host else socket.AF_INET})
        try:
            self._server: _Server = kind((host, port), handler)
        except (OSError, OverflowError) as error:
            raise SettingsError(
                f"metrics.host {host}, metrics.port {port} cannot be listened on: {error}; choose others,"
                " or port 0 for a free one"
            ) from error
        self._host = f"[{host}]" if ":" in host else host
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_STOP_WITHIN_S,), name="health", daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        """``http://HOST:PORT``."""
        return f"http://{self._host}:{self._server.server_address[1]}"

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_Answer = tuple[HTTPStatus, str, bytes]


def _page(conditions: Conditions) -> Callable[[str], _Answer]:
    def answer(_accept: str) -> _Answer:
        reasons = conditions.reasons()
        document = {"status": "unavailable", "reasons": reasons} if reasons else {"status": "ok"}
        status = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
        return status, _JSON, json.dumps(document).encode()

    return answer


def _metrics_page(registry: CollectorRegistry) -> Callable[[str], _Answer]:
    def answer(accept: str) -> _Answer:
        encode, content_type = choose_encoder(accept)
        return HTTPStatus.OK, content_type, encode(registry)

    return answer


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a client that dawdles must not hold up the end

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    pages: ClassVar[dict[str, Callable[[str], _Answer]]] = {}
    timeout = _SLOW_CLIENT_S
    server_version = "watchword"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer with a page."""
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        """Answer with a page's headers."""
        self._answer(with_body=False)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name of the base class
        """A line per scrape would drown everything else."""

    def _answer(self, *, with_body: bool) -> None:
        page = self.pages.get(self.path.partition("?")[0])
        if page is None:
            places = ", ".join(self.pages)
            status, kind, body = HTTPStatus.NOT_FOUND, _JSON, json.dumps({"error": f"there are {places}"}).encode()
        else:
            status, kind, body = page(self.headers.get("Accept", ""))
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)
