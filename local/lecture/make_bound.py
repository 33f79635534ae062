#!/usr/bin/env python3
"""Compute the lower bound of EM over one mean of a mixture: ln p(X|mu) and L(q,mu) for each E-step's q.

Everything but the mean of one component stays as it is in <gmm-rxfilename>. From --start on, each E-step
puts q to the posteriors under the present mu, where L touches ln p, and each M-step moves mu to the
maximum of L, a parabola. Likelihoods are those of voxark.gmm, all sums in double precision. The table has
a line for each mu of a raster and for each touching point: iteration (0: ln p itself), kind (curve,
touch, top), mu, value per frame.

Usage: make_bound.py [options] <gmm-rxfilename> <feats-archive> <table>
e.g.: make_bound.py --component=2 --start=1.7 true.gmm feats bound.tsv
See also: egs/lecture/run.sh, local/lecture/plot_bound.py
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

from typing import Annotated

import numpy as np

from models import RANGE_1D
from reading import read_gmms, read_stacked
from voxark.errors import VoxarkError
from voxark.gmm.diag import DiagGmm
from voxark.io.streams import open_text_output


def moved(gmm, component, mu):
    """Return the mixture with the mean of one component at mu."""
    means = gmm.means.copy()
    means[component] = mu
    return DiagGmm(gmm.weights, means, gmm.variances)


def log_likelihood(gmm, x):
    """ln p(X) per frame."""
    return gmm.log_likelihood(x).mean()


def lower_bound(gmm, x, q):
    """L(q, eta) = Q + H per frame: sum_c q ln p(x,c) - sum_c q ln q [lecture], with 0 ln 0 = 0."""
    entropy = -np.sum(q * np.log(np.where(q > 0, q, 1.0)), axis=1)
    return (np.sum(q * gmm.component_log_likelihoods(x), axis=1) + entropy).mean()


def responsibilities(gmm, x):
    """q (N,C): the posteriors of the components."""
    return np.exp(gmm.component_log_likelihoods(x) - gmm.log_likelihood(x)[:, None])


def compute(gmm, x, component, mu, num_iters, raster):
    """Yield the lines of the table: (iteration, kind, mu, value)."""
    for point in raster:
        yield 0, "curve", point, log_likelihood(moved(gmm, component, point), x)
    for iteration in range(1, num_iters + 1):
        present = moved(gmm, component, mu)
        q = responsibilities(present, x)  # E-step
        yield 0, "touch", mu, log_likelihood(present, x)
        yield iteration, "touch", mu, lower_bound(present, x, q)
        for point in raster:
            yield iteration, "curve", point, lower_bound(moved(gmm, component, point), x, q)
        mu = q[:, component] @ x[:, 0] / q[:, component].sum()  # M-step, of this mean alone
        yield iteration, "top", mu, lower_bound(moved(gmm, component, mu), x, q)
        yield 0, "top", mu, log_likelihood(moved(gmm, component, mu), x)


@cli.program
def main(
    gmm_rxfilename: str,
    feats_archive: str,
    table: str,
    *,
    component: Annotated[int, "Component whose mean moves, from 1."] = 1,
    start: Annotated[float, "Where the mean starts."] = 0.0,
    num_iters: Annotated[int, "Number of E-steps."] = 4,
    num_points: Annotated[int, "Number of points of the raster."] = 281,
) -> int:
    (gmm,) = read_gmms([gmm_rxfilename])
    if gmm.dim != 1 or not 1 <= component <= gmm.num_gauss:
        raise VoxarkError(
            f"{gmm_rxfilename}: a mixture in one dimension with a component {component} is expected"
        )
    x, raster = read_stacked("mat", feats_archive), np.linspace(*RANGE_1D, num_points)
    counts = cli.Counts("lines")
    with open_text_output(table) as out:
        out.write("iteration\tkind\tmu\tvalue\n")
        for iteration, kind, mu, value in compute(gmm, x, component - 1, start, num_iters, raster):
            out.write(f"{iteration}\t{kind}\t{mu:.12g}\t{value:.15g}\n")
            counts.done()
    return counts.finish()


if __name__ == "__main__":
    main()
