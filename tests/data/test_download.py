import hashlib
import random
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sciffusion.data.download import download
from sciffusion.errors import InputError

DATA = random.Random(0).randbytes(1_000_000)
SHA = "sha256:" + hashlib.sha256(DATA).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves DATA; can ignore ranges and break off after a number of bytes."""

    def do_GET(self):
        server = self.server
        asked = self.headers.get("Range")
        server.asked.append(asked)
        if self.path.startswith("/missing"):
            return self.send_error(404)
        start = int(asked[6:-1]) if asked and server.ranges else 0
        if start >= len(DATA):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(DATA) - 1}/{len(DATA)}")
        self.send_header("Content-Length", str(len(DATA) - start))
        self.end_headers()
        stop = len(DATA) if server.breaks is None else server.breaks
        self.wfile.write(DATA[start:stop])

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked, server.ranges, server.breaks = [], True, None
    server.url = f"http://127.0.0.1:{server.server_port}/data.bin"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def names(folder):
    return sorted(p.name for p in folder.iterdir())


@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
def test_a_file_comes_whole_and_once(server, tmp_path, algorithm):
    checksum = f"{algorithm}:{hashlib.new(algorithm, DATA).hexdigest()}"
    for _ in range(2):
        path = download(server.url, tmp_path / "new", checksum)
        assert path.read_bytes() == DATA
    assert len(server.asked) == 1
    assert names(tmp_path / "new") == ["data.bin"]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_transfer_goes_on_where_it_stopped(server, tmp_path, ranges):
    server.ranges, server.breaks = ranges, 400_000
    with pytest.raises(InputError, match=r"broke off .*400000 of 1000000.*run again"):
        download(server.url, tmp_path, SHA)
    assert names(tmp_path) == ["data.bin.part"]
    server.breaks = None
    assert download(server.url, tmp_path, SHA).read_bytes() == DATA
    assert server.asked == [None, "bytes=400000-"]
    assert names(tmp_path) == ["data.bin"]


def test_a_whole_part_is_only_checked(server, tmp_path):
    (tmp_path / "data.bin.part").write_bytes(DATA)
    assert download(server.url, tmp_path, SHA).read_bytes() == DATA


def test_a_wrong_checksum_removes_the_file_and_tells_both(server, tmp_path):
    wrong = "0" * 64
    with pytest.raises(InputError, match=f"{SHA[7:]}, expected {wrong}"):
        download(server.url, tmp_path, f"sha256:{wrong}")
    assert names(tmp_path) == []


def test_a_part_of_something_else_is_removed(server, tmp_path):
    (tmp_path / "data.bin.part").write_bytes(b"other")
    with pytest.raises(InputError, match="bad file was removed"):
        download(server.url, tmp_path, SHA)
    assert download(server.url, tmp_path, SHA).read_bytes() == DATA


def test_a_file_that_was_there_is_never_removed(server, tmp_path):
    (tmp_path / "data.bin").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"data\.bin has sha256"):
        download(server.url, tmp_path, SHA)
    assert (tmp_path / "data.bin").read_bytes() == b"mine"
    assert server.asked == []


def test_missing_files_and_servers_are_told_apart(server, tmp_path):
    with pytest.raises(InputError, match="404"):
        download(server.url.replace("data.bin", "missing.bin"), tmp_path, SHA)
    with pytest.raises(InputError, match="cannot reach"):
        download("http://127.0.0.1:9/data.bin", tmp_path, SHA, timeout=2)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/file", "http://host/"])
def test_other_addresses_are_refused(url, tmp_path):
    with pytest.raises(InputError, match="http or https"):
        download(url, tmp_path, SHA)


@pytest.mark.parametrize("checksum", ["", "abc", "sha1:" + "0" * 40, "md5:" + "0" * 31, "md5:x"])
def test_malformed_checksums_are_refused(checksum, tmp_path):
    with pytest.raises(InputError, match="checksum"):
        download("http://host/file", tmp_path, checksum)
