"""The one place that makes Redis clients, and what becomes of their errors."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    NoPermissionError,
    RedisError,
    ResponseError,
)
from redis.exceptions import (
    TimeoutError as RedisTimeoutError,
)
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from streamer.errors import SettingsError, UnavailableError

TIMEOUT_S = 5.0  # connecting, and waiting for an answer; a blocking read must block for less
HEALTH_CHECK_S = 15  # a connection that lay idle this long is tried with PING before it is used
LOGIN_ERRORS = (AuthenticationError, AuthorizationError, NoPermissionError)


def connect_redis(
    url: str, *, timeout_s: float = TIMEOUT_S, text: bool = False, max_connections: int | None = None
) -> Redis:
    """A client that connects when first used and is safe to share between threads.

    Every command is sent at most once. Whether it may be repeated after a time-out only its caller knows: one who
    appends an event may not, one who reads may, each with a `Backoff`.

    Args:
        url: ``redis://[USER:PASSWORD@]HOST:PORT/DB``, ``rediss://`` for TLS, ``unix://PATH``.
        timeout_s: Limit for connecting and for each answer.
        text: Replies are ``str`` instead of ``bytes``.
        max_connections: At most so many at once; None: as many as threads ask for.

    Raises:
        SettingsError: The URL cannot be understood. It is not repeated, as it may hold a password.
    """
    if not url:
        raise SettingsError("redis.url is empty; give --redis redis://HOST:PORT/DB or set WATCHWORD_REDIS__URL")
    try:
        return Redis.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            health_check_interval=HEALTH_CHECK_S,
            retry=Retry(NoBackoff(), 0),
            retry_on_error=[],
            decode_responses=text,
            max_connections=max_connections,
            encoding_errors="surrogateescape",  # what is no UTF-8 comes through text as it was, both ways
            protocol=2,  # what Redis 6.2 and every proxy speaks
            **(
                {}
                if url.startswith("unix:")
                else {"maint_notifications_config": MaintNotificationsConfig(enabled=False)}
            ),
        )
    except (ValueError, TypeError) as error:
        raise SettingsError("redis.url is not like redis://HOST:PORT/DB; check --redis") from error


def address_of(client: Redis) -> str:
    """Where a client connects to, ``HOST:PORT`` or a socket's path, without credentials."""
    place = client.connection_pool.connection_kwargs
    if "path" in place:
        return str(place["path"])
    return f"{place.get('host', 'localhost')}:{place.get('port', 6379)}"


@contextmanager
def reaching(client: Redis) -> Iterator[None]:
    """Turn what goes wrong with Redis inside the block into `UnavailableError`.

    Raises:
        UnavailableError: Names ``HOST:PORT``, the reason and what to do.
    """
    try:
        yield
    except LOGIN_ERRORS as error:
        raise UnavailableError(
            f"redis at {address_of(client)} refuses the login; give a user and password in the URL "
            "(redis://USER:PASSWORD@HOST:PORT/DB) that may use the keys under redis.prefix"
        ) from error
    except RedisTimeoutError as error:
        raise UnavailableError(
            f"redis at {address_of(client)} does not answer in time; check that it is well"
        ) from error
    except ResponseError as error:
        raise UnavailableError(f"redis at {address_of(client)} refuses a command: {_first_line(error)}") from error
    except (RedisError, OSError) as error:
        raise UnavailableError(
            f"redis at {address_of(client)} cannot be reached ({_reason(error)}); check that it runs and --redis"
        ) from error


class Backoff:
    """Waiting times that double from ``initial_s`` to ``max_s``, each shortened at random by up to a half."""

    def __init__(self, initial_s: float = 0.1, max_s: float = 5.0) -> None:
        self._initial_s = initial_s
        self._max_s = max_s
        self._failures = 0

    def next_s(self) -> float:
        """How long to wait after one more failure, in seconds."""
        wait_s = min(self._max_s, self._initial_s * 2.0 ** min(self._failures, 32))
        self._failures += 1
        return wait_s * random.uniform(0.5, 1.0)  # noqa: S311  spreads reconnects, no secret

    def reset(self) -> None:
        """It worked: the next failure waits ``initial_s`` again."""
        self._failures = 0


def _first_line(error: Exception) -> str:
    text = str(error).partition("\n")[0].rpartition("caused error: ")[2]  # a pipeline puts the whole command before it
    return text.partition(", with args")[0][:160]  # the arguments may be anything, a snapshot or a password


def _reason(error: BaseException) -> str:
    at: BaseException | None = error
    while at is not None:
        if isinstance(at, OSError) and at.strerror:
            return at.strerror
        at = at.__cause__ or at.__context__
    return type(error).__name__
