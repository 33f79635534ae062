"""Checking a whole data directory: what validate_data_dir.sh says."""

import os

from voxark import datadir
from voxark.datadir import Table

# Labels (utt2noise, spk2gender, ...) may be known for some keys only; these are there for all or something is
# broken.
COMPLETE = (
    "wav.scp",
    "segments",
    "text",
    "feats.scp",
    "vad.scp",
    "utt2dur",
    "utt2num_frames",
    "utt2lang",
    "utt2uniq",
    "reco2dur",
    "reco2file_and_channel",
)
MAX_OVERSHOOT = (
    0.5  # seconds that a segment may reach beyond its recording; extract-segments cuts it (as in Kaldi)
)


def check(
    data, need_feats=True, need_text=True, need_wav=True, speakers_in_order=True, only=None, partial=False
):
    """Check a data directory; return the list of problems, each ``path:line: text`` (empty: all is well).

    The arguments before ``only`` are as in Kaldi's validate_data_dir.sh: what is not needed may be absent,
    but is checked where it is there. ``only``: names of the files to look at, besides utt2spk and spk2utt.
    ``partial``: files may lack utterances, as those that a step dropped.
    """
    if not os.path.isdir(data):
        return [f"{data}: no such directory"]
    checker = _Checker(data, only, partial)
    checker.read_all(need_feats, need_text, need_wav)
    if "utt2spk" in checker.tables:
        checker.check_speakers(speakers_in_order)
        checker.check_keys()
        checker.check_segments()
        checker.check_ctms_and_trials()
    return checker.problems


