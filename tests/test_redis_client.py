from pathlib import Path

import pytest

from streamer.errors import SettingsError, UnavailableError
from streamer.redis_client import Backoff, address_of, connect_redis, reaching
from tests.redis_server import RedisServer


@pytest.mark.parametrize("url", ["", "localhost:6379", "http://u:hunter2@h", "redis://u:hunter2@h:99999/0"])
def test_a_url_that_is_none_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(SettingsError, match="--redis") as caught:
        connect_redis(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://u:hunter2@h:7000/3", "h:7000"),
        ("redis://h", "h:6379"),
        ("rediss://:hunter2@h:7000", "h:7000"),
        ("unix:///tmp/redis.sock", "/tmp/redis.sock"),
    ],
)
def test_an_address_holds_no_credentials(url: str, address: str) -> None:
    assert address_of(connect_redis(url)) == address


def test_a_server_that_is_away_is_named_without_credentials(tmp_path: Path) -> None:
    port = RedisServer(tmp_path).port
    client = connect_redis(f"redis://u:hunter2@127.0.0.1:{port}/0")
    with pytest.raises(UnavailableError, match=f"127.0.0.1:{port} cannot be reached") as caught, reaching(client):
        client.ping()
    assert "Connection refused" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_refused_login_says_what_to_do(tmp_path: Path) -> None:
    with RedisServer(tmp_path, "--requirepass", "right") as server:
        for url in (server.url, server.url.replace("redis://", "redis://:hunter2@")):
            client = connect_redis(url)
            with pytest.raises(UnavailableError, match="refuses the login") as caught, reaching(client):
                client.ping()
            assert "hunter2" not in str(caught.value)
        client = connect_redis(server.url.replace("redis://", "redis://:right@"))
        with reaching(client):
            assert client.ping()
        client.close()


def test_a_refused_command_does_not_repeat_its_arguments(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        client = connect_redis(server.url)
        with pytest.raises(UnavailableError, match="refuses a command") as caught, reaching(client):
            client.eval("return redis.call('NOSUCHCOMMAND', ARGV[1])", 0, "hunter2")
        assert "hunter2" not in str(caught.value)
        client.set("key", "of another kind")
        pipeline = client.pipeline()
        pipeline.hset("key", "field", "hunter2")
        with pytest.raises(UnavailableError, match="command: WRONGTYPE") as caught, reaching(client):
            pipeline.execute()
        assert "hunter2" not in str(caught.value)
        client.close()


def test_a_client_goes_on_after_the_server_was_restarted(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        client = connect_redis(server.url)
        assert client.ping()
        server.kill()
        server.start()
        assert client.ping()
        client.close()


def test_waits_double_up_to_the_longest_and_begin_anew_after_a_success() -> None:
    backoff = Backoff(0.1, 1.0)
    waits = [backoff.next_s() for _ in range(40)]
    for wait_s, longest_s in zip(waits, [0.1, 0.2, 0.4, 0.8, *[1.0] * 36], strict=True):
        assert longest_s / 2 <= wait_s <= longest_s
    backoff.reset()
    assert backoff.next_s() <= 0.1
