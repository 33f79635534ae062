"""What an FHVAE has learnt: its disentanglement as tables, pictures and sounds, all inside the page."""

import base64
import re

from voxark.report.experiment.folder import read_text
from voxark.report.experiment.parts import Cell, Heading, Picture, Section, Sounds, Table, Text

_KINDS = {".svg": "image/svg+xml", ".png": "image/png", ".wav": "audio/wav", ".flac": "audio/flac"}
_KNOWN = {
    "tsne": (
        "t-SNE of z1 and z2",
        "Segments projected by t-SNE, from z1 and from z2, coloured by their labels.",
    ),
    "recombination": ("Recombination", "Segments decoded from z1 of one utterance and z2 of another."),
    "traversal": ("Traversal", "Segments decoded while one dimension of a latent variable changes."),
    "histogram": (
        "Histogram of the discriminative term's sum",
        "Log of the sum that the discriminative term divides by, for growing numbers of sequences.",
    ),
    "training": ("Training", "The bound, its terms and the discriminative term over the steps."),
}


class Budget:
    """Bytes of pictures and sounds that may still go into the page."""

    def __init__(self, megabytes):
        self.megabytes, self.left = megabytes, int(megabytes * 1e6)

    def embed(self, path):
        """(data URI, "") of a file, or ("", why not)."""
        size = path.stat().st_size
        if size == 0:
            return "", "not in the page: the file is empty"
        if size > self.left:
            return "", (
                f"not in the page: its {size / 1e6:.1f} MB would be more than the {self.megabytes:g} MB that "
                "--max-media allows in all"
            )
        self.left -= size
        data = base64.b64encode(path.read_bytes()).decode("ascii")
        return f"data:{_KINDS[path.suffix.lower()]};base64,{data}", ""


def find_media(folder, endings):
    """Files with such endings in the folders of an experiment, sorted; not of its data directories."""
    found = []
    for inner in sorted(path for path in folder.iterdir() if path.is_dir()):
        if inner.name.startswith((".", "data")):
            continue
        found += sorted(
            path
            for path in inner.iterdir()
            if path.suffix.lower() in endings and path.is_file() and path.name[0] != "."
        )
    return found


def _place(path):
    """Pictures of a known kind come first, t-SNE before all."""
    return next((place for place, known in enumerate(_KNOWN) if known in path.stem.lower()), len(_KNOWN))


def picture_of(path, name, budget):
    """The Picture of a file; ``name``: the file as the page calls it."""
    stem = path.stem.lower()
    title, alt = next(
        ((title, alt) for known, (title, alt) in _KNOWN.items() if known in stem),
        (path.stem.replace("_", " "), ""),
    )
    data, note = budget.embed(path)
    return Picture(title, alt or f"Picture {name}", data, name, note)


def sounds_of(paths, name_of, budget):
    """The Sounds of audio files."""
    entries = []
    for path in paths:
        data, note = budget.embed(path)
        entries.append((_sound_title(path.stem), name_of(path), data, note))
    return Sounds(entries)


def _sound_title(stem):
    """What convert-fhvae has made, by the name `<source>-to-<target>`."""
    source, to, target = stem.partition("-to-")
    if not to:
        return stem
    return (
        f"{source}, reconstructed"
        if source == target
        else f"words of {source}, voice and channel of {target}"
    )


# -------------------------------------------------------------------------------------------- disentanglement


def _spans(line):
    """[(start, end, text)] of the cells of a line: what two blanks or more keep apart."""
    return [(found.start(), found.end(), found[0]) for found in re.finditer(r"\S+(?: \S+)*", line)]


def parse_tables(text):
    """Tables and texts of an aligned report: a list of (columns, rows, lines that are no rows).

    Blocks are kept apart by blank lines; the first line of a block has the titles. Cells belong to the column
    whose title begins or ends where they do. A block of one line has no columns.
    """
    found = []
    for block in re.split(r"\n\s*\n", text.strip("\n")):
        lines = block.splitlines()
        heads, rows, notes = _spans(lines[0]), [], []
        if len(lines) == 1 or len(heads) == 1:
            found.append(([], [], lines))
            continue
        for line in lines[1:]:
            row = _row_of(_spans(line), heads)
            if row is None:
                notes.append(line.strip())
            else:
                rows.append(_filled(row, rows))
        found.append(([text for _, _, text in heads], rows, notes))
    return found


def _row_of(cells, heads):
    """The cells in the columns of ``heads``; None where they do not fit."""
    row = [""] * len(heads)
    for start, end, text in cells:
        at = [place for place, head in enumerate(heads) if head[0] == start or head[1] == end]
        if not at or row[at[0]] or len(cells) < 2:
            return None
        row[at[0]] = text
    return row


def _filled(row, rows):
    """A row whose first cells are blank has those of the row above."""
    lead = next(place for place, cell in enumerate(row) if cell)
    return (rows[-1][:lead] if rows else row[:lead]) + row[lead:]


def disentanglement_parts(text):
    """Tables and texts of what measure-disentanglement prints."""
    parts = []
    for columns, rows, notes in parse_tables(text):
        if not columns:
            parts += [Text(line.strip(), quiet=True) for line in notes]
            continue
        numeric = [all(_is_number(row[place]) for row in rows) for place in range(len(columns))]
        heads = [f"#{name}" if number else name for name, number in zip(columns, numeric)]
        cells = [
            [Cell(cell, _number(cell)) if number else cell for cell, number in zip(row, numeric)]
            for row in rows
        ]
        parts.append(Table(f"Disentanglement, by {columns[0]}", heads, cells, " ".join(notes)))
    return parts


def _number(text):
    try:
        return float(text)
    except ValueError:
        return None


def _is_number(text):
    return text in ("", "-") or _number(text) is not None


# ------------------------------------------------------------------------------------------------ the section


def fhvae_section(experiment, max_megabytes):
    """The Section of the FHVAE: disentanglement, pictures, sounds."""
    section = Section("fhvae", "What the FHVAE has learnt")
    budget = Budget(max_megabytes)
    texts = sorted(experiment.folder.glob("*/disentanglement.txt"))
    for path in texts:
        section.parts += [
            Heading(f"Disentanglement ({experiment.name_of(path)})"),
            *disentanglement_parts(read_text(path) or ""),
        ]
    pictures = sorted(find_media(experiment.folder, (".svg", ".png")), key=_place)
    if any(experiment.folder.glob("*/metrics.jsonl")):  # the curves of which the page draws itself
        pictures = [path for path in pictures if path.stem != "training"]
    if pictures:
        section.parts.append(Heading("Pictures"))
        section.parts += [picture_of(path, experiment.name_of(path), budget) for path in pictures]
    sounds = find_media(experiment.folder, (".wav", ".flac"))
    if sounds:
        section.parts += [Heading("Converted speech"), sounds_of(sounds, experiment.name_of, budget)]
    for there, what in (
        (texts, "No disentanglement: measure-disentanglement, into fhvae_segments/disentanglement.txt."),
        (pictures, "No pictures: plot-fhvae tsne and recombination, into fhvae_figures."),
        (sounds, "No audio: convert-fhvae --wav=fhvae_converted."),
    ):
        if not there:
            section.missing.append(what)
    return section
