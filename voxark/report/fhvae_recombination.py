"""Segments decoded from z1 of one and z2 of another (figure 4 of Hsu and Glass 2018)."""

import re
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np

from voxark.checks import check_finite
from voxark.errors import VoxarkError
from voxark.options import option
from voxark.report.det import shortened
from voxark.report.drawing import MUTED, styled_figure

_BOX = "#e3000f"
_CELL, _HEIGHT = 0.78, 1.25  # of a segment, in inches
_FROM_FIRST = 2000  # utterances among which segments are drawn at random


@dataclass
class RecombinationOptions:
    """Which segments are recombined."""

    x_a: str = option("", "recombination: segments that give z1: <utterance>:<first frame>, with commas")
    x_b: str = option("", "recombination: segments that give z2, likewise")
    num_a: int = option(8, "recombination: segments that give z1, where --x-a does not name them")
    num_b: int = option(3, "recombination: segments that give z2, where --x-b does not name them")
    utt2label: str = option("", "recombination: table of labels to show; drawn z2 have different ones")
    context: int = option(40, "recombination: frames to show on either side of a segment that gives z2")

    def check(self):
        """Raise VoxarkError for a picture without rows or columns."""
        if min(self.num_a, self.num_b) < 1 or self.context < 0:
            raise VoxarkError("--num-a and --num-b are at least 1, --context is at least 0")
        if bool(self.x_a) != bool(self.x_b):
            raise VoxarkError("give both of --x-a and --x-b, or none")


class Piece(NamedTuple):
    """A segment of an utterance: its first frame, the whole utterance's features (T,F), and a label or ""."""

    key: str
    start: int
    feats: np.ndarray
    label: str = ""


def named_places(text, name):
    """(utterance, first frame) of each item of ``<utterance>:<first frame>,...``."""
    places = []
    for item in text.split(","):
        parts = re.fullmatch(r"(.+):(\d+)", item.strip())
        if not parts:
            raise VoxarkError(f"--{name}={text}: expected <utterance>:<first frame>, found {item!r}")
        places.append((parts[1], int(parts[2])))
    return places


def read_pieces(reader, text, name, length, labels):
    """Pieces of the places that the option ``name`` gives. VoxarkError where the segment is not there."""
    pieces = []
    for key, start in named_places(text, name):
        if key not in reader:
            raise VoxarkError(f"no features of {key} in {reader.name}")
        feats = reader[key]
        if start + length > len(feats):
            raise VoxarkError(f"{key}: a segment from frame {start} on ends at {start + length}, but the "
                              f"utterance has {len(feats)} frames")
        pieces.append(Piece(key, start, feats, labels.get(key, "")))
    return pieces


def draw_pieces(feats, numbers, length, labels, rng, among=_FROM_FIRST):
    """Pieces (a, b) of ``numbers`` (num_a, num_b) utterances drawn at random from the first ``among`` of
    feats.

    ``feats`` gives (key, features (T,F)). The utterances of b have different labels where they have any;
    those of a are others. A segment is at least as loud as the median of its utterance, for there to be
    something to see. Raises VoxarkError where there are too few utterances.
    """
    held = [(key, x) for key, x in islice(feats, among) if len(x) >= length]
    order, b, seen = list(rng.permutation(len(held))), [], set()
    for place in list(order):
        label = labels.get(held[place][0])
        if len(b) < numbers[1] and (label is None or label not in seen):
            b.append(_loud_piece(*held[place], length, labels, rng))
            seen.add(label)
            order.remove(place)
    a = [_loud_piece(*held[place], length, labels, rng) for place in order[: numbers[0]]]
    if (len(a), len(b)) != numbers:
        raise VoxarkError(f"there are utterances, with different labels, for {len(a)} segments that give z1 "
                          f"and {len(b)} that give z2; {numbers[0]} and {numbers[1]} are asked for")
    return a, b


def _loud_piece(key, x, length, labels, rng):
    try:
        check_finite(x, "feature")
    except VoxarkError as error:
        raise VoxarkError(f"{key}: {error}") from None
    starts = np.arange(0, len(x) - length + 1, length)
    levels = np.array([x[start : start + length].mean() for start in starts])
    return Piece(key, int(rng.choice(starts[levels >= np.median(levels)])), x, labels.get(key, ""))


