"""Every figure of a GPU by one command.

    python benchmarks/gpu.py [--out benchmarks/results] [--minutes 12] [--tiny] [--parts NAME ...]

Parts run in order of worth, each in its own process with its own limit of time, and results are
written as they come: `gpu-CARD.json`, and the same as Markdown tables. Times are medians over
interleaved rounds. Without a GPU, `--tiny` shows on a CPU that all of it works.
"""

import argparse
import importlib.util
import json
import multiprocessing
import os
import platform
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import gpu_models, gpu_modes, gpu_training
from benchmarks.gpu_models import Setting, Table, inference, pretraining
from benchmarks.timing import GIB

# Name, limit in seconds, what it does: yields tables or dicts.
Part = tuple[str, int, Callable[[Setting], Iterable[Any]]]
PARTS: list[Part] = [
    ("ceilings", 30, lambda setting: [gpu_models.ceilings(setting)]),
    ("parity", 60, gpu_models.parity),
    ("pretraining base", 90, partial(pretraining, model="hiera_base_16x224", batch=32)),
    ("modes", 180, gpu_modes.modes),
    ("inference base", 60, partial(inference, size="base")),
    ("pretraining images", 150, partial(pretraining, model="hiera_base_224", batch=128)),
    ("finetuning", 90, gpu_models.finetuning),
    ("training", 300, gpu_training.training),
    ("inference large", 60, partial(inference, size="large")),
    ("batch 1", 60, partial(inference, size="base", batch=1)),
    ("tests", 360, lambda setting: [tests(setting)]),
    ("pretraining large", 90, partial(pretraining, model="hiera_large_16x224", batch=32)),
    ("inference huge", 120, partial(inference, size="huge")),
]


def tests(setting: Setting) -> dict[str, Any]:
    """Run ``pytest -m gpu``, in several processes with pytest-xdist; the end of its output."""
    files = [
        str(path) for path in Path("tests").rglob("test_*.py") if "mark.gpu" in path.read_text()
    ]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", *files]
    if setting.device == "cpu":
        command += ["--collect-only"]
    elif importlib.util.find_spec("xdist"):
        command += ["-n", str(max(1, (os.cpu_count() or 1) - 1)), "-p", "no:benchmark"]
    process = subprocess.run(command, capture_output=True, text=True)
    return {"exit": process.returncode, "output": process.stdout.splitlines()[-60:]}


