"""Whether the API asks for tokens at all."""

from typing import Final

from streamer.settings import Api

LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})


def asks_for_tokens(api: Api, *, is_embedded: bool) -> bool:
    """Always, but not of the only user of a machine who has just started it all, unless the settings say otherwise."""
    if api.auth == "auto":
        return not (is_embedded and api.host in LOOPBACK)
    return api.auth == "on"
