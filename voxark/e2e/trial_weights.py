"""Weights of the trials of a batch: of least variance (BLUE), or learned on development trials (meta)."""

import logging

import numpy as np
import torch

from voxark.e2e.batch_weights import SpeakerDraw, batch_weights
from voxark.e2e.losses import trial_losses, verification_loss
from voxark.e2e.meta_weights import CountBins, MetaLearner, MetaWeights, start_from_weights
from voxark.errors import VoxarkError
from voxark.random_numbers import seeded_rng

logger = logging.getLogger(__name__)


class BlueWeights:
    """Weights that make the batches' sums estimate the best linear unbiased average over all trials.

    ``sampler``: the BatchSampler, of batches A or B; correlations: voxark.trials.correlations.Correlations of
    both classes.
    """

    def __init__(self, sampler, correlations):
        for name in ("target", "nontarget"):
            if getattr(correlations, name) is None:
                raise VoxarkError(f"--trial-weights: the correlations of {name} trials are not given")
        data = sampler.data
        self._weights = batch_weights(
            data.counts,
            correlations,
            SpeakerDraw.uniform(data.num_speakers, sampler.batch_speakers),
            sampler.options.cap(),
        )

    def __call__(self, trials):
        """(weights shaped as the scores, False: they are taken as they are) of Trials of pairs of rows."""
        weights = self._weights.of_pairs(trials.plan.speakers)
        return torch.as_tensor(weights, device=trials.target.device), False

    def state_dict(self):
        """Nothing: all follows from the options and the data."""
        return None

    def load_state_dict(self, state):
        """Nothing."""


class LearnedWeights:
    """Weights by numbers of utterances of a trial's speakers, which a look ahead moves [meta_weights].

    ``draw_dev(number)`` gives, for batch ``number``, development features (N,T,F) and (target, mask) (N,N);
    ``start``: BlueWeights, the first weights, which hold the learned ones back, or None for uniform ones.
    """

    def __init__(self, sampler, options, draw_dev, p_target, start=None):
        self._options, self._draw_dev, self._p_target = options, draw_dev, p_target
        max_enroll = max(1, sampler.options.max_enroll)
        self._bins = CountBins(sampler.data.counts, max_enroll=max_enroll)
        starts = [np.zeros(self._bins.num_target), np.zeros(self._bins.num_nontarget)]
        if start is not None:
            starts = self._starts(sampler, start)
        self._learner = MetaLearner(MetaWeights(*starts), options.meta_lr)

    def _starts(self, sampler, start):
        from voxark.e2e.objective import Trials

        trials = Trials(sampler.plan(0, 0))
        bins, target = self._of(trials)
        weights = start(trials)[0][trials.mask].numpy()
        found = []
        for chosen, number in ((target, self._bins.num_target), (~target, self._bins.num_nontarget)):
            some = chosen.numpy()
            found.append(
                start_from_weights(weights[some], bins[chosen].numpy(), number)
                if some.any()
                else np.zeros(number)
            )
        return found

    def _of(self, trials):
        """(bins (T,), target (T,)) of the trials of a batch, on the CPU."""
        mask, target = trials.mask.cpu(), trials.target.cpu()
        first, second = mask.nonzero(as_tuple=True)
        speakers = trials.speakers.cpu()
        if trials.enrolment is None:
            return self._bins.of_trials(speakers[first], speakers[second]), target[mask]
        members = trials.enrolment.cpu() > 0
        owners, sizes = speakers[members.int().argmax(dim=1)], members.sum(dim=1)
        return self._bins.of_trials(owners[first], speakers[second], sizes[first]), target[mask]

    def __call__(self, trials):
        """(weights shaped as the scores, True) of Trials."""
        bins, target = self._of(trials)
        with torch.no_grad():
            weights = self._learner.meta(bins, target)
        whole = torch.zeros(trials.mask.shape, dtype=torch.float64)
        whole[trials.mask.cpu()] = weights
        return whole.to(trials.mask.device), True

    def before_step(self, number, batch, trials, model, optimizer):
        """Every --meta-interval batches move the weights by one look ahead; the model stays as it is."""
        if number % self._options.meta_interval or not trials.mask.any():
            return
        bins, target = self._of(trials)
        device = trials.mask.device
        x = [torch.from_numpy(chunk).to(device) for chunk in batch.chunks]
        drawn = self._draw_dev(number)
        dev_x, dev_target, dev_mask = (torch.as_tensor(part, device=device) for part in drawn)
        prior = torch.where(target, self._p_target, 1.0 - self._p_target).double()
        was_training = model.training
        model.eval()  # no dropout: the same function at each call

        def losses(parameters):
            embeddings = torch.func.functional_call(_Embedding(model), _prefixed(parameters), (x,))
            scores = torch.func.functional_call(
                _Scoring(model, trials), _prefixed(parameters), (embeddings.double(),)
            )
            return trial_losses(scores[trials.mask], trials.target[trials.mask], self._p_target).cpu()

        def dev_loss(parameters):
            embeddings = torch.func.functional_call(_Embedding(model), _prefixed(parameters), (list(dev_x),))
            scores = torch.func.functional_call(
                _Scoring(model, None), _prefixed(parameters), (embeddings.double(),)
            )
            return verification_loss(scores, dev_target, self._p_target, mask=dev_mask)

        self._learner.step(losses, dev_loss, model, optimizer, bins, target, prior)
        model.train(was_training)

    def state_dict(self):
        """For a saved training."""
        return self._learner.state_dict()

    def load_state_dict(self, state):
        """Go on from a state_dict."""
        self._learner.load_state_dict(state)


