"""Extended file names of Kaldi: files, ``-``, pipes and offsets, read strictly and written atomically.

An rxfilename is a path, ``-`` (standard input), ``command |`` or ``path:offset``; a wxfilename is a path,
``-`` or ``| command``. A :class:`Source` never returns less than was asked for; an :class:`Output` appears
under its name whole or not at all. The exit status of every command is checked; ``VOXARK_ALLOW_PIPES=0``
refuses them.
"""

import functools
import os
import re
import stat
import sys

import numpy as np

from voxark.io.commands import Command
from voxark.errors import VoxarkError
from voxark.io.outputs import Output, TextOutput, is_table_name, open_text_output  # noqa: F401 - also ours

_BUFFER = 1 << 16
_CHUNK = 1 << 20  # what a pipe is asked for at once
_TRUSTED = 1 << 26  # what a length found in a pipe may take before its bytes are there: it may be corrupt
_LONGEST_LINE = 1 << 30


class BadValue(VoxarkError):
    """A value is wrong, but the input stands behind it: a reader with the flag ``p`` can go on."""


# ------------------------------------------------------------------------------------------------------ input


@functools.lru_cache(maxsize=32)
def _pattern(delimiters):
    return re.compile(b"[" + re.escape(delimiters) + b"]")


class Source:
    """A binary input that knows its name and position and turns short reads into errors.

    ``name`` is for messages; ``size`` is the number of bytes of a regular file, or None. ``stream`` is the
    raw stream below the buffer: whoever reads there must not have read or peeked here.
    """

    def __init__(self, stream, name, position=0, size=None, command=None):
        self.stream, self.name, self.size = stream, name, size
        self._command = command
        self._buffer, self._at = b"", 0  # the unread bytes are _buffer[_at:]
        self._start = position  # place of _buffer[0] in the input
        self._ended = False

    @property
    def position(self):
        """The byte that is read next."""
        return self._start + self._at

    # ---- errors

    def error(self, text, at=None):
        """Return the exception that says ``text`` of this input, naming it and the byte offset."""
        return VoxarkError(self._message(text, at))

    def bad(self, text, at=None):
        """Like :meth:`error`, for a value whose end has been read: the input stands at the next entry."""
        return BadValue(self._message(text, at))

    def truncated(self, text):
        """Like :meth:`error`, for an input that ended too early; names the failed command behind it."""
        reason = self._command.reason() if self._command is not None and self._ended else ""
        return VoxarkError(self._message("truncated: " + text) + reason)

    def _message(self, text, at=None):
        return f"{self.name}: {text} at byte {self.position if at is None else at}"

    # ---- filling the buffer

    def _take(self, number):
        """One system call's worth of bytes, at most ``number``; empty at the end."""
        try:
            while (data := self.stream.read(number)) is None:
                self._wait()
        except OSError as error:
            raise self.error(f"cannot be read: {error.strerror}") from None
        return data

    def _take_into(self, view):
        try:
            while (number := self.stream.readinto(view)) is None:
                self._wait()
        except OSError as error:
            raise self.error(f"cannot be read: {error.strerror}") from None
        return number

    def _wait(self):
        # somebody who shares our standard input has made it non-blocking
        import select

        select.select([self.stream], [], [])

    def _fill(self, number):
        """Hold ``number`` unread bytes in the buffer, fewer only at the end of the input; return how many."""
        held = len(self._buffer) - self._at
        if held >= number or self._ended:
            return held
        parts = [self._buffer[self._at:]]
        while held < number:
            wanted = max(number - held, _BUFFER)
            part = self._take(min(wanted, _CHUNK) if self.size is None else wanted)
            if not part:
                self._ended = True
                break
            parts.append(part)
            held += len(part)
        self._start += self._at
        self._buffer, self._at = b"".join(parts), 0
        return held

    def _require(self, number):
        """Raise unless ``number`` more bytes can be there, before memory is taken for them."""
        if self.size is None or number <= self.size - self.position:
            return
        self.size = os.fstat(self.stream.fileno()).st_size  # the file may have grown
        if number > self.size - self.position:
            self._ended = True
            raise self.truncated(f"{number} bytes expected, {max(0, self.size - self.position)} left")

    # ---- reading

    def read(self, number):
        """Read exactly ``number`` bytes."""
        at = self._at
        end = at + number
        if end > len(self._buffer):
            self._require(number)
            if (held := self._fill(number)) < number:
                raise self.truncated(f"{number} bytes expected, {held} left")
            at, end = self._at, self._at + number
        self._at = end
        return self._buffer[at:end]

    def read_some(self, number):
        """Read up to ``number`` bytes, fewer only at the end of the input."""
        return self.read(min(number, self._fill(number)))

    def read_array(self, dtype, number):
        """Read ``number`` items of a numpy dtype as a new array."""
        size = number * dtype.itemsize
        if size <= len(self._buffer) - self._at:
            data = self._buffer[self._at: self._at + size]
            self._at += size
            return np.frombuffer(bytearray(data), dtype)
        self._require(size)
        if size <= _BUFFER or (self.size is None and size > _TRUSTED):
            return np.frombuffer(bytearray(self.read(size)), dtype)
        array = np.empty(number, dtype)
        self._read_into(memoryview(array.view(np.uint8)))
        return array

    def _read_into(self, view):
        done = len(self._buffer) - self._at
        view[:done] = self._buffer[self._at:]
        self._start += len(self._buffer)
        self._buffer, self._at = b"", 0
        while done < len(view):
            number = self._take_into(view[done:])
            if not number:
                self._ended = True
                raise self.truncated(f"{len(view)} bytes expected, {done} left")
            done += number
            self._start += number

    def read_all(self):
        """Read to the end of the input."""
        parts = [self.read(self._fill(1))]
        while part := self._take(_CHUNK if self.size is None else max(1, self.size - self.position)):
            parts.append(part)
            self._start += len(part)
        self._ended = True
        return b"".join(parts)

    def peek(self, number):
        """Return up to ``number`` next bytes without consuming them (fewer only at the end of the input)."""
        if self._at + number > len(self._buffer):
            self._fill(number)
        return self._buffer[self._at: self._at + number]

    def advance(self, number):
        """Pass over bytes that have been peeked at."""
        self._at += number

    def read_until(self, delimiters, limit=_LONGEST_LINE):
        """Read up to and including the first of the ``delimiters`` (bytes), else to the end or ``limit``."""
        search, searched = _pattern(delimiters).search, 0
        while (found := search(self._buffer, self._at + searched)) is None:
            searched = len(self._buffer) - self._at
            # a small step keeps up with a slow pipe, a large one keeps the copying of a long text linear
            step = 1 if searched < 1 << 20 else searched // 4
            if searched >= limit or self._fill(searched + step) == searched:
                break
        end = found.end() if found else len(self._buffer)
        data = self._buffer[self._at: min(end, self._at + limit)]
        self._at += len(data)
        return data

    def read_line(self):
        """Read one line with its newline; empty at the end of the input."""
        end = self._buffer.find(b"\n", self._at) + 1
        if not end:
            return self.read_until(b"\n")
        line = self._buffer[self._at:end]
        self._at = end
        return line

    def unread(self, number):
        """Give back the last ``number`` bytes of what the last call has read."""
        self._at -= number

    def seekable(self):
        """False: a Source is read forwards (kaldiio asks); see :meth:`seek`."""
        return False

    def seek(self, position):
        """Go to a byte of a regular file."""
        if self.size is None or position > self.size:
            size = os.fstat(self.stream.fileno()).st_size
            if not os.path.isfile(self.name) or position > size:
                raise VoxarkError(f"{self.name}: offset {position} is beyond its end at byte {size}")
            self.size = size
        self._ended = False
        at = position - self._start
        if 0 <= at <= len(self._buffer):
            self._at = at
            return
        self.stream.seek(position)
        self._start, self._buffer, self._at = position, b"", 0

    # ---- the end

    def finish(self):
        """To be called when the input has been read to its end: raises if the command behind it failed."""
        if self._command is not None:
            command, self._command = self._command, None
            self.stream.close()
            command.finish(may_stop_early=True)

    def close(self, failed=False):
        """Close; with a command, check its exit status (unless something has failed already)."""
        if not failed:
            self.finish()
        self.stream.close()
        if self._command is not None:
            command, self._command = self._command, None
            command.kill()

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        self.close(failed=kind is not None)