class _Checker:
    """One pass over a data directory; gathers problems."""

    def __init__(self, data, only, partial):
        self.data, self.problems, self.tables = data, [], {}
        self.whole, self.partial = only is None, partial
        self.names = [name for name in sorted(os.listdir(data)) if os.path.isfile(self.path(name))]
        if only is not None:
            self.names = [name for name in self.names if name in only or name in ("utt2spk", "spk2utt")]

    def path(self, name):
        return os.path.join(self.data, name)

    def report(self, message):
        self.problems.append(message)

    def read_all(self, need_feats, need_text, need_wav):
        """Read every known file line by line; report the required ones that are absent."""
        required = ["utt2spk", "spk2utt"] + ["wav.scp"] * (need_wav or "segments" in self.names)
        required += ["feats.scp"] * need_feats + ["text"] * need_text
        for name in required:
            if name not in self.names:
                option = {"wav.scp": "wav", "feats.scp": "feats", "text": "text"}.get(name)
                self.report(
                    f"{self.path(name)}: no such file"
                    + (f" (if by design, say --no-{option})" if option else "")
                )
        for name in self.names:
            if datadir.kind_of(name) in ("utterance", "speaker", "recording", "either"):
                self.tables[name] = datadir.read_table(self.path(name), None, self.report, in_order=True)

    def check_speakers(self, in_order):
        """utt2spk and spk2utt say the same, and utt2spk is in the order of speakers too."""
        utt2spk, last = self.tables["utt2spk"], ""
        for utterance, speaker in utt2spk.items():
            if in_order and speaker < last:
                self.report(
                    f"{utt2spk.where(utterance)}: speaker '{speaker}' comes after '{last}': not in the "
                    "order of speakers (make each speaker's name the prefix of its utterances' names, or say "
                    "--no-spk-sort)"
                )
                break
            last = speaker
        if "spk2utt" not in self.tables:
            return
        spk2utt, seen = self.tables["spk2utt"], Table(self.path("spk2utt"))
        for speaker, utterances in spk2utt.items():
            for utterance in utterances:
                where, there = spk2utt.where(speaker), utt2spk.get(utterance)
                if there is None:
                    self.report(f"{where}: utterance '{utterance}' of speaker '{speaker}' is not in utt2spk")
                elif there != speaker:
                    self.report(
                        f"{where}: speaker '{speaker}' has utterance '{utterance}', "
                        f"which utt2spk gives to '{there}'"
                    )
                elif utterance in seen:
                    self.report(f"{where}: speaker '{speaker}' has utterance '{utterance}' twice")
                seen[utterance] = speaker
        self.check_complete(seen, utt2spk, "utterance")

    def check_complete(self, table, wanted, what):
        """Report the first of the wanted keys that a table lacks."""
        missing = [key for key in wanted if key not in table]
        if missing:
            more = f", and so do {len(missing) - 1} more" if len(missing) > 1 else ""
            self.report(
                f"{wanted.where(missing[0])}: {what} '{missing[0]}' lacks a line in {table.path}{more} "
                f"(fix_data_dir.sh keeps what all files have)"
            )

    def check_known(self, table, known, what):
        """Report the first key of a table that is not known."""
        unknown = [key for key in table if key not in known]
        if unknown:
            more = f", nor are {len(unknown) - 1} more" if len(unknown) > 1 else ""
            self.report(f"{table.where(unknown[0])}: {what} '{unknown[0]}' is not in {known.path}{more}")

    def check_keys(self):
        """Every file has the keys that it should have."""
        utterances = self.tables["utt2spk"]
        speakers = Table(utterances.path)
        for utterance, speaker in utterances.items():
            speakers.lines.setdefault(speaker, utterances.lines[utterance])
            speakers[speaker] = None
        segments = self.tables.get("segments")
        recordings = (
            self.tables.get("wav.scp", Table(self.path("wav.scp"))) if segments is not None else utterances
        )
        for name, table in self.tables.items():
            kind = datadir.kind_of(name)
            if name in ("utt2spk", "spk2utt") or (name == "wav.scp" and segments is not None):
                continue
            if kind == "either":
                kind = "utterance" if next(iter(table), None) in utterances else "speaker"
            known = {"utterance": utterances, "speaker": speakers, "recording": recordings}[kind]
            self.check_known(table, known, kind)
            if (name in COMPLETE or name == "cmvn.scp") and not self.partial:
                self.check_complete(table, known, kind)

    def check_segments(self):
        """Segments lie in recordings that are there, and every recording has a segment."""
        segments, recordings = self.tables.get("segments"), self.tables.get("wav.scp")
        if segments is None or recordings is None:
            return
        durations, used = self.tables.get("reco2dur", {}), set()
        for utterance, segment in segments.items():
            used.add(segment.recording)
            duration = durations.get(segment.recording, float("inf"))
            if segment.recording not in recordings:
                self.report(
                    f"{segments.where(utterance)}: recording '{segment.recording}' "
                    f"is not in {recordings.path}"
                )
            elif segment.end > duration + MAX_OVERSHOOT or segment.start >= duration:
                self.report(
                    f"{segments.where(utterance)}: the segment {segment.start:g} - {segment.end:g} s "
                    f"reaches beyond recording '{segment.recording}', which is {duration:g} s long "
                    f"({durations.path})"
                )
        unused = [recording for recording in recordings if recording not in used]
        if unused and self.whole:  # as Kaldi has it; it does no harm where a step looks at a few files only
            self.report(
                f"{recordings.where(unused[0])}: recording '{unused[0]}' has no segment "
                f"({len(unused)} such in all; fix_data_dir.sh takes them out)"
            )

    def check_ctms_and_trials(self):
        """Labels and trials are well formed and speak of utterances that are there."""
        known = self.tables["utt2spk"].keys() | self.tables.get("wav.scp", {}).keys()
        for name in self.names:
            if datadir.kind_of(name) == "ctm":
                entries = datadir.read_ctm(self.path(name), self.report)
                keys = (
                    {entry.key for entry in entries} if "reco2file_and_channel" not in self.tables else set()
                )
            elif datadir.kind_of(name) == "trials":
                keys = {trial.test for trial in datadir.read_trials(self.path(name), self.report)}
            else:
                continue
            unknown = sorted(keys - known)
            if unknown:
                self.report(
                    f"{self.path(name)}: '{unknown[0]}' is not an utterance of {self.data} "
                    f"({len(unknown)} such)"
                )
