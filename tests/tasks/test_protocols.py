"""The data modules of this project have what its callbacks and tasks ask for."""

from datamodules.synthetic_ava import SyntheticAVADataModule
from hiera_video.tasks.protocols import ActionData, VideoData, Videos
from tests.fake_videos import ColourVideos


def test_data_modules():
    data = ColourVideos()
    data.setup("test")
    assert isinstance(data, VideoData)
    assert not isinstance(data, ActionData)
    assert isinstance(data.manifests["test"], Videos)


def test_keyframes_are_videos_too(tmp_path):
    data = SyntheticAVADataModule(tmp_path, (1, 1, 1), 3, 64)
    assert isinstance(data, ActionData)
    assert isinstance(data, VideoData)
