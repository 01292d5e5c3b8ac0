import csv
import logging
import os
from multiprocessing import get_context

import pytest

from datamodules.bad_videos import BadVideos
from datamodules.manifest_file import DatasetError


def rows(file):
    with open(file, newline="", encoding="utf-8") as lines:
        return list(csv.reader(lines))


def test_each_video_is_written_and_logged_once(tmp_path, caplog):
    file = tmp_path / "run" / "bad.csv"
    bad = BadVideos(file, tmp_path / "killed.csv")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            bad.note("/a, 1.mp4", 'no "moov" atom')
            bad.note_killed("/b.mp4", "hung")
    assert rows(file) == [["path", "reason"], ["/a, 1.mp4", 'no "moov" atom'], ["/b.mp4", "hung"]]
    assert rows(tmp_path / "killed.csv") == [
        ["path", "reason", "changed_ns"],
        ["/b.mp4", "hung", ""],
    ]
    assert len(caplog.records) == 2


def test_a_later_run_does_not_open_what_killed_a_worker_but_tries_the_rest(tmp_path):
    video = tmp_path / "b.mp4"
    video.write_bytes(b"1")
    first = BadVideos(tmp_path / "1.csv", tmp_path / "killed.csv")
    first.note(str(video), "damaged")  # in another epoch it only said so
    first.note_killed(str(video), "hung")
    first.note("/a.mp4", "damaged")
    second = BadVideos(tmp_path / "2.csv", tmp_path / "killed.csv")
    assert second.why_not_open("/a.mp4") is None
    assert second.why_not_open(str(video)) == "hung"
    os.utime(video, (1, 1))  # it was mended
    assert second.why_not_open(str(video)) is None


def test_a_fault_of_the_storage_is_kept_by_this_process_alone(tmp_path):
    bad = BadVideos(tmp_path / "1.csv", tmp_path / "killed.csv")
    bad.note_killed("/a.mp4", "hung", keep=False)
    assert bad.why_not_open("/a.mp4") == "hung"
    assert BadVideos(None, tmp_path / "killed.csv").why_not_open("/a.mp4") is None


def test_processes_learn_from_each_other_and_one_of_them_says_it(tmp_path, caplog):
    ranks = [BadVideos(tmp_path / "bad.csv", tmp_path / "killed.csv") for _ in range(2)]
    with caplog.at_level(logging.WARNING):
        for rank in ranks:
            rank.note("/a.mp4", "damaged")
        ranks[0].note_killed("/b.mp4", "hung")
        ranks[1].refresh()
    assert ranks[1].why_not_open("/b.mp4") == "hung"
    assert [row[0] for row in rows(tmp_path / "bad.csv")] == ["path", "/a.mp4", "/b.mp4"]
    assert len(caplog.records) == 2


def test_without_a_file_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    BadVideos(None).note_killed("/a.mp4", "damaged")
    assert not list(tmp_path.iterdir())


def test_a_disk_that_takes_nothing_ends_no_run(tmp_path, caplog):
    (tmp_path / "file").touch()
    bad = BadVideos(tmp_path / "file" / "bad.csv")
    with caplog.at_level(logging.WARNING):
        bad.note("/a.mp4", "damaged")
    assert "bad.csv: not written: File exists: /a.mp4" in caplog.text
    assert "not decoded: /a.mp4: damaged" in caplog.text


@pytest.mark.parametrize("content", [b"a,b\n1,2\n", b"\xff\xfe\x00"])
def test_a_file_that_is_no_such_list(tmp_path, content):
    (tmp_path / "bad.csv").write_bytes(content)
    with pytest.raises(DatasetError, match=r"bad\.csv: is no list of bad videos; expected .* path"):
        BadVideos(tmp_path / "bad.csv")
    with pytest.raises(DatasetError, match="not readable: Is a directory"):
        BadVideos(tmp_path)


def note_some(file, process):
    bad = BadVideos(file)
    for i in range(20):
        bad.note(f"/{process}-{i}.mp4", "damaged")
        bad.note(f"/{i}.mp4", "damaged")  # all of them meet it


def test_many_processes_write_to_one_file(tmp_path):
    file = tmp_path / "bad.csv"
    context = get_context("fork")
    processes = [context.Process(target=note_some, args=(file, i)) for i in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    found = rows(file)
    assert found[0] == ["path", "reason"]
    expected = {(f"/{p}-{i}.mp4", "damaged") for p in range(4) for i in range(20)}
    expected |= {(f"/{i}.mp4", "damaged") for i in range(20)}
    assert sorted(map(tuple, found[1:])) == sorted(expected)
