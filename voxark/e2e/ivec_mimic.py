"""A network built like an i-vector system (Rohdin et al. 2018, arXiv:1710.02369) [tutorial].

f2s predicts the posteriors of the UBM's components for each frame; with them the frames are summed to the
statistics n_c = sum_t gamma_tc, f_c = sum_t gamma_tc z_t; s2i makes an embedding of these. In the form
"exact" both are the i-vector system's own formulas, whose parameters training then moves; in the form "mimic"
both are plain layers, which first learn to imitate it (:mod:`voxark.e2e.ivec_mimic_start`). Frames are z, the
features normalised by constants; models of features x are carried over to z.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from voxark.e2e.extractors import Extractor
from voxark.e2e.front import scaled_to_length
from voxark.errors import VoxarkError
from voxark.gmm.full import FullGmm
from voxark.nnet.layers import FrozenNorm, TdnnLayer

MAX_REDUCED = 2000  # statistics whose principal directions are looked for
LEAST_LOGIT = -1e4  # a component of weight 0: its posterior is 0, its parameters are finite


class QuadraticPosteriors(nn.Module):
    """f2s, exact: softmax of a linear layer on [z, vec(zz')], of which the upper triangle is kept.

    For z (B,T,D): log-posteriors (B,T,C). Every GMM with covariances of any kind is such a layer.
    """

    def __init__(self, dim, num_gauss):
        super().__init__()
        self.linear = nn.Linear(dim + dim * (dim + 1) // 2, num_gauss)
        rows, columns = torch.triu_indices(dim, dim)
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("columns", columns, persistent=False)

    @torch.no_grad()
    def init_(self, gmm):
        """Take the posteriors of a FullGmm over z: g_c + m_c'P_c z - z'P_c z / 2 with P_c = covar_c^-1."""
        precisions = gmm.precisions()
        rows, columns = np.triu_indices(gmm.dim)
        quadratic = -np.where(rows == columns, 0.5, 1.0) * precisions[:, rows, columns]
        linear = np.matmul(precisions, gmm.means[:, :, None])[:, :, 0]
        self.linear.weight.copy_(torch.from_numpy(np.concatenate((linear, quadratic), axis=1)))
        self.linear.bias.copy_(torch.from_numpy(np.maximum(gmm.log_constants(), LEAST_LOGIT)))

    def forward(self, z):
        """Log-posteriors (B,T,C) of frames z (B,T,D)."""
        return self.linear(torch.cat((z, z[..., self.rows] * z[..., self.columns]), dim=-1)).log_softmax(-1)


class LearnedPosteriors(nn.Module):
    """f2s, mimic: a frame with its context, two rectified layers, softmax: log-posteriors (B,T,C).

    Context beyond the ends repeats the first and last frame.
    """

    def __init__(self, dim, num_gauss, channels, context):
        super().__init__()
        self.context = context
        self.hidden = nn.Sequential(TdnnLayer(dim, channels, range(-context, context + 1), "none"),
                                    TdnnLayer(channels, channels, (0,), "none"))
        self.output = nn.Linear(channels, num_gauss)

    def forward(self, z):
        """Log-posteriors (B,T,C) of frames z (B,T,D)."""
        padded = F.pad(z.transpose(1, 2), (self.context, self.context), mode="replicate")
        return self.output(self.hidden(padded).transpose(1, 2)).log_softmax(-1)


class IvectorLayer(nn.Module):
    """s2i, exact: the i-vector w = L^-1 l in closed form, differentiable, in double precision.

    With Sigma_c^-1 = G_c G_c' and V_c = G_c'T_c: L = I + sum_c n_c V_c'V_c, which is positive definite
    whatever the parameters are, and l = sum_c V_c'G_c'(f_c - n_c m_c). Parameters: means m (C,D), roots G
    (C,D,D), v (C,D,R). It holds C R^2 numbers of double precision, the V_c'V_c.
    """

    def __init__(self, dim, num_gauss, ivector_dim):
        super().__init__()
        self.means = nn.Parameter(torch.zeros(num_gauss, dim))
        self.roots = nn.Parameter(torch.eye(dim).repeat(num_gauss, 1, 1))
        self.v = nn.Parameter(torch.randn(num_gauss, dim, ivector_dim) / math.sqrt(ivector_dim))
        self._kept = None

    @torch.no_grad()
    def init_(self, extractor, mean, scale):
        """Take a voxark.ivector.extractor.IvectorExtractor of features x = mean + scale z."""
        extractor = extractor.centred()
        roots = np.linalg.cholesky(extractor.sigma_inv * np.multiply.outer(scale, scale))
        v = np.swapaxes(roots, 1, 2) @ (extractor.t / scale[:, None])
        for part, value in ((self.means, (extractor.means - mean) / scale), (self.roots, roots), (self.v, v)):
            part.copy_(torch.from_numpy(value))

    def _quadratic(self):
        """The V_c'V_c as (C,R*R); without gradients they are kept as long as v does not change."""
        mark = (self.v.data_ptr(), self.v._version, self.v.dtype, self.v.device)
        if not torch.is_grad_enabled() and self._kept is not None and self._kept[0] == mark:
            return self._kept[1]
        v = self.v.double()
        quadratic = (v.transpose(1, 2) @ v).flatten(1)
        self._kept = None if torch.is_grad_enabled() else (mark, quadratic)
        return quadratic

    def forward(self, n, f):
        """The i-vectors (B,R) of n (B,C) and f (B,C,D), in double precision."""
        n, f = n.double(), f.double()
        centred = f - n[:, :, None] * self.means.double()
        whitened = torch.einsum("cde,bcd->bce", self.roots.double(), centred)
        linear = whitened.flatten(1) @ self.v.double().flatten(0, 1)
        dim = linear.shape[1]
        unit = torch.eye(dim, dtype=n.dtype, device=n.device)
        factor = torch.linalg.cholesky(unit + (n @ self._quadratic()).view(-1, dim, dim))
        return torch.cholesky_solve(linear[:, :, None], factor)[:, :, 0]


class StatisticsNet(nn.Module):
    """s2i, mimic: normalised statistics, reduced as PCA does, an affine and a rectified path, length sqrt(d).

    Normalised: scale_c o (f_c - n_c m_c) / (n_c + relevance); means and scale (C,D) are constants.
    """

    def __init__(self, dim, num_gauss, embedding_dim, channels, pca_dim, relevance):
        super().__init__()
        self.relevance = relevance
        self.register_buffer("means", torch.zeros(num_gauss, dim))
        self.register_buffer("scale", torch.ones(num_gauss, dim))
        self.reduction = nn.Linear(num_gauss * dim, pca_dim)
        self.hidden = nn.Sequential(nn.Linear(pca_dim, channels), nn.ReLU())
        self.affine = nn.Linear(pca_dim, embedding_dim)
        self.output = nn.Linear(channels, embedding_dim, bias=False)

    def normalised(self, n, f):
        """The normalised statistics (B,C*D)."""
        centred = (f - n[:, :, None] * self.means) * self.scale
        return (centred / (n[:, :, None] + self.relevance)).flatten(1)

    @torch.no_grad()
    def init_normalisation_(self, gmm):
        """Centre at the means of a FullGmm over z; scale by sqrt(weight) over the deviation."""
        deviation = np.sqrt(np.diagonal(gmm.covars, axis1=1, axis2=2))
        self.means.copy_(torch.from_numpy(gmm.means))
        self.scale.copy_(torch.from_numpy(np.sqrt(gmm.weights)[:, None] / deviation))

    @torch.no_grad()
    def init_reduction_(self, x):
        """Set the reduction to the principal directions of normalised statistics x (N,C*D), N > pca_dim.

        One factor brings their variances to 1 on average. Of many statistics an even choice is looked at.
        VoxarkError where there are too few.
        """
        num_kept = self.reduction.out_features
        if min(len(x) - 1, x.shape[1]) < num_kept:
            raise VoxarkError(f"{len(x)} utterances and cuts with statistics of {x.shape[1]} dimensions "
                              f"cannot become {num_kept}: a smaller --pca-dim, or more utterances, will do")
        x = x[:: -(-len(x) // max(MAX_REDUCED, 4 * num_kept))].double()
        mean = x.mean(dim=0)
        _, values, directions = torch.linalg.svd(x - mean, full_matrices=False)
        size = values[:num_kept].square().mean().sqrt() / math.sqrt(len(x))
        weight = directions[:num_kept] / size.clamp(min=1e-30)
        self.reduction.weight.copy_(weight)
        self.reduction.bias.copy_(-(weight @ mean))

    def from_normalised(self, x):
        """Embeddings (B,d), of length sqrt(d), of normalised statistics (B,C*D)."""
        reduced = self.reduction(x)
        embedding = self.affine(reduced) + self.output(self.hidden(reduced))
        return scaled_to_length(embedding, math.sqrt(embedding.shape[1]))

    def forward(self, n, f):
        """Embeddings (B,d) of n (B,C) and f (B,C,D)."""
        return self.from_normalised(self.normalised(n, f))


class IvecMimicExtractor(Extractor):
    """``input_norm``, ``f2s``, summing over time, ``s2i``: see the module. Any number of frames will do."""

    allows_half_products = False  # differences of log-likelihoods, of which exponentials are taken

    def __init__(self, options):
        super().__init__("ivec-mimic", options, options.input_dim, options.embedding_dim, 1)
        dim, num_gauss = options.input_dim, options.num_gauss
        self.input_norm = FrozenNorm(dim)
        if options.form == "exact":
            self.f2s = QuadraticPosteriors(dim, num_gauss)
            self.s2i = IvectorLayer(dim, num_gauss, options.embedding_dim)
        else:
            self.f2s = LearnedPosteriors(dim, num_gauss, options.channels, options.context)
            self.s2i = StatisticsNet(dim, num_gauss, options.embedding_dim, options.channels, options.pca_dim,
                                     options.relevance)

    @torch.no_grad()
    def init_norm_(self, gmm):
        """Normalise features by the mean and variance of a GMM; returns that GMM, a FullGmm, over z."""
        gmm = gmm if isinstance(gmm, FullGmm) else gmm.to_full()
        self.input_norm.set_moments(torch.from_numpy(gmm.mean()), torch.from_numpy(gmm.total_variance()))
        mean, scale = self.constants()
        return FullGmm(gmm.weights, (gmm.means - mean) / scale, gmm.covars / np.multiply.outer(scale, scale))

    def constants(self):
        """Mean and scale (D,) of the normalisation, as numpy float64: x = mean + scale z."""
        return tuple(part.cpu().numpy().astype(np.float64)
                     for part in (self.input_norm.mean, self.input_norm.scale))

    def init_exact_(self, gmm, extractor):
        """Take a DiagGmm or FullGmm and an IvectorExtractor; VoxarkError where sizes differ."""
        shape = (self.options.num_gauss, self.input_dim, self.embedding_dim)
        for what, given in (("UBM", (gmm.num_gauss, gmm.dim)), ("i-vector extractor", extractor.t.shape)):
            if given != shape[: len(given)]:
                raise VoxarkError(f"the {what} has (Gaussians, features, i-vector) {given}, the network "
                                  f"{shape}: they are not of one system")
        self.f2s.init_(self.init_norm_(gmm))
        self.s2i.init_(extractor, *self.constants())
        return self

    def normalise(self, x):
        """Frames z of features x, both (B,T,D)."""
        return self.input_norm(x.transpose(1, 2)).transpose(1, 2)

    def statistics(self, x):
        """n (B,C) and f (B,C,D) of features x (B,T,D)."""
        z = self.normalise(x)
        posteriors = self.f2s(z).exp()
        n, f = posteriors.sum(dim=1), posteriors.transpose(1, 2) @ z
        weight, count = self.options.acoustic_weight, x.shape[1]
        if 0 < self.options.max_count < weight * count:
            weight = self.options.max_count / count
        return weight * n, weight * f

    def embed(self, x):
        """Embeddings (B,d) of features x (B,T,D)."""
        return self.s2i(*self.statistics(x)).to(x.dtype)
