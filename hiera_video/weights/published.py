"""How the published models see videos and pictures: the ``clip`` of a `Description`."""

# How the published video models were trained and tested (paper, tables 4 and 11).
PUBLISHED_CLIP = {
    "num_frames": 16,
    "stride": 4,
    "fps": 30,
    "size": [224, 224],
    "sampling": "spread",
    "test_views": [5, 3],
    "interpolation": "bilinear",
    "eval_crop": 1.0,
}
# And the published image models (256 pixels, of which 224 are cropped).
PUBLISHED_PICTURE = PUBLISHED_CLIP | {
    "num_frames": 1,
    "stride": 1,
    "fps": 1,
    "sampling": "clip",
    "test_views": [1, 1],
    "interpolation": "bicubic",
    "eval_crop": 0.875,
}
