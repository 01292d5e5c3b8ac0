import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from hiera_video.running.quoting import escaped, quoted_path, unquoted, without_sweeps

NAMES = ["a,b c", "fold=1", "[x", "[a,b]", "${x}", "a\\${x}", "it's", '"q"', "17", "true", "(b"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("key", ["data.root", "+data.videos.train", "task.init_from", "out"])
def test_a_path_that_exists_is_meant_as_it_is(tmp_path, monkeypatch, key, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    word = quoted_path(f"{key}={name}")
    assert unquoted(word.removeprefix(f"{key}=")) == name
    assert OverridesParser.create().parse_override(word).value() == escaped(name)
    assert quoted_path(word) == word  # as other processes of the run are given it


@pytest.mark.parametrize(
    "word",
    [
        "data.root=plain/a-b_1.mp4",  # exists
        "data.root=null",  # exists
        "data.root='a,b c'",
        'data.root="fold=1"',
        "data.train=[a,b]",
        "data.train=[a",
        "task.init_from=gone,away",
        "run_dir=runs/${name}",
        "hydra.sweep.dir=multirun/${now:%H-%M}",
        "data.num_frames=17",  # exists, but the key is none of a path
        "~callbacks.best",
    ],
)
def test_what_hydra_is_to_read_stays(tmp_path, monkeypatch, word):
    monkeypatch.chdir(tmp_path)
    for name in ("plain/a-b_1.mp4", "null", "17"):
        (tmp_path / name).mkdir(parents=True)
    assert quoted_path(word) == word


def test_a_new_folder_may_have_an_equals_sign():
    assert quoted_path("run_dir=runs/lr=0.1") == 'run_dir="runs/lr=0.1"'


def test_words_of_every_job_of_a_sweep():
    words = ["a=1,2", "++b=choice(3,4)", "c=1e-3", "d='x,y'", "e=[1,2]", "+f=range(1,3)", "~g"]
    assert without_sweeps(words) == ["c=0.001", "d='x,y'", "e=[1,2]", "~g=null"]
