"""Kaldi's tables: rspecifiers and wspecifiers for every kind of value, checked and atomic.

A table maps keys to values of one kind (:data:`KINDS`). It is read in sequence with :func:`open_reader`, by key
with :func:`open_random`, and written with :func:`open_writer`; single objects go through :func:`read_object` and
:func:`write_object`. Framing, checks and errors are here, because a toolkit must never take a broken pipe or
a cut file for the end of its data; values that kaldiio wrote as numpy arrays are read through kaldiio.

Flags when reading: ``s`` (sorted: checked), ``cs`` (called in sorted order: memory stays constant), ``o`` (each
key is asked for once), ``p`` (permissive: bad entries are skipped and counted), ``bg`` (read ahead in a thread);
when writing: ``t`` and ``b`` (text, binary), ``f`` (flush after each value), ``p`` (with ``scp:``, skip unknown keys).
"""

import re
from array import array
from typing import Callable, NamedTuple

from voxark import kaldi_files
from voxark.errors import VoxarkError
from voxark.streams import Output, open_input, open_text_output  # noqa: F401 - part of this interface


class Codec(NamedTuple):
    """How values of one kind are read and written; ``line`` kinds are text without a binary mark."""

    read: Callable
    write: Callable
    line: bool = False


def _read_word_line(source, binary):
    words = _read_words_line(source, binary)
    if len(words) != 1:
        raise source.error(f"one word was expected behind the key, {len(words)} were found")
    return words[0]


def _read_words_line(source, binary):
    return source.read_line().decode("utf-8", "surrogateescape").split()


def _write_words_line(out, words, binary):
    out.write("".join(word + " " for word in words).encode("utf-8", "surrogateescape") + b"\n")


def _number_codec(read, write):
    """A scalar stands alone on its line in text."""
    def read_number(source, binary):
        value = read(source, binary)
        if not binary and source.read_line().strip():
            raise source.error("one number was expected on the line")
        return value

    def write_number(out, value, binary):
        write(out, value, binary)
        if not binary:
            out.write(b"\n")

    return Codec(read_number, write_number)


def _write_wave(out, value, binary):
    from voxark.audio import write_wav

    out.write(write_wav(*value))


def _read_wave(source, binary):
    from voxark.audio import read_audio

    return read_audio(source.read_all(), source.name)


def _read_wave_in_archive(source):
    """In an archive a wave must be RIFF of a stated length: that is how its end is found."""
    from voxark.audio import read_audio

    head = source.peek(8)
    size = int.from_bytes(head[4:8], "little")
    if head[:4] != b"RIFF" or size in (0, 0x7FFFFFFF, 0xFFFFFFFF):
        raise source.error("audio inside an archive must be RIFF wav with its length in the header")
    return read_audio(source.read(8 + size), source.name)


KINDS = {
    "mat": Codec(kaldi_files.read_matrix, kaldi_files.write_matrix),
    "vec": Codec(kaldi_files.read_vector, kaldi_files.write_vector),
    "ivec": Codec(kaldi_files.read_int_vector, kaldi_files.write_int_vector),
    "iivec": Codec(kaldi_files.read_int_lists, kaldi_files.write_int_lists),
    "post": Codec(kaldi_files.read_posterior, kaldi_files.write_posterior),
    "float": _number_codec(kaldi_files.read_float, kaldi_files.write_float),
    "int": _number_codec(kaldi_files.read_int, kaldi_files.write_int),
    "token": Codec(_read_word_line, lambda out, word, binary: out.write((word + "\n").encode()), line=True),
    "tokens": Codec(_read_words_line, _write_words_line, line=True),
    "wav": Codec(_read_wave, _write_wave, line=True),
    "diag-gmm": Codec(kaldi_files.read_diag_gmm, kaldi_files.write_diag_gmm),
    "plda": Codec(kaldi_files.read_plda, kaldi_files.write_plda),
}


# ---------------------------------------------------------------------------------------------- specifiers


