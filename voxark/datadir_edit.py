"""Whole data directories in memory: filter, rename, merge, split and repair them, and write them back.

A directory is a dict of Tables (file name to key to the rest of the line, as text), besides its ctm files and
trial lists, which have several lines a key. utt2spk is the truth; spk2utt is always made from it.
"""

import hashlib
import os

from voxark import datadir
from voxark.datadir_check import COMPLETE, MAX_OVERSHOOT
from voxark.errors import VoxarkError

SINGLE = ("utterance", "speaker", "recording", "either")  # kinds of files with one line a key


def file_names(path):
    """The files of a data directory that have a known meaning, sorted."""
    if not os.path.isdir(path):
        raise VoxarkError(f"{path}: no such directory")
    return [
        name
        for name in sorted(os.listdir(path))
        if datadir.kind_of(name) and os.path.isfile(os.path.join(path, name))
    ]


class DataDir:
    """The known files of one data directory."""

    def __init__(self, path="", tables=None, lists=None):
        """``tables``: name to {key: rest}; ``lists``: names of ctm and trial files to [(key, rest), ...]."""
        self.path, self.tables, self.lists = path, tables or {}, lists or {}

    @property
    def utt2spk(self):
        """Utterance to speaker."""
        return self.tables["utt2spk"]

    @property
    def spk2utt(self):
        """Speaker to list of utterances, both sorted."""
        inverse = datadir.invert_utt2spk(dict(sorted(self.utt2spk.items())))
        return dict(sorted(inverse.items()))

    def recording_of(self, utterance):
        """The key of an utterance's line in wav.scp (itself where there are no segments; None if it has no
        segment)."""
        if "segments" not in self.tables:
            return utterance
        segment = self.tables["segments"].get(utterance)
        return segment and datadir.split(segment)[0]

    def kind_of(self, name):
        """As datadir.kind_of, with "either" and "recording" settled by what this directory holds."""
        kind = datadir.kind_of(name)
        if kind == "either":
            return "utterance" if next(iter(self.tables[name]), None) in self.utt2spk else "speaker"
        return "utterance" if kind == "recording" and "segments" not in self.tables else kind

    def filter(self, utterances):
        """A DataDir of these utterances only, with their speakers, recordings, labels and trials."""
        keep = {"utterance": set(utterances)}
        keep["speaker"] = {self.utt2spk[utterance] for utterance in keep["utterance"]}
        keep["recording"] = {self.recording_of(utterance) for utterance in keep["utterance"]}
        tables = {
            name: {key: table[key] for key in keep[self.kind_of(name)] if key in table}
            for name, table in self.tables.items()
        }
        known = self.utt2spk.keys() | set(self.utt2spk.values()) if self.lists else set()
        gone = known - keep["utterance"] - keep["speaker"]
        lists = {}
        for name, rows in self.lists.items():
            if datadir.kind_of(name) == "trials":  # the enrolled side may be a model that no file names
                lists[name] = [
                    (key, rest)
                    for key, rest in rows
                    if key not in gone and datadir.split(rest)[:1] and datadir.split(rest)[0] not in gone
                ]
            else:
                lists[name] = [
                    row for row in rows if row[0] in keep["utterance"] or row[0] in keep["recording"]
                ]
        return DataDir(self.path, tables, lists)

    def rename(self, utterance_name, speaker_name):
        """A DataDir with new names, given by two functions. Recordings that have segments keep theirs."""

        def renamed(key):
            return (
                utterance_name(key) if key in self.utt2spk else speaker_name(key) if key in speakers else key
            )

        speakers = set(self.utt2spk.values())
        new = {"utterance": utterance_name, "speaker": speaker_name, "recording": str}
        tables = {
            name: {new[self.kind_of(name)](key): rest for key, rest in table.items()}
            for name, table in self.tables.items()
        }
        tables["utt2spk"] = {key: speaker_name(speaker) for key, speaker in tables["utt2spk"].items()}
        lists = {}
        for name, rows in self.lists.items():
            if datadir.kind_of(name) == "trials":
                rows = [
                    (key, " ".join([renamed(test), *label]))
                    for key, (test, *label) in ((key, datadir.split(rest)) for key, rest in rows)
                ]
            lists[name] = [(renamed(key), rest) for key, rest in rows]
        return DataDir(self.path, tables, lists)

    def lines(self, keep_empty=False):
        """File name to its lines, sorted; spk2utt among them; files without a line are left out (with
        ``keep_empty`` tables that every directory of the kind has, as feats.scp, are kept)."""
        tables = {
            **self.tables,
            "spk2utt": {speaker: " ".join(utts) for speaker, utts in self.spk2utt.items()},
        }
        rows = {**{name: sorted(table.items()) for name, table in tables.items()}, **self.lists}
        return {
            name: [f"{key} {rest}" if rest else key for key, rest in rows[name]]
            for name in sorted(rows)
            if rows[name] or (keep_empty and name in COMPLETE)
        }

    def write(self, path, keep_empty=False):
        """Write the files, each of them whole or not at all.

        Known files of an older content of ``path`` are removed, with the stamps and ledgers of steps.
        """
        os.makedirs(path, exist_ok=True)
        lines = self.lines(keep_empty)
        for name in os.listdir(path):
            if (datadir.kind_of(name) and name not in lines) or name.startswith((".done.", "dropped.")):
                os.unlink(os.path.join(path, name))
        for name in lines:
            datadir.write_lines(os.path.join(path, name), lines[name])


