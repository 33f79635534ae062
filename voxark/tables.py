"""Kaldi's tables: rspecifiers and wspecifiers for every kind of value, checked and atomic.

A table maps keys to values of one kind (:data:`KINDS`). It is read in sequence with :func:`open_reader`, by
key with :func:`open_random`, and written with :func:`open_writer`; single objects go through
:func:`read_object` and :func:`write_object`. Framing, checks and errors are here, because a toolkit must
never take a broken pipe or a cut file for the end of its data; numpy arrays that kaldiio wrote in its own way
are read through kaldiio.

Flags when reading: ``s`` (sorted: checked), ``cs`` (called in sorted order: memory stays constant), ``o``
(each key is asked for once), ``p`` (permissive: bad entries are skipped and counted), ``bg`` (read ahead in a
thread); when writing: ``t`` and ``b`` (text, binary), ``f`` (flush after each value), ``p`` (with ``scp:``,
skip unknown keys).
"""

import logging
import re

from voxark.errors import VoxarkError
from voxark.io.kinds import KINDS, read_value, value_parts
from voxark.io.specifiers import (  # noqa: F401 - is_specifier is part of this interface
    KeyOrder, apply_range, is_specifier, parse_rspecifier, parse_wspecifier, read_script, script_lines,
    split_range)
from voxark.io.streams import BadValue, Output, open_input, open_text_output, split_offset, where_from
from voxark.io.vector_runs import read_run

logger = logging.getLogger(__name__)


# ---------------------------------------------------------------------------------------------------- objects


def read_object(kind, rxfilename):
    """Read one object of a kind from an rxfilename, which may end in a range ``[0:99,:]``."""
    with _ObjectFiles() as files:
        return files.read(kind, rxfilename)


def read_model(kind, rxfilename, make):
    """Return make(object) of one object of a kind; the error of what ``make`` refuses names the file."""
    value = read_object(kind, rxfilename)
    try:
        return make(value)
    except VoxarkError as error:
        raise VoxarkError(f"{rxfilename}: {error}") from None


class _ObjectFiles:
    """Reads objects, and keeps the last file open: the entries of a script mostly lie in the same archive."""

    def __init__(self, of_script=False):
        self._source = self._path = None
        self._of_script = of_script

    def read(self, kind, rxfilename):
        """Read one object of a kind."""
        name, cut = split_range(rxfilename)
        path, offset = split_offset(name)
        if path != self._path or self._source is None:
            self.close()
            self._source, self._path = self._open(name), path
        else:
            self._source.seek(offset)
        try:
            value = read_value(KINDS[kind], self._source)
        except BaseException:
            self.close(failed=True)
            raise
        if self._source.size is None:
            self.close()  # what is no regular file is read once
        return value if cut is None else apply_range(value, cut, rxfilename)

    def _open(self, name):
        try:
            return open_input(name)
        except VoxarkError as error:
            hint = where_from(name.strip()) if self._of_script else ""
            raise VoxarkError(f"{error}{hint}") from None

    def close(self, failed=False):
        """Close the file that is open, if any."""
        source, self._source = self._source, None
        if source is not None:
            source.close(failed)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        self.close(failed=kind is not None)


def write_object(kind, wxfilename, value, binary=True, compression_method=0):
    """Write one object of a kind to a wxfilename, with the binary mark where the kind has one."""
    options = {"compression_method": compression_method} if compression_method else {}
    with Output(wxfilename) as out:
        try:
            out.write_parts(value_parts(KINDS[kind], value, binary, **options))
        except VoxarkError as error:
            raise VoxarkError(f"{wxfilename}: {error}") from None


# ---------------------------------------------------------------------------------------- reading in sequence

_NO_KEY = re.compile(rb"[\0-\x20\x7f]")


def _read_key(source):
    """Read the next key and the blank behind it; None at the end of the archive."""
    while True:
        data = source.read_until(b" \t\n", limit=4096)
        if not data:
            return None
        key = data[:-1]
        if key or data[-1:] != b"\n":
            break  # else an empty line, which Kaldi's readers skip too
    at = source.position - len(data)
    if _NO_KEY.search(key) or not key or len(data) == 4096:
        raise source.error("a key was expected (is this a Kaldi archive?)", at)
    text = key.decode("utf-8", "surrogateescape")
    if data[-1:] not in (b" ", b"\t", b"\n"):
        raise source.truncated(f"the archive ends behind the key {data[:30].decode('utf-8', 'replace')!r}")
    if data[-1:] == b"\n":
        source.unread(1)  # a key alone on its line: an empty list of words has its end there
    return text


