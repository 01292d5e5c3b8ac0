import csv
import errno
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from functools import partial

import av
import pytest

from datamodules.errors import DatasetError, StorageFailure, UnreadableVideo
from datamodules.folder import VideoFolderDataModule
from datamodules.loading.file_workers import work
from datamodules.manifests.parquet import MANIFEST_NAME, read_manifest
from datamodules.manifests.splits import list_split, make_manifest, read_split
from datamodules.preparing import prepare as preparing
from datamodules.preparing.check import check
from datamodules.preparing.parts import Part, merge
from datamodules.preparing.prepare import prepare
from datamodules.video.in_order import nothing
from datamodules.video.probing import Facts, probe
from datamodules.video.transcoding import Encoding
from tests.datamodules.loading.file_work import full_disk, logged
from tests.video_files import moving_frames, write_video

FRAMES = moving_frames(12, 48, 64)
NAMES = ("a/0 ü.mp4", "a/1 ü.mp4")
SMALL = Encoding(short_side=32, gop=4, crf=30)


@pytest.fixture
def videos(tmp_path, monkeypatch):
    """Six good files in two classes, one that was cut off, and one that is text."""
    root = tmp_path / "videos"

    def work_and_log(do, paths, **kwargs):
        return work(partial(logged, do, root / "opened.txt"), paths, **kwargs)

    monkeypatch.setattr(preparing, "work", work_and_log)
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        for i in range(3):
            write_video(root / name / f"{i} ü.mp4", FRAMES, options={"preset": "ultrafast"})
    whole = (root / "a/0 ü.mp4").read_bytes()
    (root / "b/cut.mp4").write_bytes(whole[: len(whole) // 2])
    (root / "b/text.webm").write_text("no video")
    return root


def ready(root, out, **kwargs):
    kwargs = {"processes": 2, **kwargs}
    return prepare(list_split(root, root, None), root, out, **kwargs)


def opened(root):
    log = root / "opened.txt"
    names = sorted(log.read_text().splitlines()) if log.exists() else []
    log.unlink(missing_ok=True)
    return names


def test_a_folder_becomes_a_manifest(videos, tmp_path):
    out = tmp_path / "out"
    file = ready(videos, out)
    assert file == out / MANIFEST_NAME
    assert sorted(os.listdir(out)) == ["bad_videos.csv", MANIFEST_NAME, "summary.json"]
    manifest = read_split(out, tmp_path / "nowhere", None)
    listed = list_split(videos, videos, None)
    assert manifest.class_names == ("a", "b")
    assert [manifest.path(i) for i in range(8)] == [listed.path(i) for i in range(8)]
    first = manifest.table.slice(0, 1).to_pylist()[0]
    status = os.stat(manifest.path(0))
    assert first == {
        "path": "a/0 ü.mp4",
        "label": 0,
        "bytes": status.st_size,
        "modified_ns": status.st_mtime_ns,
        "duration": 0.4,
        "num_frames": 12,
        "rate": 30.0,
        "width": 64,
        "height": 48,
        "rotation": 0,
        "codec": "h264",
        "keyframe_spacing": 12,
        "ok": True,
        "reason": "",
    }
    assert len(manifest.without_bad()) == 6
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["videos"], summary["ok"], summary["bad"]) == (8, 6, 2)
    assert summary["frames"] == 72
    assert summary["sizes"] == {"64x48": 6}
    with open(out / "bad_videos.csv", newline="") as lines:
        bad = list(csv.DictReader(lines))
    assert [row["path"] for row in bad] == [str(videos / "b/cut.mp4"), str(videos / "b/text.webm")]
    assert all(row["reason"] for row in bad)


def test_a_second_run_opens_nothing_and_writes_the_same_bytes(videos, tmp_path):
    out = tmp_path / "out"
    before = ready(videos, out).read_bytes()
    assert len(opened(videos)) == 8
    assert ready(videos, out).read_bytes() == before
    assert opened(videos) == []
    (videos / "a/0 ü.mp4").write_bytes((videos / "a/1 ü.mp4").read_bytes())
    os.utime(videos / "a/2 ü.mp4", ns=(1, 1))
    (videos / "b/0 ü.mp4").rename(videos / "b/new.mp4")
    ready(videos, out)
    assert opened(videos) == ["a/0 ü.mp4", "a/2 ü.mp4", "b/new.mp4"]
    assert "b/0 ü.mp4" not in read_manifest(out / MANIFEST_NAME)[0]["path"].to_pylist()
    ready(videos, out, retry_bad=True)
    assert opened(videos) == ["b/cut.mp4", "b/text.webm"]
    quick = tmp_path / "quick"
    ready(videos, quick, every_frame=False)
    assert read_manifest(quick / MANIFEST_NAME)[1].prepared["settings"]["every_frame"] is False
    assert len(opened(videos)) == 8
    ready(videos, quick)
    assert len(opened(videos)) == 8  # facts found with other settings do not count


def test_a_run_that_is_killed_goes_on_and_ends_the_same(videos, tmp_path):
    whole = ready(videos, tmp_path / "whole").read_bytes()
    opened(videos)
    out = tmp_path / "out"
    script = textwrap.dedent(f"""
        import os, signal
        from pathlib import Path
        from datamodules.manifests.splits import list_split
        from datamodules.preparing.prepare import prepare

        def progress(done, total):
            if done == stop:
                os.kill(os.getpid(), signal.SIGKILL)

        if __name__ == "__main__":
            stop = 3
            root = Path({str(videos)!r})
            for _ in range(2):
                if killed := os.fork():
                    print(os.waitstatus_to_exitcode(os.waitpid(killed, 0)[1]), flush=True)
                    continue
                prepare(list_split(root, root, None), root, Path({str(out)!r}), progress=progress)
                break  # not reached
    """)
    (tmp_path / "script.py").write_text(script)
    program = [sys.executable, str(tmp_path / "script.py")]
    codes = subprocess.check_output(program, text=True, timeout=60)
    assert codes.split() == [str(-signal.SIGKILL)] * 2
    assert not (out / MANIFEST_NAME).exists()
    (rows,) = out.glob(".prepare.unfinished/rows-*.jsonl")
    assert rows.read_bytes().count(b"\n") == 6
    with open(rows, "ab") as file:
        file.write(b'{"source": "b/cut.mp4", "sou')  # as a kill within a write leaves it
    assert ready(videos, out).read_bytes() == whole
    assert len(opened(videos)) == 2
    assert sorted(os.listdir(out)) == ["bad_videos.csv", MANIFEST_NAME, "summary.json"]


def test_files_that_crash_or_hang_the_decoder_are_bad_and_not_opened_again(videos, tmp_path):
    for name in ("crash", "hang"):
        (videos / f"a/{name}.mp4").write_bytes((videos / "a/0 ü.mp4").read_bytes())
    out = tmp_path / "out"
    file = ready(videos, out, patience=1.5)
    assert opened(videos).count("a/crash.mp4") == 2  # once more, as it may have been chance
    row_of = {row["path"]: row for row in read_manifest(file)[0].to_pylist()}
    assert sum(row["ok"] for row in row_of.values()) == 6
    assert row_of["a/crash.mp4"]["reason"] == "the decoder's process was ended by SIGSEGV"
    assert row_of["a/hang.mp4"]["reason"] == "the decoder hangs: nothing came for 1.5 s"
    ready(videos, out)
    assert opened(videos) == []


def test_parts_of_several_machines_join_to_what_one_writes(videos, tmp_path):
    whole = ready(videos, tmp_path / "whole")
    parts = [ready(videos, tmp_path / f"out-{i % 2}", part=Part(i, 3)) for i in (1, 2, 3)]
    assert parts[1].name == "manifest-00002-of-00003.parquet"
    assert sum(read_manifest(part)[0].num_rows for part in parts) == 8
    folders = [tmp_path / "out-0", tmp_path / "out-1"]
    (joined,) = merge(folders, tmp_path / "joined")
    assert joined.read_bytes() == whole.read_bytes()
    for name in ("summary.json", "bad_videos.csv"):
        assert joined.with_name(name).read_bytes() == whole.with_name(name).read_bytes()
    for number, part in enumerate(parts, 1):  # at any depth
        (tmp_path / f"deep-{number}/a/b").mkdir(parents=True)
        for name in ("manifest", "summary", "bad_videos"):
            for file in part.parent.glob(f"{name}-0000{number}-*"):
                file.rename(tmp_path / f"deep-{number}/a/b" / file.name)
    deep = [tmp_path / f"deep-{number}" for number in (1, 2, 3)]
    assert merge(deep, tmp_path / "joined") == [tmp_path / "joined/a/b" / MANIFEST_NAME]
    for number, part in enumerate(parts, 1):
        for file in (tmp_path / f"deep-{number}/a/b").iterdir():
            file.rename(part.parent / file.name)
    with pytest.raises(DatasetError, match="part 2/3 is missing"):
        merge(folders[1:], tmp_path / "joined")
    with pytest.raises(DatasetError, match="no manifest-"):
        merge([tmp_path / "whole"], tmp_path / "joined")
    write_video(videos / "a/new.mp4", FRAMES)
    ready(videos, tmp_path / "out-1", part=Part(1, 3))
    with pytest.raises(DatasetError, match=r"not a part of the same|source changed"):
        merge(folders, tmp_path / "joined")


@pytest.mark.parametrize("encoding", [None, SMALL])
def test_parts_without_videos_and_parts_below_different_roots(tmp_path, encoding):
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos/x.mp4", FRAMES, options={"preset": "ultrafast"})
    sizes = []
    for number in (1, 2, 3):
        for _ in range(2):  # the second run has nothing to do
            part = ready(
                tmp_path / "videos",
                tmp_path / f"out-{number}",
                encoding=encoding,
                part=Part(number, 3),
            )
        sizes.append(read_manifest(part)[0].num_rows)
    assert sorted(sizes) == [0, 0, 1]
    folders = [tmp_path / f"out-{number}" for number in (1, 2, 3)]
    (file,) = merge(folders, tmp_path / "joined")
    manifest = read_split(file, tmp_path, None)
    folder = "videos" if encoding is None else f"out-{1 + sizes.index(1)}"
    assert [manifest.path(i) for i in range(len(manifest))] == [str(tmp_path / folder / "x.mp4")]
    assert os.path.isfile(manifest.path(0))


def test_transcoded_files_take_the_place_of_the_originals(videos, tmp_path):
    originals = {path: path.read_bytes() for path in videos.rglob("*.*")}
    (videos / "b/0 ü.mp4").rename(videos / "b/0 ü.mkv")  # the content counts, not the name
    out = tmp_path / "out"
    file = ready(videos, out, encoding=SMALL)
    manifest = read_split(out, out, None)
    assert manifest.class_names == ("a", "b")
    good = manifest.without_bad()
    names = [os.path.relpath(good.path(i), out) for i in range(6)]
    assert names == [
        *("a/0 ü.mp4", "a/1 ü.mp4", "a/2 ü.mp4"),
        *("b/0 ü.mkv.mp4", "b/1 ü.mp4", "b/2 ü.mp4"),
    ]
    row = good.table.slice(3, 1).to_pylist()[0]
    assert (row["width"], row["height"], row["keyframe_spacing"]) == (42, 32, 4)
    assert row["bytes"] == os.stat(good.path(3)).st_size
    assert row["source"] == "b/0 ü.mkv"
    bad = manifest.table.filter([not ok for ok in manifest.table["ok"].to_pylist()]).to_pylist()
    assert [row["path"] for row in bad] == ["b/cut.mp4", "b/text.webm.mp4"]
    assert not (out / "b/cut.mp4").exists()
    assert not list(out.glob(".*"))
    before = file.read_bytes()
    opened(videos)
    assert ready(videos, out, encoding=SMALL).read_bytes() == before
    assert opened(videos) == []
    (out / "a/1 ü.mp4").unlink()
    (out / "a/2 ü.mp4").write_bytes(b"damaged")
    ready(videos, out, encoding=SMALL)
    assert opened(videos) == ["a/1 ü.mp4", "a/2 ü.mp4"]
    out.rename(tmp_path / "moved")  # paths are relative to the manifest
    assert os.path.exists(read_split(tmp_path / "moved", out, None).path(0))
    for path, content in originals.items():
        if path.name != "0 ü.mp4":
            assert path.read_bytes() == content


@pytest.mark.parametrize("how", [{}, {"every_frame": False}, {"encoding": SMALL}])
def test_a_truncated_matroska_file_is_bad(tmp_path, how):
    root, out = tmp_path / "videos", tmp_path / "out"
    root.mkdir()
    data = write_video(root / "whole.webm", FRAMES, codec="libvpx").read_bytes()
    (root / "cut.webm").write_bytes(data[: len(data) * 6 // 10])
    ready(root, out, processes=1, **how)
    reason = f"truncated: {len(data) * 6 // 10} of {len(data)} bytes"
    lines = (out / "bad_videos.csv").read_text().splitlines()
    assert lines == ["path,reason", f"{root / 'cut.webm'},{reason}"]
    (fault,) = check(read_split(out, out, None))
    assert (fault.kind, fault.detail) == ("corrupt", reason)


def test_new_files_never_go_beside_originals(videos, tmp_path):
    with pytest.raises(DatasetError, match="holds originals"):
        ready(videos, videos, encoding=SMALL)
    (tmp_path / "link").symlink_to(videos)
    with pytest.raises(DatasetError, match="holds originals"):
        ready(videos, tmp_path / "link", encoding=SMALL)
    (videos / "a/x.avi").touch()
    (videos / "a/x.avi.mp4").touch()
    with pytest.raises(DatasetError, match=r"two videos would get the name a/x.avi.mp4"):
        ready(videos, tmp_path / "out", encoding=SMALL)


def test_new_files_never_replace_what_is_there(videos, tmp_path):
    out = tmp_path / "out"
    (out / "a").mkdir(parents=True)
    (videos / "a/1 ü.mp4").rename(out / "a/1 ü.mp4")  # an original, behind a link
    (videos / "a/1 ü.mp4").symlink_to(out / "a/1 ü.mp4")
    original = (out / "a/1 ü.mp4").read_bytes()
    with pytest.raises(DatasetError, match=r"out/a/1 ü\.mp4: exists already; set another --out"):
        ready(videos, out, encoding=SMALL)
    ready(out, out)  # files that were prepared in place are still originals
    with pytest.raises(DatasetError, match=f"files below {out}, not below {videos}"):
        ready(videos, out, encoding=SMALL)
    assert (out / "a/1 ü.mp4").read_bytes() == original
    # What an earlier run with the same settings wrote may be written again.
    new = tmp_path / "new"
    ready(videos, new, encoding=SMALL)
    (new / "a/0 ü.mp4").write_bytes(b"damaged")
    opened(videos)
    ready(videos, new, encoding=SMALL)
    assert opened(videos) == ["a/0 ü.mp4"]


def test_a_name_that_two_parts_would_give(videos, tmp_path):
    (videos / "a/x.avi").touch()
    (videos / "a/x.avi.mp4").touch()
    for number in (1, 2, 3):
        with pytest.raises(DatasetError, match="two videos would get the name a/x.avi.mp4"):
            ready(videos, tmp_path / "out", encoding=SMALL, part=Part(number, 3))


def test_lists_keep_repeated_rows_and_name_files_that_have_gone(videos, tmp_path):
    source = tmp_path / "train.csv"
    source.write_text("path,label\nb/1 ü.mp4,x\ngone.mp4,y\nb/1 ü.mp4,x\n")
    (videos / "gone.mp4").touch()
    manifest = list_split(source, videos, None)
    (videos / "gone.mp4").unlink()
    for _ in range(2):
        file = prepare(manifest, videos, tmp_path / "out")
        rows = read_manifest(file)[0].to_pylist()
        assert [(row["path"], row["label"], row["ok"]) for row in rows] == [
            ("b/1 ü.mp4", 0, True),
            ("gone.mp4", 1, False),
            ("b/1 ü.mp4", 0, True),
        ]
        assert rows[1]["reason"] == "No such file or directory"
    assert opened(videos) == ["b/1 ü.mp4", "gone.mp4"]
    with pytest.raises(DatasetError, match="lies outside"):
        prepare(manifest, videos / "a", tmp_path / "out")


@pytest.fixture
def answers(monkeypatch):
    """What the storage says of a file in place of giving it, by the end of its path."""
    answers = {}

    def ask(source, *arguments):
        for name, answer in answers.items():
            if source.endswith(name):
                if isinstance(answer, Facts):
                    return answer
                raise UnreadableVideo(source, answer)
        return probe(source, *arguments)

    monkeypatch.setattr(preparing, "probe", ask)
    monkeypatch.setattr(
        preparing, "work", lambda do, paths, **_: [(path, do(path, nothing)) for path in paths]
    )
    return answers


def test_what_the_storage_does_not_give_is_opened_again(videos, tmp_path, answers):
    answers |= {"a/1 ü.mp4": "Permission denied", "b/0 ü.mp4": "No such file or directory"}
    message = "2 of 8 files cannot be read, the first of them .*/a/1 ü.mp4: Permission denied; run"
    with pytest.raises(StorageFailure, match=message):
        ready(videos, tmp_path / "out")
    assert not (tmp_path / "out" / MANIFEST_NAME).exists()
    answers.clear()
    answers["cut.mp4"] = Facts(reason="not to be opened again")
    rows = read_manifest(ready(videos, tmp_path / "out"))[0].to_pylist()
    assert [row["path"] for row in rows if not row["ok"]] == ["b/cut.mp4", "b/text.webm"]
    assert "not to be opened again" not in str(rows)


def test_what_earlier_versions_kept_of_the_storage_is_forgotten(videos, tmp_path, answers):
    answers["a/1 ü.mp4"] = Facts(reason="Permission denied")
    for good in (5, 6):
        table, _ = read_manifest(ready(videos, tmp_path / "out"))
        assert table["ok"].to_pylist().count(True) == good
        answers.clear()


def test_only_one_run_writes_to_a_folder(videos, tmp_path):
    out = tmp_path / "out"
    (out / ".prepare.unfinished").mkdir(parents=True)
    lock = os.open(out / ".prepare.unfinished", os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with pytest.raises(DatasetError, match="another run is writing here"):
        ready(videos, out)
    os.close(lock)
    ready(videos, out)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.ESTALE])
def test_a_disk_that_fails_stops_the_run_and_no_file_is_bad(videos, tmp_path, monkeypatch, code):
    av_open = av.open

    def open_on_a_full_disk(file, mode="r", **kwargs):
        if mode == "w":
            raise av.error.OSError(code, os.strerror(code), file)
        return av_open(file, mode, **kwargs)

    def work_here(do, paths, **kwargs):
        return ((path, do(path, lambda: None)) for path in paths)

    monkeypatch.setattr(av, "open", open_on_a_full_disk)
    monkeypatch.setattr(preparing, "work", work_here)
    with pytest.raises(OSError, match=os.strerror(code)):
        ready(videos, tmp_path / "out", encoding=SMALL)
    assert not (tmp_path / "out" / MANIFEST_NAME).exists()


@pytest.mark.parametrize("encoding", [None, SMALL])
def test_the_manifest_of_another_data_set_stays(videos, tmp_path, encoding):
    out, other = tmp_path / "out", tmp_path / "other"
    shutil.copytree(videos / "a", other / "a")
    before = ready(videos, out, encoding=encoding).read_bytes()
    with pytest.raises(DatasetError, match=rf"files below {videos}, not below {other}; set an"):
        ready(other, out, encoding=encoding)
    first, second = (make_manifest([str(videos / name)], [0], ("a",)) for name in NAMES)
    list_out = tmp_path / "list"
    prepare(first, videos, list_out, encoding=encoding)
    with pytest.raises(DatasetError, match=rf"describes .*other files below {videos}; set another"):
        prepare(second, videos, list_out, encoding=encoding)
    assert (out / MANIFEST_NAME).read_bytes() == before
    for number in (1, 2):
        ready(other, tmp_path / "parts", part=Part(number, 2))
    with pytest.raises(DatasetError, match=rf"files below {videos}, not below {other}; set an"):
        merge([tmp_path / "parts"], out)
    assert (out / MANIFEST_NAME).read_bytes() == before


def test_a_manifest_that_took_more_work_stays(videos, tmp_path):
    out = tmp_path / "out"
    ready(videos, out, every_frame=False)
    before = ready(videos, out).read_bytes()  # more work may replace less
    with pytest.raises(DatasetError, match=r"decoding every frame; leave out --quick"):
        ready(videos, out, every_frame=False)
    assert (out / MANIFEST_NAME).read_bytes() == before
    before = ready(videos, out, encoding=SMALL).read_bytes()
    for every_frame in (True, False):
        with pytest.raises(DatasetError, match=r"describes transcoded copies; add --transcode"):
            ready(videos, out, every_frame=every_frame)
    assert (out / MANIFEST_NAME).read_bytes() == before


def test_an_error_of_a_worker_stops_the_run(videos, tmp_path, monkeypatch):
    monkeypatch.setattr(
        preparing, "work", lambda do, *args, **kwargs: work(full_disk, *args, **kwargs)
    )
    with pytest.raises(OSError, match="No space left"):
        ready(videos, tmp_path / "out")
    assert not (tmp_path / "out" / MANIFEST_NAME).exists()


def test_every_data_module_reads_what_was_prepared(videos, tmp_path):
    ready(videos, tmp_path / "out" / "train")
    data = VideoFolderDataModule(
        tmp_path / "out", val=None, num_frames=2, stride=2, size=(32, 32), batch_size=2
    )
    data.setup("fit")
    batches = list(data.train_dataloader())
    assert len(batches) == 3  # of the six good ones
    assert not any(batch["failed"] for batch in batches)
