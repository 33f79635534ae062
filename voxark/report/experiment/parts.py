"""What a page consists of: sections of tables, figures, pictures, sounds and texts, without any HTML.

Every text is plain text, which the template escapes.
"""

import re
from dataclasses import dataclass, field


@dataclass
class Cell:
    """A cell of a table: what it shows, what it is sorted by, a smaller second line, a bar of 0 to 1."""

    text: str
    value: float | str | None = None
    small: str = ""
    bar: float | None = None


@dataclass
class Table:
    """``columns``: titles, those of numbers with a leading ``#``; ``rows``: lists of Cell or str."""

    kind = "table"
    caption: str
    columns: list
    rows: list
    note: str = ""

    def heads(self):
        """(title, whether its cells are numbers) of each column."""
        return [(title.removeprefix("#"), title.startswith("#")) for title in self.columns]

    def cells(self):
        """The rows with every cell a Cell."""
        return [[cell if isinstance(cell, Cell) else Cell(str(cell)) for cell in row] for row in self.rows]


@dataclass
class Mark:
    """An entry of a legend: ``dash`` is "solid", "dash", "dot" or "box"; ``system``: its number, or None."""

    name: str
    color: str
    dash: str = "solid"
    system: int | None = None


@dataclass
class Figure:
    """A figure by plotly: ``data`` and ``layout`` of its JSON; ``alt``: what it shows, in words.

    ``aspect``: width over height, but the figure is never lower than ``least_rem`` letters; ``table``: the
    same as numbers; ``system``: the number of the one it shows, or None; ``wide``: it may fill the page.
    """

    kind = "figure"
    name: str
    title: str
    alt: str
    data: list
    layout: dict
    aspect: float = 1.5
    legend: list = field(default_factory=list)
    table: Table | None = None
    note: str = ""
    system: int | None = None
    wide: bool = False
    least_rem: float = 12.0


@dataclass
class Grid:
    """Figures side by side, as many as have room, ``columns`` at most."""

    kind = "grid"
    figures: list
    columns: int = 3


@dataclass
class Chooser:
    """Boxes that show and hide systems in all figures of a section."""

    kind = "chooser"
    marks: list


@dataclass
class Picture:
    """A picture from a file; ``data``: a data URI, or "" where it is too large, and ``note`` says so."""

    kind = "picture"
    title: str
    alt: str
    data: str
    file: str
    note: str = ""


@dataclass
class Sounds:
    """Recordings: (title, file, data URI or "", note) of each."""

    kind = "sounds"
    entries: list
    note: str = ""


@dataclass
class Text:
    """A paragraph; ``quiet``: in small print."""

    kind = "text"
    text: str
    quiet: bool = False


@dataclass
class Listing:
    """A text as it stands in a file, folded away under its title."""

    kind = "listing"
    title: str
    text: str


@dataclass
class Heading:
    """A heading within a section."""

    kind = "heading"
    title: str


@dataclass
class Section:
    """A section of the page; ``missing``: sentences on parts that are not there, and on what makes them."""

    name: str
    title: str
    parts: list = field(default_factory=list)
    missing: list = field(default_factory=list)


@dataclass
class Page:
    """The page: its title, facts at its head as (name, text), a sentence that sums up, and the sections."""

    title: str
    facts: list
    summary: str
    sections: list


def identifier(text):
    """A name for an element of the page, made of any text."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "x"


def plural(number, what):
    """A number with its noun: "1 system", "3,200 trials"."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def share(number, total):
    """A share in percent, as text."""
    return f"{100 * number / total:.2g} %" if total else "-"
