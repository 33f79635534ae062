"""The files of data directories: wav.scp, segments, utt2spk, spk2utt, text, ctm files, trials and their kin.

Every file holds lines of a key and a value, sorted by key in the C locale. Errors name file and line. Nothing
here opens audio or runs a command that stands in a wav.scp. Python compares strings by code point, which is
the order of their UTF-8 bytes and so the order of `LC_ALL=C sort`. Fields are separated by blanks and tabs
only: a no-break space belongs to a word.
"""

import collections
import os
import re

from voxark.errors import VoxarkError

Segment = collections.namedtuple("Segment", "recording start end channel")
Segment.__doc__ = (
    "A part of a recording, in seconds; end is -1 for the end of the recording, channel None if not given."
)
CtmEntry = collections.namedtuple("CtmEntry", "key channel start duration label confidence")
CtmEntry.__doc__ = (
    "One labelled stretch of an utterance or recording, in seconds; confidence is None if not given."
)
Trial = collections.namedtuple("Trial", "enroll test label")
Trial.__doc__ = 'A verification trial; label is "target", "nontarget" or None (unlabelled).'


class Table(dict):
    """The lines of a file, key to value, in the file's order; knows where each key stands."""

    def __init__(self, path):
        super().__init__()
        self.path = path
        self.lines = {}

    def where(self, key):
        """Return ``path:line`` of a key."""
        return f"{self.path}:{self.lines[key]}"


def _raise(message):
    raise VoxarkError(message)


# -------------------------------------------------------------------------------------------- values of lines


def split(text):
    """Split at blanks and tabs only; leading and trailing ones do not count."""
    text = text.strip(" \t")
    return re.split("[ \t]+", text) if text else []


def _fields(value, low, high, form):
    words = split(value)
    if not low <= len(words) <= high:
        raise ValueError(f"expected '{form}', found {len(words) + 1} fields")
    return words


def _seconds(word, what, lowest=0.0):
    try:
        number = float(word)
    except ValueError:
        number = float("nan")
    if not lowest <= number < float("inf"):
        raise ValueError(f"the {what} is '{word}', not a time in seconds")
    return number


def parse_word(value):
    """One word, as in utt2spk."""
    return _fields(value, 1, 1, "<key> <word>")[0]


def parse_words(value):
    """One word or more, as in spk2utt; returns a list."""
    return _fields(value, 1, float("inf"), "<key> <word> [<word> ...]")


def parse_text(value):
    """Anything, nothing included, as in text."""
    return value


def parse_entry(value):
    """A file, an offset in a file or a pipe, as in wav.scp and feats.scp."""
    if not value:
        raise ValueError("there is a key, but no file or pipe behind it")
    if value.startswith("~"):
        raise ValueError(f"'{value}' begins with ~, which only a shell understands; write the whole path")
    return value


def parse_segment(value):
    """``<recording> <start> <end> [<channel>]``; returns a Segment."""
    recording, start, end, *channel = _fields(value, 3, 4, "<utterance> <recording> <start> <end>")
    segment = Segment(
        recording, _seconds(start, "start"), _seconds(end, "end", -1.0), channel[0] if channel else None
    )
    if segment.end != -1 and segment.end <= segment.start:
        raise ValueError(f"the segment ends at {end}, which is not after its start at {start}")
    return segment


def parse_duration(value):
    """A positive number of seconds, as in utt2dur and reco2dur."""
    seconds = _seconds(_fields(value, 1, 1, "<key> <seconds>")[0], "duration")
    if seconds == 0:
        raise ValueError("the duration is 0")
    return seconds


def parse_count(value):
    """A positive whole number, as in utt2num_frames."""
    word = _fields(value, 1, 1, "<key> <number>")[0]
    if not re.fullmatch("[0-9]+", word) or int(word) == 0:
        raise ValueError(f"'{word}' is not a whole number above zero")
    return int(word)


def parse_gender(value):
    """m or f, as in spk2gender."""
    word = _fields(value, 1, 1, "<speaker> m|f")[0]
    if word not in ("m", "f"):
        raise ValueError(f"the gender is '{word}', not m or f")
    return word


def parse_file_and_channel(value):
    """``<file> <channel>``, as in reco2file_and_channel; returns a tuple."""
    return tuple(_fields(value, 2, 2, "<recording> <file> <channel>"))


PARSERS = {
    "wav.scp": parse_entry,
    "segments": parse_segment,
    "utt2spk": parse_word,
    "spk2utt": parse_words,
    "spk2gender": parse_gender,
    "utt2dur": parse_duration,
    "reco2dur": parse_duration,
    "utt2num_frames": parse_count,
    "reco2file_and_channel": parse_file_and_channel,
}


def kind_of(name):
    """What a file of a data directory is keyed by: "utterance", "speaker", "recording", "either" (utterances
    or speakers), or its form if it has several lines a key: "ctm", "trials". None for a file that is not
    known."""
    if name in ("segments", "feats.scp", "vad.scp") or re.fullmatch(r"utt2\w+|text(_\w+)?", name):
        return "utterance"
    if re.fullmatch(r"spk2\w+", name):
        return "speaker"
    if name == "wav.scp" or re.fullmatch(r"reco2\w+", name):
        return "recording"
    if name == "ctm" or name.endswith(".ctm"):
        return "ctm"
    if re.fullmatch(r"trials([_.]\w+)*", name):
        return "trials"
    return "either" if name.endswith(".scp") else None


