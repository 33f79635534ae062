"""A training of an FHVAE put together: data, model, source of batches, validation, folder."""

import logging

import torch

from voxark.errors import VoxarkError
from voxark.fhvae.model import FhvaeModel, model_config
from voxark.fhvae.sequences import Sequences, hold_out, long_enough
from voxark.fhvae.sources import SOURCES
from voxark.fhvae.trainer import Trainer
from voxark.fhvae.validation import Validation
from voxark.nnet import distributed
from voxark.nnet.board import check_board
from voxark.nnet.feature_index import FeatureIndex
from voxark.nnet.model_folder import build_model
from voxark.nnet.run_folder import RunFolder, check_same
from voxark.random_numbers import draw

logger = logging.getLogger(__name__)


class Data:
    """Training sequences and held-out ones, normalised alike; ``too_short``: keys that take no part.

    Raises VoxarkError where nothing is long enough, and where dimensions differ.
    """

    def __init__(self, feats_rspecifier, options):
        length, inputs = options.model.segment_length, options.inputs
        index = FeatureIndex(feats_rspecifier, inputs.utt2num_frames, inputs.max_held << 20)
        self.dim = index.dim
        if self.dim < 1:
            raise VoxarkError(f"{index.name}: features of dimension 0: there is nothing to train on")
        numbers, short = self._usable(index, length)
        if options.dev.dev_feats:
            dev_index = FeatureIndex(options.dev.dev_feats, "", inputs.max_held << 20)
            if dev_index.dim != index.dim:
                raise VoxarkError(f"{options.dev.dev_feats}: features of dimension {dev_index.dim}, but "
                                  f"{feats_rspecifier} has {index.dim}")
            held, _ = self._usable(dev_index, length)
        else:
            dev_index = index
            numbers, held = hold_out(index, numbers, options.dev.dev_share, options.dev.max_dev, options.run.srand)
        self.too_short = [index.keys[number] for number in short.tolist()]
        self.skipped = list(index.skipped)
        self.training, self.dev = Sequences(index, numbers), Sequences(dev_index, held)

    @staticmethod
    def _usable(index, length):
        numbers, short = long_enough(index, length)
        if not len(numbers):
            raise VoxarkError(f"{index.name}: no sequence has the {length} frames of a segment: give longer ones, or "
                              "a smaller --segment-length")
        return numbers, short

    def normalise(self, mean, std):
        """Have features come less ``mean`` and over ``std`` (F,) tensors."""
        for sequences in (self.training, self.dev):
            sequences.mean, sequences.std = mean.cpu().numpy(), std.cpu().numpy()

    def facts(self):
        """What a run that goes on must find again."""
        return {"data sequences": len(self.training), "data frames": int(self.training.lengths.sum(dtype="i8")),
                "data first key": self.training.key(0), "data last key": self.training.key(len(self.training) - 1),
                "data held-out sequences": len(self.dev), "data dimension": self.dim}

    def log(self):
        """Say who takes part."""
        logger.info("%d sequences of %d frames to train on, %d of %d held out, %d shorter than a segment",
                    len(self.training), self.training.lengths.sum(dtype="i8"), len(self.dev),
                    self.dev.lengths.sum(dtype="i8"), len(self.too_short))


def open_training(feats_rspecifier, model_dir, options):
    """The Trainer of a run, at its start or where it was saved; VoxarkError where something is wrong."""
    options.check()
    check_board(options.run.tensorboard)
    workers = distributed.init(options.run.device)
    torch.set_num_threads(options.run.num_threads)
    if workers.rank:
        logging.getLogger("voxark").setLevel(logging.ERROR)  # the main worker says what there is to say
    folder = RunFolder(model_dir, FhvaeModel, writes=workers.rank == 0)
    try:
        return _open_in(folder, feats_rspecifier, options, workers)
    except BaseException:
        folder.close()
        raise


def _open_in(folder, feats_rspecifier, options, workers):
    state = folder.saved_state(options.run.resume)
    settings = {**options.settings(), "world_size": workers.world_size}
    if state is not None:
        saved = state["settings"].items()
        check_same({name: value for name, value in saved if not name.startswith("data ")}, settings)
    data = Data(feats_rspecifier, options)
    settings.update(data.facts())
    if state is not None:
        check_same(state["settings"], settings)
    data.log()
    folder.write_table("skipped", [*data.skipped, *((key, "shorter than a segment") for key in data.too_short)])
    torch.manual_seed(int(draw(options.run.srand, "model") * 2**63))
    model = build_model(FhvaeModel, model_config(options.model, data.dim), "the model's options").to(workers.device)
    if state is None and options.model.normalize == "global":
        moments = data.training.moments(options.inputs.stats_sequences, options.run.srand)
        for buffer, values in zip((model.feat_mean, model.feat_std), moments, strict=True):
            buffer.copy_(torch.from_numpy(values))
        distributed.broadcast_parameters(model)
    return _trainer(model, data, folder, options, settings, workers, state)


def _trainer(model, data, folder, options, settings, workers, state):
    sampling, run = options.sampling, options.run
    source = SOURCES[sampling.sampling](data.training, sampling, run.srand, model.segment_length,
                                        (workers.rank, workers.world_size), run.loader_threads)
    judge = Validation(data.dev, options.dev.dev_segment_shift, run.srand, workers.device)
    trainer = Trainer(model, source, judge, folder, options, settings, workers)
    if state is not None:
        model.load_state_dict(state["model"])
    data.normalise(model.feat_mean, model.feat_std)
    if state is not None:
        trainer.load_state_dict(state)
    return trainer