class _StandardInput(Source):
    """Standard input: one for the whole process, so that nothing buffered is lost between two uses."""

    in_use = False

    def open(self):
        """Let a user in, if nobody is, and somebody who was there before has left something to read."""
        if self.in_use:
            raise VoxarkError("standard input ('-') was given for two inputs at once: name a file for one")
        if self._ended and self._at == len(self._buffer):
            raise VoxarkError(
                "standard input ('-') was given for two inputs; the first took it all: name a file for one"
            )
        self.in_use = True
        return self

    def close(self, failed=False):
        """Let the next user in; the stream stays open."""
        self.in_use = False


_standard_input = None


def _open_standard_input():
    global _standard_input
    if sys.stdin is None:
        raise VoxarkError("standard input was given as input, but it is closed")
    stream = getattr(sys.stdin.buffer, "raw", sys.stdin.buffer)
    if _standard_input is None or _standard_input.stream is not stream:
        _standard_input = _StandardInput(stream, "standard input")
    return _standard_input.open()


def split_offset(rxfilename):
    """Split ``path:offset`` into (path, offset); offset is 0 where there is none."""
    path, colon, digits = rxfilename.rpartition(":")
    if colon and path and digits.isascii() and digits.isdigit() and len(digits) <= 18:
        return path, int(digits)
    return rxfilename, 0


def where_from(rxfilename):
    """For the message about an entry of a script that cannot be opened: what a relative path counts from."""
    path = split_offset(rxfilename)[0]
    is_path = not (path.startswith("|") or path.endswith("|") or path in ("", "-") or is_table_name(path))
    if not is_path or os.path.isabs(path) or os.path.exists(path):
        return ""
    return f" (relative paths count from the current folder, {os.getcwd()})"


def open_input(rxfilename):
    """Open an rxfilename as a :class:`Source` (use it in a ``with`` statement)."""
    name = rxfilename.strip()
    if not name:
        raise VoxarkError("an empty file name was given as input")
    if name == "-":
        return _open_standard_input()
    if name.endswith("|"):
        command = Command(name[:-1], name, is_input=True)
        return Source(command.stream, name, command=command)
    if name.startswith("|"):
        raise VoxarkError(f"{name}: an output pipe was given as input (input pipes end in '|')")
    path, offset = split_offset(name)
    try:
        stream = open(path, "rb", buffering=0)
    except OSError as error:
        hint = " (a file name is expected here, not a table)" if is_table_name(name) else ""
        raise VoxarkError(f"{path}: {error.strerror}{hint}") from None
    except ValueError as error:  # a null byte, a lone surrogate
        raise VoxarkError(f"{path!r}: not a file name ({error})") from None
    status = os.fstat(stream.fileno())
    size = status.st_size if stat.S_ISREG(status.st_mode) and status.st_size else None
    source = Source(stream, path, 0, size)
    if offset:
        try:
            source.seek(offset)
        except VoxarkError:
            source.close()
            raise
    return source