class SequentialReader:
    """Iterates ``(key, value)`` over a table, once; ``skipped`` lists (key, reason) of what ``p`` passed."""

    def __init__(self, kind, rspecifier):
        self.kind, self.codec = kind, KINDS[kind]
        self.spec = parse_rspecifier(rspecifier)
        self.permissive = "p" in self.spec.flags
        self.skipped = []
        self.source = open_input(self.spec.ark if self.spec.ark is not None else self.spec.scp)
        self.order = KeyOrder(self.source.name, "s" in self.spec.flags)
        self._entries = None

    def __iter__(self):
        return self._start(self._archive() if self.spec.ark is not None else self._script())

    def runs(self):
        """Iterate (list of n keys, x (n,D)) over a table of vectors, once, in place of single entries.

        Binary vectors of one type and dimension that follow each other in an archive come many at a time.
        """
        if self.spec.ark is not None:
            return self._start(self._archive_runs())
        return self._start(([key], value[None]) for key, value in self._script())

    def _start(self, entries):
        if self._entries is not None:
            raise RuntimeError(f"{self.source.name}: a reader can be iterated once")
        if "bg" in self.spec.flags:
            from voxark.io.read_ahead import read_ahead

            entries = read_ahead(entries)
        self._entries = entries
        return entries

    def _archive_runs(self):
        singles = self._archive()
        while True:
            run = read_run(self.source)
            if run is None:
                entry = next(singles, None)
                if entry is None:
                    return
                yield [entry[0]], entry[1][None]
                continue
            keys, x = run
            if not self.order.accept_sorted(keys):
                kept = [self._in_order(key) for key in keys]
                keys, x = [key for key, keep in zip(keys, kept, strict=True) if keep], x[kept]
            if keys:
                yield keys, x

    def _in_order(self, key):
        try:
            self.order.check(key)
        except BadValue as error:
            self._skip(key, error, "")
            return False
        return True

    def _archive(self):
        while True:
            key = None
            try:
                key = _read_key(self.source)
                if key is None:
                    self.source.finish()
                    return
                value = read_value(self.codec, self.source)
                self.order.check(key)
            except VoxarkError as error:
                at_next = isinstance(error, BadValue)
                self._skip(key, error, "" if at_next else "; the rest of the archive cannot be read")
                if not at_next:
                    return
            else:
                yield key, value

    def _script(self):
        with _ObjectFiles(of_script=True) as files:
            for key, name in script_lines(self.source):
                try:
                    self.order.check(key)
                    value = files.read(self.kind, name)
                except VoxarkError as error:
                    self._skip(key, error, "")
                else:
                    yield key, value

    def _skip(self, key, error, consequence):
        """With ``p`` take notice of a bad entry, without raise its error, the key named."""
        if not self.permissive:
            raise VoxarkError(f"{key}: {error}" if key else str(error)) from None
        key, reason = key or "(no key)", f"{error}{consequence}"
        logger.warning("%s: skipped: %s", key, reason)
        self.skipped.append((key, reason))

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        if kind is not None:
            self.source.close(failed=True)  # first: a thread that reads ahead may be waiting there
        if self._entries is not None:
            self._entries.close()
        if kind is None:
            self.source.close()


# --------------------------------------------------------------------------------------------- reading by key


class RandomReader:
    """Looks values up by key: ``key in reader`` and ``reader[key]``; ``skipped`` is as in a sequential one.

    A script is held as key -> file name and read on demand (the last value is kept). An archive is read as
    far as needed: everything read is held, or one value at a time under ``s,cs``; under ``o`` a value is
    given once.
    """

    def __init__(self, kind, rspecifier):
        self.kind = kind
        self.spec = parse_rspecifier(rspecifier)
        self._values, self._last_asked, self._last_read = {}, "", ""
        if self.spec.scp is not None:
            self.name, self.skipped, self._reader = self.spec.scp, [], None
            self._names = dict(read_script(self.name, "s" in self.spec.flags))
            self._files = _ObjectFiles(of_script=True)
        else:
            self._reader = SequentialReader(kind, rspecifier)
            self.name, self.skipped = self._reader.source.name, self._reader.skipped
            self._entries, self._given = iter(self._reader), set()

    def __contains__(self, key):
        if self._reader is None:
            # like Kaldi, look only whether the script has it, unless ``p`` promises that it can be read too
            return key in self._names and ("p" not in self.spec.flags or self._load(key))
        return self._find(key)

    def __getitem__(self, key):
        if key not in self or (self._reader is None and not self._load(key)):
            raise VoxarkError(f"{self.name}: no value for the key {key!r}")
        if "o" in self.spec.flags and self._reader is not None:
            self._given.add(key)
            return self._values.pop(key)
        return self._values[key]

    def _load(self, key):
        """Read the file of a key; False, with ``p``, if that fails."""
        if key in self._values:
            return True
        try:
            self._values = {key: self._files.read(self.kind, self._names[key])}
        except VoxarkError as error:
            if "p" not in self.spec.flags:
                raise VoxarkError(f"{key}: {error}") from None
            logger.warning("%s: skipped: %s", key, error)
            self.skipped.append((key, str(error)))
            del self._names[key]
            return False
        return True

    def _find(self, key):
        """Read the archive on until the key is there; where it is sorted, not beyond its place."""
        flags = self.spec.flags
        if "cs" in flags and key < self._last_asked:
            raise VoxarkError(f"{self.name}: key {key!r} is asked for after {self._last_asked!r}, but the "
                              "flag cs says that keys are asked for in sorted order")
        if key in self._given:
            raise VoxarkError(f"{self.name}: key {key!r} is asked for again, but the flag o says it is not")
        self._last_asked = key
        while key not in self._values and not ("s" in flags and self._last_read >= key):
            entry = next(self._entries, None)
            if entry is None:
                return False
            self._last_read = entry[0]
            if {"s", "cs"} <= flags:
                self._values.clear()
            self._values[entry[0]] = entry[1]
        return key in self._values

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        if self._reader is not None:
            self._reader.__exit__(kind, value, traceback)
        else:
            self._files.close(failed=kind is not None)


