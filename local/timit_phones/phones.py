"""TIMIT's 61 phones, their usual foldings to 48, 39 and 3 classes, and labels of frames."""

import numpy as np

from voxark.errors import VoxarkError

PHONES = (
    "aa ae ah ao aw ax ax-h axr ay b bcl ch d dcl dh dx eh el em en eng epi er ey f g gcl h# hh hv ih ix iy "
    "jh k kcl l m n ng nx ow oy p pau pcl q r s sh t tcl th uh uw ux v w y z zh").split()

# Lee and Hon, Speaker-independent phone recognition using hidden Markov models (1989); q is not scored
_TO_48 = {"ux": "uw", "axr": "er", "ax-h": "ax", "em": "m", "nx": "n", "eng": "ng", "hv": "hh", "pcl": "cl",
          "tcl": "cl", "kcl": "cl", "bcl": "vcl", "dcl": "vcl", "gcl": "vcl", "h#": "sil", "pau": "sil"}
_TO_39 = {"cl": "sil", "vcl": "sil", "epi": "sil", "el": "l", "en": "n", "zh": "sh", "ao": "aa", "ix": "ih",
          "ax": "ah"}

SILENCES = frozenset(("h#", "pau", "epi"))
CLOSURES = frozenset(("bcl", "dcl", "gcl", "pcl", "tcl", "kcl"))
OBSTRUENTS = frozenset("b d g p t k q jh ch s sh z zh f th v dh hh hv".split())


def fold(phone, number):
    """Return the class of a phone among 61, 48, 39 or 3 (SIL, OBS, SON); None where it is not scored."""
    if number == 61:
        return phone
    if number == 3:
        return "SIL" if phone in SILENCES | CLOSURES else "OBS" if phone in OBSTRUENTS else "SON"
    if phone == "q":
        return None
    phone = _TO_48.get(phone, phone)
    return phone if number == 48 else _TO_39.get(phone, phone)


def class_numbers(number):
    """Return (61,) the class of each phone by number, -1 where it is not scored."""
    folded = [fold(phone, number) for phone in PHONES]
    names = sorted({name for name in folded if name is not None})
    return np.array([-1 if name is None else names.index(name) for name in folded])


def read_phones(path):
    """Return {utterance: [(start, end, number of the phone)]}, in seconds; VoxarkError names the line."""
    numbers = {phone: i for i, phone in enumerate(PHONES)}
    found = {}
    with open(path, encoding="utf-8") as lines:
        for line_number, line in enumerate(lines, 1):
            try:
                key, _, start, duration, phone = line.split()
                phones = found.setdefault(key, [])
                phones.append((float(start), float(start) + float(duration), numbers[phone]))
            except (ValueError, KeyError):
                raise VoxarkError(f"{path}: line {line_number}: expected `utterance channel start duration "
                                  "phone` with one of TIMIT's 61 phones") from None
    return found


def frame_labels(phones, num_frames, shift=0.01, length=0.025):
    """Return the phone (T,) int32 that each frame's centre lies in; the last one where none does."""
    centres = np.arange(num_frames) * shift + length / 2
    ends = np.array([end for _, end, _ in phones])
    place = np.minimum(np.searchsorted(ends, centres, side="right"), len(phones) - 1)
    return np.array([number for _, _, number in phones], np.int32)[place]


def runs(labels):
    """Return [(first frame, frame behind the last, label)] of the runs of equal labels (T,)."""
    edges = np.flatnonzero(np.diff(labels, prepend=-1, append=-1)).tolist()
    return [(start, end, int(labels[start])) for start, end in zip(edges, edges[1:])]
