import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiera_video import cli
from hiera_video.errors import PredictionFileError
from hiera_video.results.classification import (
    evaluate_ensemble,
    evaluate_file,
    paired_difference,
    video_names,
)
from hiera_video.results.prediction_files import SCHEMA, FailedVideo, Header, PredictionFile, Rows
from hiera_video.results.prediction_parts import Parts, PartWriter

CLASSES = ("a", "b", "c", "d", "e", "f")


def write(path, probabilities, labels, views, failed=(), names=None, skip=(), ids=None):
    """A file of videos ``(n, views, classes)``; returns it opened."""
    videos, count, _ = probabilities.shape
    names = names or [f"/data/{i:03}.mp4" for i in range(videos)]
    ids = range(videos) if ids is None else ids
    header = Header(CLASSES, *views)
    parts = path.with_name(path.name + ".parts")
    writer = PartWriter(parts, header, 0)
    keys = [
        (i, v)
        for i in range(videos)
        for v in range(count)
        if i not in failed and (i, v) not in skip
    ]
    for part in np.array_split(np.array(keys), 3):
        i, v = part.T
        rows = Rows(
            np.array([ids[k] for k in i]), [names[k] for k in i], labels[i], v, probabilities[i, v]
        )
        writer.add(rows, [])
        writer.flush()
    writer.add(
        Rows(*(np.zeros(0, np.int64), [], *[np.zeros(0, np.int64)] * 2, np.zeros((0, 6)))),
        [FailedVideo(names[i], ids[i], int(labels[i]), "damaged") for i in failed],
    )
    writer.flush()
    Parts(parts).join()
    return PredictionFile(path)


def random_predictions(videos=20, views=(3, 2), seed=0):
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(6), (videos, views[0] * views[1])).astype(np.float32)
    return probabilities, rng.integers(0, 6, videos)


def top(scores, labels, k):
    return np.mean([label in np.argsort(-s)[:k] for s, label in zip(scores, labels, strict=True)])


def test_one_file(tmp_path):
    probabilities, labels = random_predictions()
    file = write(tmp_path / "a.parquet", probabilities, labels, (3, 2), failed=(4, 7))
    summary = evaluate_file(file).summary()
    mean = probabilities.astype(np.float64).mean(1)
    mean[[4, 7]] = 0
    mean[[4, 7], labels[[4, 7]]] = -1
    assert summary["top1"] == pytest.approx(top(mean, labels, 1))
    assert summary["top5"] == pytest.approx(top(mean, labels, 5))
    assert summary["failed"] == ["/data/004.mp4", "/data/007.mp4"]
    per_class = [top(mean[labels == c], labels[labels == c], 1) for c in range(6)]
    assert list(summary["per_class"].values()) == pytest.approx(per_class)
    assert summary["mean_class_accuracy"] == pytest.approx(np.mean(per_class))
    wrong = [(CLASSES[x], CLASSES[m.argmax()]) for m, x in zip(mean, labels, strict=True)]
    for pair in summary["confused"]:
        rows = [i for i, w in enumerate(wrong) if w == (pair["label"], pair["predicted"])]
        assert pair["videos"] == len([i for i in rows if i not in (4, 7)])
    assert evaluate_file(file, [(2, 1)]).summary()["views"].keys() == {"2x1", "3x2"}


def test_missing_views_are_named(tmp_path):
    probabilities, labels = random_predictions()
    skip = ((2, 1), (2, 4), (19, 5))
    file = write(tmp_path / "a.parquet", probabilities, labels, (3, 2), skip=skip)
    results = evaluate_file(file)
    assert results.summary()["missing_views"] == [
        {"path": "/data/002.mp4", "views": ["0x1", "2x0"]},
        {"path": "/data/019.mp4", "views": ["2x1"]},
    ]
    assert "lacking views, judged by the others: /data/002.mp4 (views 0x1, 2x0)" in (
        results.describe()
    )
    mean = probabilities.astype(np.float64).mean(1)
    mean[2] = probabilities[2, [0, 2, 3, 5]].mean(0)
    mean[19] = probabilities[19, :5].mean(0)
    assert results.summary()["top1"] == pytest.approx(top(mean, labels, 1))