class Specifier(NamedTuple):
    """A parsed rspecifier or wspecifier; ``ark`` and ``scp`` are file names or None."""

    ark: str | None
    scp: str | None
    flags: frozenset


_READ_FLAGS = {"b", "t", "s", "ns", "cs", "ncs", "o", "no", "p", "np", "bg"}
_WRITE_FLAGS = {"b", "t", "f", "nf", "p"}


def is_specifier(text):
    """True where Kaldi would take ``text`` for an rspecifier (``ark:``, ``scp,p:``, ...), not for a file name."""
    words = text.partition(":")[0].split(",") if ":" in text else []
    return bool({"ark", "scp"} & set(words)) and set(words) <= {"ark", "scp"} | _READ_FLAGS | _WRITE_FLAGS


def _parse_words(text, known, what):
    head, colon, rest = text.strip().partition(":")
    words = head.split(",")
    places = [word for word in words if word in ("ark", "scp")]
    unknown = [word for word in words if word not in known and word not in ("ark", "scp")]
    if not colon or not places or unknown:
        hint = f"unknown flag {unknown[0]!r}" if places and unknown else "expected ark:... or scp:..."
        raise VoxarkError(f"{text!r} is not a valid {what}: {hint}")
    return places, frozenset(words) - {"ark", "scp"}, rest


def parse_rspecifier(text):
    """Parse an rspecifier."""
    places, flags, rest = _parse_words(text, _READ_FLAGS, "rspecifier")
    if len(places) > 1:
        raise VoxarkError(f"{text!r} is not a valid rspecifier: read either the ark or the scp")
    return Specifier(rest if places == ["ark"] else None, rest if places == ["scp"] else None, flags)


def parse_wspecifier(text):
    """Parse a wspecifier."""
    places, flags, rest = _parse_words(text, _WRITE_FLAGS, "wspecifier")
    if len(places) == 1:
        return Specifier(rest if places == ["ark"] else None, rest if places == ["scp"] else None, flags)
    ark, comma, scp = rest.partition(",")
    if places != ["ark", "scp"] or not comma:
        raise VoxarkError(f"{text!r} is not a valid wspecifier: expected ark,scp:FILE,FILE")
    return Specifier(ark, scp, flags)


# ---------------------------------------------------------------------------------------------- reading objects

_KALDIIO_MARKS = (b"NPY", b"PKL")


def _read_kaldiio(source):
    """Values that kaldiio wrote in its own way: numpy arrays are read through it, pickles never (they run code)."""
    if source.peek(3) == b"PKL":
        raise source.error("a pickled value: it could run code when read, so it is refused")
    from kaldiio.matio import read_kaldi

    try:
        value = read_kaldi(source)
    except (ValueError, EOFError, OSError, KeyError, SyntaxError) as error:
        raise source.error(f"corrupt numpy value ({error})") from None
    if getattr(value, "dtype", None) is None or value.dtype.kind not in "fiu":
        raise source.error("a numeric array was expected")
    return value if value.dtype.str in ("<f4", "<f8") else value.astype("f4")


def _read_value(codec, source):
    """Read the binary mark, where the kind has one, and the value behind it."""
    if codec.line:
        return codec.read(source, False)
    if source.peek(3) in _KALDIIO_MARKS:
        return _read_kaldiio(source)
    binary = source.peek(2) == b"\0B"
    if binary:
        source.read(2)
    elif not source.peek(1):
        raise source.error("the input is empty where a value was expected")
    try:
        return codec.read(source, binary)
    except (ValueError, OverflowError, MemoryError) as error:  # numpy or kaldiio on corrupt numbers
        raise source.error(f"corrupt data ({error})") from None


_RANGE = re.compile(r"\[([0-9:,]*)\]\s*$")


