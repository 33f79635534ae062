"""The data of a training: who trains, who is held out, which trials judge; checked on resume."""

import hashlib
import logging

import numpy as np

from voxark.e2e.batches import TrainingSet
from voxark.e2e.chunks import FeatureReader
from voxark.e2e.speakers import (
    Labelled,
    all_pairs,
    draw,
    hold_utterances_out,
    label,
    place_trials,
    read_dev_trials,
    read_utt2spk,
    split_speakers,
)
from voxark.e2e.validation import Utterances, Validation, drawn_utterances

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
        self.skipped, self._dev_tables = list(inputs.skipped), None
        utt2rec = options.inputs.utt2rec
        self._recordings = inputs.recordings(read_utt2spk(utt2rec) if utt2rec else None)

        def note(key, reason):
            self.skipped.append((key, reason))
            fail(key, reason)

        everyone = label(self.index, inputs.utt2spk(read_utt2spk(utt2spk_rspecifier)), 1, note)
        originals = everyone.select(everyone.numbers < inputs.num_originals)
        rest, gone = self._take_dev(originals, options), []
        if inputs.dev is None:
            gone.append(originals.numbers[~np.isin(originals.numbers, rest.numbers)])
        held = np.zeros(len(rest.numbers), bool)
        if options.loss.identifies:
            held = hold_utterances_out(rest, self.index.keys, options.dev, options.run.srand)
        gone.append(rest.numbers[held])
        self.training = everyone.select(~np.isin(inputs.originals(everyone.numbers), np.concatenate(gone)))
        self.heldout = None
        if held.any():
            places = {name: number for number, name in enumerate(self.training.names)}
            speakers = np.array([places[rest.names[speaker]] for speaker in rest.speaker[held]], np.int64)
            self.heldout = Labelled(rest.numbers[held], speakers, self.training.names)
        logger.info(
            "%d utterances of %d speakers to train on, %d held out for identification, %d development trials "
            "of "
            "%d utterances",
            len(self.training.numbers),
            len(self.training.names),
            int(held.sum()),
            len(self.trials.enroll),
            len(self.trials.numbers),
        )

    def _take_dev(self, originals, options):
        """Set the development trials; returns the Labelled utterances that are left to train on."""
        srand, keys = options.run.srand, self.index.keys
        if self.inputs.dev is not None:
            self.trials = read_dev_trials(options.dev, self.dev_index, srand)
            return originals
        rest, dev = split_speakers(originals, options.dev.dev_share, srand)
        utt2spk = {
            keys[number]: dev.names[speaker] for number, speaker in zip(dev.numbers.tolist(), dev.speaker)
        }
        trials = all_pairs(utt2spk, options.dev, srand)
        self._dev_tables = utt2spk, trials
        self.trials = place_trials(trials, self.index)
        return rest

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
        readers = [FeatureReader(index, options.normalize) for index in (self.index, self.dev_index)]
        most, refit, heldout = options.dev.dev_max_frames, None, None
        if not options.loss.verifies:
            names = [self.index.keys[number] for number in self.training.numbers.tolist()]
            draws = np.array([draw(options.run.srand, "refit", name) for name in names])
            rows = drawn_utterances(self.training, draws, REFIT_UTTERANCES)
            refit = (
                Utterances(readers[0], self.training.numbers[rows], most),
                self.training.speaker[rows],
                options.backend,
            )
        if self.heldout is not None:
            heldout = Utterances(readers[0], self.heldout.numbers, most)
        return Validation(
            Utterances(readers[1], self.trials.numbers, most),
            self.trials,
            heldout,
            None if self.heldout is None else self.heldout.speaker,
            options.loss.p_target,
            refit,
        )