def _checked(name):
    """A parser that checks a value and keeps its text."""

    def parse(value):
        datadir.parser_of(name)(value)
        return value

    return parse


def load(path):
    """Read a data directory; every line must be well formed (VoxarkError names the first that is not)."""
    names = file_names(path)
    if "utt2spk" not in names:
        raise VoxarkError(f"{path}/utt2spk: no such file")
    result = DataDir(path)
    for name in names:
        file = os.path.join(path, name)
        if os.path.getsize(file) == 0 and name != "utt2spk":
            continue
        if datadir.kind_of(name) in SINGLE:
            result.tables[name] = datadir.read_table(file, _checked(name))
        else:
            result.lists[name] = [(key, rest) for _, key, rest in datadir.read_rows(file)]
    result.tables.pop("spk2utt", None)
    return result


# --------------------------------------------------------------------------------------- merge, select, split


def merge(parts):
    """Merge DataDirs; return (DataDir, names of the files left out because only some have them).

    A key that stands in several parts must have the same line in all of them. Labels (utt2noise, spk2gender,
    ...), ctm files and trials are taken from the parts that have them; the other files must be in every part.
    """
    result, left_out = DataDir(parts[0].path), []
    having = {name: [part for part in parts if name in part.tables] for part in parts for name in part.tables}
    if 0 < len(having.get("segments", [])) < len(parts):
        without = next(part.path for part in parts if "segments" not in part.tables)
        raise VoxarkError(
            f"{without}: no segments here, but in {having['segments'][0].path}: "
            "give all or none of them segments"
        )
    for name, owners in sorted(having.items()):
        if name == "utt2uniq":  # an utterance without an entry is its own original, as in Kaldi
            owners = [
                part if name in part.tables else DataDir(part.path, {name: {u: u for u in part.utt2spk}})
                for part in parts
            ]
        if len(owners) < len(parts) and (name in COMPLETE or name.endswith(".scp")):
            left_out.append(name)
            continue
        table = result.tables[name] = {}
        for part in owners:
            for key, rest in part.tables[name].items():
                if table.setdefault(key, rest) != rest and name == "cmvn.scp":
                    left_out.append(name)  # a speaker of several parts needs new statistics
                elif table[key] != rest:
                    raise VoxarkError(
                        f"{os.path.join(part.path, name)}: '{key}' has another line in one of the other "
                        f"directories: '{table[key]}' (copy_data_dir.sh gives utterances a prefix)"
                    )
    if "cmvn.scp" in left_out:
        result.tables.pop("cmvn.scp", None)
    for name in sorted({name for part in parts for name in part.lists}):
        rows = [row for part in parts for row in part.lists.get(name, [])]
        result.lists[name] = list(dict.fromkeys(rows))
    return result, sorted(set(left_out))


