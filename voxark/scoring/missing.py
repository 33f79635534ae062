"""Inputs of trials that are missing: named, counted, and refused unless they are allowed, then listed."""

import logging
import os

from voxark.errors import VoxarkError
from voxark.io.outputs import open_text_output
from voxark.io.specifiers import is_specifier, parse_wspecifier

logger = logging.getLogger(__name__)


class Missing:
    """What is missing so far; ``fail(key, reason)`` (that of cli.Counts) is told of each, once.

    ``allowed``: whether trials with a missing side are left out, in place of an error.
    """

    def __init__(self, fail, allowed):
        self._fail, self.allowed, self.listed = fail, allowed, []

    def add(self, key, reason):
        """Name one."""
        self.listed.append((key, reason))
        self._fail(key, reason)

    @property
    def is_refused(self):
        """Whether something is missing that must not be."""
        return bool(self.listed) and not self.allowed

    def judge(self, what, any_left_out, any_left=True):
        """Raise VoxarkError if something is refused or nothing is left; ``what`` says what is left out."""
        if self.is_refused:
            raise VoxarkError(
                f"missing, as named above: {len(self.listed)}; {what}; --allow-missing scores the rest"
            )
        if not any_left:
            raise VoxarkError(what)
        if any_left_out:
            logger.warning("%s, as named above: left out", what)

    def write_list(self, output):
        """Where it is allowed, list what is missing, if anything, in `<output>.missing`: lines `key reason`.

        ``output``: a wxfilename or wspecifier; beside what is no plain file nothing is written.
        """
        name = parse_wspecifier(output).ark or "-" if is_specifier(output) else output.strip()
        is_plain = name != "-" and not name.startswith("|") and os.path.isfile(name)
        if not (self.allowed and is_plain):
            return
        with open_text_output(name + ".missing") as out:
            out.write("".join(f"{key} {reason}\n" for key, reason in self.listed))
