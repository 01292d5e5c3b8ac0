import csv
import logging
from multiprocessing import get_context

from datamodules.bad_videos import BadVideos


def rows(file):
    with open(file, newline="", encoding="utf-8") as lines:
        return list(csv.reader(lines))


def test_each_video_is_written_and_logged_once(tmp_path, caplog):
    file = tmp_path / "run" / "bad.csv"
    bad = BadVideos(file)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            bad.note("/a, 1.mp4", 'no "moov" atom')
            bad.note("/b.mp4", "hung", killed=True)
    assert rows(file) == [
        ["path", "fault", "reason"],
        ["/a, 1.mp4", "error", 'no "moov" atom'],
        ["/b.mp4", "killed", "hung"],
    ]
    assert len(caplog.records) == 2


def test_a_later_run_knows_what_killed_a_worker_but_tries_the_rest(tmp_path):
    first = BadVideos(tmp_path / "bad.csv")
    first.note("/a.mp4", "damaged")
    first.note("/b.mp4", "hung", killed=True)
    second = BadVideos(tmp_path / "bad.csv")
    assert second.killed == {"/b.mp4": "hung"}
    second.note("/a.mp4", "damaged")
    second.note("/c.mp4", "empty")
    assert [row[0] for row in rows(tmp_path / "bad.csv")] == ["path", "/a.mp4", "/b.mp4", "/c.mp4"]


def test_without_a_file_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    BadVideos(None).note("/a.mp4", "damaged")
    assert not list(tmp_path.iterdir())


def note_some(file, process):
    bad = BadVideos(file)
    for i in range(20):
        bad.note(f"/{process}-{i}.mp4", "damaged")


def test_many_processes_write_to_one_file(tmp_path):
    file = tmp_path / "bad.csv"
    context = get_context("fork")
    processes = [context.Process(target=note_some, args=(file, i)) for i in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    found = rows(file)
    assert found[0] == ["path", "fault", "reason"]
    expected = {(f"/{p}-{i}.mp4", "error", "damaged") for p in range(4) for i in range(20)}
    assert sorted(map(tuple, found[1:])) == sorted(expected)
