"""How good a model is on held-out sequences: the bound with estimated mu2, and whether latent variables are used."""

import logging

import numpy as np
import torch

from voxark.fhvae.inference import AT_ONCE, segment_starts
from voxark.fhvae.objective import (
    exact_bound_terms,
    kl_by_dimension,
    log_posterior_of_sequence,
    map_mu2,
    sequence_logits,
)
from voxark.random_numbers import seeded_rng

logger = logging.getLogger(__name__)

ACTIVE = 0.01  # variance over segments of the posterior mean, above which a dimension is in use


class Validation:
    """Judges a model on ``sequences``: the mean segment bound, with MAP mu2 and fixed noise, without alpha.

    Segments are ``shift`` frames apart; the noise of z1 and z2 depends on --srand and the sequence's key.
    """

    def __init__(self, sequences, shift, srand, device):
        self.sequences, self.shift, self.srand, self.device = sequences, shift, srand, device
        self.first_not_finite = None  # key of the first sequence whose bound was not finite

    @torch.no_grad()
    def figures(self, model):
        """A dict of means over segments: bound and its terms, active units, and more."""
        sums, zbar2, mu2, rows = _Sums(), [], [], []
        for x, row, noise in self._groups(model):
            q2 = model.encode_z2(x)
            count = torch.bincount(row)
            total = torch.zeros(len(count), model.z2_dim, dtype=torch.float64, device=x.device)
            total.index_add_(0, row, q2.mean.double())
            centres = map_mu2(total, count.double(), model.pz2_var, model.pmu2_var).float()
            num = count[row].float()
            passed = model(x, centres[row], num, noise)
            sums.add(passed, centres[row], num, model.options)
            self._note_not_finite(passed.bound.total, sum(map(len, mu2)) + row)
            rows.append(row + sum(map(len, mu2)))
            zbar2.append(q2.mean)
            mu2.append(centres)
        found = sums.figures()
        logits = sequence_logits(torch.cat(zbar2), torch.cat(mu2), model.pz2_var)
        rows = torch.cat(rows)
        found["dev_disc"] = float(log_posterior_of_sequence(logits, rows).double().mean())
        found["dev_seq_acc"] = float((logits.argmax(1) == rows).double().mean())
        return found

    def _note_not_finite(self, bound, positions):
        """Remember the key of the first of sequences at ``positions`` (S,) whose bound (S,) is not finite."""
        bad = positions[~torch.isfinite(bound)]
        if len(bad) and self.first_not_finite is None:
            self.first_not_finite = self.sequences.key(int(bad[0]))

    def _groups(self, model):
        """Yield (segments (L,S,F), row in the group (S,), noise) of some sequences at a time."""
        segments, rows, noise, number = [], [], [], 0
        for position in range(len(self.sequences)):
            feats = self.sequences.read(position)
            starts = segment_starts(len(feats), model.segment_length, self.shift)
            segments.append(feats[starts + np.arange(model.segment_length)[:, None]])
            rows += [number] * len(starts)
            rng = seeded_rng(self.srand, "noise", self.sequences.key(position))
            noise.append(rng.standard_normal((len(starts), model.z1_dim + model.z2_dim), np.float32))
            number += 1
            if len(rows) >= AT_ONCE or position == len(self.sequences) - 1:
                draws = torch.from_numpy(np.concatenate(noise)).to(self.device)
                yield (torch.from_numpy(np.concatenate(segments, 1)).to(self.device),
                       torch.tensor(rows, device=self.device), draws.split([model.z1_dim, model.z2_dim], 1))
                segments, rows, noise, number = [], [], [], 0


class _Sums:
    """Sums over segments, in double precision."""

    def __init__(self):
        self.count, self.terms = 0, 0.0
        self.means = {}

    def add(self, passed, mu2, num_segments, options):
        """Count a Pass over segments whose sequences have mu2 (S,D2)."""
        bound = passed.bound
        exact = exact_bound_terms(num_segments, mu2, options.pz2_var, options.pmu2_var)
        self.terms = self.terms + torch.stack(
            [bound.total.double().sum(), (bound.total.double() + exact).sum(), *(t.double().sum() for t in bound)])
        self.count += len(mu2)
        for name, q, prior, var in (("z1", passed.q1, 0.0, options.pz1_var), ("z2", passed.q2, mu2, options.pz2_var)):
            mean = q.mean.double()
            kl = kl_by_dimension(q, prior, var).double().sum(0)
            sums = torch.stack([mean.sum(0), mean.square().sum(0), kl])
            self.means[name] = self.means.get(name, 0.0) + sums

    def figures(self):
        """The means by name."""
        names = ("bound", "exact_bound", "log_px", "kl_z1", "kl_z2", "log_pmu2")
        found = {f"dev_{name}": value for name, value in zip(names, (self.terms / self.count).tolist(), strict=True)}
        for name, sums in self.means.items():
            mean, square, _ = sums / self.count
            found[f"active_{name}"] = int((square - mean.square() > ACTIVE).sum())
        return found


def alarms(figures, at_start, num_dev):
    """Sentences on what has gone wrong by the figures of a validation; ``at_start``: those before training."""
    found = []
    for name, what in (("z1", "segment"), ("z2", "sequence")):
        if figures[f"active_{name}"] == 0:
            found.append(f"collapse: no dimension of {name}, the latent {what} variable, varies: the decoder "
                         f"does without it (a smaller --alpha, a larger --{name}-dim, or another --lr may help)")
    if num_dev > 1 and figures["dev_seq_acc"] <= 1.5 / num_dev:
        found.append("collapse: z2 does not tell the held-out sequences apart (a larger --alpha may help)")
    if at_start is not None and figures["dev_bound"] < at_start["dev_bound"]:
        found.append(f"divergence: the bound, {figures['dev_bound']:.1f}, is below that of the model before it "
                     f"was trained, {at_start['dev_bound']:.1f} (a smaller --lr, or --clip, may help)")
    return found
