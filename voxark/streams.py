"""Extended file names of Kaldi: files, ``-``, pipes and offsets, read strictly and written atomically.

An rxfilename is a path, ``-`` (standard input), ``command |`` or ``path:offset``; a wxfilename is a path, ``-``
or ``| command``. A :class:`Source` never returns less than was asked for; an :class:`Output` appears under its
name whole or not at all. The exit status of every command is checked. ``VOXARK_ALLOW_PIPES=0`` refuses them.
"""

import io
import os
import re
import signal
import stat
import subprocess
import sys

from voxark.errors import VoxarkError

_CHUNK = 1 << 26  # read unbounded pipes in pieces of this size, so that a corrupt length cannot take all memory
_SIGPIPE_STATUSES = (-signal.SIGPIPE, 128 + signal.SIGPIPE)


# ---------------------------------------------------------------------------------------------- commands


def _start(command, name, **pipes):
    if os.environ.get("VOXARK_ALLOW_PIPES", "1").lower() in ("0", "false"):
        raise VoxarkError(f"{name}: pipes are forbidden here (--allow-pipes=false or VOXARK_ALLOW_PIPES=0)")
    # pipefail: a failing member of the user's pipeline is an error, not only its last one
    return subprocess.Popen(["bash", "-o", "pipefail", "-c", command], process_group=0, **pipes)


def _check_status(process, name, may_stop_early):
    """Wait for a command. SIGPIPE inside it is no failure: a later member, or we, needed no more of its output."""
    status = process.wait()
    if status == 0 or (status in _SIGPIPE_STATUSES and may_stop_early):
        return
    what = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
    if status == 127:
        what += " (no such program?)"
    raise VoxarkError(f"{name}: the command {what}")


def _kill(process):
    try:
        os.killpg(process.pid, signal.SIGTERM)
    except ProcessLookupError:
        pass
    process.wait()


# ---------------------------------------------------------------------------------------------- input


class Source:
    """A binary input that knows its name and position and turns short reads into errors.

    ``name`` is for messages; ``size`` is the number of bytes of a regular file, or None.
    """

    def __init__(self, stream, name, position=0, size=None, process=None):
        self.stream = stream
        self.name = name
        self.position = position
        self.size = size
        self.process = process

    def error(self, text, at=None):
        """Return the exception that says ``text`` of this input, naming it and the byte offset."""
        return VoxarkError(f"{self.name}: {text} at byte {self.position if at is None else at}")

    def read(self, number):
        """Read exactly ``number`` bytes."""
        if self.size is not None and number > self.size - self.position:
            raise self.error(f"truncated: {number} bytes expected, {max(0, self.size - self.position)} left")
        if number <= _CHUNK or self.size is not None:
            data = self.stream.read(number)
        else:
            parts, wanted = [], number
            while wanted > 0 and (part := self.stream.read(min(wanted, _CHUNK))):
                parts.append(part)
                wanted -= len(part)
            data = b"".join(parts)
        if len(data) < number:
            raise self.error(f"truncated: {number} bytes expected, {len(data)} left")
        self.position += number
        return data

    def seekable(self):
        """False: a Source is read once, forwards (kaldiio asks)."""
        return False

    def read_all(self):
        """Read to the end of the input."""
        data = self.stream.read()
        self.position += len(data)
        return data

    def read_line(self):
        """Read one line with its newline; empty at the end of the input."""
        line = self.stream.readline()
        self.position += len(line)
        return line

    def peek(self, number):
        """Return up to ``number`` next bytes without consuming them (fewer only at the end of the input)."""
        data = self.stream.peek(number)[:number]
        return data if len(data) >= number or not data else self._fill(number)

    def _fill(self, number):
        # BufferedReader.peek may stop at its buffer's end: take the bytes and put them before the rest
        data = self.stream.read(number)
        self.stream = io.BufferedReader(_Chain(data, self.stream), max(number, io.DEFAULT_BUFFER_SIZE))
        return data

    def read_until(self, delimiters, limit=1 << 31):
        """Read up to and including the first of the ``delimiters`` (bytes); to the end if there is none."""
        parts, total = [], 0
        pattern = re.compile(b"[" + re.escape(delimiters) + b"]")
        while total < limit:
            window = self.stream.peek(1)
            if not window:
                break
            found = pattern.search(window)
            part = self.stream.read(found.end() if found else len(window))
            parts.append(part)
            total += len(part)
            if found:
                break
        self.position += total
        return b"".join(parts)

    def close(self, failed=False):
        """Close; with a command, check its exit status (unless something has failed already)."""
        if self.process is None:
            if self.stream is not sys.stdin.buffer:
                self.stream.close()
            return
        self.stream.close()
        if failed:
            _kill(self.process)
        else:
            _check_status(self.process, self.name, may_stop_early=True)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        self.close(failed=kind is not None)


class _Chain(io.RawIOBase):
    """Bytes followed by a stream, as one raw stream."""

    def __init__(self, head, tail):
        self.head, self.tail = head, tail

    def readable(self):
        return True

    def readinto(self, buffer):
        data = self.head[: len(buffer)] if self.head else self.tail.read1(len(buffer))
        self.head = self.head[len(buffer):]
        buffer[: len(data)] = data
        return len(data)

    def close(self):
        self.tail.close()
        super().close()