def open_reader(kind, rspecifier):
    """Open a table for sequential reading (see :class:`SequentialReader`)."""
    return SequentialReader(kind, rspecifier)


def read_table(kind, table):
    """Read a small table as a dict; ``table`` is a rspecifier, or the plain name of a text file."""
    with open_reader(kind, table if is_specifier(table) else f"ark:{table}") as reader:
        return dict(reader)


def open_random(kind, rspecifier):
    """Open a table for reading by key (see :class:`RandomReader`)."""
    return RandomReader(kind, rspecifier)


# --------------------------------------------------------------------------------------------- writing tables


class TableWriter:
    """Writes ``writer[key] = value``; in a ``with`` statement the files appear whole on a clean exit.

    A value that cannot be written raises VoxarkError and leaves the archive as it was.
    """

    def __init__(self, kind, wspecifier, compression_method=0):
        if not 0 <= compression_method <= 7:
            raise VoxarkError(f"compression method {compression_method}: expected 0 (none) to 7")
        self.kind, self.codec = kind, KINDS[kind]
        self.spec = parse_wspecifier(wspecifier)
        self.binary = "t" not in self.spec.flags
        self.flush = "f" in self.spec.flags
        self.options = {"compression_method": compression_method} if compression_method else {}
        self.ark = self.scp = self.names = None
        if self.spec.ark is None:
            self.names = dict(read_script(self.spec.scp))
        else:
            self._open_archive(wspecifier)
            self.order = KeyOrder(self.ark.name)

    def _open_archive(self, wspecifier):
        self.ark = Output(self.spec.ark)
        if self.spec.scp is None:
            return
        try:
            if not self.ark.is_file:
                raise VoxarkError(f"{wspecifier}: an scp can only point into an archive that is a file")
            self.scp = open_text_output(self.spec.scp)
        except BaseException:
            self.ark.abort()
            raise

    def __setitem__(self, key, value):
        encoded = key.encode("utf-8", "surrogateescape")
        if not key or _NO_KEY.search(encoded):
            raise VoxarkError(f"{key!r} cannot be a key: it is empty or holds white space or controls")
        try:
            if self.ark is None:
                self._write_file(key, value)
                return
            parts = value_parts(self.codec, value, self.binary, **self.options)
        except VoxarkError as error:
            raise VoxarkError(f"{key}: {error}") from None
        self.order.check(key)
        offset = self.ark.position + len(encoded) + 1
        self.ark.write_parts([encoded, b" ", *parts])
        if self.scp is not None:
            self.scp.write(f"{key} {self.spec.ark}:{offset}\n")
        if self.flush:
            self.ark.flush()

    def _write_file(self, key, value):
        if key in self.names:
            write_object(self.kind, self.names[key], value, self.binary, **self.options)
        elif "p" not in self.spec.flags:
            raise VoxarkError(f"no file name for this key in {self.spec.scp}")

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        outputs = [output for output in (self.ark, self.scp) if output is not None]
        try:
            if kind is None:
                for output in outputs:
                    output.prepare()
                for output in outputs:  # the archive first: a script never points at what is not there
                    output.publish()
        finally:
            for output in outputs:
                output.abort()  # does nothing to what has been published


def open_writer(kind, wspecifier, compression_method=0):
    """Open a table for writing (see :class:`TableWriter`); methods 1 to 7 compress matrices as Kaldi does."""
    return TableWriter(kind, wspecifier, compression_method)
