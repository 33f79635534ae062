"""The data of a training: who trains, who is held out, which trials judge; checked on resume."""

import hashlib
import logging

import numpy as np

from voxark.e2e.batches import TrainingSet
from voxark.e2e.chunks import FeatureReader
from voxark.e2e.speakers import (
    Labelled, all_pairs, draw, hold_utterances_out, label, place_trials, read_dev_trials, read_utt2spk,
    split_speakers)
from voxark.e2e.validation import Refit, Utterances, Validation, drawn_utterances
from voxark.errors import VoxarkError

logger = logging.getLogger(__name__)

REFIT_UTTERANCES = 1000  # that a back-end which no loss trains is estimated on


class TrainingData:
    """Utterances that train, that identification is measured on, and trials of the development set.

    ``inputs``: an Inputs. index, dev_index: its sources; training, heldout: Labelled; trials: DevTrials of
    dev_index. ``fail(key, reason)`` is told of utterances that take no part.
    """

    def __init__(self, inputs, utt2spk_rspecifier, options, fail):
        self.inputs, self.index = inputs, inputs.training
        self.dev_index = inputs.training if inputs.dev is None else inputs.dev
        self.skipped, self._dev_tables, unread = [], None, dict(inputs.skipped)
        utt2rec = read_utt2spk(options.inputs.utt2rec) if options.inputs.utt2rec else None
        self._recordings, self._dev_recordings = (
            inputs.recordings(utt2rec, source) for source in (self.index, self.dev_index))

        def note(key, reason):
            reason = unread.pop(key, reason)
            self.skipped.append((key, reason))
            fail(key, reason)

        everyone = label(self.index, inputs.utt2spk(read_utt2spk(utt2spk_rspecifier)), 1, note)
        for key, reason in list(unread.items()):
            note(key, reason)
        originals = everyone.select(everyone.numbers < inputs.num_originals)
        rest = self._take_dev(originals, options)
        dev = originals.numbers[~np.isin(originals.numbers, rest.numbers)]
        held = np.zeros(len(rest.numbers), bool)
        if options.loss.identifies:
            held = hold_utterances_out(rest, self.index.keys, options.dev, options.run.srand)
        gone = np.append(dev, rest.numbers[held])
        self.training = everyone.select(~np.isin(inputs.originals(everyone.numbers), gone))
        self.heldout = self._labels_of(rest, held) if held.any() else None
        self._check_targets(options)
        self._warn_of_shared_recordings(dev)
        self._warn_of_shared_speakers(options.dev)
        logger.info("%d utterances of %d speakers to train on, %d held out for identification, "
                    "%d development trials of %d utterances", len(self.training.numbers),
                    len(self.training.names), int(held.sum()), len(self.trials.enroll),
                    len(self.trials.numbers))

    def _labels_of(self, rest, held):
        """The held-out utterances, a mask (N,) of the Labelled ``rest``, with the numbers of who trains."""
        places = {name: number for number, name in enumerate(self.training.names)}
        speakers = np.array([places[rest.names[speaker]] for speaker in rest.speaker[held]], np.int64)
        return Labelled(rest.numbers[held], speakers, self.training.names)

    def _check_targets(self, options):
        """VoxarkError where a loss over trials would see nontargets alone."""
        if options.loss.loss == "identification" or options.batches.batches == "two-chunks":
            return
        data = self.training_set()
        speakers = np.unique(np.stack([data.speakers, data.recordings]), axis=1)[0]
        if (np.bincount(speakers) < 2).all():
            raise VoxarkError(f"--loss={options.loss.loss}: no training speaker has two utterances of "
                              "different recordings, so that there is no target trial: --batches=two-chunks "
                              "takes two parts of one, --loss=identification does without")

    def check_lengths(self, extractor, options):
        """VoxarkError for chunks, or utterances that judge, of lengths that an extractor refuses."""
        for size in (options.batches.min_chunk, options.batches.max_chunk):
            try:
                extractor.check_length(size)
            except VoxarkError as error:
                raise VoxarkError(f"--min-chunk and --max-chunk give chunks of {error}") from None
        judges = [(self.dev_index, self.trials.numbers)]
        if self.heldout is not None:
            judges.append((self.index, self.heldout.numbers))
        for index, numbers in judges:
            lengths = np.minimum(index.lengths[numbers], options.dev.dev_max_frames)
            for length, place in zip(*np.unique(lengths, return_index=True)):
                try:
                    extractor.check_length(int(length))
                except VoxarkError as error:
                    raise VoxarkError(f"{index.keys[int(numbers[place])]}: {error}") from None

    def _warn_of_shared_recordings(self, dev):
        """Say how many utterances that train are of recordings of development utterances ``dev`` (N,)."""
        if self._recordings is None or not len(dev):
            return
        shared = np.isin(self._recordings[self.training.numbers], self._recordings[dev])
        if shared.any():
            first = self.index.keys[int(self.training.numbers[np.argmax(shared)])]
            logger.warning("%d utterances that train, such as %s, are of recordings that development "
                           "speakers have, too: error rates look better than they are; --dev-feats takes "
                           "others", int(shared.sum()), first)

    def _warn_of_shared_speakers(self, options):
        """Say how many speakers of --dev-utt2spk train, too."""
        if not options.dev_utt2spk:
            return
        shared = sorted(set(read_utt2spk(options.dev_utt2spk).values()) & set(self.training.names))
        if shared:
            logger.warning("%d speakers of %s, such as %s, train, too: error rates look better than they are",
                           len(shared), options.dev_utt2spk, shared[0])

    def _take_dev(self, originals, options):
        """Set the development trials; returns the Labelled utterances that are left to train on."""
        srand, keys = options.run.srand, self.index.keys
        if self.inputs.dev is not None:
            recordings = self._keyed(self._dev_recordings, np.arange(len(self.dev_index)))
            self.trials = read_dev_trials(options.dev, self.dev_index, srand, recordings)
            return originals
        rest, dev = split_speakers(originals, options.dev.dev_share, srand)
        pairs = zip(dev.numbers.tolist(), dev.speaker.tolist())
        utt2spk = {keys[number]: dev.names[speaker] for number, speaker in pairs}
        trials = all_pairs(utt2spk, options.dev, srand, self._keyed(self._dev_recordings, dev.numbers))
        self._dev_tables = utt2spk, trials
        self.trials = place_trials(trials, self.index)
        return rest

    def _keyed(self, recordings, numbers):
        """{key: recording} of entries ``numbers`` of dev_index, None where each is its own."""
        if recordings is None:
            return None
        return {self.dev_index.keys[number]: int(recordings[number]) for number in numbers.tolist()}

    def write(self, folder):
        """Write who trains and who judges into a RunFolder."""
        folder.write_table("skipped", self.skipped)
        folder.write_table("speakers", ((name, number) for number, name in enumerate(self.training.names)))
        if self._dev_tables is not None:
            folder.write_table("dev_utt2spk", self._dev_tables[0].items())
            folder.write_trials("dev_trials", self._dev_tables[1])

    def facts(self):
        """What must be the same when the run goes on: {name: value}."""
        trials = hashlib.blake2b(digest_size=8)
        for part in self.trials:
            trials.update(np.ascontiguousarray(part).tobytes())
        return {
            "data utterances": len(self.training.numbers),
            "data dimension": self.index.dim,
            "data speakers": len(self.training.names),
            "data development trials": trials.hexdigest(),
        }

    def training_set(self):
        """The TrainingSet of the utterances that train."""
        numbers = self.training.numbers
        recordings = None if self._recordings is None else self._recordings[numbers]
        return TrainingSet(numbers, self.training.speaker, self.index.lengths[numbers], recordings)

    def judge(self, options):
        """The Validation of these data."""
        most, own = options.dev.dev_max_frames, FeatureReader(self.index, options.normalize)
        dev = Utterances(FeatureReader(self.dev_index, options.normalize), self.trials.numbers, most)
        refit = None if options.loss.verifies else self._refit(own, options)
        heldout, speakers = None, None
        if self.heldout is not None:
            heldout, speakers = Utterances(own, self.heldout.numbers, most), self.heldout.speaker
        return Validation(dev, self.trials, heldout, speakers, options.loss.p_target, refit)

    def _refit(self, reader, options):
        """The Refit of a back-end that no loss trains: on some of the utterances that train."""
        numbers = self.training.numbers
        draws = np.array([draw(options.run.srand, "refit", self.index.keys[n]) for n in numbers.tolist()])
        rows = drawn_utterances(self.training, draws, REFIT_UTTERANCES)
        chosen = numbers[rows]
        recordings = chosen if self._recordings is None else self._recordings[chosen]
        return Refit(Utterances(reader, chosen, options.dev.dev_max_frames), self.training.speaker[rows],
                     recordings, options.backend)