def _apply_range(value, text, name):
    """Cut ``[first:last,first:last]`` (last included; up to three rows beyond the end are forgiven, as by Kaldi)."""
    if getattr(value, "ndim", 0) not in (1, 2):
        raise VoxarkError(f"{name}: a range [{text}] applies to matrices and vectors only")
    cuts = []
    for axis, part in enumerate(text.split(",")):
        if part in ("", ":"):
            cuts.append(slice(None))
            continue
        first, colon, last = part.partition(":")
        if not (first.isdigit() and last.isdigit()) or axis >= value.ndim:
            raise VoxarkError(f"{name}: malformed range [{text}]")
        first, last, length = int(first), int(last), value.shape[axis]
        if first > last or first >= length or last >= length + 3:
            raise VoxarkError(f"{name}: range [{text}] does not fit a dimension of {length}")
        cuts.append(slice(first, last + 1))
    return value[tuple(cuts)].copy()


def read_object(kind, rxfilename):
    """Read one object of a kind from an rxfilename, which may end in a range ``[0:99,:]``."""
    name, cut = rxfilename.strip(), None
    if name.endswith("]") and (found := _RANGE.search(name)):
        name, cut = name[: found.start()], found.group(1)
    with open_input(name) as source:
        value = _read_value(KINDS[kind], source)
    return value if cut is None else _apply_range(value, cut, rxfilename)


def write_object(kind, wxfilename, value, binary=True):
    """Write one object of a kind to a wxfilename, with the binary mark where the kind has one."""
    codec = KINDS[kind]
    with Output(wxfilename) as out:
        if binary and not codec.line:
            out.write(b"\0B")
        codec.write(out, value, binary)


# ---------------------------------------------------------------------------------------------- reading tables


def _read_key(source):
    """Read the next key and the one white-space character behind it; None at the end of the archive."""
    key = source.read_until(b" \t\n", limit=4096)
    if not key:
        return None
    if key[-1:] == b"\n" and not key.strip():
        raise source.error("an empty line stands where a key was expected", source.position - len(key))
    if key[-1:] not in (b" ", b"\t", b"\n"):
        shown = key[:30].decode("utf-8", "replace")
        raise source.error(f"truncated: the archive ends after the key {shown!r}")
    if key[-1:] == b"\n":  # a line of a key alone: leave its end to the value's reader
        raise source.error(f"no value behind the key {key[:30].decode('utf-8', 'replace').strip()!r}")
    text = key[:-1].decode("utf-8", "surrogateescape")
    if not text or "\0" in text:
        raise source.error("a key was expected (is this a Kaldi archive?)", source.position - len(key))
    return text


def _read_script_line(line, number, name):
    words = line.decode("utf-8", "surrogateescape").split(None, 1)
    if len(words) != 2 or not words[1].strip():
        raise VoxarkError(f"{name}:{number}: a line `key file` was expected, found {line[:60]!r}")
    return words[0], words[1].strip()


class _KeyOrder:
    """Refuses a key that occurs twice, and unsorted keys where ``s`` promises order.

    While keys arrive sorted, eight bytes each are kept; the set is made when the first one is out of order.
    """

    def __init__(self, name, must_be_sorted):
        self.name, self.must_be_sorted = name, must_be_sorted
        self.last, self.hashes, self.known = None, array("q"), None

    def check(self, key):
        if self.last is None or key > self.last:
            ordered = True
        else:
            ordered = False
            if self.must_be_sorted and key != self.last:
                raise VoxarkError(f"{self.name}: key {key!r} stands after {self.last!r}, but the flag s says that it is "
                                  "sorted (sort with LC_ALL=C)")
        if not ordered and self.known is None:
            self.known = set(self.hashes)
        code = hash(key)
        if self.known is not None:
            if code in self.known:
                raise VoxarkError(f"{self.name}: key {key!r} occurs twice")
            self.known.add(code)
        self.hashes.append(code)
        self.last = key


