"""What takes seconds to import is imported only by what needs it."""

import subprocess
import sys

import pytest

SLOW = {"torch", "torch._dynamo", "torchmetrics", "torchvision", "lightning", "hydra", "scipy"}


@pytest.mark.parametrize(
    ("modules", "needed"),
    [
        ("results.classification reporting.page export.hub", {"torch"}),
        ("predicting.load predicting.embed_files predicting.saliency", {"torch"}),
    ],
)
def test_modules_import_no_slow_package_that_they_do_not_need(modules, needed):
    names = [f"hiera_video.{name}" for name in modules.split()]
    code = f"import sys, {', '.join(names)}; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert SLOW & set(output.split()) == needed