def split_offset(rxfilename):
    """Split ``path:offset`` into (path, offset); offset is 0 where there is none."""
    path, colon, digits = rxfilename.rpartition(":")
    if colon and path and digits.isascii() and digits.isdigit():
        return path, int(digits)
    return rxfilename, 0


def open_input(rxfilename):
    """Open an rxfilename as a :class:`Source` (use it in a ``with`` statement)."""
    name = rxfilename.strip()
    if not name:
        raise VoxarkError("an empty file name was given as input")
    if name == "-":
        return Source(sys.stdin.buffer, "standard input")
    if name.endswith("|"):
        process = _start(name[:-1], name, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        return Source(process.stdout, name, process=process)
    if name.startswith("|"):
        raise VoxarkError(f"{name}: an output pipe was given as input (input pipes end in '|')")
    path, offset = split_offset(name)
    try:
        stream = open(path, "rb")
    except OSError as error:
        raise VoxarkError(f"{path}: {error.strerror}") from None
    status = os.fstat(stream.fileno())
    if stat.S_ISDIR(status.st_mode):
        raise VoxarkError(f"{path}: is a directory")
    size = status.st_size if stat.S_ISREG(status.st_mode) and status.st_size else None
    if offset:
        if size is None or offset > size:
            raise VoxarkError(f"{path}: offset {offset} is beyond its end at byte {status.st_size}")
        stream.seek(offset)
    return Source(stream, path, offset, size)


# ---------------------------------------------------------------------------------------------- output


class Output:
    """A binary output: a file that appears whole at :meth:`commit`, standard output, or a command.

    Write bytes with :meth:`write`. In a ``with`` statement it commits on a clean exit and aborts otherwise.
    """

    def __init__(self, wxfilename):
        name = wxfilename.strip()
        self.name, self.position = name, 0
        self._final = self._temporary = self._process = None
        if not name:
            raise VoxarkError("an empty file name was given as output")
        if name == "-":
            self.name, self._stream = "standard output", sys.stdout.buffer
        elif name.startswith("|"):
            self._process = _start(name[1:], name, stdin=subprocess.PIPE)
            self._stream = self._process.stdin
        elif name.endswith("|"):
            raise VoxarkError(f"{name}: an input pipe was given as output (output pipes begin with '|')")
        else:
            self._open_file(name)
        self.is_file = self._temporary is not None

    def _open_file(self, name):
        final = os.path.realpath(name)  # through a link, so that the link stays a link
        try:
            if os.path.lexists(final) and not os.path.isfile(final):
                if os.path.isdir(final):
                    raise VoxarkError(f"{name}: is a directory")
                self._stream = open(final, "wb")  # a device or a named pipe: there is nothing to rename
                return
            folder, base = os.path.split(final)
            self._final, self._temporary = final, os.path.join(folder, f".{base}.tmp{os.getpid()}")
            self._stream = open(self._temporary, "wb", buffering=1 << 18)
        except OSError as error:
            raise VoxarkError(f"{name}: cannot be written: {error.strerror}") from None

    def write(self, data):
        """Write bytes."""
        try:
            self._stream.write(data)
        except OSError as error:
            raise self._explain(error) from None
        self.position += len(data)

    def flush(self):
        """Hand on all that was written."""
        try:
            self._stream.flush()
        except OSError as error:
            raise self._explain(error) from None

    def _explain(self, error):
        if isinstance(error, BrokenPipeError):
            if self._process is None:
                return error  # the reader of our standard output has gone, as with `| head`
            return VoxarkError(f"{self.name}: the command stopped reading (status {self._process.wait()})")
        return VoxarkError(f"{self.name}: cannot be written: {error.strerror or error}")

    def commit(self):
        """Finish: flush and give the file its name, or wait for the command and check its status."""
        self.flush()
        if self._process is not None:
            self._stream.close()
            _check_status(self._process, self.name, may_stop_early=False)
        elif self._temporary is not None:
            try:
                self._stream.close()
                os.replace(self._temporary, self._final)
            except OSError as error:
                raise self._explain(error) from None
        elif self._stream is not sys.stdout.buffer:
            self._stream.close()

    def abort(self):
        """Give up: remove what was written, end the command."""
        if self._process is not None:
            _kill(self._process)
        try:
            if self._stream is not sys.stdout.buffer:
                self._stream.close()
        except OSError:
            pass  # the disk is full or the command is gone: the error that brought us here says so
        if self._temporary is not None and os.path.exists(self._temporary):
            os.unlink(self._temporary)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        if kind is not None:
            self.abort()
            return
        try:
            self.commit()
        except BaseException:
            self.abort()
            raise


class TextOutput(Output):
    """An :class:`Output` for text: :meth:`write` takes str."""

    def write(self, text):
        """Write a text, UTF-8 encoded."""
        super().write(text.encode("utf-8", "surrogateescape"))


def open_text_output(wxfilename):
    """Open a wxfilename for text; the file appears whole on a clean exit of the ``with`` statement."""
    return TextOutput(wxfilename)
