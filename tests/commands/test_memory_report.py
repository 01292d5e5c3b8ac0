"""What `doctor` prints of memory."""

import pytest
import torch

from hiera_video.commands.memory_report import memory_report

TINY_MODEL = ["model.input_size=[4,64,64]", "model.embed_dim=8", "model.stages=[1,1,1,1]"]


def report(config, *words, memory=40, devices=1):
    return memory_report(config, [*TINY_MODEL, *words], memory, devices)


def test_each_part_and_the_largest_batch():
    words = ("task.mask_ratio=0.5", "trainer.precision=32-true", "callbacks.ema.decay=0.99")
    title, *rows, verdict = report("folder/pretrain", *words).splitlines()
    assert title == "memory in training, 8 x 4 clips, 32-true (estimated):"
    parts = "weights;gradients;optimiser state;average of weights;input (uint8);activations;peak"
    assert [row[15:] for row in rows] == parts.split(";")
    sizes = [float(row.split()[0]) for row in rows]
    assert sum(sizes[:-1]) == pytest.approx(sizes[-1], abs=0.04)  # they are rounded
    start = "data.batch_size=8 fits into 90% of 40 GiB; the largest that fits is "
    assert verdict.startswith(start)
    most = int(verdict.removeprefix(start))
    words = (*words, f"data.batch_size={most}")
    assert report("folder/pretrain", *words).endswith(f"fits is {most}")
    words = (*words, f"data.batch_size={most + 1}")
    warning = report("folder/pretrain", *words).splitlines()[-1]
    assert warning.startswith(f"WARNING: data.batch_size={most + 1} does not fit into 90% of 40")
    assert f"; data.batch_size={most} fits. model.grad_checkpointing=true saves" in warning


@pytest.mark.parametrize(
    ("short", "full"), [("32", "32-true"), ("16", "16-mixed"), ("bf16", "bf16-mixed")]
)
def test_lightnings_short_names_of_precisions(short, full):
    texts = [report("folder/finetune", f"trainer.precision={name}") for name in (short, full)]
    assert f", {full} (estimated):" in texts[1]
    assert texts[0] == texts[1]


def test_the_memory_of_a_gpu_that_is_not_here_is_said_to_be_assumed(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "fits into 90% of 80 GiB (assumed; set --memory); " in report(
        "demo/pretrain", memory=None
    )


def test_a_device_that_is_too_small():
    text = report("folder/finetune", memory=0.001)
    assert text.endswith(
        "; not even 1 fits. model.grad_checkpointing=true saves most of the activations"
    )
    text = report("folder/finetune", "model.grad_checkpointing=true", memory=0.001)
    assert text.endswith("; not even 1 fits")


def test_settings_of_the_configuration_count():
    def rows(*words, **kwargs):
        lines = report("folder/finetune", *words, **kwargs).splitlines()[1:-1]
        return {line[15:]: float(line.split()[0]) for line in lines}

    large = ("model.embed_dim=128",)
    plain = rows(*large)
    assert "average of weights" not in plain
    assert "gathered weights" not in plain
    assert rows(*large, "callbacks.ema.decay=0.9")["average of weights"] == plain["weights"]
    on_host = rows(*large, "callbacks.ema.decay=0.9", "callbacks.ema.device=cpu")
    assert "average of weights" not in on_host
    ddp = rows(*large, devices=2)
    assert ddp["gradients"] == pytest.approx(2 * plain["gradients"], abs=0.02)
    strategy = "{_target_: lightning.pytorch.strategies.DDPStrategy, gradient_as_bucket_view: true}"
    assert rows(*large, f"trainer.strategy={strategy}", devices=2) == plain
    sharded = rows(*large, "trainer=fsdp2", devices=2)
    assert sharded["weights"] == pytest.approx(plain["weights"] / 2, abs=0.01)
    assert sharded["gradients"] == pytest.approx(plain["gradients"] / 2, abs=0.01)
    assert sharded["gathered weights"] > 0
    added_up = rows(*large, "trainer=fsdp2", "trainer.accumulate_grad_batches=2", devices=2)
    assert added_up == {**sharded, "gradients": plain["gradients"], "peak": added_up["peak"]}


@pytest.mark.parametrize(
    ("config", "words", "reason"),
    [
        ("folder/probe", [], "what ProbingTask computes is not known here"),
        ("folder/finetune", ["trainer.precision=64-true"], "trainer.precision=64-true is none of"),
        ("folder/finetune", ["model._target_=torch.nn.Flatten", "~model.name"], ""),
        ("folder/finetune", ["model.input_size=[4,63,64]"], "must be a multiple of 32"),
    ],
)
def test_one_line_where_no_estimate_can_be_made(config, words, reason):
    text = memory_report(config, words, 40, 1)
    assert text.startswith("memory in training: no estimate (")
    assert reason in text
    assert "\n" not in text
