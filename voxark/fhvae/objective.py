"""The discriminative segment variational lower bound of an FHVAE, term by term [Hsu and Glass 2018, 2].

Symbols as in the paper: x a segment of L frames of F features, z1 and z2 its latent variables, mu2 the
s-vector of its sequence of N segments, zbar2 the posterior mean of z2. B segments in a batch, K sequences in
the cache. Every term is summed over dimensions and frames; none is averaged over the batch here.
"""

import math
from typing import NamedTuple

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional

LOG_2PI = math.log(2 * math.pi)


class Gaussian(NamedTuple):
    """Diagonal Gaussians: ``mean`` and ``logvar`` of one shape."""

    mean: torch.Tensor
    logvar: torch.Tensor

    def sample(self, noise):
        """mean + sigma * noise: the reparameterised sample."""
        return self.mean + torch.exp(0.5 * self.logvar) * noise


class Bound(NamedTuple):
    """Terms of the bound of B segments, each (B,)."""

    log_px: torch.Tensor  # log p(x | z1, z2)
    kl_z1: torch.Tensor  # KL(q(z1 | x, z2) || p(z1))
    kl_z2: torch.Tensor  # KL(q(z2 | x) || p(z2 | mu2))
    log_pmu2: torch.Tensor  # log p(mu2) / N

    @property
    def total(self):
        """The segment variational lower bound (B,) of eq. 3."""
        return self.log_px - self.kl_z1 - self.kl_z2 + self.log_pmu2


def log_density(x, gaussian, dims):
    """log N(x; mean, diag exp logvar), summed over the axes ``dims``."""
    squares = (x - gaussian.mean).square() * torch.exp(-gaussian.logvar)
    return -0.5 * (LOG_2PI + gaussian.logvar + squares).sum(dims)


def kl_by_dimension(q, prior_mean, prior_var):
    """KL(q || N(prior_mean, prior_var I)) of each dimension: of the shape of q.mean."""
    squares = torch.exp(q.logvar) + (q.mean - prior_mean).square()
    return 0.5 * (math.log(prior_var) - q.logvar + squares / prior_var - 1.0)


def segment_bound(x, px, q1, q2, mu2, num_segments, variances):
    """Bound of segments x (L,B,F), given what the networks say of them.

    px: Gaussian (L,B,F) of the decoder at one sample of z1 and z2; q1 (B,D1), q2 (B,D2): the posteriors; mu2
    (B,D2): of each segment's sequence, whose number of segments is num_segments (B,); variances: of the
    priors, with attributes pz1_var, pz2_var, pmu2_var.
    """
    log_pmu2 = -0.5 * (LOG_2PI + math.log(variances.pmu2_var) + mu2.square() / variances.pmu2_var).sum(1)
    return Bound(
        log_density(x, px, (0, 2)),
        kl_by_dimension(q1, 0.0, variances.pz1_var).sum(1),
        kl_by_dimension(q2, mu2, variances.pz2_var).sum(1),
        log_pmu2 / num_segments,
    )


def sequence_logits(zbar2, mu2, pz2_var):
    """Logits (B,K) of log p(i | zbar2) [eq. 4]: log N(zbar2; mu2_k, pz2_var I) but for what all k share.

    -|z - m|^2 / 2 s^2 = (z m - |m|^2 / 2) / s^2 - |z|^2 / 2 s^2: one matrix product, and the last term
    cancels in the softmax. Written out, (B,K,D) differences are what makes the time of a step grow with K.
    """
    return torch.addmm(mu2.square().sum(1) * (-0.5 / pz2_var), zbar2, mu2.t(), alpha=1.0 / pz2_var)


def naive_sequence_logits(zbar2, mu2, pz2_var):
    """The same, written out as in eq. 4, with all (B,K,D) differences: for comparison."""
    return -(zbar2[:, None] - mu2[None]).square().sum(2) / (2.0 * pz2_var)


def log_posterior_of_sequence(logits, rows):
    """log p(i | zbar2) (B,) of logits (B,K), ``rows`` (B,) being the segments' sequences i."""
    return -functional.cross_entropy(logits, rows, reduction="none")


_LEAST = -60.0  # e^-60 is nothing beside 1, but far from the denormal numbers that make processors slow


class _LogPosterior(torch.autograd.Function):
    """The same from zbar2 (B,D) and mu2 (K,D), with nothing of B x K formed but the posteriors, once.

    Trained, nearly all posteriors of a segment are below the least normal number of single precision: exp and
    the products of the backward pass then take several times as long, which the bound _LEAST prevents.
    """

    @staticmethod
    def forward(ctx, zbar2, mu2, pz2_var, rows):
        with_norm = torch.cat([mu2, mu2.square().sum(1, keepdim=True) * (-0.5 / pz2_var)], 1)
        posterior = torch.cat([zbar2 / pz2_var, torch.ones_like(zbar2[:, :1])], 1) @ with_norm.t()
        own = posterior.gather(1, rows[:, None])[:, 0]
        top = posterior.amax(1)
        posterior.sub_(top[:, None]).clamp_(min=_LEAST).exp_()
        total = posterior.sum(1)
        ctx.pz2_var = pz2_var
        # what the gradient of the logits is made of: posteriors less 1 at the own sequence, times the total
        ctx.save_for_backward(zbar2, mu2, posterior.scatter_add_(1, rows[:, None], -total[:, None]), total)
        return own - top - total.log()

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        zbar2, mu2, posterior, total = ctx.saved_tensors
        weight = (gradient / (total * ctx.pz2_var))[:, None]
        of_mu2 = posterior.t() @ torch.cat([weight * zbar2, weight], 1)
        return -weight * (posterior @ mu2), of_mu2[:, -1:] * mu2 - of_mu2[:, :-1], None, None


def sequence_log_posterior(zbar2, mu2, pz2_var, rows):
    """log p(i | zbar2) (B,) [eq. 4] of segments with zbar2 (B,D) of the sequences ``rows`` (B,) of mu2 (K,D).

    What log_posterior_of_sequence gives of sequence_logits, in less time; it can be differentiated once.
    """
    return _LogPosterior.apply(zbar2, mu2, pz2_var, rows)


def map_mu2(sums, num_segments, pz2_var, pmu2_var=1.0):
    """Maximum a posteriori mu2 (...,D2) given the sums of zbar2 (...,D2) over num_segments (...) segments.

    sum / (N + sigma^2), with sigma^2 = pz2_var / pmu2_var [Table 1].
    """
    return sums / (num_segments[..., None] + pz2_var / pmu2_var)


def exact_bound_terms(num_segments, mu2, pz2_var, pmu2_var=1.0):
    """What is added to a segment's bound (...) for the exact posterior covariance of mu2.

    The objective takes KL(q(z2) || p(z2 | mu2)) at the mean of q(mu2), and its log prior there. With q(mu2) =
    N(mu2, s^2 I), s^2 = 1 / (N / pz2_var + 1 / pmu2_var), the expected divergence is larger by D s^2 /
    (2 pz2_var), and each of N segments bears 1/N of KL(q(mu2) || N(0, pmu2_var I)) in place of -log p / N.
    """
    dim = mu2.shape[-1]
    var = 1.0 / (num_segments / pz2_var + 1.0 / pmu2_var)
    log_p = -0.5 * (dim * (LOG_2PI + math.log(pmu2_var)) + mu2.square().sum(-1) / pmu2_var)
    kl = 0.5 * (dim * (var / pmu2_var - 1.0 - torch.log(var / pmu2_var)) + mu2.square().sum(-1) / pmu2_var)
    return -dim * var / (2.0 * pz2_var) - (kl + log_p) / num_segments