class _Part(torch.nn.Module):
    """A module around the model, so that torch.func.functional_call can replace its parameters."""

    def __init__(self, model, trials=None):
        super().__init__()
        self.model, self.trials = model, trials


class _Embedding(_Part):
    def forward(self, chunks):
        """Embeddings (N,d) of a list of features (T_i,F)."""
        sizes = [len(chunk) for chunk in chunks]
        rows = [None] * len(chunks)
        for size in sorted(set(sizes)):
            places = [place for place, own in enumerate(sizes) if own == size]
            for place, row in zip(
                places, self.model.extractor(torch.stack([chunks[place] for place in places]))
            ):
                rows[place] = row
        return torch.stack(rows)


class _Scoring(_Part):
    def forward(self, embeddings):
        """Scores of the trials, by default of all pairs."""
        return (
            self.model.scorer(embeddings)
            if self.trials is None
            else self.trials.scores(self.model.scorer, embeddings)
        )


def _prefixed(parameters):
    return {f"model.{name}": value for name, value in parameters.items()}


def dev_drawer(reader, trials, options, srand):
    """The ``draw_dev`` of LearnedWeights from DevTrials of utterances that a FeatureReader has.

    options: BatchOptions, for the chunks' length, and TrialWeightOptions, for their number.
    """
    batches, weights = options
    total = len(trials.numbers)
    codes = np.append(trials.enroll * total + trials.test, trials.test * total + trials.enroll)
    order = np.argsort(codes, kind="stable")
    codes, labels = codes[order], np.tile(trials.target, 2)[order]

    def draw(number):
        rng = seeded_rng(srand, "meta", number)
        rows = rng.choice(total, min(weights.meta_utterances, total), replace=False)
        size = int(rng.integers(batches.min_chunk, batches.max_chunk, endpoint=True))
        chunks = []
        for utterance in trials.numbers[rows].tolist():
            length = int(reader.source.lengths[utterance])
            first = int(rng.integers(0, max(1, length - size + 1)))
            x = reader.read(utterance, first, min(length, first + size))
            chunks.append(np.take(x, np.arange(size) % len(x), axis=0))
        wanted = rows[:, None] * total + rows
        places = np.minimum(np.searchsorted(codes, wanted), len(codes) - 1)
        mask = np.triu(codes[places] == wanted, 1)
        return np.stack(chunks), labels[places] & mask, mask

    return draw
