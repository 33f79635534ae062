"""The training, development and test sets of AMI: utterances, recordings, and what was left out of each."""

import logging

from layout import RATE, ROOMS, stream_of
from utterances import meeting_utterances, recording_of, sort_out

from voxark import corpora
from voxark.errors import VoxarkError

logger = logging.getLogger("voxark.ami")


def inspect_recordings(name, talkers, mics, audio, partial):
    """{recording: (path, AudioInfo)} of a meeting; damaged files are errors, or warnings if ``partial``."""
    found = {}
    for mic in mics:
        for talker in talkers.values():
            recording = recording_of(name, mic, talker)
            path = audio.get(f"{name}.{stream_of(mic, talker.channel)}".lower())
            if path is None or recording in found:
                continue
            try:
                found[recording] = path, corpora.inspect_audio(path, RATE)
            except VoxarkError as error:
                if not partial:
                    raise VoxarkError(
                        f"{error}. Fetch it again, or leave it out with --partial=true"
                    ) from None
                logger.warning("%s: left out", error)
    return found


class Prepared:
    """What becomes of one set: utterances, recordings, and the ledger of what was left out."""

    def __init__(self):
        self.utterances, self.recordings, self.dropped, self.num_segments = {}, {}, {}, 0

    def add(self, name, annotations, audio, mics, limits, partial):
        """Add a meeting."""
        talkers = annotations.meetings[name]
        turns = {agent: annotations.turns(name, agent) for agent in talkers}
        recordings = inspect_recordings(name, talkers, mics, audio, partial)
        everything = meeting_utterances(name, talkers, turns, mics)
        durations = {recording: info.seconds for recording, (_, info) in recordings.items()}
        self.num_segments += sum(utterance.recording in durations for utterance in everything)
        kept, dropped = sort_out(everything, durations, limits)
        self.utterances.update(kept)
        self.dropped.update(dropped)
        self.recordings.update(recordings)

    def speakers(self):
        """Names of the speakers."""
        return {utterance.speaker for utterance in self.utterances.values()}

    def drop_speakers(self, speakers, reason):
        """Leave out the utterances of some speakers."""
        lost = [key for key, utterance in self.utterances.items() if utterance.speaker in speakers]
        self.dropped.update(dict.fromkeys(lost, reason))
        for key in lost:
            del self.utterances[key]

    def data_dir(self, annotations):
        """The DataDir."""
        table = self.utterances
        used = {own.recording: self.recordings[own.recording] for own in table.values()}
        several = {recording for recording, (_, info) in used.items() if info.num_channels > 1}
        for recording in sorted(several):
            logger.warning("%s: has several channels; the first is used", used[recording][0])
        return corpora.make_data_dir(
            {recording: str(path) for recording, (path, _) in used.items()},
            {key: own.speaker for key, own in table.items()},
            segments={key: own.segment + " 0" * (own.recording in several) for key, own in table.items()},
            reco2dur={recording: corpora.duration(info.seconds) for recording, (_, info) in used.items()},
            text={key: own.text for key, own in table.items()},
            utt2dur={key: corpora.duration(own.seconds) for key, own in table.items()},
            utt2mic={key: own.mic for key, own in table.items()},
            utt2uniq={key: own.stretch for key, own in table.items()},
            utt2meeting={key: own.meeting for key, own in table.items()},
            utt2room={key: ROOMS[own.meeting[0]] for key, own in table.items()},
            utt2overlap={key: f"{own.overlap:.2f}" for key, own in table.items()},
            spk2gender={name: annotations.gender(name) for name in self.speakers()},
        )  # fmt: skip


def separate_speakers(sets):
    """Leave out of the training and development sets the speakers of the sets behind them."""
    for later, name in (("test", "dev"), ("test", "train"), ("dev", "train")):
        shared = sets[name].speakers() & sets[later].speakers()
        if shared:
            text = "%d speakers of %s are in %s too, and are left out of %s: %s"
            logger.warning(text, len(shared), name, later, name, corpora.some(sorted(shared)))
            sets[name].drop_speakers(shared, f"speaker of {later}")