def machine() -> dict[str, Any]:
    """What the figures belong to."""
    software = {"python": platform.python_version(), "torch": torch.__version__}
    software["cpus"] = os.cpu_count()
    if not torch.cuda.is_available():
        return {"card": "CPU", **software}
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return {
        "card": torch.cuda.get_device_name(),
        "memory_gib": round(torch.cuda.get_device_properties(0).total_memory / GIB, 1),
        "driver": subprocess.run(query, capture_output=True, text=True).stdout.strip(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        **software,
    }


def record(result: Any) -> dict[str, Any]:
    """A result as plain numbers."""
    if not isinstance(result, Table):
        return result
    reference = next(c for c in result.contenders if c.name == result.reference)
    rows = [
        {"name": c.name, "error": c.error}
        if c.error
        else {
            "name": c.name,
            "error": "",
            "median_ms": c.median * 1e3,
            "spread": c.spread,
            "ratio": None if reference.error else reference.median / c.median,
            "peak_gib": c.peak / GIB,
            "items_per_s": result.items / c.median,
            "flops_per_s": result.flops / c.median,
            "difference": c.difference,
        }
        for c in result.contenders
    ]
    return {"title": result.title, "reference": result.reference, "rows": rows}


def markdown(results: dict[str, Any], only: str = "") -> str:
    """The results as tables, of all parts or of one."""
    lines = [", ".join(f"{key} {value}" for key, value in results["machine"].items()), ""]
    ceiling = 0.0
    for name, part in results["parts"].items():
        if name == "ceilings" and part["results"]:
            ceiling = part["results"][0]["flops"]
        if only not in ("", name):
            continue
        lines += [f"## {name} ({part['seconds']:.0f} s)", ""]
        if part["error"]:
            lines += [part["error"], ""]
        for result in part["results"]:
            lines += table(result, ceiling) if "rows" in result else [f"- {json.dumps(result)}"]
        lines.append("")
    return "\n".join(lines)


def table(result: dict[str, Any], ceiling: float) -> list[str]:
    """A comparison as a Markdown table; `ceiling` is the measured rate of matrix products."""
    lines = [
        f"**{result['title']}**",
        "",
        f"| | ms | ± | x {result['reference']} | peak GiB | per s | of matrix rate | difference |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in result["rows"]:
        if row["error"]:
            lines.append(f"| {row['name']} | {row['error']} | | | | | | |")
            continue
        share = f"{row['flops_per_s'] / ceiling:.0%}" if ceiling and row["flops_per_s"] else ""
        apart = "" if row["difference"] is None else f"{row['difference']:.1e}"
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
        lines.append(
            f"| {row['name']} | {row['median_ms']:.2f} | {row['spread']:.0%} | {ratio} "
            f"| {row['peak_gib']:.1f} | {row['items_per_s']:.1f} | {share} | {apart} |"
        )
    return [*lines, ""]


def work(part: Part, setting: Setting, path: Path) -> None:
    """Run a part in a process of its own and append its results to a file."""
    os.setsid()  # what it starts is killed with it
    try:
        for result in part[2](setting):
            with path.open("a") as file:
                file.write(json.dumps(record(result)) + "\n")
    except BaseException:
        path.with_suffix(".error").write_text(traceback.format_exc())
        raise


def run(part: Part, setting: Setting, folder: Path) -> dict[str, Any]:
    """Run a part within its limit, whatever happens in it."""
    name, limit, _ = part
    path, start = folder / f"{name.replace(' ', '_')}.jsonl", time.monotonic()
    for old in (path, path.with_suffix(".error")):
        old.unlink(missing_ok=True)
    process = multiprocessing.get_context("fork").Process(target=work, args=(part, setting, path))
    process.start()
    try:
        process.join(limit)
    finally:  # also if this benchmark is terminated: a part left behind would disturb others
        late = process.is_alive()
        if late:
            os.killpg(process.pid, signal.SIGKILL)
            process.join()
    error = ""
    if late:
        error = f"stopped after {limit} s"
    elif process.exitcode:
        log = path.with_suffix(".error")
        error = log.read_text() if log.exists() else f"exit code {process.exitcode}"
    results = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return {"seconds": time.monotonic() - start, "error": error, "results": results}


def main() -> None:
    """Run the parts and write what they found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--minutes", type=float, default=12)
    parser.add_argument("--tiny", action="store_true", help="small models, few rounds")
    parser.add_argument("--parts", nargs="+", choices=[name for name, *_ in PARTS], metavar="NAME")
    arguments = parser.parse_args()
    end = time.monotonic() + 60 * arguments.minutes
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # Nothing may start CUDA here: the processes of the parts are forks.
    with multiprocessing.get_context("fork").Pool(1) as pool:
        computer = pool.apply(machine)
    device = "cpu" if computer["card"] == "CPU" else "cuda"
    results: dict[str, Any] = {"machine": computer, "parts": {}}
    stem = arguments.out / ("gpu-" + computer["card"].replace(" ", "-"))
    folder = arguments.out / "parts"  # what a part that is killed has found
    folder.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        name, limit, function = part
        left = end - time.monotonic()
        if (arguments.parts and name not in arguments.parts) or left < 20:
            continue
        limit = min(limit, int(left)) if device == "cuda" else int(left)
        setting = Setting(device, arguments.tiny, time.monotonic() + 0.8 * limit)
        results["parts"][name] = run((name, limit, function), setting, folder)
        stem.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
        stem.with_suffix(".md").write_text(markdown(results))
        print(markdown(results, name), flush=True)


if __name__ == "__main__":
    main()