def parser_of(name):
    """The function that checks and converts the values of a file of this name."""
    return PARSERS.get(name) or (
        parse_entry if name.endswith(".scp") else parse_text if kind_of(name) == "utterance" else parse_words
    )


# ---------------------------------------------------------------------------------------------------- reading


def read_rows(path, report=_raise):
    """Read lines as (line number, key, rest of the line).

    ``report`` is called with each problem (``path:line: text``): text that is not UTF-8, Windows line ends,
    blank lines, a last line without newline, a file that is absent or empty. By default the first one is
    raised.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        report(f"{path}: {(error.strerror or str(error)).lower()}")
        return []
    if not data:
        report(f"{path}: the file is empty")
        return []
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        number = data.count(b"\n", 0, error.start) + 1
        report(f"{path}:{number}: not UTF-8 (byte 0x{data[error.start]:02x})")
        return []
    strange = re.search("[\r\0]", text)
    if strange:
        what = (
            "a NUL byte"
            if strange[0] == "\0"
            else "a carriage return (Windows line end; fix_data_dir.sh mends it)"
        )
        number = text.count("\n", 0, strange.start()) + 1
        report(f"{path}:{number}: the line holds {what}")
    lines = text.split("\n")
    if lines.pop():
        report(f"{path}:{len(lines) + 1}: the last line has no newline; the file may be cut off")
        lines = text.split("\n")
    rows = []
    for number, line in enumerate(lines, 1):
        key, *rest = re.split("[ \t]+", line.strip(" \t\r"), maxsplit=1)
        if key:
            rows.append((number, key, rest[0] if rest else ""))
        else:
            report(f"{path}:{number}: blank line")
    return rows


def read_table(path, parse=None, report=_raise, in_order=False):
    """Read a file of one line a key into a Table; ``parse`` (by default by the file's name) converts the
    values.

    Malformed lines, duplicate keys and, with ``in_order``, the first line out of order are given to
    ``report``.
    """
    parse = parse or parser_of(os.path.basename(path))
    table, last = Table(path), ""
    for number, key, rest in read_rows(path, report):
        if key in table:
            report(f"{path}:{number}: '{key}' is there already, on line {table.lines[key]}")
            continue
        if in_order and key < last:
            report(f"{path}:{number}: '{key}' is not in sorted order after '{last}' (LC_ALL=C sort)")
            in_order = False
        try:
            table[key] = parse(rest)
        except ValueError as error:
            report(f"{path}:{number}: {error}")
            continue
        table.lines[key] = number
        last = key
    return table


def read_ctm(path, report=_raise):
    """Read ``<key> <channel> <start> <duration> <label> [<confidence>]`` lines into a list of CtmEntry."""
    entries = []
    for number, key, rest in read_rows(path, report):
        try:
            channel, start, duration, label, *extra = _fields(
                rest, 4, 5, "<key> <channel> <start> <duration> <label>"
            )
            confidence = float(extra[0]) if extra else None
            entries.append(
                CtmEntry(
                    key, channel, _seconds(start, "start"), _seconds(duration, "duration"), label, confidence
                )
            )
        except ValueError as error:
            report(f"{path}:{number}: {error}")
    return entries


def read_trials(path, report=_raise):
    """Read ``<enroll-id> <test-id> [target|nontarget]`` lines into a list of Trial; a pair may stand there
    once."""
    trials, seen = [], {}
    for number, enroll, rest in read_rows(path, report):
        test, *label = split(rest) or [""]
        if not test or len(label) > 1 or (label and label[0] not in ("target", "nontarget")):
            report(f"{path}:{number}: expected '<enroll-id> <test-id> target|nontarget'")
        elif seen.setdefault((enroll, test), number) != number:
            report(
                f"{path}:{number}: the trial {enroll} {test} is there already, on line {seen[enroll, test]}"
            )
        else:
            trials.append(Trial(enroll, test, label[0] if label else None))
    return trials


def invert_utt2spk(utt2spk):
    """utt2spk to spk2utt: a dict of lists; speakers and utterances in the order in which they come."""
    spk2utt = {}
    for utterance, speaker in utt2spk.items():
        spk2utt.setdefault(speaker, []).append(utterance)
    return spk2utt


def invert_spk2utt(spk2utt):
    """spk2utt to utt2spk: a dict; raises VoxarkError if two speakers claim one utterance."""
    utt2spk = {}
    for speaker, utterances in spk2utt.items():
        for utterance in utterances:
            if utterance in utt2spk:
                raise VoxarkError(
                    f"{getattr(spk2utt, 'path', 'spk2utt')}: utterance '{utterance}' belongs to "
                    f"'{utt2spk[utterance]}' and again to '{speaker}'"
                )
            utt2spk[utterance] = speaker
    return utt2spk


def write_lines(path, lines):
    """Write lines to a file that appears whole or not at all."""
    temporary = f"{path}.tmp{os.getpid()}"
    try:
        with open(temporary, "w", encoding="utf-8", newline="\n") as out:
            out.writelines(line + "\n" for line in lines)
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise
