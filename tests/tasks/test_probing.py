import pytest
import torch
from lightning import Callback
from lightning.fabric.utilities.exceptions import MisconfigurationException

from hiera_video.models.features import pooled_features
from hiera_video.tasks.probing import ProbingTask
from hiera_video.weights.load import load_weights
from tests.fake_videos import ColourVideos
from tests.models.reference import make_video
from tests.models.small import tiny_mae, tiny_model
from tests.quick_trainer import quick_trainer


@pytest.fixture
def pretrained(tmp_path):
    """A file of the weights of a masked autoencoder that pools as a classifier."""
    mae = tiny_mae(q_pool=3)
    torch.save({"model_state": mae.state_dict()}, tmp_path / "mae.pth")
    return mae.eval(), tmp_path / "mae.pth"


def test_features_are_what_a_head_gets(pretrained):
    mae, file = pretrained
    model = tiny_model().eval()
    video = make_video(model, 2)
    expected = model.head.projection(pooled_features(model, video))
    torch.testing.assert_close(expected, model(video))
    load_weights(model, file, quiet=True)
    assert torch.equal(pooled_features(mae, video), pooled_features(model, video))
    given = []
    model.head.register_forward_pre_hook(lambda head, inputs: given.append(inputs[0]))
    with torch.autocast("cpu", torch.bfloat16):
        assert pooled_features(mae, video).dtype == torch.float32
        model(video)
        assert torch.equal(pooled_features(model, video), given[0].float())


class Seen(Callback):
    """The batches of training videos that a callback is told of."""

    def __init__(self):
        self.batches = []

    def on_probe_batch_end(self, trainer, batch_idx):
        self.batches.append(batch_idx)


def test_test_reads_the_training_videos_first(pretrained):
    data = ColourVideos(test="6", bad=("/6/4.mp4",), test_views=(2, 3))
    task = ProbingTask(lambda num_classes: tiny_model(num_classes=num_classes), k=3)
    task.init_from = str(pretrained[1])
    seen = Seen()
    (results,) = quick_trainer(callbacks=[seen]).test(task, data, verbose=False)
    assert data.loaded == [12, 6]
    assert seen.batches == [*range(len(seen.batches))] != []
    # Colours are easy; what cannot be decoded is wrong.
    assert results == pytest.approx({"test/knn_top1": 5 / 6, "test/linear_top1": 5 / 6})


@pytest.mark.parametrize("command", ["fit", "validate", "predict"])
def test_all_other_commands_are_refused(command):
    task = ProbingTask(tiny_model)
    with pytest.raises(MisconfigurationException, match="use the command test"):
        getattr(quick_trainer(), command)(task, datamodule=ColourVideos())


def test_labels_are_needed():
    with pytest.raises(MisconfigurationException, match="data.train has no labels"):
        quick_trainer().test(ProbingTask(tiny_model), ColourVideos(train="12 unlabelled"))
