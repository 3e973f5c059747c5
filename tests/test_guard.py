"""A server of ours that ends, or grows over its limit, ends the run with its reason."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from streamer.embedded import EmbeddedRedis, Guard, TansuBroker
from streamer.errors import UnavailableError
from tests.processes import children_of

WATCHWORD = str(Path(sys.executable).with_name("watchword"))


def test_a_guard_says_once_that_a_server_has_ended() -> None:
    told = threading.Event()
    with EmbeddedRedis() as redis, Guard([redis], told.set, interval_s=0.02) as guard:
        assert not told.wait(0.2)
        guard.raise_failure()
        os.kill(redis.pid, signal.SIGKILL)
        assert told.wait(10)
        with pytest.raises(UnavailableError, match=r"embedded redis on 127\.0\.0\.1:\d+ has ended"):
            guard.raise_failure()


def test_a_guard_says_that_a_broker_holds_more_than_it_may_and_how_to_go_on() -> None:
    told = threading.Event()
    with TansuBroker(memory_max_bytes=1_000_000) as broker, Guard([broker], told.set, interval_s=0.02) as guard:
        assert told.wait(10)
        with pytest.raises(UnavailableError, match=r"its limit is 1 MB.*--broker kafka"):
            guard.raise_failure()


def test_a_guard_ends_at_once_however_long_its_interval() -> None:
    with EmbeddedRedis() as redis, Guard([redis], lambda: None, interval_s=3600):
        pass
    assert not redis.is_running


@pytest.mark.slow
def test_up_ends_with_the_reason_when_its_broker_has_ended() -> None:
    with subprocess.Popen(
        [WATCHWORD, "up", "--broker", "tansu", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            port = json.loads(process.stdout.readline())["kafka"].rpartition(":")[2]
            (broker,) = (pid for pid, command in children_of(process.pid).items() if f":{port}" in command)
            os.kill(broker, signal.SIGKILL)
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 1
    assert f"watchword: embedded tansu on 127.0.0.1:{port} has ended" in said
    assert "Traceback" not in said
