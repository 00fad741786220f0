"""A real `qvl-local serve` on loopback, and clients that ask it: what the benchmarks of the server share.

    with Served.start(library, pictures) as served:
        served.wait_for_indexing()
        answer = served.client().get("/api/search", q="two dogs")

Clients speak plain HTTP/1.1 over one connection each, as little work as Python can make of it: they run on
the cores of the server.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlencode, urlsplit

from qvl_local.runtime.world.queries import query
from qvl_local.runtime.world.scenes import sample

READY_S = 120
STOP_S = 60
POLL_S = 0.1
IDLE_S = 5.0
"""The server closes connections that are idle for long; a client must not meet that."""


class Client:
    """One connection, kept open from request to request, as a browser does. Not for several threads."""

    def __init__(self, url: str, *, timeout_s: float = 300.0) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._connection = HTTPConnection(parts.hostname, parts.port, timeout=timeout_s)
        self._used_at = time.monotonic()

    def get(self, path: str, *, headers: dict[str, str] | None = None, **params: Any) -> bytes:
        """The body of a successful answer."""
        target = f"{path}?{urlencode(params, doseq=True)}" if params else path
        return self._ask("GET", target, None, headers or {})

    def post(self, path: str, body: dict[str, Any]) -> bytes:
        """As `get`, with a JSON body."""
        encoded = json.dumps(body).encode()
        return self._ask("POST", path, encoded, {"Content-Type": "application/json"})

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _ask(self, method: str, target: str, body: bytes | None, headers: dict[str, str]) -> bytes:
        if time.monotonic() - self._used_at > IDLE_S:
            self._connection.close()  # the next request opens it again
        self._connection.request(method, target, body, headers)
        response = self._connection.getresponse()
        content = response.read()
        self._used_at = time.monotonic()
        if response.status >= 400:
            raise RuntimeError(f"{method} {target}: {response.status} {content[:300]!r}")
        return content


@dataclass(frozen=True, slots=True)
class Served:
    """A server that answers. `url` ends in a slash; `log` is what it writes on stderr."""

    url: str
    process: subprocess.Popen[bytes]
    log: IO[bytes]

    @classmethod
    @contextmanager
    def start(cls, library: Path, *folders: Path) -> Iterator[Served]:
        """Serve `library` for a block, indexing `folders`. The models stay loaded once they are."""
        command = [str(Path(sys.executable).with_name("qvl-local")), "serve", *map(str, folders)]
        command += ["--library", str(library), "--port", "0", "--no-open", "--json", "--model-ttl", "0"]
        with tempfile.TemporaryFile() as log:
            process = subprocess.Popen(
                [*command, "--log-level", "info"], stdout=subprocess.PIPE, stderr=log, env=_environment()
            )
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                if not line:
                    raise RuntimeError(f"the server did not start:\n{_end_of(log)}")
                yield cls(json.loads(line)["url"], process, log)
                if process.poll() is not None:
                    raise RuntimeError(f"the server ended with {process.returncode}:\n{_end_of(log)}")
            finally:
                _stop(process)

    def client(self) -> Client:
        """A connection of its own."""
        return Client(self.url)

    def status(self, client: Client) -> dict[str, Any]:
        """The object of `/api/status`."""
        answer: dict[str, Any] = json.loads(client.get("/api/status"))
        return answer

    def wait_for_indexing(self, *, most_s: float = 3600.0) -> dict[str, Any]:
        """Wait until everything that is there was indexed and nothing goes on; the status then."""
        client, until, quiet = self.client(), time.monotonic() + most_s, 0
        try:
            while time.monotonic() < until:
                status = self.status(client)
                # Twice: between two runs it may look idle for a moment.
                quiet = quiet + 1 if status["indexing"]["state"] == "idle" and status["items"] else 0
                if quiet == 2:
                    return status
                time.sleep(5 * POLL_S)
        finally:
            client.close()
        raise RuntimeError(f"indexing went on for more than {most_s:.0f} s")

    def resident_mb(self) -> float:
        """What the server's process holds in memory; its worker processes are not counted."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))

    def processor_s(self) -> float:
        """Seconds of processor time that the server's process has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Questions:
    """Queries of the sample world from a seed, none twice: the server remembers what was asked lately.

    Safe between threads.
    """

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(f"questions{seed}")
        self._asked: set[str] = set()
        self._lock = threading.Lock()

    def next(self) -> str:
        """A query that was not asked before."""
        with self._lock:
            while True:
                text = query(self._rng, sample(self._rng, held_out=None)).text
                if text not in self._asked:
                    self._asked.add(text)
                    return text

    def take(self, count: int) -> list[str]:
        """So many of them."""
        return [self.next() for _ in range(count)]


def _environment() -> dict[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1", "QVL_NO_OPEN": "1"}


def _end_of(log: IO[bytes]) -> str:
    log.seek(0)
    return log.read()[-2000:].decode("utf-8", "replace")


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
    if process.stdout is not None:
        process.stdout.close()
