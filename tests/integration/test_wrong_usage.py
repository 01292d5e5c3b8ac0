"""A wrong word is one clear line and exit code 2, never a traceback."""

import logging
import sys

import pytest

from hiera_video import cli
from tests.integration import forked
from tests.integration.conftest import run

FEW = ["data.videos=[8,8,8]", "data.batch_size=8", "trainer.max_epochs=1"]


QUICK = [
    (["fit", "--config", "demo/pretain"], "did you mean demo/pretrain"),
    (["fit"], "fit needs --config"),
    (["fitt", "--config", "demo/pretrain"], "no command 'fitt'; did you mean fit"),
    (["fit", "--config", "demo/pretrain", "nonsense"], "'nonsense' is neither key=value"),
    (["fit", "demo/clips"], "'demo/clips' is a configuration: --config demo/clips"),
    (["fit", "--config", "demo/pretrain", "data.batch_sise=3"], "did you mean data.batch_size"),
    (["fit", "--config", "demo/pretrain", "batch_size=3"], "did you mean data.batch_size"),
    (["fit", "--config", "demo/pretrain", "data=foldr"], "did you mean folder"),
    (["fit", "--config", "demo/pretrain", "data.batch_size=0"], "batch_size must be positive"),
    (["fit", "--config", "demo/pretrain", "data.batch_size=many"], "expected a number"),
    (["fit", "--config", "demo/pretrain", "task.augment.horizontal_flip=no"], "true or false"),
    (["fit", "--config", "demo/pretrain", "foo.x._target_=y"], "no key 'foo.x._target_'"),
    (
        ["fit", "--config", "demo/pretrain", "callbacks.new._target_=gone.Class"],
        "callbacks.new: No module named 'gone'",
    ),
    (
        [
            *("fit", "--config", "demo/pretrain", "callbacks.new.monitr=x"),
            "callbacks.new._target_=lightning.pytorch.callbacks.EarlyStopping",
        ],
        "no key 'callbacks.new.monitr' in demo/pretrain; did you mean callbacks.new.monitor",
    ),
    (["fit", "--config", "demo/finetune", "model.num_classes=3"], "model.num_classes has no"),
    (
        ["fit", "--config", "demo/pretrain", "model.stages=3"],
        "model.stages: expected a list, each a whole number, not 3",
    ),
    (["fit", "--config", "demo/pretrain", "seed=-1"], "seed=-1: expected a whole number"),
    (["fit", "--config", "demo/pretrain", "task.optimizer.betas=3", *FEW], "task.optimizer: "),
    (
        ["fit", "--config", "demo/pretrain", "task.optimizer.betas=[0.9]"],
        "task.optimizer.betas: expected a list of 2 values, each a number or a part with "
        "_target_, not [0.9]",
    ),
    (
        ["fit", "--config", "demo/pretrain", "task.optimizer=sgd"],
        "task.optimizer: expected a part with _target_, not 'sgd'",
    ),
    (["fit", "--config", "demo/pretrain", "task.compile=fast"], "compile must be true, false,"),
    (
        ["fit", "--config", "demo/pretrain", "task.compile=reduce-overhead", "trainer=cpu"],
        "task.compile=reduce-overhead needs a GPU; on a CPU use task.compile=default",
    ),
    (["fit", "--config", "demo/pretrain", "~task"], "the configuration has no task"),
    (["fit", "--config", "demo/pretrain", "--bogus"], "no flag '--bogus'"),
    (
        ["fit", "--config", "folder/pretrain", "model.embed_dm=48"],
        "did you mean model.embed_dim",
    ),
    (["fit", "--config", "folder/pretrain", "model.embed_dim=many"], "model.embed_dim: "),
    (["fit", "--config", "folder/finetune", "+model.embed_dm=48"], "did you mean embed_dim"),
    (["fit", "--config", "broken.yaml"], "broken.yaml"),
    (["fit", "--config", "demo/pretrain", "seed=[1"], "seed=[1"),
    (["fit", "--config", "demo/pretrain", "model.name=hiera_bass_16x224"], "hiera_base_16x224"),
    (["fit", "--config", "demo/pretrain", "trainer.precision=16-mixed"], "bf16-mixed"),
    (["fit", "--config", "demo/finetune", "task.init_from=gone.ckpt"], "gone.ckpt"),
    (["fit", "--config", "folder/finetune"], "data.root"),
    (
        ["fit", "--config", "folder/finetune", "data.root=a,b c"],
        "data.root=a,b c: these are several values, for --multirun; a path like this is quoted "
        "twice: 'data.root=\"a,b c\"'",
    ),
    (["fit", "--config", "folder/finetune", "data.root=[x"], "twice: 'data.root=\"[x\"'"),
    (["fit", "--config", "folder/finetune", "data.root=/fold=1"], "there is no /fold=1"),
    (["fit", "--config", "folder/finetune", "data.size=8,8"], "a list is data.size=[8,8]"),
    (
        ["fit", "--config", "demo/pretrain", "run_dir='a\\${b}'"],
        "/a${b}: a run cannot be in a folder with ${ in its name; set another run_dir=",
    ),
    (["fit", "--config", "folder/finetune", "data.root=/nowhere"], "/nowhere/train"),
    (
        ["fit", "--config", "ava/finetune_base", "data.root=a", "data.eval_pad=224"],
        "data.eval_pad=224: expected [height, width]",
    ),
    (["fit", "--config", "kinetics400/finetune_base"], "set data.root"),
    (["test", "--config", "demo/finetune"], "test needs weights"),
    (["test", "--config", "run/config.yaml"], "without its weights; give the run in its place"),
    (["test", "gone"], "gone: no such run folder or checkpoint"),
    (["test", "ckpt_path=gone"], "gone: no run folder or checkpoint"),
    (["test"], "test needs a run folder or checkpoint"),
    (["fit", "resume=gone"], "gone: no run folder or checkpoint"),
    (["test", "--config", "demo/finetune", "ckpt_path=gone.ckpt"], "gone.ckpt: no such"),
    (["predict", "--config", "demo/finetune", "gone.mp4"], "gone.mp4: no such file"),
    (["predict", "--config", "demo/finetune", "task.init_from=hiera_base_16x224"], "no videos"),
    (["fit", "--config", "demo/pretrain", "+foo=1"], "+foo=1: nothing reads the key 'foo'"),
    (["fit", "--config", "demo/finetune", "boxes=full_frame"], "for `predict` of action"),
    (["configs", "show", "demo/pretran"], "did you mean demo/pretrain"),
]
# Refused in the same ways, mostly by other classes.
MORE = [
    (["fit", "--config", "demo/pretrain", "data.batch_size=2.5"], "must be a whole number"),
    (["fit", "--config", "demo/pretrain", "data.size=64"], "expected [height, width]"),
    (["fit", "--config", "demo/pretrain", "data.crop_scale=[2,3]"], "crop_scale must be"),
    (["fit", "--config", "demo/pretrain", "data.crop_ratio=1"], "crop_ratio must be"),
    (["fit", "--config", "demo/pretrain", "model.num_heads=0"], "num_heads 0 must be positive"),
    (["fit", "--config", "demo/pretrain", "task.mask_ratio=0.99"], "0 of 16 mask units"),
    (["fit", "--config", "demo/pretrain", "data.val_views=5"], "[temporal, spatial]"),
    (["fit", "--config", "demo/pretrain", "trainer.max_epochs=2.5"], "a whole number"),
    (
        ["fit", "--config", "demo/pretrain", "task.optimizer.betas=[a,b]"],
        "_target_, not ['a', 'b']",
    ),
    (
        ["fit", "--config", "demo/pretrain", "model.mlp_ratio=a"],
        "model.mlp_ratio: expected a number, not 'a'",
    ),
    (
        ["fit", "--config", "demo/pretrain", "callbacks.progress=5"],
        "callbacks.progress: expected a part with _target_ or null, not 5",
    ),
    (["fit", "--config", "demo/pretrain", "task.lr=-1"], "lr must be above 0 and finite, not -1"),
    (
        ["fit", "--config", "demo/pretrain", "task.layer_decay=0"],
        "layer_decay must be in (0, 1]",
    ),
    (["fit", "--config", "demo/pretrain", "data.num_workers=-1"], "at least 0, not -1"),
    (["fit", "--config", "folder/pretrain", "data.short_sides=[8,9]"], "data.short_side"),
    (["fit", "--config", "folder/pretrain", "task.mask_ration=0.5"], "task.mask_ratio"),
    (["fit", "--config", "folder/pretrain", "task.optimizer.foreachh=1"], "optimizer.foreach"),
    (["fit", "--config", "folder/pretrain", "trainer.max_tim=1"], "trainer.max_time"),
    (["fit", "--config", "folder/finetune", "+data.cropscale=1"], "did you mean crop_scale"),
    (["fit", "--config", "folder/finetune", "+task.layerdecay=1"], "did you mean layer_decay"),
    (["fit", "--config", "demo/pretrain", "+trainer.presicion=1"], "did you mean precision"),
    (["fit", "--config", "demo/pretrain", "model.input_size=[16,60,64]"], "multiple of 32"),
    (["fit", "--config", "demo/pretrain", "trainer.precision=bf17"], "bf17"),
    (["fit", "--config", "folder/finetune", "data.root=a", "data.size=1.5"], "data.size=1.5: "),
    (["fit", "--config", "kinetics400/finetune_base", "data.repeats=4"], "is 37.5 passes"),
    (
        ["fit", "--config", "kinetics400/pretrain_base", "task.batch.unit=frames"],
        "videos or clips",
    ),
]


@pytest.mark.parametrize(
    ("words", "message"),
    [*QUICK, *(pytest.param(*case, marks=pytest.mark.slow) for case in MORE)],
)
# Lightning's own, of what is refused one line later.
@pytest.mark.filterwarnings("ignore:You passed .Trainer.accelerator='cpu', precision='16-mixed'")
def test_wrong_usage_is_one_line_and_exit_code_2(tmp_path, words, message, monkeypatch, capsys):
    # In this process: each case would wait for torch otherwise. The test below starts a real one.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # which the command sets itself
    if words[0] == "fit" and len(words) == 4 and "demo" in words[2]:
        words = [*words, "trainer.accelerator=cpu", "data.videos=[8,8,8]"]
    (tmp_path / "broken.yaml").write_text("a: [1\n")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "last.ckpt").touch()
    (tmp_path / "run" / "config.yaml").write_text("a: 1\n")
    monkeypatch.setattr(sys, "argv", ["hiera-video", *words])
    handlers = logging.root.handlers[:]
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    for handler in logging.root.handlers:
        if handler not in handlers:
            handler.close()  # Hydra's log file
    logging.root.handlers[:] = handlers
    assert exit_.value.code == 2
    errors = capsys.readouterr().err.splitlines()
    assert [line for line in errors if line.startswith("hiera-video: ")] == errors
    assert len(errors) == 1
    assert message in errors[0]


def test_the_real_command_says_it_in_the_same_way(tmp_path):
    words = ["fit", "--config", "demo/pretrain", "model.name=hiera_bass_16x224"]
    output = run(*words, cwd=tmp_path, code=2)
    (line,) = output.splitlines()
    assert line.startswith("hiera-video: model: no model 'hiera_bass_16x224'; did you mean")


def test_a_search_path_of_the_user_is_kept_beside_ours(tmp_path):
    from hiera_video.running.configurations import conf_dir
    from hiera_video.running.words import translate

    file = tmp_path / "mine.yaml"
    file.write_text("defaults: [/experiment/demo/pretrain, /data/other, _self_]\n")
    call = translate(["fit", "--config", str(file), f"hydra.searchpath=[file://{tmp_path}/more]"])
    assert f"file://{conf_dir()}" in call.overrides[0]
    assert f"file://{tmp_path}/more" in call.overrides[0]
    # What a child process is given says the same.
    assert translate(["fit", "--config", str(file), *call.overrides]).overrides == call.overrides
    (tmp_path / "more/data").mkdir(parents=True)
    (tmp_path / "more/data/other.yaml").write_text("# @package _global_\nseed: 17\n")
    words = ["fit", "--config", file, f"hydra.searchpath=[file://{tmp_path}/more]"]
    assert "seed: 17" in forked.run(*words, "--cfg", "job", cwd=tmp_path)


@pytest.mark.parametrize(
    "text", ["a.mp4", "it's", 'a "b"', "a\\", 'a\\"', "a,b=[c]{d}", "$x ${y}", "a\\${y}", "ü # %"]
)
def test_any_path_survives_as_an_input(text):
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    from hiera_video.running.quoting import quote

    (override,) = OverridesParser.create().parse_overrides([f"++data.predict=[{quote(text)}]"])
    config = OmegaConf.create(
        {"predict": [str(v.text if hasattr(v, "text") else v) for v in override.value()]}
    )
    assert OmegaConf.to_container(config, resolve=True) == {"predict": [text]}


def test_a_locale_without_utf8_is_named_as_the_cause(tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/é.mp4").touch()
    words = ["check", tmp_path / "videos"]
    output = run(*words, cwd=tmp_path, code=2, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert "this locale has Python read file names as ascii; set PYTHONUTF8=1" in output
    assert "rename" not in output
