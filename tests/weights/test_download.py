"""Downloading from a server that loses connections and changes its files."""

import hashlib
import http.server
import itertools
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
ONE, TWO = itertools.repeat('"one"'), itertools.repeat('"two"')  # ETags
NO_TAG = itertools.repeat(None)
HALF = 30_000  # bytes of the file that come before the connection breaks


class Server(http.server.ThreadingHTTPServer):
    """Serves one file, also in ranges."""

    def __init__(self, content):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.tags = ONE  # the ETag of each answer
        self.modified = None  # its Last-Modified
        self.length = "true"  # its Content-Length, if not the true one; None: none
        self.cut = []  # bytes after which the connection breaks, for the first requests
        self.statuses = []  # the first answers are these errors
        self.location = None  # all requests are redirected there
        self.ignores_ranges = False  # always sends the whole
        self.ignores_versions = False  # sends the rest whatever version was asked for
        self.ranges = []  # the Range header of each request


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        server, tag, begin = self.server, next(self.server.tags), 0
        server.ranges.append(self.headers["Range"])
        if server.statuses:
            self.send_error(server.statuses.pop(0))
            return
        if server.location:
            self.answer(302, Location=server.location)
            return
        same = server.ignores_versions or self.headers["If-Range"] in (None, tag)
        status, size, headers = 200, len(server.content), {"ETag": tag}
        if self.headers["Range"] and same and not server.ignores_ranges:
            begin = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            if begin >= size:
                self.send_error(416)
                return
            status, headers["Content-Range"] = 206, f"bytes {begin}-{size - 1}/{size}"
        headers["Last-Modified"] = server.modified
        headers["Content-Length"] = size - begin if server.length == "true" else server.length
        self.answer(status, **headers)
        end = begin + server.cut.pop(0) if server.cut else size
        self.wfile.write(server.content[begin:end])

    def answer(self, status, **headers):
        self.send_response(status)
        for name, value in headers.items():
            if value not in (None, ""):
                self.send_header(name, str(value))
        self.end_headers()

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


def change(server, **attributes):
    for name, value in attributes.items():
        setattr(server, name, value)


def fetched():
    return published_file(NAME, quiet=True).read_bytes()


def broken_off(server):
    """Begin a download that every attempt breaks off, and forget its requests."""
    server.cut = [HALF] + [0] * (download.TRIES - 1)
    with pytest.raises(CheckpointError, match=f"ended after {HALF} of") as error:
        fetched()
    assert len(server.ranges) == download.TRIES
    server.ranges.clear()
    return str(error.value)


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


@pytest.mark.parametrize(
    ("cut", "attributes", "ranges"),
    [
        ([HALF, 20_000, 0, 40_000], {}, [None, HALF, 50_000, 50_000, 90_000]),
        ([HALF], {"tags": itertools.repeat('W/"weak"')}, [None, None]),  # no sure version
        ([HALF], {"tags": NO_TAG}, [None, None]),
        ([HALF], {"ignores_ranges": True}, [None, HALF]),
    ],
)
def test_a_lost_connection_is_taken_up_where_it_was_if_the_server_can(
    server, tmp_path, cut, attributes, ranges
):
    change(server, cut=cut, **attributes)
    assert fetched() == server.content
    assert server.ranges == [begin and f"bytes={begin}-" for begin in ranges]
    assert [file.name for file in (tmp_path / "hub/checkpoints").iterdir()] == [f"{NAME}.pth"]


def test_a_later_call_goes_on(server, tmp_path):
    assert str(tmp_path / "hub/checkpoints" / f"{NAME}.pth") in broken_off(server)
    assert fetched() == server.content
    assert server.ranges == [f"bytes={HALF}-"]


@pytest.mark.parametrize(
    ("before", "after", "requests"),
    [
        ({}, {"tags": TWO}, 1),  # the server sends the whole
        ({}, {"tags": NO_TAG}, 1),
        ({"ignores_versions": True}, {"tags": TWO}, 2),  # it sends the rest of the new version
        (
            {"ignores_versions": True, "tags": NO_TAG, "modified": "Mon, 05 Oct 2026 10:00:00 GMT"},
            {"modified": "Mon, 05 Oct 2026 11:00:00 GMT"},
            2,
        ),
    ],
)
def test_a_file_that_changed_is_not_spliced(server, before, after, requests):
    change(server, **before)
    broken_off(server)
    change(server, content=bytes(len(server.content)), **after)
    assert fetched() == server.content
    assert server.ranges == [f"bytes={HALF}-", None][:requests]


