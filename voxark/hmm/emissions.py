"""Log-likelihoods of frames under all the mixtures of an HMM at once, and their statistics."""

import numpy as np

from voxark.gmm.em import DiagAccs

BLOCK_CELLS = 1 << 18  # frames times Gaussians of a block: it stays in the cache


class Emissions:
    """The Gaussians of P mixtures side by side; products in float64 around an offset amid the means."""

    def __init__(self, pdfs, offset=None):
        self.sizes = np.array([pdf.num_gauss for pdf in pdfs])
        self.starts = np.cumsum(self.sizes) - self.sizes
        self.pdf_of_gauss = np.repeat(np.arange(len(pdfs)), self.sizes)
        self.offset = np.mean([pdf.mean() for pdf in pdfs], axis=0) if offset is None else offset
        forms = [pdf.exponential_form(self.offset) for pdf in pdfs]
        self._g = np.concatenate([g for g, _ in forms])
        self._w = np.concatenate([w for _, w in forms])

    def _blocks(self, x):
        """Yield (rows, [z, z*z], ln(weight N) (n,G)) block by block."""
        size = max(16, BLOCK_CELLS // len(self._g))
        dim = x.shape[1]
        for start in range(0, len(x), size):
            rows = slice(start, min(start + size, len(x)))
            z = np.empty((rows.stop - start, 2 * dim))
            np.subtract(x[rows], self.offset, out=z[:, :dim])
            np.square(z[:, :dim], out=z[:, dim:])
            yield rows, z, z @ self._w.T + self._g

    def _mixtures(self, lls):
        """ln sum over the components of each mixture: (n,P) from (n,G)."""
        if len(self.sizes) == len(self._g):
            return lls
        peak = np.maximum.reduceat(lls, self.starts, axis=1)
        shift = np.where(np.isfinite(peak), peak, 0.0)
        total = np.add.reduceat(np.exp(lls - shift[:, self.pdf_of_gauss]), self.starts, axis=1)
        with np.errstate(divide="ignore"):
            return np.log(total) + shift

    def log_likelihoods(self, x):
        """Return ln p(x|pdf) as (N,P) for frames x (N,D)."""
        out = np.empty((len(x), len(self.sizes)))
        for rows, _, lls in self._blocks(x):
            out[rows] = self._mixtures(lls)
        return out

    def components(self, x):
        """Yield (rows, ln(weight N) (n,G), ln responsibilities (n,G)) of frames x (N,D), block by block."""
        for rows, _, lls in self._blocks(x):
            total = self._mixtures(lls)[:, self.pdf_of_gauss]
            yield rows, lls, lls - np.where(np.isfinite(total), total, 0.0)

    def zeros(self):
        """Return empty statistics of all Gaussians."""
        return DiagAccs.zeros(len(self._g), self.offset)

    def accumulate(self, x, gamma, accs):
        """Add the statistics of frames x (N,D) with the pdfs' posteriors gamma (N,P) to ``accs``.

        n_c = sum gamma_pdf(c) r_c and so on, r being the responsibilities within each mixture.
        """
        dim = x.shape[1]
        one_each = len(self.sizes) == len(self._g)
        for rows, z, lls in self._blocks(x):
            weights = gamma[rows]
            if not one_each:
                total = self._mixtures(lls)
                lls -= np.where(np.isfinite(total), total, 0.0)[:, self.pdf_of_gauss]
                weights = np.exp(lls, out=lls) * weights[:, self.pdf_of_gauss]
            products = weights.T @ z
            accs.n += weights.sum(axis=0)
            accs.f += products[:, :dim]
            accs.s += products[:, dim:]
