"""The cache of mu2: posterior means of the s-vectors of the sequences that a step compares, with their Adam."""

import torch
from torch import nn

from voxark.fhvae.inference import AT_ONCE
from voxark.fhvae.objective import map_mu2


class Cache:
    """``mu2``: a parameter (K,D2), trained by gradients between its resets [Algorithm 1, line 11].

    ``keeps_moments``: Adam's moments outlive a reset, as in the authors' code, though they belong to other
    sequences.
    """

    def __init__(self, num_rows, model, make_optimizer, keeps_moments=False):
        self.model, self.keeps_moments = model, keeps_moments
        self.mu2 = nn.Parameter(torch.zeros(num_rows, model.z2_dim, device=model.feat_mean.device))
        self._make_optimizer = make_optimizer
        self.optimizer = make_optimizer([self.mu2])

    def start_at_random(self, generator):
        """Standard normal entries: where the flat training's table begins."""
        self.mu2.data.copy_(torch.randn(self.mu2.shape, generator=generator))

    def forget_moments(self):
        """Begin Adam's moments anew."""
        self.optimizer = self._make_optimizer([self.mu2])

    @torch.no_grad()
    def reset(self, block):
        """Set each entry to the MAP estimate of mu2 of a Block's sequence [Algorithm 1, line 4]."""
        device = self.mu2.device
        sums = torch.zeros(self.mu2.shape, dtype=torch.float64, device=device)
        rows, starts = block.even()
        for first in range(0, len(rows), AT_ONCE):
            part = slice(first, first + AT_ONCE)
            z2 = self.model.encode_z2(block.segments(rows[part], starts[part], device)).mean
            sums.index_add_(0, torch.from_numpy(rows[part]).long().to(device), z2.double())
        counts = torch.from_numpy(block.counts).to(device).double()
        self.mu2.data.copy_(map_mu2(sums, counts, self.model.pz2_var, self.model.pmu2_var))
        self.mu2.grad = None
        if not self.keeps_moments:
            self.forget_moments()

    def state_dict(self):
        """Entries and moments."""
        return {"mu2": self.mu2.data, "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state):
        """Take over what state_dict gave."""
        self.mu2.data.copy_(state["mu2"])
        self.optimizer.load_state_dict(state["optimizer"])
