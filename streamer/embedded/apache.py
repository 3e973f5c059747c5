"""An embedded Apache Kafka: its jars come once from Maven's registry, Java must be there."""

import base64
import os
import shutil
import subprocess
import uuid
from collections.abc import Sequence
from pathlib import Path

from streamer.embedded.folder import hold_lock
from streamer.embedded.server import HOST, EmbeddedServer, free_port
from streamer.errors import UnavailableError
from streamer.kafka_client import cluster_id_of

KAFKA_VERSION = "4.3.1"
_SLF4J_VERSION = "1.7.36"  # the one Kafka is built against; without a backend it writes no log at all
_FETCH_TIMEOUT_S = 600.0
_FORMAT_TIMEOUT_S = 60.0
_SLACK_BYTES = 65_536  # headers, key and the batch around a message

_POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>watchword</groupId><artifactId>embedded-kafka</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{KAFKA_VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>{_SLF4J_VERSION}</version>
    </dependency>
  </dependencies>
</project>
"""


class ApacheKafka(EmbeddedServer):
    """A single Apache Kafka broker, its own controller, on free loopback ports.

    Args:
        folder: See `EmbeddedServer`.
        message_max_bytes: Largest message it takes.
        heap_bytes: Java's heap.
        start_timeout_s: See `EmbeddedServer`.
    """

    kind = "kafka"
    stop_grace_s = 20.0

    def __init__(
        self,
        folder: Path | None = None,
        *,
        message_max_bytes: int = 8_388_608,
        heap_bytes: int = 201_326_592,
        start_timeout_s: float = 90.0,
    ) -> None:
        super().__init__(folder, start_timeout_s=start_timeout_s)
        self._message_max_bytes = message_max_bytes
        self._heap_bytes = heap_bytes
        self._controller_port: int | None = None
        self._cluster_id = ""

    @property
    def bootstrap(self) -> str:
        """``127.0.0.1:PORT``."""
        return self.address

    def _prepare(self, folder: Path, port: int) -> Sequence[str]:
        java = _java()
        jars = kafka_jars()
        self._controller_port = free_port()
        settings = folder / "server.properties"
        settings.write_text(
            "".join(f"{name}={value}\n" for name, value in self._settings(folder, port).items()), encoding="utf-8"
        )
        # Quick to start and small, rather than fast for hours.
        base = [java, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        base += ["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", f"{jars}/*"]
        self._cluster_id = _cluster_id(folder / "log")
        if not self._cluster_id:
            self._cluster_id = _random_id()
            _format([*base, "kafka.tools.StorageTool", "format", "-t", self._cluster_id, "-c", str(settings)])
        return [*base[:1], f"-Xmx{self._heap_bytes}", *base[1:], "kafka.Kafka", str(settings)]

    def _settings(self, folder: Path, port: int) -> dict[str, object]:
        controller = f"{HOST}:{self._controller_port}"
        return {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@{controller}",
            "listeners": f"PLAINTEXT://{HOST}:{port},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{HOST}:{port}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": folder / "log",
            "message.max.bytes": self._message_max_bytes + _SLACK_BYTES,
            "replica.fetch.max.bytes": self._message_max_bytes + _SLACK_BYTES,
            "auto.create.topics.enable": "false",
            "group.initial.rebalance.delay.ms": 0,
            "group.min.session.timeout.ms": 1_000,
            # A single node: the defaults of three replicas would never be met, and 50 partitions cost 100 files.
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 4,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "transaction.state.log.num.partitions": 4,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            "log.cleaner.dedupe.buffer.size": 4_194_304,  # 128 MB otherwise, in a heap of 192
            # Retention acts within seconds, so that a size limit is a limit.
            "log.retention.check.interval.ms": 1_000,
            "log.initial.task.delay.ms": 500,
            "log.segment.delete.delay.ms": 1_000,
            # After a kill the old registration is forgotten in 2 s.
            "broker.session.timeout.ms": 2_000,
            "broker.heartbeat.interval.ms": 500,
        }

    def _answers(self, port: int, pid: int) -> bool:
        del pid
        return cluster_id_of(f"{HOST}:{port}") == self._cluster_id


def has_apache_kafka() -> bool:
    """Whether `ApacheKafka` can run here: Java, and the jars or Maven to fetch them."""
    return shutil.which("java") is not None and (_is_fetched(_jars_folder()) or shutil.which("mvn") is not None)


def kafka_jars() -> Path:
    """The folder of Kafka's jars, in the user's cache; fetched with Maven on first use (44 MB).

    Raises:
        UnavailableError: They are missing and cannot be fetched.
    """
    folder = _jars_folder()
    if _is_fetched(folder):
        return folder
    maven = shutil.which("mvn")
    if maven is None:
        raise UnavailableError(
            f"Apache Kafka's jars are not in {folder} and mvn is not on PATH to fetch them; install maven, use --broker"
            " tansu, or name a running broker with --kafka HOST:PORT"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with hold_lock(folder):  # two that start at once fetch once
        if not _is_fetched(folder):
            _fetch(maven, folder)
    return folder


def _fetch(maven: str, folder: Path) -> None:
    (folder / "pom.xml").write_text(_POM, encoding="utf-8")
    command = [maven, "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={folder}"]
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=_FETCH_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(
            f"Apache Kafka's jars were not fetched within {_FETCH_TIMEOUT_S:.0f} s; check the way to Maven's registry,"
            " or use --broker tansu"
        ) from error
    except subprocess.CalledProcessError as error:
        wrote = "\n".join(error.stdout.decode("utf-8", "replace").strip().splitlines()[-5:])
        raise UnavailableError(
            f"Apache Kafka's jars cannot be fetched: mvn exit {error.returncode}; use --broker tansu, or mend what it"
            f" says:\n{wrote}"
        ) from error
    (folder / _MARK).touch()


_MARK = ".complete"


def _is_fetched(folder: Path) -> bool:
    return (folder / _MARK).exists()


def _jars_folder() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "watchword" / f"kafka-{KAFKA_VERSION}"


def _java() -> str:
    java = shutil.which("java")
    if java is None:
        raise UnavailableError(
            "java is not on PATH, Apache Kafka needs version 17 or newer; install a JRE, use --broker tansu, or name a"
            " running broker with --kafka HOST:PORT"
        )
    return java


def _random_id() -> str:
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode().replace("-", "A")


def _cluster_id(log_folder: Path) -> str:
    try:
        rows = (log_folder / "meta.properties").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return ""
    return next((row.partition("=")[2] for row in rows if row.startswith("cluster.id=")), "")


def _format(command: Sequence[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=_FORMAT_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(f"formatting Apache Kafka's folder took over {_FORMAT_TIMEOUT_S:.0f} s") from error
    except subprocess.CalledProcessError as error:
        wrote = "\n".join((error.stdout + error.stderr).decode("utf-8", "replace").strip().splitlines()[-5:])
        raise UnavailableError(
            f"Apache Kafka cannot format its folder (java exit {error.returncode}); is it version 17 or newer? It"
            f" wrote:\n{wrote}"
        ) from error