@settings(max_examples=25)
@given(
    st.integers(1, 30), st.lists(st.sampled_from([(1, 1), (2, 3), (3, 1)]), min_size=2, max_size=3)
)
def test_an_ensemble_is_the_weighted_mean_of_means(tmp_path_factory, videos, views):
    folder = tmp_path_factory.mktemp("ensemble")
    rng = np.random.default_rng(videos)
    labels = random_predictions(videos)[1]
    weights = rng.uniform(0.5, 2, len(views)).tolist()
    files, total = [], 0
    for k, (v, weight) in enumerate(zip(views, weights, strict=True)):
        probabilities, _ = random_predictions(videos, v, seed=k)
        total = total + weight * probabilities.astype(np.float64).mean(1)
        # Another root and suffix, and another order of the ids.
        names = [f"/data{k}/{i:03}.{'mp4' if k else 'webm'}" for i in range(videos)]
        ids = sorted(rng.choice(1000, videos, replace=False).tolist())
        order = np.arange(videos) if not k else rng.permutation(videos)
        files.append(
            write(
                folder / f"{k}.parquet",
                probabilities[order],
                labels[order],
                v,
                names=[names[i] for i in order],
                ids=ids,
            )
        )
    summary = evaluate_ensemble(files, weights, [(1, 1)]).summary()
    assert summary["top1"] == pytest.approx(top(total, labels, 1))
    assert summary["views"].keys() == {"1x1", "all"}


def test_probabilities_that_are_not_finite_are_wrong_and_named(tmp_path):
    probabilities, labels = random_predictions()
    probabilities[5] = np.nan
    results = evaluate_file(write(tmp_path / "a.parquet", probabilities, labels, (3, 2)))
    assert results.summary()["without_prediction"] == ["/data/005.mp4"]
    assert "no finite probabilities, counted as wrong: /data/005.mp4" in results.describe()


def test_lines_of_views(tmp_path):
    file = write(tmp_path / "a.parquet", *random_predictions(views=(5, 3)), (5, 3))
    lines = evaluate_file(file).describe().splitlines()
    assert [line.split()[0] for line in lines[2:7]] == ["1", "2", "3", "4", "5"]
    chosen = [(1, 1), (1, 3), (5, 1), (5, 3)]
    line = evaluate_file(file, chosen).describe().splitlines()[1]
    assert line.split()[3::2] == ["1x1", "1x3", "5x1", "5x3"]


def test_what_other_programs_write(tmp_path):
    file = write(tmp_path / "a.parquet", *random_predictions(), (3, 2))
    wide = {"path": pa.large_string(), "temporal_view": pa.int64(), "label": pa.int16()}
    wide["probabilities"] = pa.large_list(pa.float64())
    table = pq.read_table(file.path)
    fields = [pa.field(f.name, wide.get(f.name, f.type)) for f in table.schema]
    pq.write_table(table.cast(pa.schema(fields, table.schema.metadata)), tmp_path / "b.parquet")
    other = PredictionFile(tmp_path / "b.parquet")
    assert evaluate_file(other).summary() == evaluate_file(file).summary()


def test_an_ensemble_counts_what_one_could_not_decode_as_wrong(tmp_path):
    labels = np.zeros(2, np.int64)
    right = np.zeros((2, 1, 6), np.float32)
    right[..., 0] = 1
    files = [
        write(tmp_path / "a.parquet", right, labels, (1, 1), names=["/d/x.mp4", "/d/y.mp4"]),
        write(
            tmp_path / "b.parquet",
            right,
            labels,
            (1, 1),
            failed=(1,),
            names=["/e/x.mp4", "/e/y.avi"],
        ),
    ]
    summary = evaluate_ensemble(files, [1, 1]).summary()
    assert (summary["top1"], summary["failed"]) == (0.5, ["/d/y.mp4"])


