"""Videos packed into a few large files, for object storage and cold disks.

A packed data set is a folder of uncompressed tar files (*shards*) and a manifest with the columns
``shard`` and ``offset``. Each video is one range of bytes: any video can be read at any time, and
shuffling works as with single files (`byte_range`). The shards are ordinary tar files; `tar xf`
gives the videos back.
"""

import hashlib
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import pyarrow as pa

from datamodules.errors import DatasetError
from datamodules.files import atomic_file, locked_folder
from datamodules.manifests.parquet import (
    MANIFEST_NAME,
    ManifestMetadata,
    find_manifest,
    is_storage,
    read_manifest,
    write_manifest,
)

_BLOCK = tarfile.BLOCKSIZE
_END = bytes(2 * _BLOCK)  # what a tar file ends with
_COPY_BYTES = 1 << 20  # copied at once


class _Member(NamedTuple):
    """A file of a shard, and where its content begins there."""

    path: str
    name: str  # in the tar file
    size: int  # bytes
    modified: int  # seconds since 1970
    offset: int  # bytes

    @property
    def end(self) -> int:
        """Offset of the next header: contents are padded to whole blocks."""
        return self.offset + -(-self.size // _BLOCK) * _BLOCK

    def header(self) -> bytes:
        """Its header in the tar file, which stands right before the content."""
        info = tarfile.TarInfo(self.name)
        info.size, info.mtime = self.size, self.modified
        return info.tobuf(tarfile.PAX_FORMAT)


@dataclass(frozen=True)
class _Shard:
    """A shard as it is planned."""

    head: bytes  # first bytes of the file: a comment with a digest of all headers
    members: Sequence[_Member]

    def is_written(self, path: Path) -> bool:
        """Whether a file exists that is this shard.

        Raises:
            DatasetError: a file exists that is something else.
        """
        if not path.exists():
            return False
        with open(path, "rb") as file:
            same = file.read(len(self.head)) == self.head
        if not same or path.stat().st_size != self.members[-1].end + len(_END):
            raise DatasetError(f"{path}: holds other videos; remove it or use an empty folder")
        return True

    def write(self, path: Path, scratch: Path) -> None:
        """Write the shard, whole or not at all; while it is not, it lies in another folder."""
        with atomic_file(path, scratch) as temporary, open(temporary, "wb") as file:
            file.write(self.head)
            for member in self.members:
                file.write(member.header())
                _copy(member, file)
                file.write(bytes(member.end - file.tell()))
            file.write(_END)


def pack(
    manifest_path: Path,
    out: Path,
    shard_bytes: int = 1 << 30,
    progress: Callable[[int, int], None] = lambda done, total: None,
    url: str = "",
) -> Path:
    """Pack the videos of a manifest into shards, in its order.

    A shard appears under its name when it is whole, and one that exists already is kept. So a run
    that was killed goes on where it was, without its half shard, and one more run changes
    nothing. A video that two rows name is packed once. Bad videos (``ok`` false) are packed as they
    are, or empty if they are missing.

    Args:
        manifest_path: a manifest file, or the folder that holds it.
        out: folder to write ``shard-00000.tar``, ... and ``manifest.parquet`` to.
        shard_bytes: no shard gets larger than this, unless a single video is.
        progress: called after each shard with the bytes done and in all.
        url: where the shards will be read from, as fsspec names it ("s3://bucket/folder"); by
            default beside the manifest. Copying them there is up to the user.

    Returns:
        The new manifest file: the rows and metadata of the old one, with ``shard``, ``offset`` and
        ``bytes``.

    Raises:
        DatasetError: there is no manifest, or its videos are packed already; a video is missing or
            has changed since the manifest was written; the folder holds other shards, or another
            run packs into it; ``url`` is not a storage's.
        OSError: ``out`` cannot be written to.
    """
    if url and not is_storage(pa.scalar(url)).as_py():
        raise DatasetError(f"{url}: not the URL of a storage, such as s3://bucket/folder")
    source = find_manifest(Path(manifest_path))
    if source is None:
        raise DatasetError(f"{manifest_path}: no manifest; write one with `hiera-video prepare`")
    table, metadata = read_manifest(source)
    if "shard" in table.column_names:
        raise DatasetError(f"{source}: its videos are packed already")
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    shards = _planned(source, table, metadata.root, shard_bytes)
    targets = [out / f"shard-{number:05d}.tar" for number in range(len(shards))]
    if others := sorted(set(out.glob("shard-*.tar")) - set(targets)):
        raise DatasetError(f"{others[0]}: not a shard of this data set; use an empty folder")
    # All are looked at before the first is written.
    written = [shard.is_written(path) for shard, path in zip(shards, targets, strict=True)]
    total, done = sum(shard.members[-1].end for shard in shards), 0
    manifest = out / MANIFEST_NAME
    names = [f"{url.rstrip('/')}/{path.name}" if url else path.name for path in targets]
    with locked_folder(out / ".pack.unfinished") as scratch:
        for shard, path, is_written in zip(shards, targets, written, strict=True):
            if not is_written:
                shard.write(path, scratch)
            done += shard.members[-1].end
            progress(done, total)
        _write_manifest(manifest, table, metadata, shards, names)
        shutil.rmtree(scratch)
    return manifest


def _planned(source: Path, table: pa.Table, root: str, shard_bytes: int) -> list[_Shard]:
    """Which videos go into which shard. Sizes alone decide, so every run plans the same."""
    start = len(_comment(""))
    shards: list[_Shard] = []
    members: list[_Member] = []
    for file in _files(source, table, root):
        end, header = members[-1].end if members else start, len(file.header())
        if members and file._replace(offset=end + header).end + len(_END) > shard_bytes:
            shards.append(_shard(members))
            members, end = [], start
        members.append(file._replace(offset=end + header))
    return [*shards, _shard(members)] if members else shards


def _shard(members: list[_Member]) -> _Shard:
    digest = hashlib.sha256()
    for member in members:
        digest.update(member.header())
    return _Shard(_comment(digest.hexdigest()), members)


def _comment(digest: str) -> bytes:
    headers = {"comment": f"sha256 of the headers: {digest:64}"}
    return tarfile.TarInfo.create_pax_global_header(headers)


def _files(source: Path, table: pa.Table, root: str) -> Iterator[_Member]:
    """Each file once; its offset is still open.

    Raises:
        DatasetError: a file is missing or has changed.
    """
    num_rows = table.num_rows
    facts = [
        table[name].to_pylist() if name in table.column_names else [None] * num_rows
        for name in ("bytes", "modified_ns", "ok")
    ]
    seen = set()
    columns = zip(table["path"].to_pylist(), *facts, strict=True)
    for row, (name, size, modified_ns, ok) in enumerate(columns):
        path = os.path.join(root, name)
        if path in seen:
            continue
        seen.add(path)
        where = f"{source}, row {row}: {path}"
        try:
            status = os.stat(path)
        except OSError as error:
            if ok is not False:
                reason = f"{error.strerror}; prepare the data set again"
                raise DatasetError(f"{where}: {reason}") from None
            size_now = modified_now = 0
        else:
            size_now, modified_now = status.st_size, status.st_mtime_ns
        if ok and size not in (None, size_now):
            raise DatasetError(f"{where} has changed; prepare the data set again")
        if ok and modified_ns is not None and not _same_time(modified_ns, modified_now):
            raise DatasetError(
                f"{where} was written after it was prepared; prepare the data set again, or if it "
                "was only copied, keep the times (cp -p, rsync -t)"
            )
        seconds = modified_now // 1_000_000_000
        yield _Member(path, os.path.relpath(path, root), size_now, seconds, offset=0)


def _same_time(prepared: int, now: int) -> bool:
    """Whether two times of change are the same; tar files and some storages keep but seconds."""
    return now in (prepared, prepared - prepared % 1_000_000_000)


def _copy(member: _Member, target: BinaryIO) -> None:
    """Copy a file.

    Raises:
        DatasetError: it is not as long as planned.
    """
    copied = 0
    if member.size:
        with open(member.path, "rb") as file:
            while chunk := file.read(_COPY_BYTES):
                target.write(chunk)
                copied += len(chunk)
    if copied != member.size:
        raise DatasetError(f"{member.path}: changed while it was packed; pack again")


def _write_manifest(
    path: Path,
    table: pa.Table,
    metadata: ManifestMetadata,
    shards: Sequence[_Shard],
    names: Sequence[str],
) -> None:
    """Write the manifest with the place of each video; ``names`` are those of the shards."""
    places = {
        member.path: (name, member.offset, member.size)
        for shard, name in zip(shards, names, strict=True)
        for member in shard.members
    }
    rows = [places[os.path.join(metadata.root, name)] for name in table["path"].to_pylist()]
    columns = zip(*rows, strict=True) if rows else ((), (), ())
    types = {"shard": pa.string(), "offset": pa.int64(), "bytes": pa.int64()}
    for (name, type_), values in zip(types.items(), columns, strict=True):
        column = pa.array(values, type_)
        if name in table.column_names:
            table = table.set_column(table.column_names.index(name), name, column)
        else:
            table = table.append_column(name, column)
    write_manifest(path, table, metadata)