class SequentialReader:
    """Iterates ``(key, value)`` over a table; ``skipped`` lists (key, reason) of what ``p`` passed over."""

    def __init__(self, kind, rspecifier):
        self.kind, self.codec = kind, KINDS[kind]
        self.spec = parse_rspecifier(rspecifier)
        self.permissive = "p" in self.spec.flags
        self.skipped = []
        self.source = open_input(self.spec.ark if self.spec.ark is not None else self.spec.scp)
        self.order = _KeyOrder(self.source.name, "s" in self.spec.flags)

    def __iter__(self):
        entries = self._archive() if self.spec.ark is not None else self._script()
        return _read_ahead(entries) if "bg" in self.spec.flags else entries

    def _archive(self):
        while True:
            key = None
            try:
                key = _read_key(self.source)
                if key is None:
                    return
                self.order.check(key)
                if self.kind == "wav":
                    value = _read_wave_in_archive(self.source)
                else:
                    value = _read_value(self.codec, self.source)
            except VoxarkError as error:
                if not self.permissive:
                    raise VoxarkError(f"{error} (key {key!r})" if key else str(error)) from None
                self._skip(key or "(no key)", f"{error}; the rest of the archive cannot be read")
                return
            yield key, value

    def _script(self):
        number = 0
        while line := self.source.read_line():
            number += 1
            key, name = _read_script_line(line, number, self.source.name)
            self.order.check(key)
            try:
                value = read_object(self.kind, name)
            except VoxarkError as error:
                if not self.permissive:
                    raise VoxarkError(f"{key}: {error}") from None
                self._skip(key, str(error))
                continue
            yield key, value

    def _skip(self, key, reason):
        import logging

        logging.getLogger(__name__).warning("%s: skipped: %s", key, reason)
        self.skipped.append((key, reason))

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        self.source.close(failed=kind is not None)


