"""Downloading from a server that loses connections and changes its files."""

import hashlib
import http.server
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from hiera_video.errors import CheckpointError
from hiera_video.weights import download
from hiera_video.weights.download import digest_in_name, published_file
from hiera_video.weights.load import load_weights
from tests.models.small import tiny_model

NAME = "hiera_base_16x224"


class Server(http.server.ThreadingHTTPServer):
    """One file, with ranges.

    Attributes:
        content: the file.
        tag: its ETag.
        cut: bytes after which the connection breaks, for the first of the requests.
        ranges: the Range header of each request.
        ignores_ranges: always send the whole.
        ignores_versions: send the rest whatever version was asked for.
        length: the Content-Length that is said, if not the true one; None: none is.
        modified: its Last-Modified.
        location: where all are redirected.
        statuses: answers with these first.
    """

    def __init__(self, content):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.tag, self.cut = content, '"one"', []
        self.ranges, self.statuses, self.location, self.ignores_ranges = [], [], None, False
        self.ignores_versions, self.length, self.modified = False, "true", None


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        server = self.server
        server.ranges.append(self.headers["Range"])
        if server.statuses:
            self.send_error(server.statuses.pop(0))
            return
        if server.location:
            self.send_response(302)
            self.send_header("Location", server.location)
            self.end_headers()
            return
        content, start = server.content, 0
        same = server.ignores_versions or self.headers["If-Range"] in (None, server.tag)
        if self.headers["Range"] and same and not server.ignores_ranges:
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        if server.tag:
            self.send_header("ETag", server.tag)
        if server.modified:
            self.send_header("Last-Modified", server.modified)
        if server.length is not None:
            length = len(content) - start if server.length == "true" else server.length
            self.send_header("Content-Length", str(length))
        self.end_headers()
        end = start + server.cut.pop(0) if server.cut else len(content)
        self.wfile.write(content[start:end])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    state = tiny_model().state_dict()
    torch.save({"model_state": state}, tmp_path / "served.pth")
    server = Server((tmp_path / "served.pth").read_bytes())
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setattr(download, "BASE_URL", f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.setattr(download, "SCHEMES", ("http",))
    monkeypatch.setattr(download, "PAUSE", 0.0)
    monkeypatch.setattr(download, "CHUNK", 10_000)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def files(path):
    return sorted(file.name for file in path.parent.iterdir())


def test_weights_by_name(server, capsys):
    model = tiny_model()
    torch.nn.init.zeros_(model.norm.weight)
    load_weights(model, NAME)
    assert model.norm.weight.abs().sum() > 0
    shown = capsys.readouterr()
    assert "CC-BY-NC" in shown.out
    assert shown.err.count(f"{NAME}: 2 of 2 MB") == shown.err.count("\n") == 1
    load_weights(model, NAME, quiet=True)
    assert len(server.ranges) == 1
    assert capsys.readouterr() == ("", "")


def test_a_lost_connection_is_taken_up_where_it_was(server):
    server.cut = [30_000, 20_000, 0, 40_000]
    path = published_file(NAME, quiet=True)
    assert path.read_bytes() == server.content
    assert server.ranges == [None, "bytes=30000-", "bytes=50000-", "bytes=50000-", "bytes=90000-"]
    assert files(path) == [f"{NAME}.pth"]


def test_a_later_call_goes_on(server, tmp_path):
    server.cut = [30_000] + [0] * 10
    with pytest.raises(CheckpointError, match="ended after 30000 of") as error:
        published_file(NAME, quiet=True)
    assert str(tmp_path / "hub" / "checkpoints" / f"{NAME}.pth") in str(error.value)
    assert len(server.ranges) == download.TRIES
    server.cut.clear()
    assert published_file(NAME, quiet=True).read_bytes() == server.content
    assert server.ranges[-1] == "bytes=30000-"


@pytest.mark.parametrize("tag", ['"two"', None])
def test_a_file_that_changed_is_not_spliced(server, tag):
    server.cut = [30_000] + [0] * 4
    with pytest.raises(CheckpointError):
        published_file(NAME, quiet=True)
    server.content, server.tag = bytes(len(server.content)), tag
    assert published_file(NAME, quiet=True).read_bytes() == server.content


@pytest.mark.parametrize("header", ["tag", "modified"])
def test_the_rest_of_another_version_is_not_spliced(server, header):
    server.tag, server.ignores_versions, server.cut = None, True, [30_000] + [0] * 4
    setattr(server, header, '"one"' if header == "tag" else "Mon, 05 Oct 2026 10:00:00 GMT")
    with pytest.raises(CheckpointError):
        published_file(NAME, quiet=True)
    server.ranges.clear()
    server.content = bytes(len(server.content))
    setattr(server, header, '"two"' if header == "tag" else "Mon, 05 Oct 2026 11:00:00 GMT")
    assert published_file(NAME, quiet=True).read_bytes() == server.content
    assert server.ranges == ["bytes=30000-", None]


def test_a_file_that_changes_all_the_time_is_given_up(server):
    server.ignores_versions, server.cut = True, [30_000] * 1000
    tags = iter(range(1000))

    class Changing(Handler):
        def do_GET(self):
            server.tag = f'"{next(tags)}"'
            super().do_GET()

    server.RequestHandlerClass = Changing
    with pytest.raises(CheckpointError, match="the rest of another version"):
        published_file(NAME, quiet=True)
    assert len(server.ranges) == 2 * download.TRIES


@pytest.mark.parametrize("length", [None, 0, "many"])
def test_a_file_of_unknown_size_is_refused(server, length):
    """A connection that was cut could not be told from the end."""
    server.length, server.cut = length, [30_000]
    with pytest.raises(CheckpointError, match="the server does not say how large the file is"):
        published_file(NAME, quiet=True)
    assert len(server.ranges) == 1


def test_a_cached_file_that_is_damaged(server):
    path = published_file(NAME, quiet=True)
    path.write_bytes(server.content[:1000])
    with pytest.raises(CheckpointError, match=r"pth: .*damaged.*; delete it to download it anew$"):
        load_weights(tiny_model(), NAME)
    with pytest.raises(CheckpointError, match="another format$"):  # not by its name
        load_weights(tiny_model(), path)


@pytest.mark.parametrize("tag", ['W/"weak"', ""])
def test_without_a_version_a_file_begins_anew(server, tag):
    server.tag, server.cut = tag, [30_000]
    assert published_file(NAME, quiet=True).read_bytes() == server.content
    assert server.ranges == [None, None]


def test_a_server_without_ranges(server):
    server.cut, server.ignores_ranges = [30_000], True
    assert published_file(NAME, quiet=True).read_bytes() == server.content
    assert server.ranges == [None, "bytes=30000-"]


def test_a_partial_file_that_is_too_long_begins_anew(server):
    server.cut = [30_000] + [0] * 4
    with pytest.raises(CheckpointError):
        published_file(NAME, quiet=True)
    server.content = server.content[:20_000]
    assert published_file(NAME, quiet=True).read_bytes() == server.content


def test_nothing_is_left_where_nothing_came(server, tmp_path):
    server.statuses = [404]
    with pytest.raises(CheckpointError, match="404"):
        published_file(NAME, quiet=True)
    assert list((tmp_path / "hub" / "checkpoints").iterdir()) == []


def test_a_busy_server_is_asked_again_and_a_missing_file_is_not(server):
    server.statuses = [503, 429]
    assert published_file(NAME, quiet=True).read_bytes() == server.content
    server.statuses, server.ranges = [404], []
    with pytest.raises(CheckpointError, match=r"404.*put http.* at .*mae_hiera_base_224.pth your"):
        published_file("mae_hiera_base_224", quiet=True)
    assert len(server.ranges) == 1


def test_digest(server, monkeypatch):
    digest = hashlib.sha256(server.content).hexdigest()
    monkeypatch.setattr(download, "SHA256", {NAME: "0" * 64})
    with pytest.raises(CheckpointError, match=f"its SHA-256 is {digest}, not 000") as error:
        published_file(NAME, quiet=True)
    assert "\n" not in str(error.value)
    monkeypatch.setattr(download, "SHA256", {NAME: digest})
    assert published_file(NAME, quiet=True).read_bytes() == server.content
    assert server.ranges == [None, None]


def test_the_name_of_a_file_of_torchvision_has_its_digest(server, tmp_path):
    digest = hashlib.sha256(server.content).hexdigest()[:8]
    wrong, right = (f"{download.BASE_URL}a_v2_coco-{d}.pth" for d in ("dd69338a", digest))
    path = tmp_path / "a.pth"
    with pytest.raises(ValueError, match="its SHA-256 is .*, not dd69338a; deleted it"):
        download.download(wrong, path, lambda *_: None, digest_in_name(wrong))
    assert not list(tmp_path.glob("a.pth*"))
    download.download(right, path, lambda *_: None, digest_in_name(right))
    assert path.read_bytes() == server.content


def test_names_without_a_digest():
    assert digest_in_name("https://x.org/a-dd69338a.pth") == "dd69338a"
    for name in ("hiera_base_16x224.pth", "a-b-coco.pth", "a-dd69.pth", "dd69338a.pth"):
        assert digest_in_name(f"https://x.org/b-dd69338a/{name}") is None


def test_only_https(server, monkeypatch):
    monkeypatch.setattr(download, "SCHEMES", ("https",))
    with pytest.raises(CheckpointError, match="is not https"):
        published_file(NAME, quiet=True)
    assert server.ranges == []


@pytest.mark.parametrize("target", ["file:///etc/hostname", "ftp://127.0.0.1/x"])
def test_redirections_elsewhere_are_refused(server, target):
    server.location = target
    with pytest.raises(CheckpointError, match="cannot download"):
        published_file(NAME, quiet=True)


def test_each_redirection_is_checked_before_it_is_followed(server, monkeypatch):
    server.location, checked = f"http://127.0.0.1:{server.server_port}/on", []

    def check(url):
        checked.append(url)
        if len(checked) == 3:
            raise ValueError(f"{url} is not https")

    monkeypatch.setattr(download, "_check_scheme", check)
    with pytest.raises(CheckpointError, match="/on is not https"):
        published_file(NAME, quiet=True)
    assert checked == [f"{download.BASE_URL}{NAME}.pth", server.location, server.location]
    assert len(server.ranges) == 2


def test_a_redirection_to_http_is_refused(server, monkeypatch):
    server.location = f"http://127.0.0.1:{server.server_port}/on"
    monkeypatch.setattr(
        download,
        "_check_scheme",
        lambda url, check=download._check_scheme: (
            None if url.endswith(f"{NAME}.pth") else check(url)
        ),
    )  # the first address alone counts as https here
    monkeypatch.setattr(download, "SCHEMES", ("https",))
    with pytest.raises(CheckpointError, match="/on is not https"):
        published_file(NAME, quiet=True)
    assert len(server.ranges) == 1


def test_processes_at_once_download_once(server):
    with ThreadPoolExecutor(4) as threads:
        paths = list(threads.map(lambda _: published_file(NAME, quiet=True), range(4)))
    assert len(set(paths)) == len(server.ranges) == 1
    assert paths[0].read_bytes() == server.content
    assert files(paths[0]) == [f"{NAME}.pth"]


def test_a_folder_that_cannot_be_written(server, tmp_path):
    (tmp_path / "hub").write_text("a file in the place of a folder")
    with pytest.raises(CheckpointError, match="cannot download .*Not a directory"):
        published_file(NAME, quiet=True)
