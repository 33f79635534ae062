"""A training put together from its options: data, batches, model, objective, judge."""

import logging
from dataclasses import replace

import torch

from voxark.e2e.batches import BatchSampler
from voxark.e2e.chunks import BatchReader, FeatureReader
from voxark.e2e.covariance_regulariser import covariance_regulariser
from voxark.e2e.inputs import Inputs
from voxark.e2e.objective import Objective
from voxark.e2e.run_folder import E2eRunFolder
from voxark.e2e.source import BatchSource
from voxark.e2e.start import build_model, named_model, start_model
from voxark.e2e.trainer import Trainer
from voxark.e2e.training_data import TrainingData
from voxark.e2e.trial_weights import BlueWeights, LearnedWeights, dev_drawer
from voxark.nnet import distributed
from voxark.nnet.board import check_board
from voxark.nnet.run_folder import check_same


def _trial_weights(sampler, data, options):
    """What --trial-weights asks for, or None for uniform ones."""
    if options.weights.trial_weights == "uniform":
        return None
    blue = BlueWeights(sampler, options.weights.read()) if options.weights.correlates else None
    if options.weights.trial_weights == "blue":
        return blue
    reader = FeatureReader(data.dev_index, options.normalize)
    drawer = dev_drawer(reader, data.trials, (options.batches, options.weights), options.run.srand)
    return LearnedWeights(sampler, options.weights, drawer, options.loss.p_target, blue)


def _regulariser(loss):
    """The penalty on covariances of target scores, or None."""
    if not loss.cov_weight:
        return None

    def penalty(scores, trials):
        return covariance_regulariser(scores, trials.speakers, trials.mask, margin=loss.cov_margin)

    return penalty


def open_training(feats_rspecifier, utt2spk_rspecifier, model_dir, options, fail):
    """The Trainer of a run, at its start or where it was saved; VoxarkError where something is wrong."""
    options.check()
    check_board(options.run.tensorboard)
    workers = distributed.init(options.run.device)
    torch.set_num_threads(options.run.num_threads)
    if workers.rank:
        logging.getLogger("voxark").setLevel(logging.ERROR)  # the main worker says what there is to say
    folder = E2eRunFolder(model_dir, writes=workers.rank == 0)
    try:
        return _open_in(folder, feats_rspecifier, utt2spk_rspecifier, options, workers, fail)
    except BaseException:
        folder.close()
        raise


def _open_in(folder, feats_rspecifier, utt2spk_rspecifier, options, workers, fail):
    """The Trainer of an E2eRunFolder, at its start or where it was saved."""
    state = folder.saved_state(options.run.resume)
    settings = options.settings()
    if state is not None:
        saved = state["settings"].items()
        check_same({name: value for name, value in saved if not name.startswith("data ")}, settings)
    old = named_model(options)
    takes_samples, rate = _kind_of_input(options, old)
    inputs = Inputs(feats_rspecifier, options.inputs, takes_samples, rate, options.dev.dev_feats,
                    options.run.srand)
    batches, dev = inputs.in_samples(options.batches, options.dev)
    normalize = replace(options.normalize, cmn="none") if takes_samples else options.normalize
    options = options._replace(batches=batches, dev=dev, normalize=normalize)
    data = TrainingData(inputs, utt2spk_rspecifier, options, fail)
    settings.update(data.facts())
    if state is not None:
        check_same(state["settings"], settings)
    data.write(folder)
    return _trainer(data, old, options, folder, settings, workers, state)


def _kind_of_input(options, old):
    """(whether the network takes samples, their rate) by the options, or by the model to start from."""
    if old is None:
        return options.extractor.arch == "waveform", options.extractor.sample_frequency
    return old.extractor.takes_samples, old.config["features"].get("sample_frequency", 0)


def _trainer(data, old, options, folder, settings, workers, state):
    """The Trainer of TrainingData and options, with a model that is started, or as saved."""
    sampler = BatchSampler(data.training_set(), options.batches, options.run.srand)
    features = FeatureReader(data.index, options.normalize)

    def make_reader(rows_of):
        return BatchReader(sampler, features, options.masks, data.inputs.augments, options.run.srand, rows_of)

    source = BatchSource(make_reader, options.batches.batches_per_epoch, options.gradient,
                         options.run.loader_threads)
    model = build_model(options, old, data.index.dim, data.training.names).to(workers.device)
    data.check_lengths(model.extractor, options)
    if state is None:
        first = [(torch.from_numpy(x).to(workers.device), *rest)
                 for x, *rest in source.first(options.run.init_batches)]
        start_model(model, first, options)
        distributed.broadcast_parameters(model)
    weights = _trial_weights(sampler, data, options)
    objective = Objective(model, options.loss, weights, _regulariser(options.loss))
    trainer = Trainer(model, source, objective, data.judge(options), folder, options, settings, workers)
    if state is not None:
        trainer.load_state_dict(state)
    return trainer
