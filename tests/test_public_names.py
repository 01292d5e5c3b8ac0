"""Names that users and configurations rely on, wherever the modules behind them move."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from hydra.utils import get_object

from hiera_video.running.configurations import conf_dir

PACKAGES = (
    *("datamodules", "datamodules.ava", "hiera_video"),
    *("hiera_video.augment", "hiera_video.callbacks", "hiera_video.metrics", "hiera_video.tasks"),
    *("hiera_video.visualize", "hiera_video.weights"),
)
# All that the configurations of version 0.1 named, and so those of its runs.
EARLIER_TARGETS = [
    "datamodules.ava.AVADataModule",
    "datamodules.folder.VideoFolderDataModule",
    "datamodules.kinetics.KineticsDataModule",
    "datamodules.ssv2.SSv2DataModule",
    "datamodules.synthetic.SyntheticMotionDataModule",
    "datamodules.synthetic_ava.SyntheticAVADataModule",
    "hiera_video.augment.erasing.RandomErasing",
    "hiera_video.augment.mixing.Mixing",
    "hiera_video.augment.pipeline.Augmentation",
    "hiera_video.augment.rand_augment.RandAugment",
    "hiera_video.callbacks.averaging.ema",
    "hiera_video.callbacks.confusion.ConfusionPicture",
    "hiera_video.callbacks.detections.DetectionTable",
    "hiera_video.callbacks.learning_rate.LearningRate",
    "hiera_video.callbacks.predictions.PredictionLines",
    "hiera_video.callbacks.predictions.PredictionTable",
    "hiera_video.callbacks.probe.Probe",
    "hiera_video.callbacks.progress.ProgressLines",
    "hiera_video.callbacks.reconstructions.ReconstructionPictures",
    "hiera_video.callbacks.recovery.SaveOnSigterm",
    "hiera_video.models.zoo.create_detector",
    "hiera_video.models.zoo.create_mae",
    "hiera_video.models.zoo.create_model",
    "hiera_video.tasks.classification.ClassificationTask",
    "hiera_video.tasks.detection.DetectionTask",
    "hiera_video.tasks.pretraining.PretrainingTask",
    "hiera_video.tasks.probing.ProbingTask",
]


def targets(folder: Path) -> set[str]:
    """What the configurations below a folder make."""
    lines = (line for file in folder.rglob("*.yaml") for line in file.read_text().splitlines())
    return {line.split(":", 1)[1].strip() for line in lines if line.strip().startswith("_target_:")}


def ours(names: set[str]) -> set[str]:
    return {name for name in names if name.startswith(("hiera_video.", "datamodules."))}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_can_be_imported(package):
    module = import_module(package)
    assert module.__all__
    for name in module.__all__:
        assert getattr(module, name).__name__ == name
    assert set(module.__all__) <= set(dir(module))
    with pytest.raises(ImportError, match="no_such_name"):
        exec(f"from {package} import no_such_name")


def test_packages_are_imported_without_torch():
    code = f"import sys, {', '.join(PACKAGES)}; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert not {"torch", "lightning", "numpy", "av", "pyarrow", "hydra"} & set(output.split())


def test_configurations_use_public_names():
    public = {
        f"{package}.{name}" for package in PACKAGES for name in import_module(package).__all__
    }
    named = ours(targets(conf_dir()))
    assert named
    assert named <= public


def test_targets_of_earlier_runs_are_still_found():
    named = ours(targets(Path(__file__).parent / "legacy"))
    assert named
    assert named <= {*EARLIER_TARGETS}
    for target in EARLIER_TARGETS:
        assert callable(get_object(target))