def test_a_partial_file_that_is_too_long_begins_anew(server):
    broken_off(server)
    server.content = server.content[: HALF - 1]
    assert fetched() == server.content


def test_a_file_that_changes_all_the_time_is_given_up(server):
    tags = (f'"{number}"' for number in itertools.count())
    change(server, ignores_versions=True, cut=[HALF] * 1000, tags=tags)
    with pytest.raises(CheckpointError, match="the rest of another version"):
        fetched()
    assert len(server.ranges) == 2 * download.TRIES


@pytest.mark.parametrize("length", [None, 0, "many"])
def test_a_file_of_unknown_size_is_refused(server, length):
    """A connection that was cut could not be told from the end."""
    change(server, length=length, cut=[HALF])
    with pytest.raises(CheckpointError, match="the server does not say how large the file is"):
        fetched()
    assert len(server.ranges) == 1


def test_a_cached_file_that_is_damaged(server):
    path = published_file(NAME, quiet=True)
    path.write_bytes(server.content[:1000])
    with pytest.raises(CheckpointError, match=r"pth: .*damaged.*; delete it to download it again$"):
        load_weights(tiny_model(), NAME)
    with pytest.raises(CheckpointError, match="another format$"):  # not by its name
        load_weights(tiny_model(), path)


def test_a_busy_server_is_asked_again_and_a_missing_file_is_not(server, tmp_path):
    server.statuses = [503, 429]
    assert fetched() == server.content
    change(server, statuses=[404], ranges=[])
    with pytest.raises(CheckpointError, match=r"404.*put http.* at .*mae_hiera_base_224.pth your"):
        published_file("mae_hiera_base_224", quiet=True)
    assert len(server.ranges) == 1
    assert [file.name for file in (tmp_path / "hub/checkpoints").iterdir()] == [f"{NAME}.pth"]


def test_digest(server, monkeypatch):
    digest = hashlib.sha256(server.content).hexdigest()
    monkeypatch.setattr(download, "SHA256", {NAME: "0" * 64})
    with pytest.raises(CheckpointError, match=f"its SHA-256 is {digest}, not 000") as error:
        fetched()
    assert "\n" not in str(error.value)
    monkeypatch.setattr(download, "SHA256", {NAME: digest})
    assert fetched() == server.content
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
    for name in ("hiera_base_16x224.pth", "a-b-coco.pth", "a-dd69.pth", "dd69338a.pth"):
        assert digest_in_name(f"https://x.org/b-dd69338a/{name}") is None


def test_only_https(server, monkeypatch):
    monkeypatch.setattr(download, "SCHEMES", ("https",))
    with pytest.raises(CheckpointError, match="is not https"):
        fetched()
    assert server.ranges == []


@pytest.mark.parametrize(
    ("target", "reason"),
    [("file:///etc/hostname", "file:///etc/hostname"), ("ftp://127.0.0.1/x", "/x is not https")],
)
def test_redirections_elsewhere_are_refused(server, target, reason):
    server.location = target
    with pytest.raises(CheckpointError, match=f"cannot download .*{reason}"):
        fetched()
    assert len(server.ranges) == 1


def test_each_redirection_is_checked_before_it_is_followed(server, monkeypatch):
    """Such as one from https to http: the first address counts as allowed here, the second not."""
    server.location, checked = f"http://127.0.0.1:{server.server_port}/on", []

    class Schemes:
        def __contains__(self, scheme):
            checked.append(scheme)
            return len(checked) < 3

    monkeypatch.setattr(download, "SCHEMES", Schemes())
    with pytest.raises(CheckpointError, match="/on is not https"):
        fetched()
    assert checked == ["http"] * 3
    assert len(server.ranges) == 2


def test_processes_at_once_download_once(server, tmp_path):
    with ThreadPoolExecutor(4) as threads:
        contents = list(threads.map(lambda _: fetched(), range(4)))
    assert contents == [server.content] * 4
    assert len(server.ranges) == 1
    assert [file.name for file in (tmp_path / "hub/checkpoints").iterdir()] == [f"{NAME}.pth"]


def test_a_folder_that_cannot_be_written(server, tmp_path):
    (tmp_path / "hub").write_text("a file in the place of a folder")
    with pytest.raises(CheckpointError, match="cannot download .*Not a directory"):
        fetched()