def shuffled(keys, seed):
    """Keys in an order drawn at random from the seed and each key alone, whatever other keys there are."""
    return sorted(keys, key=lambda key: hashlib.sha256(f"{seed} {key}".encode()).digest())


def select(data, how, number, seed=0):
    """Choose utterances: ``how`` is random, first, last, shortest, speakers (whole speakers, drawn at random,
    until there are ``number`` utterances) or per-spk (``number`` of each speaker, drawn at random)."""
    utterances = sorted(data.utt2spk)
    if how == "per-spk":
        return [key for own in data.spk2utt.values() for key in shuffled(own, seed)[:number]]
    if number > len(utterances):
        raise VoxarkError(f"{data.path}: cannot take {number} utterances out of {len(utterances)}")
    if how == "speakers":
        chosen, spk2utt = [], data.spk2utt
        for speaker in shuffled(spk2utt, seed):
            if len(chosen) < number:
                chosen += spk2utt[speaker]
        return chosen
    if how == "shortest":
        seconds = durations(data)
        return sorted(utterances, key=lambda key: (seconds[key], key))[:number]
    if how == "last":
        return utterances[len(utterances) - number :]
    return (utterances if how == "first" else shuffled(utterances, seed))[:number]


def durations(data):
    """Utterance to a length, in frames or seconds, by utt2num_frames, utt2dur or segments, whichever is
    there."""
    for name in ("utt2num_frames", "utt2dur"):
        if name in data.tables and data.tables[name].keys() >= data.utt2spk.keys():
            return {key: float(rest) for key, rest in data.tables[name].items()}
    if "segments" in data.tables:
        parsed = {key: datadir.parse_segment(rest) for key, rest in data.tables["segments"].items()}
        if all(segment.end != -1 for segment in parsed.values()) and parsed.keys() >= data.utt2spk.keys():
            return {key: segment.end - segment.start for key, segment in parsed.items()}
    raise VoxarkError(
        f"{data.path}: neither utt2num_frames nor utt2dur nor segments tells how long the utterances are"
    )


def split(data, number, per_utterance=False):
    """Divide the utterances into ``number`` runs of nearly equal size, none empty; returns lists of
    utterances.

    The utterances of a speaker stay together, unless ``per_utterance``.
    """
    order = dict(sorted(data.utt2spk.items()))
    groups = [[key] for key in order] if per_utterance else list(datadir.invert_utt2spk(order).values())
    if not 1 <= number <= len(groups):
        what = "utterances" if per_utterance else "speakers"
        hint = "" if per_utterance else "; --per-utt divides speakers too"
        raise VoxarkError(f"{data.path}: cannot split {len(groups)} {what} into {number} parts{hint}")
    parts, left = [], len(order)
    for remaining in range(number, 0, -1):
        part = list(groups.pop(0))
        # take the next group if that comes nearer to a fair share, and leave one for each part to come
        while len(groups) >= remaining and (
            remaining == 1 or 2 * (left / remaining - len(part)) > len(groups[0])
        ):
            part += groups.pop(0)
        left -= len(part)
        parts.append(part)
    return parts


# ----------------------------------------------------------------------------------------------------- repair


