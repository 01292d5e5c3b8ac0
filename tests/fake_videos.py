"""A data module whose videos are colours, so that nothing is decoded."""

import torch

from datamodules.base import VideoDataModule
from datamodules.clips.sampling import sample_seed
from datamodules.errors import UnreadableVideo, VideoDecodeError
from datamodules.manifests.splits import make_manifest


class Colours:
    """In the place of a data set of clips: the same items, all of one class in one colour."""

    def __init__(self, clips, bad=(), gone=()):
        self.manifest, self.item_shape, self.clips = clips.manifest, clips.item_shape, clips
        self.bad, self.gone = bad, gone

    def __getitem__(self, key):
        epoch, index = key
        if self.manifest.path(index) in self.bad:
            raise VideoDecodeError(self.manifest.path(index), "damaged")
        if self.manifest.path(index) in self.gone:
            raise UnreadableVideo(self.manifest.path(index), "No such file or directory")
        seed = torch.Generator().manual_seed(sample_seed(0, epoch, index))
        video = torch.randint(0, 60, self.item_shape, generator=seed, dtype=torch.uint8)
        video[..., self.manifest.label(index) % 3] += 180
        return self.clips.item(video.numpy(), epoch, index)

    def empty(self, index):
        return self.clips.empty(index)


class ColourVideos(VideoDataModule):
    """Splits ``<videos>`` or ``<videos> unlabelled``, of three colours and classes.

    Attributes:
        loaded: videos of each loader that was made.
    """

    def __init__(self, train="12", val="6", test="6", bad=(), gone=(), **kwargs):
        clip = {"num_frames": 4, "size": (64, 64), "batch_size": 4, "eval_batch_size": 4}
        super().__init__("/nowhere", train, val, test, **{**clip, "test_views": (1, 1), **kwargs})
        self.bad, self.gone, self.loaded = bad, gone, []

    def list_split(self, split, class_names):
        videos, *unlabelled = split.split()
        labels = [-1 if unlabelled else i % 3 for i in range(int(videos))]
        paths = [f"/{split}/{i}.mp4" for i in range(int(videos))]
        return make_manifest(paths, labels, () if unlabelled else ("red", "green", "blue"))

    def training_clips(self, manifest):
        return Colours(super().training_clips(manifest), self.bad, self.gone)

    def evaluation_views(self, manifest, split):
        return Colours(super().evaluation_views(manifest, split), self.bad, self.gone)

    def train_dataloader(self):
        return self.noted(super().train_dataloader())

    def evaluation_loader(self, split, max_videos=None):
        return self.noted(super().evaluation_loader(split, max_videos))

    def noted(self, loader):
        self.loaded.append(len(loader.sampler))
        return loader
