"""The model that a training starts from: random or another's; norms and scorer are set on first data."""

import logging
import os

import numpy as np
import torch
from torch import nn

from voxark.e2e.backend_start import start_scorer
from voxark.e2e.extractors import initialise_norms
from voxark.e2e.model import E2eModel, load_model, model_config
from voxark.errors import VoxarkError
from voxark.random_numbers import draw

logger = logging.getLogger(__name__)


def named_model(options):
    """The model of --init-model, or None; VoxarkError where --cmn is not what it was trained with."""
    if not options.run.init_model:
        return None
    old = load_model(options.run.init_model)
    cmn = options.normalize.cmn if not old.extractor.takes_samples else old.cmn
    window = old.config["features"].get("cmn_window", options.normalize.cmn_window)
    if cmn != old.cmn or (cmn == "sliding" and window != options.normalize.cmn_window):
        raise VoxarkError(
            f"{options.run.init_model}: the model was trained with --cmn={old.cmn}"
            f"{f' --cmn-window={window}' if old.cmn == 'sliding' else ''}, and needs it again"
        )
    return old


def build_model(options, old, input_dim, speakers):
    """The E2eModel that options describe, with random parameters, which depend on --srand alone.

    ``options``: voxark.e2e.options.Options; ``old``: the model to start from, whose architecture it then has,
    or None; ``speakers``: names of the training speakers.
    """
    head = None
    if options.loss.identifies:
        head = {"kind": options.loss.head, "num_speakers": len(speakers), "hidden_dim": options.loss.head_dim}
    cmn = {"cmn": options.normalize.cmn, "cmn_window": options.normalize.cmn_window}
    if old is None:
        arch, choices = options.extractor.arch, options.extractor.resolve(input_dim)
    else:
        arch, choices = old.config["arch"], old.config["arch_options"]
        if old.extractor.input_dim != input_dim:
            raise VoxarkError(
                f"{options.run.init_model}: the model takes features of dimension "
                f"{old.extractor.input_dim}, these have {input_dim}"
            )
    config = model_config(arch, choices, head=head, scorer=options.backend.scorer_config(), **cmn)
    torch.manual_seed(int(draw(options.run.srand, "start") * 2**63))
    model = E2eModel(config)
    if old is not None:
        _take_over(model, old, options, speakers)
    return model


def _take_over(model, old, options, speakers):
    """Copy the extractor of another model, and its classifier and scorer where they fit."""
    model.extractor.load_state_dict(old.extractor.state_dict())
    model.taken = {"extractor"}
    for name in ("head", "scorer"):
        mine, theirs = getattr(model, name), getattr(old, name)
        if mine is None or theirs is None or model.config[name] != old.config[name]:
            continue
        if name == "head" and not _same_speakers(options.run.init_model, speakers):
            logger.info(
                "%s: it was trained on other speakers, the classifier starts anew", options.run.init_model
            )
            continue
        if name == "scorer" and (
            options.backend.init_plda or options.backend.init_lda or options.backend.init_mean
        ):
            continue
        mine.load_state_dict(theirs.state_dict())
        model.taken.add(name)
    logger.info("taken over from %s: %s", options.run.init_model, ", ".join(sorted(model.taken)))


def _same_speakers(folder, speakers):
    try:
        with open(os.path.join(folder, "speakers"), encoding="utf-8", errors="surrogateescape") as lines:
            return [line.split()[0] for line in lines] == list(speakers)
    except OSError:
        return False


@torch.no_grad()
def start_model(model, batches, options):
    """Estimate the norms of a model, and then its scorer, on first batches.

    ``batches``: (x (N,T,F) tensor, speakers (N,), recordings (N,)) each. What was taken over from a trained
    model stays.
    """
    taken = getattr(model, "taken", set())
    inputs = [batch[0] for batch in batches]
    parts = {"extractor": model.extractor, "head": model.head}
    if any(part is not None and name not in taken for name, part in parts.items()):
        _start_norms(parts, taken, inputs)
    if "scorer" in taken:
        return
    model.eval()
    vectors = np.concatenate([model.extractor(x).cpu().numpy() for x in inputs])
    speakers, recordings = (np.concatenate([batch[part] for batch in batches]) for part in (1, 2))
    # one chunk of a recording: two would look like two sessions of the speaker that are too much alike
    rows = np.unique(np.stack([recordings, speakers]), axis=1, return_index=True)[1]
    start_scorer(model.scorer, vectors[rows], speakers[rows], recordings[rows], options.backend,
                 options.loss.p_target)


def _start_norms(parts, taken, inputs):
    """Estimate the norms of extractor and classifier on inputs; an extractor in ``taken`` keeps its own."""
    kept = {}
    if "extractor" in taken:
        kept = {name: buffer.clone() for name, buffer in parts["extractor"].named_buffers()}
    initialise_norms(nn.Sequential(*(part for part in parts.values() if part is not None)), inputs)
    for name, buffer in parts["extractor"].named_buffers():
        if name in kept:
            buffer.copy_(kept[name])
