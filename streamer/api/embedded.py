"""The API as a process of its own beside `watchword up`: its requests must not take the worker's interpreter lock."""

import http.client
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from streamer.api.auth import asks_for_tokens
from streamer.embedded.server import HOST, EmbeddedServer, listens
from streamer.settings import Settings, load_settings

_ANSWER_S = 2.0


class EmbeddedApi(EmbeddedServer):
    """Serves until it is stopped, or its parent ends.

    Args:
        settings: Name a Redis.
        is_ours: That Redis was started for this run alone.
    """

    kind = "api"

    def __init__(self, settings: Settings, *, is_ours: bool) -> None:
        super().__init__()
        auth = "on" if asks_for_tokens(settings.api, is_embedded=is_ours) else "off"
        self._settings = settings.model_copy(update={"api": settings.api.model_copy(update={"auth": auth})})
        self._port = settings.api.port or None

    @property
    def url(self) -> str:
        """``http://HOST:PORT``."""
        host = self._settings.api.host
        scheme = "https" if self._settings.api.tls_certificate else "http"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"

    def _prepare(self, folder: Path, port: int) -> Sequence[str]:
        api = self._settings.api.model_copy(update={"port": port})
        document = self._settings.model_copy(update={"api": api}).model_dump(mode="json")
        path = folder / "settings.yaml"
        path.touch(mode=0o600)  # it may name a password
        path.write_text(yaml.safe_dump(document), encoding="utf-8")
        return [sys.executable, "-m", "streamer.api.embedded", str(path)]

    def _answers(self, port: int, pid: int) -> bool:
        del pid
        if self._settings.api.tls_certificate:
            return listens(port)
        connection = http.client.HTTPConnection(HOST, port, timeout=_ANSWER_S)
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def main(path: Path) -> None:
    """Serve as a settings file says, and nothing else says."""
    from streamer.api.server import ApiServer  # noqa: PLC0415  # not needed by the parent
    from streamer.logs import set_up_logging  # noqa: PLC0415

    for name in [name for name in os.environ if name.startswith("WATCHWORD_")]:
        del os.environ[name]
    settings = load_settings(path)
    set_up_logging(settings.log)
    ApiServer(settings).run()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