def recombine(model, a, b):
    """Means (len(b), len(a), L, F) of segments decoded from z1 of Pieces a and z2 of Pieces b."""
    from voxark.fhvae.inference import decode, encode

    def encoded(pieces):
        for piece in pieces:
            try:
                yield encode(model, piece.feats[piece.start : piece.start + model.segment_length])
            except VoxarkError as error:
                raise VoxarkError(f"{piece.key}: {error}") from None

    z1 = np.concatenate([one.z1_mean for one in encoded(a)])
    z2 = np.concatenate([one.z2_mean for one in encoded(b)])
    mean, _ = decode(model, np.tile(z1, (len(b), 1)), np.repeat(z2, len(a), axis=0))
    return mean.reshape(len(b), len(a), *mean.shape[1:])


def draw_recombination(path, a, b, mixed, context=40):
    """Draw Pieces a above, Pieces b with ``context`` frames on either side at the left, and what was decoded.

    ``mixed`` (len(b), len(a), L, F) as of recombine.
    """
    length, dim = mixed.shape[2:]
    around = (length + 2 * context) / length
    left = _CELL * min(around, 5.0)
    shown = np.concatenate([piece.feats[piece.start : piece.start + length] for piece in a + b])
    scale = {"vmin": np.quantile(shown, 0.01), "vmax": np.quantile(shown, 0.995), "cmap": "magma"}
    scale |= {"origin": "lower", "aspect": "auto", "interpolation": "nearest"}
    size = (left + (_CELL + 0.06) * len(a) + 0.7, (_HEIGHT + 0.12) * (len(b) + 1) + 0.9)
    with styled_figure(path, size, layout="constrained") as figure:
        figure.get_layout_engine().set(w_pad=0.02, h_pad=0.03, wspace=0.0, hspace=0.0)
        grid = figure.add_gridspec(len(b) + 1, len(a) + 1, width_ratios=[left] + [_CELL] * len(a))
        for column, piece in enumerate(a):
            axes = figure.add_subplot(grid[0, column + 1])
            _spectrogram(axes, piece.feats[piece.start : piece.start + length], f"a-{column + 1}", scale)
            _name(axes, piece, 12)
        for row, piece in enumerate(b):
            _surroundings(figure.add_subplot(grid[row + 1, 0]), piece, length, context, scale, f"b-{row + 1}")
            for column in range(len(a)):
                axes = figure.add_subplot(grid[row + 1, column + 1])
                _spectrogram(axes, mixed[row, column], f"c-{row + 1}-{column + 1}", scale)
        _explain(figure.add_subplot(grid[0, 0]), dim)


def _spectrogram(axes, x, name, scale, first=0):
    axes.imshow(x.T, extent=(first, first + len(x), 0, x.shape[1]), gid=name, **scale)
    axes.set(xticks=(), yticks=())
    for side in axes.spines.values():
        side.set_visible(False)


def _surroundings(axes, piece, length, context, scale, name):
    from matplotlib.patches import Rectangle

    first, last = piece.start - context, piece.start + length + context
    low, high = max(first, 0), min(last, len(piece.feats))
    _spectrogram(axes, piece.feats[low:high], name, scale, low)
    axes.set(xlim=(first, last))
    box = Rectangle((piece.start, 0), length, piece.feats.shape[1], fill=False, edgecolor=_BOX, linewidth=2.0)
    box.set(clip_on=False, zorder=5, gid=f"{name}-box")
    axes.add_patch(box)
    _name(axes, piece, 30)


def _name(axes, piece, width):
    lines = [shortened(text, width) for text in ((piece.label,) if piece.label else ()) + (piece.key,)]
    text = ", ".join(lines) if width > 20 else "\n".join(lines)
    axes.set_title(text, fontsize=6.5, loc="left", parse_math=False, pad=2.5)


def _explain(axes, dim):
    axes.set_axis_off()
    text = ("$x^A$, at the right, give $z_1$;\n$x^B$, below, in the boxes, give $z_2$;\n"
            "$x^C$, in the middle: decoded from both.\n\n"
            f"Frames from left to right,\n{dim} log mel energies upwards.")  # fmt: skip
    axes.text(0.0, 0.5, text, fontsize=7.5, color=MUTED, va="center", transform=axes.transAxes)
