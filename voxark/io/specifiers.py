"""Rspecifiers, wspecifiers, ranges, script lines and the order of keys: Kaldi's grammar of tables."""

import logging
import operator
import re
from array import array
from typing import NamedTuple

from voxark.errors import VoxarkError
from voxark.io.streams import BadValue, open_input, split_offset

logger = logging.getLogger(__name__)


class Specifier(NamedTuple):
    """A parsed rspecifier or wspecifier; ``ark`` and ``scp`` are file names or None."""

    ark: str | None
    scp: str | None
    flags: frozenset


_READ_FLAGS = {"b", "t", "s", "ns", "cs", "ncs", "o", "no", "p", "np", "bg"}
_WRITE_FLAGS = {"b", "t", "f", "nf", "p"}
_CANCELS = {"ns": "s", "ncs": "cs", "no": "o", "np": "p", "nf": "f", "b": "t"}  # the last of two counts


def is_specifier(text):
    """True where Kaldi takes ``text`` for a specifier (``ark:``, ``scp,p:``, ...), not for a file name."""
    words = text.strip().partition(":")[0].split(",") if ":" in text else []
    return bool({"ark", "scp"} & set(words)) and set(words) <= {"ark", "scp"} | _READ_FLAGS | _WRITE_FLAGS


def _parse_words(text, known, what):
    head, colon, rest = text.strip().partition(":")
    places, flags = [], set()
    for word in head.split(",") if colon else ():
        if word in ("ark", "scp"):
            places.append(word)
        elif word not in known:
            hint = f"unknown flag {word!r} (expected ark:... or scp:...)"
            raise VoxarkError(f"{text!r} is not a valid {what}: {hint}")
        elif word in _CANCELS:
            flags.discard(_CANCELS[word])
        else:
            flags.add(word)
    if not places:
        raise VoxarkError(f"{text!r} is not a valid {what}: expected ark:... or scp:...")
    return places, frozenset(flags), rest.strip()


def parse_rspecifier(text):
    """Parse an rspecifier; VoxarkError says what is wrong with it."""
    places, flags, rest = _parse_words(text, _READ_FLAGS, "rspecifier")
    if len(places) > 1:
        raise VoxarkError(f"{text!r} is not a valid rspecifier: read either the ark or the scp")
    return Specifier(rest if places == ["ark"] else None, rest if places == ["scp"] else None, flags)


def parse_wspecifier(text):
    """Parse a wspecifier; VoxarkError says what is wrong with it."""
    places, flags, rest = _parse_words(text, _WRITE_FLAGS, "wspecifier")
    if len(places) == 1:
        return Specifier(rest if places == ["ark"] else None, rest if places == ["scp"] else None, flags)
    ark, comma, scp = rest.partition(",")
    if places != ["ark", "scp"] or not comma:
        raise VoxarkError(f"{text!r} is not a valid wspecifier: expected ark,scp:FILE,FILE")
    ark = ark.strip()
    if ark == "-" or ark.startswith("|"):
        raise VoxarkError(f"{text!r} is not a valid wspecifier: an scp points into an archive that is a file")
    return Specifier(ark, scp.strip(), flags)


def output_files(text):
    """The wxfilenames of a wspecifier; of what is none, itself."""
    if not is_specifier(text):
        return [text]
    specifier = parse_wspecifier(text)
    return [name for name in (specifier.ark, specifier.scp) if name]


# ----------------------------------------------------------------------------------------------------- ranges

_RANGE = re.compile(r"\[([0-9:,]+)\]$")
_TOLERANCE = 3  # rows that a range may reach beyond the end: segments are rounded to hundredths of a second


def split_range(rxfilename):
    """Split ``file[0:99,:]`` into the name and the text of the range, which is None where there is none."""
    name = rxfilename.strip()
    found = _RANGE.search(name) if name.endswith("]") else None
    return (name[: found.start()], found.group(1)) if found else (name, None)