def test_the_interval_is_that_of_drawing_videos(tmp_path):
    first, labels = random_predictions(300)
    second, _ = random_predictions(300, seed=1)
    first[np.arange(0, 300, 3), :, labels[::3]] += 1
    runs = [
        evaluate_file(write(tmp_path / f"{i}.parquet", p, labels, (3, 2)))
        for i, p in enumerate((first, second))
    ]
    interval = paired_difference(*runs, k=1)
    right = [run.outcomes.position[:, -1] < 1 for run in runs]
    gap = right[0].astype(float) - right[1]
    assert interval.difference == pytest.approx(gap.mean())
    draws = np.random.default_rng(5).integers(0, 300, (4000, 300))
    low, high = np.quantile(gap[draws].mean(1), (0.025, 0.975))
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.012)
    assert interval.low < interval.difference < interval.high
    assert interval.first_only == int((right[0] & ~right[1]).sum())


def test_names_of_videos():
    assert video_names(["/a/b/x.mp4", "/a/c/y.avi"]) == ["b/x", "c/y"]
    for copies in (["x.webm.mp4", "y.mkv.mp4"], ["x.PNG.jpg", "y.jpeg"]):
        assert video_names([f"/copy/{name}" for name in copies]) == ["x", "y"]
    assert video_names(["/a/1.5.mp4", "/a/1.6.mp4"]) == ["1.5", "1.6"]
    assert video_names(["/a/b/x.mp4", "/a/b/x.avi"]) == ["/a/b/x.mp4", "/a/b/x.avi"]
    assert video_names(["x.mp4"]) == ["x"]
    assert video_names(["x.mp4", "/a/y.mp4"]) == ["x.mp4", "/a/y.mp4"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(["label"]), "has no column label"),
        (lambda t: t.set_column(1, "path", [[[1]] * 24]), "column path is list<.*>, not string"),
        (lambda t: with_metadata(t, temporal_views=10**8), "100000000x2 views"),
        (lambda t: with_metadata(t, class_names=["a"] * 6), "two classes have the same name"),
        (
            lambda t: with_metadata(
                t, failed=[{"path": "x", "video_id": 9, "label": 77, "reason": ""}]
            ),
            "failed video x: its label or video_id is out of range",
        ),
        (lambda t: t.replace_schema_metadata(None), "metadata are not those of predictions"),
        (lambda t: set_cell(t, "label", 9, range(6, 12)), "row 7 has a label that is no class"),
        (lambda t: set_cell(t, "spatial_view", 2), "row 8 has a spatial view not below 2"),
        (lambda t: set_cell(t, "probabilities", [0.5]), "row 8 has not 6 probabilities"),
        (lambda t: set_cell(t, "path", None), "a row lacks video, path or label"),
        (lambda t: set_cell(t, "path", "/other"), "video 1 has two paths or labels"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, change, message):
    path = tmp_path / "a.parquet"
    write(path, *random_predictions(4), (3, 2))
    pq.write_table(change(pq.read_table(path)), path)
    with pytest.raises(PredictionFileError, match=message) as error:
        evaluate_file(PredictionFile(path))
    assert "\n" not in str(error.value)


def with_metadata(table, **changes):
    new = {key: json.dumps(value) for key, value in changes.items()}
    old = {key.decode(): value for key, value in table.schema.metadata.items()}
    return table.replace_schema_metadata(old | new)


