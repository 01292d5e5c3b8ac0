"""Who may import whom, and use what. A room is a folder of a package, or a module at its top."""

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BELOW_RUNNING = (
    "augment callbacks datamodules export metrics models predicting results tasks terminal "
    "visualize weights"
)
# What each room may import, below it in the house. `datamodules` stands for all of its rooms.
MAY_IMPORT = {
    "datamodules.wording": "",
    "datamodules.errors": "",
    "datamodules.files": "",
    "datamodules.lazy": "",
    "datamodules.processes": "",
    "datamodules.suffixes": "",
    "datamodules.arguments": "",
    "datamodules.video": "",
    "datamodules.manifests": "",
    "datamodules.clips": "manifests video",
    "datamodules.loading": "clips manifests video",
    "datamodules.images": "annotated arguments folder manifests synthetic",
    "datamodules.preparing": "loading manifests video",
    "datamodules.splits": "manifests",
    "datamodules.base": "arguments clips loading manifests splits video",
    "datamodules.annotated": "folder manifests",
    "datamodules.folder": "base manifests",
    "datamodules.kinetics": "annotated manifests",
    "datamodules.ssv2": "annotated manifests",
    "datamodules.synthetic": "arguments folder manifests",
    "datamodules.coloured_shapes": "synthetic",
    "datamodules.figures": "synthetic",
    "datamodules.synthetic_actions": "arguments figures folder manifests synthetic",
    "datamodules.ava": "annotated arguments clips manifests preparing video",
    "datamodules.synthetic_ava": "arguments ava manifests synthetic",
    "datamodules.coco": "annotated arguments clips manifests preparing video",
    "datamodules.synthetic_coco": "arguments coco manifests synthetic",
    "datamodules": "",
    "hiera_video.errors": "",
    "hiera_video.terminal": "",
    "hiera_video.models": "terminal",
    "hiera_video.augment": "models",
    # Tables of boxes, and their IoU; masks as run lengths.
    "hiera_video.metrics": "datamodules.ava datamodules.clips datamodules.coco",
    "hiera_video.weights": "models terminal",
    "hiera_video.results": "datamodules metrics",
    "hiera_video.visualize": "augment models",
    "hiera_video.tasks": "augment metrics models weights",
    "hiera_video.callbacks": "datamodules metrics models results tasks terminal visualize",
    "hiera_video.predicting": "augment datamodules metrics models results terminal visualize "
    "weights",
    "hiera_video.export": "augment metrics models results weights",
    "hiera_video.reporting": "datamodules export metrics results visualize",
    "hiera_video.running": BELOW_RUNNING,
    "hiera_video.commands": f"{BELOW_RUNNING} reporting running",
    "hiera_video.cli": "running terminal",  # commands by their names alone
    "hiera_video.__main__": "cli",
    "hiera_video": "",
}
# Whoever wants to, may import these.
LEAVES = {
    "datamodules.wording",
    "datamodules.errors",
    "datamodules.files",
    "datamodules.lazy",
    "datamodules.processes",
    "datamodules.suffixes",
    "hiera_video.errors",
}
# Libraries that not everybody may import.
CONFIGURATION = "hiera_video.running hiera_video.callbacks.run_record hiera_video.export.provenance"
ONLY_IN = {
    "hydra": CONFIGURATION,
    "omegaconf": CONFIGURATION,
    "huggingface_hub": "hiera_video.export.hub",
    # In files of weights to name what timm's checkpoints hold, and nothing else.
    "argparse": "hiera_video.cli hiera_video.commands hiera_video.weights.files",
}
MOST_AT_THE_TOP = 6  # modules of hiera_video
PRIVATE = re.compile(r"_[A-Za-z]\w*")  # a name for its own module or class alone
OF_NAMED_TUPLES = {"_asdict", "_fields", "_make", "_replace"}  # public all the same
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in ("datamodules", "hiera_video")
    for path in sorted((ROOT / package).rglob("*.py"))
}


def imported(node: ast.AST) -> Iterator[str]:
    """Full names that code imports when it runs, in functions as well; all imports are absolute."""
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
    for child in ast.iter_child_nodes(node):
        yield from imported(child)