def apply_range(value, text, name):
    """Cut ``first:last`` or ``first:last,first:last`` (last included, ``:`` is everything) out of an array.

    Up to three rows beyond the end are forgiven, as by Kaldi.
    """
    parts = text.split(",")
    if getattr(value, "ndim", 0) not in (1, 2):
        raise VoxarkError(f"{name}: a range applies to matrices and vectors only")
    if len(parts) > value.ndim:
        raise VoxarkError(f"{name}: the range [{text}] has {len(parts)} parts for {value.ndim} dimensions")
    cuts = []
    for axis, part in enumerate(parts):
        if part == ":":
            cuts.append(slice(None))
            continue
        if not re.fullmatch("[0-9]{1,18}:[0-9]{1,18}", part):
            raise VoxarkError(f"{name}: malformed range [{text}], expected [first:last,first:last]")
        first, last = map(int, part.split(":"))
        length = value.shape[axis]
        if first > last or first >= length or last >= length + (0 if axis else _TOLERANCE):
            raise VoxarkError(f"{name}: the range [{text}] does not fit {' x '.join(map(str, value.shape))}")
        cuts.append(slice(first, last + 1))
    return value[tuple(cuts)].copy()


# ------------------------------------------------------------------------------------------- keys and scripts


class KeyOrder:
    """Refuses a key that occurs twice, and unsorted keys where ``s`` promises order.

    While keys arrive sorted, eight bytes each are kept; the set is made when the first one is out of order.
    """

    def __init__(self, name, must_be_sorted=False):
        self.name, self.must_be_sorted = name, must_be_sorted
        self.last, self.hashes, self.known = "", array("q"), None

    def accept_sorted(self, keys):
        """Take notice of keys that go on in sorted order, all at once; False, with nothing done, where not."""
        if self.known is not None or not (keys[0] > self.last and all(map(operator.lt, keys, keys[1:]))):
            return False
        self.last = keys[-1]
        self.hashes.extend(map(hash, keys))
        return True

    def check(self, key):
        """Take notice of a key, or raise BadValue."""
        code = hash(key)
        if key > self.last and self.known is None:
            self.last = key
            self.hashes.append(code)
            return
        if self.must_be_sorted and key < self.last:
            raise BadValue(f"{self.name}: key {key!r} stands after {self.last!r}, but the flag s says that "
                           "the table is sorted (sort it with LC_ALL=C)")
        if self.known is None:
            self.known, self.hashes = set(self.hashes), None
        if code in self.known:
            raise BadValue(f"{self.name}: key {key!r} occurs twice")
        self.known.add(code)
        self.last = key


def read_script(rxfilename, must_be_sorted=False):
    """Yield (key, rest of the line) of a script file; VoxarkError names file and line."""
    with open_input(rxfilename) as source:
        order = KeyOrder(source.name, must_be_sorted)
        for key, name in script_lines(source):
            order.check(key)
            yield key, name


def _check_last_line(source, number, name):
    """A line without a newline may have been cut; a shorter path will not exist, a shorter offset may."""
    if split_offset(split_range(name)[0])[1]:
        raise source.truncated(f"line {number} does not end in a newline (add one if the script is whole)")
    logger.warning("%s:%d: the last line does not end in a newline: was the file cut?", source.name, number)


def script_lines(source):
    """Yield (key, rest of the line) of an open script."""
    number = 0
    while line := source.read_line():
        number += 1
        words = line.split(None, 1)
        if len(words) != 2 or not (name := words[1].strip()) or b"\0" in line:
            raise VoxarkError(f"{source.name}:{number}: a line `key file` was expected, found "
                              f"{line[:60].decode('utf-8', 'replace')!r}")
        name = name.decode("utf-8", "surrogateescape")
        if not line.endswith(b"\n"):
            _check_last_line(source, number, name)
        yield words[0].decode("utf-8", "surrogateescape"), name
    source.finish()
