"""The pages of the site, staged from the repository: their files, and links that fit.

A page links other pages and source files by relative paths, which work on a code host. On the site
a source file is a page that shows it, so every link is rewritten to where its target is staged. A
link to nothing stops the build.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

ELSEWHERE: Final = {
    "docs/README.md": "index.md",
    "cluster/README.md": "cluster.md",
    "README.md": "project/readme.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "CHANGELOG.md": "project/changelog.md",
    "SECURITY.md": "project/security.md",
}
"""Pages that are staged under another name than theirs in ``docs``."""
PICTURES: Final = (".png", ".svg")
LANGUAGES: Final = {
    ".py": "python", ".yaml": "yaml", ".toml": "toml", ".sh": "bash", ".sbatch": "bash",
    ".json": "json",
}  # fmt: skip
MARKER: Final = re.compile(r"^<!-- generated: ([a-z]+)\b.*-->$", re.MULTILINE)
"""Where generated text stands in a page, and which."""
_LINK: Final = re.compile(r"(\]\()([^)\s]+)(\))")
_CODE: Final = re.compile(r"`[^`]+`")
_FENCE: Final = re.compile(r"^ *```")
_ITEM: Final = re.compile(r"^\d+\. ")


class SiteError(Exception):
    """What is wrong with the pages, a line each."""


@dataclass
class Staging:
    """The pages of the repository at ``root``, staged into ``folder``."""

    root: Path
    folder: Path
    generated: Mapping[str, Callable[[], str]]
    problems: list[str] = field(default_factory=list)
    sources: set[str] = field(default_factory=set)

    def stage(self) -> None:
        """Write every page, picture and source file that is linked.

        Raises:
            SiteError: with every link that leads nowhere, and every unknown marker.
        """
        shutil.rmtree(self.folder, ignore_errors=True)
        for page, staged in pages(self.root).items():
            self._write(staged, self._page(page, staged))
        for source in sorted(self.sources):
            self._write(staged_source(source), self._source(source))
        shutil.copy(self.root / "docs/site/site.css", self.folder)
        if self.problems:
            raise SiteError("\n".join(self.problems))

    def _write(self, staged: str, text: str) -> None:
        path = self.folder / staged
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def _page(self, page: str, staged: str) -> str:
        text = (self.root / page).read_text(encoding="utf-8")
        linked = self._with_links(indented(text), page, staged)
        return MARKER.sub(lambda match: self._generated(match[1], page), linked)

    def _generated(self, name: str, page: str) -> str:
        if name not in self.generated:
            self.problems.append(f"{page}: nothing generates '{name}'")
            return ""
        return self.generated[name]()

    def _with_links(self, text: str, page: str, staged: str) -> str:
        """Return ``text`` with the links outside of code leading to staged files."""
        lines, in_code = [], False
        for line in text.split("\n"):
            if _FENCE.match(line):
                in_code = not in_code
            lines.append(line if in_code else self._line(line, page, staged))
        return "\n".join(lines)

    def _line(self, line: str, page: str, staged: str) -> str:
        if line.startswith("|"):
            # A code host reads an escaped bar in code of a table as a bar, the site as both signs.
            line = _CODE.sub(lambda match: match[0].replace(r"\|", "|"), line)
        return _LINK.sub(
            lambda match: f"{match[1]}{self._target(match[2], page, staged)}{match[3]}", line
        )

    def _target(self, target: str, page: str, staged: str) -> str:
        path, hash_mark, anchor = target.partition("#")
        if not path or "://" in path or path.startswith("mailto:"):
            return target
        named = os.path.normpath(f"{PurePosixPath(page).parent}/{path}")
        if named.startswith("..") or not (self.root / named).exists():
            self.problems.append(f"{page}: links {target}, which is not there")
            return target
        there = self._staged(named)
        near = os.path.relpath(there, PurePosixPath(staged).parent)
        return f"{near}{hash_mark}{anchor}"

    def _staged(self, named: str) -> str:
        """Return where a file of the repository is on the site, and see that it comes there."""
        known = pages(self.root)
        if named in known:
            return known[named]
        if named.endswith(PICTURES):
            picture = named.removeprefix("docs/")
            (self.folder / picture).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.root / named, self.folder / picture)
            return picture
        self.sources.add(named)
        return staged_source(named)

    def _source(self, source: str) -> str:
        """Return the page that shows a source file, or lists a folder."""
        path = self.root / source
        head = f"---\nsearch:\n  exclude: true\n---\n\n# {source}\n\n"
        if path.is_dir():
            names = sorted(
                f"{entry.name}/" if entry.is_dir() else entry.name
                for entry in path.iterdir()
                if not entry.name.startswith((".", "__pycache__"))
            )
            return f"{head}A folder of the repository:\n\n" + "".join(f"- `{n}`\n" for n in names)
        language = LANGUAGES.get(path.suffix, "text")
        text = path.read_text(encoding="utf-8").rstrip("\n")
        return f"{head}````{language}\n{text}\n````\n"


def pages(root: Path) -> dict[str, str]:
    """Return ``{file of the repository: page of the site}``."""
    docs = root / "docs"
    found = [*sorted(docs.glob("*.md")), *sorted(docs.glob("examples/*.md"))]
    inside = {f"docs/{name}": name for name in (str(path.relative_to(docs)) for path in found)}
    return {**inside, **ELSEWHERE}


def staged_source(source: str) -> str:
    """Return the page that shows a source file."""
    return f"source/{source}.md"


def indented(text: str) -> str:
    """Return ``text`` with what belongs to numbered items indented by four, as the site reads it.

    A code host reads three spaces as well.
    """
    lines, in_item = [], False
    for line in text.split("\n"):
        if line and not line.startswith(" "):
            in_item = bool(_ITEM.match(line))
        lines.append(f" {line}" if in_item and line.startswith("   ") else line)
    return "\n".join(lines)