def _read_ahead(entries, depth=4):
    """Run an iterator in a thread, ``depth`` values ahead; its exception is raised here."""
    import queue
    import threading

    pending, stop = queue.Queue(depth), threading.Event()

    def put(item):
        while not stop.is_set():
            try:
                return pending.put(item, timeout=0.1)
            except queue.Full:
                continue

    def work():
        try:
            for entry in entries:
                put((entry, None))
                if stop.is_set():
                    return
            put((None, None))
        except BaseException as error:  # handed to the reading thread, which raises it
            put((None, error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            entry, error = pending.get()
            if error is not None:
                raise error
            if entry is None:
                return
            yield entry
    finally:
        stop.set()
        thread.join()


class RandomReader:
    """Looks values up by key: ``key in reader`` and ``reader[key]``.

    A script is held as key -> file name and read on demand (the last value is kept). An archive is read as far
    as needed: everything read is held, or one value at a time under ``s,cs``.
    """

    def __init__(self, kind, rspecifier):
        self.kind = kind
        self.spec = parse_rspecifier(rspecifier)
        self.skipped = []
        self._values, self._last_asked, self._current = {}, None, None
        if self.spec.scp is not None:
            self._files = _read_script(self.spec.scp, "s" in self.spec.flags)
            self._reader = None
        else:
            self._reader = SequentialReader(kind, rspecifier)
            self._entries = iter(self._reader)
            self._streaming = {"s", "cs"} <= self.spec.flags

    def __contains__(self, key):
        if self._reader is None:
            return key in self._files and self._load(key)
        return self._find_streaming(key) if self._streaming else self._find_held(key)

    def _load(self, key):
        if key in self._values:
            return True
        try:
            self._values = {key: read_object(self.kind, self._files[key])}
        except VoxarkError as error:
            if "p" not in self.spec.flags:
                raise VoxarkError(f"{key}: {error}") from None
            self.skipped.append((key, str(error)))
            del self._files[key]
            return False
        return True

    def _find_held(self, key):
        while key not in self._values:
            entry = next(self._entries, None)
            if entry is None:
                return False
            self._values[entry[0]] = entry[1]
        return True

    def _find_streaming(self, key):
        if self._last_asked is not None and key < self._last_asked:
            raise VoxarkError(f"{self._reader.source.name}: key {key!r} is asked for after {self._last_asked!r}, but the "
                              "flag cs says that keys are asked for in sorted order")
        self._last_asked = key
        while self._current is None or self._current[0] < key:
            self._current = next(self._entries, ("\U0010ffff", None))
        return self._current[0] == key

    def __getitem__(self, key):
        if key not in self:
            raise VoxarkError(f"{self.spec.scp or self.spec.ark}: no value for the key {key!r}")
        if self._reader is not None and self._streaming:
            return self._current[1]
        return self._values.pop(key) if "o" in self.spec.flags else self._values[key]

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        if self._reader is not None:
            self._reader.source.close(failed=kind is not None)


def _read_script(rxfilename, must_be_sorted):
    files = {}
    with open_input(rxfilename) as source:
        order, number = _KeyOrder(source.name, must_be_sorted), 0
        while line := source.read_line():
            number += 1
            key, name = _read_script_line(line, number, source.name)
            order.check(key)
            files[key] = name
    return files


def open_reader(kind, rspecifier):
    """Open a table for sequential reading (see :class:`SequentialReader`)."""
    return SequentialReader(kind, rspecifier)


def open_random(kind, rspecifier):
    """Open a table for reading by key (see :class:`RandomReader`)."""
    return RandomReader(kind, rspecifier)


# ---------------------------------------------------------------------------------------------- writing tables


class TableWriter:
    """Writes ``writer[key] = value``; in a ``with`` statement the files appear whole on a clean exit."""

    def __init__(self, kind, wspecifier, compression_method=0):
        self.kind, self.codec = kind, KINDS[kind]
        self.spec = parse_wspecifier(wspecifier)
        self.binary = "t" not in self.spec.flags
        self.options = {"compression_method": compression_method} if compression_method else {}
        self.ark = self.scp = self.targets = None
        if self.spec.ark is None:
            self.targets = _read_script(self.spec.scp, False)
            return
        self.ark = Output(self.spec.ark)
        if self.spec.scp is not None:
            if not self.ark.is_file:
                self.ark.abort()
                raise VoxarkError(f"{wspecifier}: an scp can only point into an archive that is a file")
            try:
                self.scp = open_text_output(self.spec.scp)
            except VoxarkError:
                self.ark.abort()
                raise

    def __setitem__(self, key, value):
        if not key or key.split() != [key]:
            raise VoxarkError(f"{key!r} cannot be a key: it is empty or holds white space")
        if self.ark is None:
            self._write_target(key, value)
            return
        encoded = key.encode("utf-8", "surrogateescape")
        mark = self.binary and not self.codec.line
        self.ark.write(encoded + b" ")
        offset = self.ark.position
        if mark:
            self.ark.write(b"\0B")
        try:
            self.codec.write(self.ark, value, self.binary, **self.options)
        except VoxarkError as error:
            raise VoxarkError(f"{key}: {error}") from None
        if self.scp is not None:
            self.scp.write(f"{key} {self.spec.ark}:{offset}\n")
        if "f" in self.spec.flags:
            self.ark.flush()

    def _write_target(self, key, value):
        if key not in self.targets:
            if "p" in self.spec.flags:
                return
            raise VoxarkError(f"{self.spec.scp}: no file name for the key {key!r}")
        write_object(self.kind, self.targets[key], value, self.binary)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        outputs = [output for output in (self.ark, self.scp) if output is not None]
        if kind is not None:
            for output in outputs:
                output.abort()
            return
        for i, output in enumerate(outputs):  # the archive first: a script never points at what is not there
            try:
                output.commit()
            except BaseException:
                for rest in outputs[i:]:
                    rest.abort()
                raise


def open_writer(kind, wspecifier, compression_method=0):
    """Open a table for writing (see :class:`TableWriter`); methods 1 to 7 compress matrices as Kaldi does."""
    return TableWriter(kind, wspecifier, compression_method)
