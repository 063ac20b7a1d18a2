"""Cards in sections → one self-contained HTML file: no network, no absolute path, no metadata of a picture.

Every text is escaped by Jinja2. The page may run its own script alone: its content security policy names that script by
hash, so a class name that holds markup stays a name.
"""

import base64
import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Literal

from imgrec_cli.atomic import write_text
from imgrec_cli.errors import BadImageError, InputError
from imgrec_cli.imaging import thumbnail
from imgrec_cli.machine import available_cores
from imgrec_cli.storage import located

SIDE = 160  # pixels of a picture on the sheet; twice that of the screen's, for sharp displays of small pictures
MOST_NUMBERED = 9  # classes that have a number key


@dataclass(frozen=True, slots=True)
class Card:
    """One picture: `path` is what stands in the saved file, `hash` the digest of its bytes.

    `label` is the class it has, empty where it has none; `suggested` what it may be instead; `facts` short texts.
    """

    file: str
    path: str
    label: str = ""
    suggested: str = ""
    hash: str = ""
    facts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Section:
    """Cards under a heading, in groups of those that belong together; `more` is the number of cards left out."""

    title: str
    text: str
    groups: list[list[Card]]
    more: int = 0

    @property
    def rows(self) -> list[list[Card]]:
        """The groups as they are laid out: single cards that follow one another share a row."""
        rows: list[list[Card]] = []
        open_row = False
        for group in self.groups:
            if len(group) == 1 and open_row:
                rows[-1] += group
            else:
                rows.append(list(group))
            open_row = len(group) == 1
        return rows

    def is_together(self, row: list[Card]) -> bool:
        """Whether the cards of a row are one group."""
        return len(row) > 1 and row in self.groups


@dataclass(frozen=True, slots=True)
class Sheet:
    """What a sheet shows and saves.

    `saves` is corrections, of images that have a label, or a manifest, of images that get one. `earlier` are lines of
    the corrections there are, which are saved with the new ones.
    """

    title: str
    intro: str
    saves: Literal["corrections", "manifest"]
    file_name: str
    classes: Sequence[str]
    sections: list[Section]
    titles: dict[str, str] = field(default_factory=dict)
    earlier: list[dict[str, str]] = field(default_factory=list)
    summary: Sequence[str] = ()

    def title_of(self, name: str) -> str:
        """A class as people read it."""
        return self.titles.get(name, name)


def limited(sections: Sequence[Section], most: int) -> list[Section]:
    """The sections with at most `most` cards in all, shared out as evenly as they have some."""
    left = [sum(map(len, section.groups)) for section in sections]
    shares = [0] * len(left)
    while most > 0 and any(left):
        open_ones = [index for index, rest in enumerate(left) if rest]
        each = max(1, most // len(open_ones))
        for index in open_ones:
            taken = min(each, left[index], most)
            shares[index] += taken
            left[index] -= taken
            most -= taken
    cut = []
    for section, share, rest in zip(sections, shares, left, strict=True):
        groups: list[list[Card]] = []
        for group in section.groups:
            if share <= 0:
                break
            groups.append(group[:share])
            share -= len(groups[-1])
        cut.append(Section(section.title, section.text, groups, section.more + rest))
    return cut


def write_sheet(sheet: Sheet, path: Path) -> int:
    """Write the HTML file and return its size in bytes. Raises InputError where that is not possible."""
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    cards = {card.file for section in sheet.sections for group in section.groups for card in group}
    with ThreadPoolExecutor(available_cores()) as pool:
        pictures = dict(zip(cards, pool.map(_picture, cards), strict=True))
    environment = Environment(
        loader=PackageLoader("imgrec_cli.sheets", "templates"),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = _asset("sheet.js")
    policy = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    text = environment.get_template("sheet.html.j2").render(
        sheet=sheet,
        pictures=pictures,
        style=_asset("sheet.css"),
        script=script,
        policy=policy,
        numbered=MOST_NUMBERED,
        shown=sum(len(group) for section in sheet.sections for group in section.groups),
        left_out=sum(section.more for section in sheet.sections),
        unreadable=[file for file, picture in pictures.items() if not picture],
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}", "name another file with -o") from error
    return len(text.encode())


@cache
def _asset(name: str) -> str:
    return files("imgrec_cli.sheets").joinpath("templates", name).read_text(encoding="utf-8")


def _picture(file: str) -> str:
    """A picture as a data URL, empty where it cannot be read."""
    try:
        return "data:image/webp;base64," + base64.b64encode(thumbnail(located(file), SIDE)).decode()
    except BadImageError:
        return ""
