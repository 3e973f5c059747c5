"""What every request must pass before a handler sees it: the right host, a size, a rate, a token."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streamer.api.auth import LOOPBACK
from streamer.api.problems import ProblemError, problem_of, render
from streamer.selector import Selector
from streamer.settings import Api
from streamer.tokens import SCOPES, Token, TokenStore

LOCAL: Final = Token("local", "local", SCOPES, Selector(), "")
OPEN_PATHS: Final = frozenset({"/healthz", "/readyz", "/v1/openapi.json"})
IMPORT_PATH: Final = "/v1/prompts/import"
COOKIE: Final = "watchword"
_KNOWN_FOR_S: Final = 1.0  # a token that was removed works no longer than this
_MAX_KNOWN: Final = 1024
_MAX_BUCKETS: Final = 4096
_GUESSES_PER_S: Final = 0.2
_GUESSES_AT_ONCE: Final = 20
_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
)


class Buckets:
    """Token buckets by name, the longest unused of which is forgotten first. Used by one thread.

    Args:
        rate_per_s: How fast each fills.
        burst: What each holds.
        clock: Monotonic seconds.
    """

    def __init__(self, rate_per_s: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._clock = clock
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, name: str, *, is_spent: bool = True) -> float:
        """How long until there is room for one more; 0: there is, and unless only asked for it is taken."""
        now_s = self._clock()
        level, at_s = self._levels.pop(name, (float(self._burst), now_s))
        level = min(float(self._burst), level + (now_s - at_s) * self._rate_per_s)
        wait_s = 0.0 if level >= 1.0 else (1.0 - level) / self._rate_per_s
        self._levels[name] = (level - 1.0 if is_spent and not wait_s else level, now_s)
        if len(self._levels) > _MAX_BUCKETS:
            self._levels.popitem(last=False)
        return wait_s


@dataclass(frozen=True, slots=True)
class _Known:
    token: Token
    until_s: float


class Gate:
    """ASGI middleware. Puts the caller's `Token` into ``scope["state"]["caller"]``.

    Args:
        app: What comes after.
        tokens: Who may come in.
        settings: Bounds.
        asks: Whether tokens are asked for; otherwise everybody is `LOCAL`, and only requests for loopback are taken,
            so that no web page can send a browser here.
    """

    def __init__(self, app: ASGIApp, *, tokens: TokenStore, settings: Api, asks: bool) -> None:
        self._app = app
        self._tokens = tokens
        self._settings = settings
        self._asks = asks
        self._rates = Buckets(settings.rate_per_s, settings.rate_burst)
        self._guesses = Buckets(_GUESSES_PER_S, _GUESSES_AT_ONCE)
        self._known: OrderedDict[str, _Known] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it with a problem."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        sending = _Sending(send)
        try:
            self._check_host(headers)
            limit = self._settings.max_import_bytes if scope["path"] == IMPORT_PATH else self._settings.max_body_bytes
            _check_length(headers, limit)
            caller = await self._caller(scope, headers)
            scope.setdefault("state", {})["caller"] = caller
            await self._app(scope, _Receiving(receive, limit), sending)
        except Exception as error:
            if sending.has_begun:
                raise
            await render(problem_of(error), scope["path"])(scope, receive, sending)

    async def _caller(self, scope: Scope, headers: Headers) -> Token:
        address = scope["client"][0] if scope.get("client") else "unknown"
        if not self._asks or scope["path"] in OPEN_PATHS:
            self._spend(self._rates, address)
            return LOCAL
        presented = _presented(headers)
        if presented is None:
            self._spend(self._rates, address)
            raise _unauthorised("no token is given")
        known = self._known.get(presented)
        if known is None or known.until_s < time.monotonic():
            if wait_s := self._guesses.wait_s(address, is_spent=False):
                raise _too_many(wait_s, "too many tokens were refused from this address")
            token = await run_in_threadpool(self._tokens.verify, presented)
            if token is None:
                self._known.pop(presented, None)
                self._guesses.wait_s(address)
                raise _unauthorised("the token is not known, or was removed")
            self._remember(presented, token)
        else:
            token = known.token
        self._spend(self._rates, token.id)
        return token

    def _remember(self, presented: str, token: Token) -> None:
        self._known.pop(presented, None)
        self._known[presented] = _Known(token, time.monotonic() + _KNOWN_FOR_S)
        if len(self._known) > _MAX_KNOWN:
            self._known.popitem(last=False)

    def _spend(self, buckets: Buckets, name: str) -> None:
        if wait_s := buckets.wait_s(name):
            rate = self._settings.rate_per_s
            raise _too_many(wait_s, f"more than {rate:g} requests a second come from you (api.rate_per_s)")

    def _check_host(self, headers: Headers) -> None:
        """Without tokens a page in a browser of this machine must not reach us under a name of its own."""
        origin = headers.get("origin")
        host = headers.get("host", "")
        if origin is not None and origin != "null" and urlsplit(origin).netloc != host and not _bearer(headers):
            raise ProblemError(403, "requests from pages of other sites are refused; give a token in `Authorization`")
        if not self._asks and _hostname(host) not in LOOPBACK:
            raise ProblemError(421, "without tokens only http://127.0.0.1 and http://localhost are served; use these")


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _bearer(headers: Headers) -> str | None:
    kind, _, value = headers.get("authorization", "").partition(" ")
    return value.strip() if kind.lower() == "bearer" and value.strip() else None


def _presented(headers: Headers) -> str | None:
    """The token of a request: in its ``Authorization``, or in a cookie, which browsers send with pictures and feeds."""
    bearer = _bearer(headers)
    if bearer is not None:
        return bearer
    for part in headers.get("cookie", "").split(";"):
        name, _, value = part.strip().partition("=")
        if name == COOKIE and value:
            return value
    return None


def _unauthorised(what: str) -> ProblemError:
    detail = f"{what}; give one as `Authorization: Bearer ww_...`, made by `watchword tokens add`"
    return ProblemError(401, detail, headers={"WWW-Authenticate": 'Bearer realm="watchword"'})


def _too_many(wait_s: float, what: str) -> ProblemError:
    seconds = max(1, round(wait_s + 0.5))
    return ProblemError(429, f"{what}; wait {seconds} s", headers={"Retry-After": str(seconds)})


def _too_large(limit: int) -> ProblemError:
    return ProblemError(413, f"the body has more than {limit} bytes; send less at once, or raise api.max_body_bytes")


def _check_length(headers: Headers, limit: int) -> None:
    length = headers.get("content-length", "0")
    if length.isdecimal() and len(length) < 19 and int(length) > limit:
        raise _too_large(limit)


class _Receiving:
    """Passes a body on until it is too large."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._limit = limit
        self._size = 0

    async def __call__(self) -> Message:
        message = await self._receive()
        self._size += len(message.get("body", b""))
        if self._size > self._limit:
            raise _too_large(self._limit)
        return message


class _Sending:
    """Adds headers, and remembers whether an answer has begun."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.has_begun = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.has_begun = True
            names = {name for name, _ in message.get("headers", ())}
            extra = [(name, value) for name, value in _HEADERS if name not in names]
            message = {**message, "headers": [*message.get("headers", ()), *extra]}
        await self._send(message)
