"""What a storage's faults cost: requests, retries and bytes of an epoch, with and without a cache.

A local S3 server stands behind a proxy that delays, refuses and cuts connections. The videos are
small; the counts are what matters. Needs moto[s3], flask, flask-cors and s3fs.

    python benchmarks/object_store.py
"""

import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from datamodules.folder import VideoFolderDataModule
from datamodules.manifests.packing import pack
from datamodules.manifests.parquet import ManifestMetadata, write_manifest
from tests.datamodules.manifests.object_store import Proxy, environment, object_store, upload
from tests.video_files import moving_frames, write_video

VIDEOS, EPOCHS = 24, 2
SCENARIOS: dict[str, list[str | float]] = {
    "no faults": [],
    "each answer 50 ms late": [0.05] * VIDEOS,
    "4 answers 503": ["busy", 0.0, 0.0, 0.0] * 4,
    "4 connections cut": ["cut", 0.0, 0.0, 0.0] * 4,
    "503 twice in a row, 3 times": ["busy", "busy", 0.0, 0.0] * 3,
}


def packed(folder: Path) -> tuple[Path, int]:
    """Write videos and their packs; return the folder of these, and the bytes of the videos."""
    import pyarrow as pa

    videos = folder / "videos"
    videos.mkdir()
    names = [f"{i}.mp4" for i in range(VIDEOS)]
    for i, name in enumerate(names):
        write_video(videos / name, moving_frames(20, seed=i))
    table = pa.table({"path": names, "label": [i % 2 for i in range(VIDEOS)]})
    metadata = ManifestMetadata(["one", "two"], str(videos))
    write_manifest(videos / "manifest.parquet", table, metadata)
    pack(videos, folder / "packed/train", 100_000, url="s3://videos")
    return folder / "packed", sum((videos / name).stat().st_size for name in names)


def rows(proxy: Proxy, root: Path, fault: str, share: float, cache: dict) -> None:
    """Read some epochs, with a cache of a share of the videos, and print a row for each.

    Faults come in the first epoch.
    """
    clip = {"num_frames": 2, "size": (32, 32), "batch_size": 4, "num_workers": 2}
    data = VideoFolderDataModule(root, val=None, test=None, **clip, **cache)
    data.setup("fit")
    loader = data.train_dataloader()
    proxy.faults[:] = SCENARIOS[fault]
    for epoch in range(EPOCHS):
        proxy.gets.clear()
        loader.traffic.clear()
        loader.sampler.set_epoch(epoch)
        start = time.perf_counter()
        batches = list(loader)
        seconds = time.perf_counter() - start
        ids = {int(i) for batch in batches for i in batch["video_id"]}
        failed = sum(len(batch["failed"]) for batch in batches)
        read = loader.traffic
        numbers = read["requests"], len(proxy.gets), read["retries"], read["bytes"], read["hits"]
        cells = fault, f"{share:.0%}", epoch + 1, *numbers, len(ids), failed, f"{seconds:.1f}"
        print("|", " | ".join(map(str, cells)), "|", flush=True)


def main() -> None:
    """Print the table."""
    import s3fs

    s3fs.S3FileSystem.retries = 1  # its own, which nobody counts
    head = "faults|cache|epoch|requests|seen by the server|retries|bytes|hits|videos|failed|s"
    print("|", head.replace("|", " | "), "|")
    print("|--" * 3 + "|--:" * 8 + "|")
    with tempfile.TemporaryDirectory() as name, object_store() as proxy:
        root, total = packed(Path(name))
        upload(proxy, (root / "train").glob("*.tar"), "videos")
        os.environ.update(environment(proxy))
        for fault in SCENARIOS:
            for number, share in enumerate((0, 0.5, 1.01)):
                folder = Path(name) / f"cache {number} {fault}"
                gib = total * share / 2**30
                cache = {"cache_dir": folder, "cache_gib": gib} if share else {}
                rows(proxy, root, fault, share, cache)


if __name__ == "__main__":
    main()