def test_a_damaged_page_is_one_line(tmp_path):
    file = write(tmp_path / "a.parquet", *random_predictions(200), (3, 2))
    content = bytearray(file.path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(200)
    file.path.write_bytes(content)
    with pytest.raises(PredictionFileError, match="damaged") as error:
        evaluate_file(PredictionFile(file.path))
    assert "\n" not in str(error.value)


def set_cell(table, name, value, rows=(7,)):
    column = [value if i in rows else old for i, old in enumerate(table[name].to_pylist())]
    index = table.column_names.index(name)
    return table.set_column(index, SCHEMA.field(name), pa.array(column, SCHEMA.field(name).type))


def test_other_files_and_other_videos(tmp_path):
    (tmp_path / "no.parquet").write_text("text")
    for name, message in (("no", "not a Parquet file"), ("nothing", "no such file")):
        with pytest.raises(PredictionFileError, match=message):
            PredictionFile(tmp_path / f"{name}.parquet")
    probabilities, labels = random_predictions(5)
    one = write(tmp_path / "one.parquet", probabilities, labels, (3, 2))
    fewer = write(tmp_path / "two.parquet", probabilities[:4], labels[:4], (3, 2))
    other = write(tmp_path / "three.parquet", probabilities, (labels + 1) % 6, (3, 2))
    none = write(tmp_path / "four.parquet", probabilities, labels * 0 - 1, (3, 2))
    with pytest.raises(PredictionFileError, match="videos: 1 are in one file only, such as 004"):
        evaluate_ensemble([one, fewer], [1, 1])
    with pytest.raises(PredictionFileError, match="label 000 differently"):
        evaluate_ensemble([one, other], [1, 1])
    with pytest.raises(PredictionFileError, match="no video has a label"):
        evaluate_file(none)
    with pytest.raises(PredictionFileError, match="no 4x1 views: there are 3x2"):
        evaluate_file(one, [(4, 1)])
    with pytest.raises(PredictionFileError, match="differ in their videos: 004"):
        paired_difference(evaluate_file(one), evaluate_file(fewer))
    with pytest.raises(PredictionFileError, match="label 000 as"):
        paired_difference(evaluate_file(one), evaluate_file(other))


def run_main(words):
    """Exit code of the command line."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["hiera-video", *words])
        try:
            cli.main()
        except SystemExit as stop:
            return stop.code
    return 0


def test_the_command(tmp_path, capsys):
    probabilities, labels = random_predictions()
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        write(folder / "predictions.parquet", probabilities, labels, (3, 2))
    start = ["evaluate", "--task", "classification", str(tmp_path / "a")]
    assert run_main([*start, "--json", "--views", "1x1,3x2"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["views"].keys() == {"1x1", "3x2"}
    assert summary["top1"] == pytest.approx(top(probabilities.astype(float).mean(1), labels, 1))
    assert (
        run_main([*start, str(tmp_path / "b"), "--weights", "2,1", "--compare", *start[-1:]]) == 0
    )
    text = capsys.readouterr().out
    assert "top1 +0.00% against" in text
    folder = tmp_path / "c"
    folder.mkdir()
    table = pq.read_table(tmp_path / "a/predictions.parquet")
    lists = [p[:4] for p in table["probabilities"].to_pylist()]
    few = with_metadata(table, class_names=list(CLASSES[:4]))
    labels = pa.array([min(x, 3) for x in table["label"].to_pylist()])
    few = few.set_column(2, SCHEMA.field("label"), labels)
    few = few.set_column(5, SCHEMA.field("probabilities"), pa.array(lists, SCHEMA.types[5]))
    pq.write_table(few, folder / "predictions.parquet")
    assert run_main([*start[:3], str(folder), "--compare", str(folder), "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)["compared"]) == ["top1"]
    (tmp_path / "d/predictions.parquet.parts").mkdir(parents=True)
    assert run_main([*start[:3], str(tmp_path / "d")]) == 2
    assert "its test was cut off" in capsys.readouterr().err
    for words, message in (
        (["--weights", "1,2"], "--weights has 2 numbers for 1 files"),
        (["--views", "9x9"], "no 9x9 views"),
    ):
        assert run_main([*start, *words]) == 2
        assert message in capsys.readouterr().err
    for words in (["--views", "0x1"], ["--weights", "-1"], ["--weights", "nan"]):
        assert run_main([*start, *words]) == 2
        assert f"argument {words[0]}: '{words[1]}' is not a list of" in capsys.readouterr().err
