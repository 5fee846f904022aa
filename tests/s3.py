"""An S3 server on this machine, and what stands before one that is busy."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from moto.server import ThreadedMotoServer


@contextmanager
def s3_server() -> Iterator[tuple[str, int]]:
    """The host and port of an S3 server that has no bucket yet."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        yield server.get_host_and_port()
    finally:
        server.stop()


def settings_of(host: str, port: int, *, secret: str = "secret") -> dict[str, str]:
    """What a user's environment says of that server."""
    return {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",  # nobody asks beyond this machine
    }


class Between(BaseHTTPRequestHandler):
    """Hands requests on to the S3 server, but answers some of them with 503, or not yet."""

    protocol_version = "HTTP/1.1"  # who sends much asks first whether to go on
    upstream: tuple[str, int]
    failing = 0  # so many of each verb, each once
    held: str | None = None  # what is asked for by a path with this in it waits for as long as it is set
    seen: set[tuple[str, str]]
    counting = threading.Lock()

    def _hand_on(self) -> None:
        while type(self).held is not None and type(self).held in self.path:
            time.sleep(0.05)
        sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with self.counting:
            failed = sum(verb == self.command for verb, _ in self.seen)
            fails = (self.command, self.path) not in self.seen and failed < self.failing
            if fails:
                self.seen.add((self.command, self.path))
        if fails:
            self.send_error(503, "Slow Down")
            return
        connection = http.client.HTTPConnection(*self.upstream)
        headers = {name: value for name, value in self.headers.items() if name.lower() != "expect"}
        connection.request(self.command, self.path, body=sent or None, headers=headers)
        answer = connection.getresponse()
        body = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "server", "date", "content-length"):
                self.send_header(name, value)
        length = answer.getheader("Content-Length", "0") if self.command == "HEAD" else str(len(body))
        self.send_header("Content-Length", length)
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _hand_on  # noqa: N815 as the base class has them

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def between(upstream: tuple[str, int]) -> Iterator[tuple[type[Between], tuple[str, int]]]:
    """Stand before the server at `upstream`: what to set there, and the host and port that stand for it now."""
    handler = type("Handler", (Between,), {"upstream": upstream, "seen": set()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield handler, ("127.0.0.1", server.server_port)
    finally:
        server.shutdown()
        server.server_close()
