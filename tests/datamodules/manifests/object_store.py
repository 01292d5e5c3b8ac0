"""A local S3 server, and a proxy before it whose connections can be slow, cut or refused."""

import http.client
import threading
import time
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

BUSY = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


class Proxy(ThreadingHTTPServer):
    """Passes requests on, except where a fault comes first.

    Attributes:
        gets: path and range of each request to read a file.
        faults: what happens to the next of these, in their order: ``busy`` is an answer 503,
            ``cut`` ends the connection in the middle of the body, and a number waits so long
            (seconds) before it answers.
    """

    daemon_threads = True

    def __init__(self, server: tuple[str, int]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.server, self.lock = server, threading.Lock()
        self.gets: list[tuple[str, str]] = []
        self.faults: list[str | float] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that go away."""

    def next_fault(self, path: str, range_: str) -> str | float | None:
        """Note a request; return what is to happen to it."""
        with self.lock:
            self.gets.append((path, range_))
            return self.faults.pop(0) if self.faults else None


class _Handler(BaseHTTPRequestHandler):
    server: Proxy
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        fault = self.server.next_fault(self.path, self.headers.get("Range", ""))
        if fault == "busy":
            self.answer(503, [("Content-Type", "application/xml")], BUSY)
            return
        if not isinstance(fault, str | None):
            time.sleep(fault)
        connection = http.client.HTTPConnection(*self.server.server)
        connection.request("GET", self.path, headers=dict(self.headers))
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        self.answer(answer.status, answer.getheaders(), body, cut=fault == "cut")

    do_HEAD = do_GET

    def answer(self, status: int, headers: Iterable[tuple[str, str]], body: bytes, cut=False):
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if cut else body)
        self.close_connection |= cut

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""


@contextmanager
def object_store() -> Iterator[Proxy]:
    """An S3 server without contents, behind a proxy."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    proxy = Proxy(server.get_host_and_port())
    thread = threading.Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join()
        server.stop()


def upload(proxy: Proxy, files: Iterable[Path], bucket: str) -> None:
    """Put files into a bucket, past the proxy."""
    host, port = proxy.server
    for name, content in [("", b""), *((f"/{path.name}", path.read_bytes()) for path in files)]:
        url = f"http://{host}:{port}/{bucket}{name}"
        headers = {"Content-Type": "application/octet-stream"}
        with urllib.request.urlopen(urllib.request.Request(url, content, headers, method="PUT")):
            pass


def environment(proxy: Proxy) -> dict[str, str]:
    """Variables with which the S3 client reaches the proxy, and does not retry by itself."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.server_port}",
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
    }
