"""What the web site has beside the pages of this folder; mkdocs calls these functions.

Pages of the reference are made from the public names of each package, so none can be forgotten.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PACKAGES = (
    "hiera_video",
    "hiera_video.tasks",
    "hiera_video.callbacks",
    "hiera_video.augment",
    "datamodules",
)
# Pages that lie elsewhere in the project, by their place in the site.
ELSEWHERE = {"benchmarks.md": "benchmarks/README.md", "changelog.md": "CHANGELOG.md"}


def on_files(files: Files, config: Any) -> Files:
    """Add the pages of the reference, and those that lie elsewhere."""
    for package in PACKAGES:
        files.append(File.generated(config, f"api/{package}.md", content=reference(package)))
    for page, path in ELSEWHERE.items():
        text = (ROOT / path).read_text().replace("](../docs/", "](").replace("](docs/", "](")
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Let links to pages elsewhere lead to their place in the site."""
    for page, path in ELSEWHERE.items():
        markdown = markdown.replace(f"](../{path}", f"]({page}")
    return markdown


def reference(package: str) -> str:
    """A page with the docstrings of a package's public names."""
    module = import_module(package)
    lines = [f"# {package}", "", str(module.__doc__), ""]
    for name in module.__all__:
        lines += [f"::: {package}.{name}", ""]
    return "\n".join(lines)
