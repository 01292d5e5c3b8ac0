"""The commands in README.md and docs/: where they stand, and what they need.

python -m tests.documents        # lists them
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(
    r"(?:^<!-- needs: (?P<needs>[^\n]+) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
VARIABLE = re.compile(r'^(\w+)="(.*?)"\n', re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:python|make|hiera-video|pip) (?!-m hiera_video`)[^`]+)`")
COMMENT = re.compile(r"\s+# .*")
PROMPT = re.compile(
    r"(?:\$ )?(?:\w+=\S+ )*(?:\.venv/bin/)?"
    r"(?:python3?|hiera-video|make|pip|torchrun|srun|docker|cat|export|git) "
)


@dataclass(frozen=True)
class Command:
    """A command of a page.

    Attributes:
        page: path from the root of the project.
        line: number of its first line.
        text: on one line, without prompt and comment.
        needs: what the page says that it needs; None: nothing.
        inline: within a sentence, not in a block.
    """

    page: str
    line: int
    text: str
    needs: str | None = None
    inline: bool = False

    @property
    def words(self) -> list[str]:
        """Its words; of a synopsis, all options and the first of several values."""
        text = re.sub(r"[\[\]]", "", self.text) if re.search(r"\[-", self.text) else self.text
        words = shlex.split(text)
        if text != self.text:
            words = [word.partition("|")[0] for word in words]
        return [word for word in words if word != "..."]

    @property
    def ours(self) -> list[str] | None:
        """The words that follow the name of our program; None: another program."""
        words = self.words
        for i, word in enumerate(words if words[0] != "docker" else []):
            if Path(word).name == "hiera-video" or words[i - 1 : i + 1] == ["-m", "hiera_video"]:
                return words[i + 1 :]
        return None


def commands(page: Path) -> Iterator[Command]:
    """All commands of a page, in order."""
    text, name = page.read_text(), str(page.relative_to(ROOT))
    for block in BLOCK.finditer(text):
        if block["language"] not in ("", "bash"):
            continue
        first = text.count("\n", 0, block.start("text")) + 1
        lines = block["text"]
        for variable, value in VARIABLE.findall(lines):
            lines = lines.replace(f"${variable}", " ".join(value.split()))
        for number, line in joined(lines):
            if PROMPT.match(line):
                yield Command(name, first + number, line.removeprefix("$ "), block["needs"])
    prose = BLOCK.sub(lambda block: "\n" * block[0].count("\n"), text)
    for inline in INLINE.finditer(prose):
        line = prose.count("\n", 0, inline.start()) + 1
        yield Command(name, line, " ".join(inline[1].split()), inline=True)


def joined(block: str) -> Iterator[tuple[int, str]]:
    """Lines of a block and their numbers; what a backslash or an indent continues is one line."""
    start, lines = 0, block.splitlines()
    text = ""
    for number, line in enumerate([*lines, ""]):
        continues = text.endswith("\\") or (line.startswith("  ") and PROMPT.match(text))
        if text and continues and line:
            text = text.removesuffix("\\").rstrip() + " " + line.strip()
            continue
        if text:
            yield start, COMMENT.sub("", text)
        start, text = number, line


if __name__ == "__main__":
    for path in PAGES:
        for command in commands(path):
            print(f"{command.page}:{command.line}: {command.text}  {command.needs or ''}")
