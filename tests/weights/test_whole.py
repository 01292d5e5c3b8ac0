"""Damaged checkpoints are recognised; a write that fails leaves what was there."""

import resource
import zipfile
from contextlib import contextmanager

import pytest
import torch

from hiera_video.errors import CheckpointError, DamagedCheckpoint
from hiera_video.weights.files import read_checkpoint, whole_beside
from hiera_video.weights.whole import write_checkpoint

CONTENT = {"state_dict": {"weight": torch.arange(3000.0)}, "epoch": 3}


@pytest.fixture
def folder(tmp_path):
    """The checkpoints of a run."""
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    return folder


@contextmanager
def disk_of_20_kb():
    """Files of this process cannot grow beyond that: within a test only, as pytest writes one."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_torch_reads_what_was_written(folder):
    write_checkpoint(CONTENT, folder / "last.ckpt")
    content = torch.load(folder / "last.ckpt", weights_only=True)
    assert torch.equal(content["state_dict"]["weight"], CONTENT["state_dict"]["weight"])
    assert [path.name for path in folder.iterdir()] == ["last.ckpt"]


def test_any_flipped_byte_is_noticed_or_changes_nothing(folder):
    path = folder / "last.ckpt"
    write_checkpoint(CONTENT, path)
    whole = path.read_bytes()
    noticed = 0
    for place in range(0, len(whole), 37):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        try:
            content = read_checkpoint(path)
        except DamagedCheckpoint:
            noticed += 1
        else:
            assert torch.equal(content["state_dict"]["weight"], CONTENT["state_dict"]["weight"])
            assert content["epoch"] == 3
    assert noticed > 0.9 * len(whole) / 37


class NotPlain:
    pass


def cut(whole):
    return whole[: len(whole) // 2]


def one_byte_short(whole):
    return whole[:-1]


def empty(whole):
    return b""


def zeroed(whole):
    return whole[:4096] + bytes(4096) + whole[8192:]


@pytest.mark.parametrize("damage", [cut, one_byte_short, empty, zeroed])
def test_a_damaged_checkpoint_is_named_with_the_newest_whole_one(folder, damage):
    last = folder / "last.ckpt"
    write_checkpoint(CONTENT, folder / "best.ckpt")
    write_checkpoint(CONTENT, folder / "previous.ckpt")
    bad = {"state_dict": {"weight": torch.tensor([1.0, float("nan")])}}
    write_checkpoint(bad, folder / "diverged.ckpt")
    write_checkpoint(CONTENT, last)
    last.write_bytes(damage(last.read_bytes()))
    message = r"last.ckpt: .*damaged.*; .*checkpoints/previous.ckpt is whole: use it instead$"
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(last)
    assert whole_beside(last) == folder / "previous.ckpt"


def test_what_was_refused_is_not_called_damaged(folder):
    torch.save({"a": NotPlain()}, folder / "last.ckpt")
    with pytest.raises(CheckpointError, match="refused, it holds objects other than") as error:
        read_checkpoint(folder / "last.ckpt")
    assert not isinstance(error.value, DamagedCheckpoint)


def test_a_compressed_file_is_refused(folder):
    """A small one may fill the memory; torch would read it."""
    torch.save({"weight": torch.zeros(100_000)}, folder / "whole.pth")
    with (
        zipfile.ZipFile(folder / "whole.pth") as whole,
        zipfile.ZipFile(folder / "small.pth", "w", zipfile.ZIP_DEFLATED) as small,
    ):
        for part in whole.namelist():
            small.writestr(part, whole.read(part))
    assert torch.load(folder / "small.pth", weights_only=True)
    with pytest.raises(CheckpointError, match="small.pth: .*its part .* is compressed"):
        read_checkpoint(folder / "small.pth")


def test_a_file_without_checksums_is_read(folder):
    torch.save(CONTENT, folder / "old.ckpt", _use_new_zipfile_serialization=False)
    assert read_checkpoint(folder / "old.ckpt")["epoch"] == 3


def test_a_full_disk_leaves_what_was_there(folder):
    path = folder / "last.ckpt"
    write_checkpoint(CONTENT, path)
    whole = path.read_bytes()
    with disk_of_20_kb(), pytest.raises(OSError, match="File too large"):
        write_checkpoint({"state_dict": {"weight": torch.zeros(100_000)}}, path)
    assert path.read_bytes() == whole
    assert [path.name for path in folder.iterdir()] == ["last.ckpt"]