def module_of(name: str) -> str:
    """The module of ours that an imported name is, or is in; else the name of a library."""
    while name not in FILES and "." in name:
        name = name.rpartition(".")[0]
    return name


def room_of(module: str) -> str:
    return ".".join(module.split(".")[:2])


def is_in(module: str, places: str) -> bool:
    return any(module == place or module.startswith(f"{place}.") for place in places.split())


IMPORTS = {
    module: {module_of(name) for name in imported(ast.parse(path.read_text()))} - {module}
    for module, path in FILES.items()
}
ARROWS = {module: names & FILES.keys() for module, names in IMPORTS.items()}


@pytest.mark.parametrize("room", sorted({room_of(module) for module in FILES}))
def test_a_room_imports_only_what_it_may(room):
    package = room.partition(".")[0]
    allowed = LEAVES | {room}
    for name in MAY_IMPORT[room].split():
        rooms = {r for r in MAY_IMPORT if r.startswith("datamodules.")}
        one = name if "." in name else f"{package}.{name}"
        allowed |= rooms if name == "datamodules" else {one}
    for module, targets in ARROWS.items():
        wrong = {t for t in targets if room_of(t) not in allowed} if room_of(module) == room else ()
        assert not wrong, f"{module} imports {wrong}"


def test_the_table_has_no_room_that_is_gone():
    assert MAY_IMPORT.keys() == {room_of(module) for module in FILES}


def test_data_modules_know_nothing_of_models():
    for module, targets in ARROWS.items():
        if module.startswith("datamodules"):
            assert not [t for t in targets if t.startswith("hiera_video")], module


def test_no_imports_run_in_a_circle():
    TopologicalSorter(ARROWS).prepare()  # CycleError names the circle
    rooms: dict[str, set[str]] = {}
    for module, targets in ARROWS.items():
        room = room_of(module)
        rooms.setdefault(room, set()).update({room_of(t) for t in targets} - {room})
    TopologicalSorter(rooms).prepare()


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_stays_where_it_belongs(library):
    users = {m for m, names in IMPORTS.items() if library in {n.split(".")[0] for n in names}}
    assert users
    assert not {module for module in users if not is_in(module, ONLY_IN[library])}


def test_the_top_of_the_package_stays_small():
    modules = [path.name for path in (ROOT / "hiera_video").glob("*.py")]
    assert len(modules) <= MOST_AT_THE_TOP, modules


def defined(tree: ast.AST) -> Iterator[str]:
    """Names that code gives to functions, classes, variables and attributes of `self`."""
    for node in ast.walk(tree):
        match node:
            case (
                ast.FunctionDef(name=name)
                | ast.ClassDef(name=name)
                | ast.Name(id=name, ctx=ast.Store())
                | ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store())
            ):
                yield name


def reached_for(tree: ast.AST) -> Iterator[str]:
    """Names that code takes from elsewhere: as attributes, imports, or strings (of a patch)."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(attr=name):
                yield name
            case ast.ImportFrom(module=str(module), names=names) if module_of(module) in FILES:
                yield from (alias.name for alias in names)
            case ast.Constant(value=str(text)):
                yield text.rpartition(".")[2]


PRIVATE_NAMES = {
    name
    for path in FILES.values()
    for name in defined(ast.parse(path.read_text()))
    if PRIVATE.fullmatch(name) and name not in OF_NAMED_TUPLES
}


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("from datamodules.base import _a", {"_a"}),
        ("from tests.base import _a", set()),
        ("module._a(x)._b = y", {"_a", "_b"}),
        ('patch.setattr(module, "_a", 1)', {"_a"}),
        ('patch.setattr("datamodules.base._a", 1)', {"_a"}),
        ("other._a = _b", {"_a"}),
    ],
)
def test_private_names_are_found(code, names):
    assert {name for name in reached_for(ast.parse(code)) if PRIVATE.fullmatch(name)} == names


@pytest.mark.parametrize("folder", ["benchmarks", "docs", "tests"])
def test_private_names_stay_in_their_package(folder):
    """A test of what a user sees survives a change behind it."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        tree = ast.parse(path.read_text())
        wrong = PRIVATE_NAMES & set(reached_for(tree)) - set(defined(tree))
        assert not wrong, f"{path.relative_to(ROOT)} uses {wrong}"
