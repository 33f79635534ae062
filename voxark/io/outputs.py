"""Outputs of extended file names: a file appears under its name whole or not at all.

A wxfilename is a path, ``-`` (standard output) or ``| command``, whose exit status is checked.
"""

import io
import itertools
import os
import re
import sys

from voxark.io.commands import Command
from voxark.errors import VoxarkError

_TABLE = re.compile("([a-z]+,)*(ark|scp)(,[a-z]+)*:")
_STREAMS = ("/dev/std", "/dev/fd/", "/proc/self/fd/")  # names of what is open already: written in place

_counter = itertools.count()
_unfinished = {}  # path, or "-" for standard output -> the Output that is being written


def is_table_name(name):
    """True for what looks like ``ark:...`` or ``scp,p:...``: Kaldi takes no such name for a file's either."""
    return _TABLE.match(name) is not None


def remove_unfinished():
    """Abort the outputs that nobody will finish, as when a signal came between; return their names."""
    outputs = list(_unfinished.values())
    for output in outputs:
        output.abort()
    return [output.name for output in outputs]


class Output:
    """A binary output: a file that appears whole at :meth:`commit`, standard output, or a command.

    Write bytes with :meth:`write`. In a ``with`` statement it commits on a clean exit and aborts otherwise.
    """

    def __init__(self, wxfilename):
        name = wxfilename.strip()
        self.name, self.position = name, 0
        self._stream = self._final = self._temporary = self._command = None
        if not name:
            raise VoxarkError("an empty file name was given as output")
        if name == "-":
            if sys.stdout is None:
                raise VoxarkError("standard output was given as output, but it is closed")
            self.name = "standard output"
            self._register(name)
            self._stream = sys.stdout.buffer
        elif name.startswith("|"):
            self._command = Command(name[1:], name, is_input=False)
            self._stream = io.BufferedWriter(self._command.stream, 1 << 16)
        elif name.endswith("|"):
            raise VoxarkError(f"{name}: an input pipe was given as output (output pipes begin with '|')")
        elif is_table_name(name):
            raise VoxarkError(f"{name}: a table was given where a file name is expected as output")
        elif re.search(r":[0-9]+$", name):
            raise VoxarkError(f"{name}: an offset was given for an output (do not end its name in a number)")
        else:
            self._open_file(name)
        self.is_file = self._temporary is not None

    def _register(self, final):
        if final in _unfinished:
            raise VoxarkError(f"{self.name}: two outputs of this program would go there")
        self._final = final
        _unfinished[final] = self

    def _unregister(self):
        if _unfinished.get(self._final) is self:
            del _unfinished[self._final]

    def _is_standard(self):
        return self._final == "-"

    def _open_file(self, name):
        try:
            final = os.path.realpath(name)  # through a link, so that the link stays a link
            is_new = not os.path.lexists(final)
            if name.endswith("/") or os.path.isdir(final):
                raise VoxarkError(f"{name}: is a directory")
            if name.startswith(_STREAMS) or not (is_new or os.path.isfile(final)):
                self._stream = open(name, "wb")  # a device or a named pipe: there is nothing to rename
                return
            if not is_new and not os.access(final, os.W_OK):
                raise VoxarkError(f"{name}: cannot be written: it is write-protected")
            folder, base = os.path.split(final)
            if not os.path.isdir(folder):
                raise VoxarkError(f"{name}: cannot be written: there is no directory {folder}")
            self._register(final)
            self._create(folder, base, None if is_new else os.stat(final).st_mode & 0o777)
        except OSError as error:
            self.abort()
            raise VoxarkError(f"{name}: cannot be written: {error.strerror}") from None
        except ValueError as error:  # a null byte, a lone surrogate
            raise VoxarkError(f"{name!r}: not a file name ({error})") from None

    def _create(self, folder, base, mode):
        start = os.fsdecode(os.fsencode(base)[:120])  # names have at most 255 bytes
        self._temporary = os.path.join(folder, f".{start}.tmp{os.getpid()}.{next(_counter)}")
        if os.path.lexists(self._temporary):
            os.unlink(self._temporary)  # left by a process of the same number that was killed
        self._stream = open(self._temporary, "xb", buffering=1 << 18)
        if mode is not None:
            os.fchmod(self._stream.fileno(), mode)

    def write(self, data):
        """Write bytes."""
        try:
            self._stream.write(data)
        except OSError as error:
            raise self._explain(error) from None
        self.position += len(data)

    def write_parts(self, parts):
        """Write a list of bytes."""
        try:
            self._stream.writelines(parts)
        except OSError as error:
            raise self._explain(error) from None
        self.position += sum(map(len, parts))

    def flush(self):
        """Hand on all that was written."""
        try:
            self._stream.flush()
        except OSError as error:
            raise self._explain(error) from None

    def _explain(self, error):
        if not isinstance(error, BrokenPipeError):
            return VoxarkError(f"{self.name}: cannot be written: {error.strerror or error}")
        if self._command is None:
            return error  # the reader of our standard output has gone, as with `| head`
        return VoxarkError(f"{self.name}: the command stopped reading{self._command.reason()}")

    def prepare(self):
        """First half of :meth:`commit`: everything is on its way, and what can fail has not failed."""
        self.flush()
        if self._is_standard():
            return
        try:
            self._stream.close()
        except OSError as error:
            raise self._explain(error) from None
        if self._command is not None:
            self._command.finish(may_stop_early=False)

    def publish(self):
        """Second half of :meth:`commit`: the file gets its name."""
        if self._temporary is not None:
            try:
                os.replace(self._temporary, self._final)
            except OSError as error:
                raise self._explain(error) from None
            self._temporary = None
        self._command = None
        self._unregister()

    def commit(self):
        """Finish: flush and give the file its name, or wait for the command and check its status."""
        self.prepare()
        self.publish()

    def abort(self):
        """Give up: remove what was written, end the command."""
        self._unregister()
        if self._command is not None:
            self._command.kill()
        try:
            if self._stream is not None and not self._is_standard():
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


def check_outputs(*wxfilenames):
    """Raise VoxarkError if a file cannot be written, or two have the same name: before the work they are for.

    Leaves everything as it is. Empty names, commands and devices are not asked; standard output may be named
    once. Of a wspecifier give its :func:`~voxark.io.specifiers.output_files`.
    """
    seen = set()
    for name in map(str.strip, wxfilenames):
        final = name if name == "-" else os.path.realpath(name)
        is_special = os.path.exists(final) and not (os.path.isfile(final) or os.path.isdir(final))
        if not name or name.startswith("|") or is_special:
            continue
        if final in seen:
            shown = "standard output" if name == "-" else name
            raise VoxarkError(f"{shown}: two outputs of this program would go there: name another for one")
        seen.add(final)
        if name != "-":
            Output(name).abort()


class TextOutput(Output):
    """An :class:`Output` for text: :meth:`write` takes str."""

    def write(self, text):
        """Write a text, UTF-8 encoded."""
        super().write(text.encode("utf-8", "surrogateescape"))


def open_text_output(wxfilename):
    """Open a wxfilename for text; the file appears whole on a clean exit of the ``with`` statement."""
    return TextOutput(wxfilename)
