"""Tables of what is drawn: rows with a header, tab separated, that stand beside each picture."""

import csv

from voxark.errors import VoxarkError
from voxark.io.streams import open_text_output


def read_rows(path, columns=()):
    """Return the rows of a table with a header, tab separated, as a list of dictionaries of strings.

    VoxarkError for a table without rows, or without one of ``columns``.
    """
    with open(path, encoding="utf-8", newline="") as table:
        rows = list(csv.DictReader(table, delimiter="\t"))
    if not rows:
        raise VoxarkError(f"{path}: the table has no rows")
    missing = [name for name in columns if rows[0].get(name) is None]
    if missing:
        raise VoxarkError(f"{path}: the table has no column {missing[0]}; it has {', '.join(rows[0])}")
    return rows


def write_rows(wxfilename, rows):
    """Write dictionaries with the same keys, in their order: floats with nine digits, None as nothing."""
    with open_text_output(wxfilename) as out:
        out.write("\t".join(rows[0]) + "\n")
        for row in rows:
            out.write("\t".join(_text(row[name]) for name in rows[0]) + "\n")


def _text(value):
    if value is None:
        return ""
    return f"{value:.9g}" if isinstance(value, float) else str(value)
