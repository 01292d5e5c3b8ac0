import csv
import logging
from multiprocessing import get_context

import pytest

from datamodules.errors import DatasetError
from datamodules.loading.bad_videos import BadVideos


def rows(file):
    with open(file, newline="", encoding="utf-8") as lines:
        return list(csv.reader(lines))


def test_each_video_is_written_and_logged_once(tmp_path, caplog):
    file, killed = tmp_path / "run" / "bad.csv", tmp_path / "killed.csv"
    bad = BadVideos(file, killed)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            bad.note("/a, 1.mp4", 'no "moov" atom')
            assert bad.note_killed("/b.mp4", "hung", "1") == killed
    assert rows(file) == [["path", "reason"], ["/a, 1.mp4", 'no "moov" atom'], ["/b.mp4", "hung"]]
    assert rows(killed) == [["path", "reason", "stamp"], ["/b.mp4", "hung", "1"]]
    assert len(caplog.records) == 2


def test_a_later_run_does_not_open_what_killed_a_worker_until_it_changes(tmp_path):
    killed = tmp_path / "killed.csv"
    first = BadVideos(tmp_path / "1.csv", killed)
    first.note("/b.mp4", "damaged")  # in an earlier epoch, it was only damaged
    first.note_killed("/b.mp4", "hung", "1")
    first.note("/a.mp4", "damaged")
    second = BadVideos(tmp_path / "2.csv", killed)
    assert second.why_not_open("/a.mp4", "1") is None
    assert second.why_not_open("/b.mp4", "1") == "hung"
    assert second.why_not_open("/b.mp4", "2") is None  # the file was repaired
    assert second.why_not_open("/b.mp4", None) is None  # in an evaluation
    second.note_killed("/b.mp4", "hung again", "2")  # it was not
    assert second.why_not_open("/b.mp4", "3") == "hung again"  # never twice in one process
    assert BadVideos(None, killed).why_not_open("/b.mp4", "2") == "hung again"


def test_a_fault_of_the_storage_is_kept_by_this_process_alone(tmp_path):
    bad = BadVideos(tmp_path / "1.csv", tmp_path / "killed.csv")
    assert bad.note_killed("/a.mp4", "hung", "1", keep=False) is None
    assert bad.why_not_open("/a.mp4", "1") == "hung"
    assert BadVideos(None, tmp_path / "killed.csv").why_not_open("/a.mp4", "1") is None


def test_processes_learn_from_each_other_and_one_of_them_says_it(tmp_path, caplog):
    ranks = [BadVideos(tmp_path / "bad.csv", tmp_path / "killed.csv") for _ in range(2)]
    with caplog.at_level(logging.WARNING):
        for rank in ranks:
            rank.note("/a.mp4", "damaged")
        ranks[0].note_killed("/b.mp4", "hung", "1")
        ranks[1].refresh()
    assert ranks[1].why_not_open("/b.mp4", "1") == "hung"
    assert [row[0] for row in rows(tmp_path / "bad.csv")] == ["path", "/a.mp4", "/b.mp4"]
    assert len(caplog.records) == 2


def test_lists_that_are_edited_meanwhile(tmp_path, caplog):
    file, killed = tmp_path / "bad.csv", tmp_path / "killed.csv"
    bad = BadVideos(file, killed)
    for name in ("/a.mp4", "/b.mp4"):
        bad.note_killed(name, "hung", "1")
    killed.write_text("path,reason,stamp\n/b.mp4,hung,1\n/c.mp4,hu")  # one line gone, one cut
    other = BadVideos(file, killed)
    assert other.why_not_open("/a.mp4", "1") is None
    other.note_killed("/d.mp4", "hung", "1")
    assert rows(killed)[-2:] == [["/c.mp4", "hu"], ["/d.mp4", "hung", "1"]]
    killed.write_text("no list\n")
    with caplog.at_level(logging.WARNING):
        bad.refresh()
        bad.note_killed("/e.mp4", "hung", "1")
    assert "killed.csv: not a list of bad videos" in caplog.text
    assert killed.read_text() == "no list\n"
    assert bad.why_not_open("/e.mp4", "1") == "hung"


def test_without_a_file_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    BadVideos(None).note_killed("/a.mp4", "damaged", "")
    assert not list(tmp_path.iterdir())


def test_a_disk_that_takes_nothing_ends_no_run(tmp_path, caplog):
    (tmp_path / "file").touch()
    bad = BadVideos(tmp_path / "file" / "bad.csv")
    with caplog.at_level(logging.WARNING):
        bad.note("/a.mp4", "damaged")
    assert "bad.csv: /a.mp4 was not added: [Errno 17] File exists" in caplog.text
    assert "not decoded: /a.mp4: damaged" in caplog.text


@pytest.mark.parametrize("content", [b"a,b\n1,2\n", b"\xff\xfe\x00"])
def test_a_file_that_is_no_such_list(tmp_path, content):
    (tmp_path / "bad.csv").write_bytes(content)
    with pytest.raises(DatasetError, match=r"bad\.csv: not a list of bad videos; expected .* path"):
        BadVideos(tmp_path / "bad.csv")
    with pytest.raises(DatasetError, match="not readable: Is a directory"):
        BadVideos(tmp_path)


def note_some(file, process):
    bad = BadVideos(file)
    for i in range(20):
        bad.note(f"/{process}-{i}.mp4", "damaged")
        bad.note(f"/{i}.mp4", "damaged")  # every process notes this one


def test_many_processes_write_to_one_file(tmp_path):
    file = tmp_path / "bad.csv"
    context = get_context("fork")
    processes = [context.Process(target=note_some, args=(file, i)) for i in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    lines = rows(file)
    assert lines[0] == ["path", "reason"]
    expected = {(f"/{p}-{i}.mp4", "damaged") for p in range(4) for i in range(20)}
    expected |= {(f"/{i}.mp4", "damaged") for i in range(20)}
    assert sorted(map(tuple, lines[1:])) == sorted(expected)