class Repair:
    """Puts a data directory in order: what fix_data_dir.sh does. ``changes`` says what, ``dropped`` is
    {utterance: why}."""

    def __init__(self, path):
        """Read what is there, mending lines where that is safe; VoxarkError names what cannot be mended."""
        self.path, self.changes, self.dropped = path, [], {}
        self.data = DataDir(path)
        for name in file_names(path):
            rows = self._rows(name)
            if datadir.kind_of(name) not in SINGLE:
                self.data.lists[name] = [(key, rest) for _, key, rest in rows]
            elif rows:
                self.data.tables[name] = self._table(name, rows)
        given = self.data.tables.pop("spk2utt", None)
        if "utt2spk" not in self.data.tables:
            if given is None:
                raise VoxarkError(f"{path}: neither utt2spk nor spk2utt is there")
            spk2utt = {speaker: datadir.split(utterances) for speaker, utterances in given.items()}
            self.data.tables["utt2spk"] = datadir.invert_spk2utt(spk2utt)
            self.changes.append("utt2spk: made from spk2utt")
        self._drop_incomplete()
        self.fixed = self.data.filter([key for key in self.data.utt2spk if key not in self.dropped])

    def _rows(self, name):
        """(line, key, rest) of a file without blank lines, carriage returns and the lack of a last
        newline."""
        mended = []

        def report(message):
            if "not UTF-8" in message or "NUL" in message:
                raise VoxarkError(f"{message}; this cannot be mended here")
            mended.append(message)

        rows = datadir.read_rows(os.path.join(self.path, name), report)
        self.changes += [message.replace("; fix_data_dir.sh mends it", "") for message in mended]
        return rows

    def _table(self, name, rows):
        """A table of the rows: sorted, the same line once, every value well formed (bad segments are
        dropped)."""
        path, table, parse = os.path.join(self.path, name), {}, datadir.parser_of(name)
        for number, key, rest in rows:
            if table.setdefault(key, rest) != rest:
                raise VoxarkError(
                    f"{path}:{number}: '{key}' has another line before, '{table[key]}'; take one of them out"
                )
            try:
                parse(rest)
            except ValueError as error:
                if name != "segments":
                    raise VoxarkError(f"{path}:{number}: {error}; this cannot be mended here") from None
                self.dropped[key] = str(error)
        if len(table) < len(rows):
            self.changes.append(f"{path}: {len(rows) - len(table)} repeated lines taken out")
        if [key for _, key, _ in rows] != sorted(key for _, key, _ in rows):
            self.changes.append(f"{path}: sorted")
        return table

    def _drop_incomplete(self):
        """Note the utterances that one of the files which must be complete does not have."""
        data = self.data
        for name, table in data.tables.items():
            if name not in COMPLETE and name != "cmvn.scp":
                continue
            kind = data.kind_of(name)
            for utterance, speaker in data.utt2spk.items():
                key = {"utterance": utterance, "speaker": speaker}.get(kind) or data.recording_of(utterance)
                if key not in table:
                    self.dropped.setdefault(utterance, f"{kind} {key} is not in {name}")
        seconds = data.tables.get("reco2dur", {})
        for utterance, text in data.tables.get("segments", {}).items():
            if utterance not in self.dropped and datadir.split(text)[0] in seconds:
                segment = datadir.parse_segment(text)
                duration = float(seconds[segment.recording])
                if segment.start >= duration or segment.end > duration + MAX_OVERSHOOT:
                    self.dropped[utterance] = f"its segment reaches beyond recording {segment.recording}"
        self.dropped = {key: why for key, why in sorted(self.dropped.items()) if key in data.utt2spk}

    def write(self):
        """Write what has changed, and keep the files as they were in ``.backup``; return the names of changed
        files."""
        if not self.fixed.utt2spk:
            raise VoxarkError(
                f"{self.path}: no utterance would be left, so nothing is changed; the first goes because "
                f"{next(iter(self.dropped.values()), 'utt2spk is empty')}"
            )
        lines, changed = self.fixed.lines(), []
        for name in sorted({*file_names(self.path), *lines}):
            file, backup = os.path.join(self.path, name), os.path.join(self.path, ".backup")
            new = "".join(line + "\n" for line in lines.get(name, [])).encode()
            try:
                with open(file, "rb") as old:
                    content = old.read()
                if content == new:
                    continue
                os.makedirs(backup, exist_ok=True)
                with open(os.path.join(backup, name), "wb") as out:
                    out.write(content)
            except FileNotFoundError:
                pass
            changed.append(name)
            if name in lines:
                datadir.write_lines(file, lines[name])
            else:
                os.unlink(file)
        return changed
