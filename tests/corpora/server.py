"""An HTTP server of the files of a folder, on this machine, that knows ranges and can misbehave."""

import contextlib
import http.server
import threading
from pathlib import Path


class Server(http.server.ThreadingHTTPServer):
    """Serves the files of a folder; ``requests``: (path, Range header or None) of each request so far.

    What it does wrong, by default nothing:
    ``cut``: [number of bytes after which the next connection ends, ...], used up one by one; ``stall``: a
    number of bytes after which the next connection waits for ever; ``ranges``: False if it ignores them.
    """

    daemon_threads = True

    def __init__(self, folder):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.requests, self.cut, self.stall, self.ranges = Path(folder), [], [], None, True
        self.stalled = threading.Event()

    @property
    def url(self):
        """Address of the folder."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"

    def do_GET(self):
        server, wanted = self.server, self.headers.get("Range")
        server.requests.append((self.path, wanted))
        file = server.folder / self.path.lstrip("/")
        if not file.is_file():
            self.send_error(404)
            return
        data, begin = file.read_bytes(), 0
        if wanted and server.ranges:
            begin = int(wanted.removeprefix("bytes=").rstrip("-"))
            if begin >= len(data):
                self.send_error(416)
                return
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - begin))
        self.end_headers()
        if server.stall is not None:
            self.wfile.write(data[begin : begin + server.stall])
            self.wfile.flush()
            server.stall = None
            server.stalled.set()
            self.rfile.read()  # until the other side goes away
            return
        end = begin + server.cut.pop(0) if server.cut else len(data)
        self.wfile.write(data[begin:end])

    def log_message(self, *_):
        """Nothing is logged."""


@contextlib.contextmanager
def serving(folder):
    """A running Server of a folder."""
    server = Server(folder)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
