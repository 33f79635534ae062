"""Read what the programs wrote: mixtures, PLDA models, tables, posteriors, the terms of EM."""

from collections import namedtuple

import numpy as np

from voxark import tables
from voxark.backend.plda import Plda
from voxark.errors import VoxarkError
from voxark.gmm.full import FullGmm
from voxark.gmm.model import read_gmm
from voxark.report.rows import read_rows

Terms = namedtuple("Terms", "iteration step lnp q h kl num")


def covariances(gmm):
    """Return the covariances (C,D,D) of a DiagGmm or FullGmm."""
    return gmm.covars if isinstance(gmm, FullGmm) else np.stack([np.diag(v) for v in gmm.variances])


def read_gmms(paths):
    """Return the list of mixtures of some files."""
    return [read_gmm(str(path)) for path in paths]


def read_table(kind, path):
    """Return {key: value} of an archive, in its order."""
    with tables.open_reader(kind, f"ark:{path}") as reader:
        return dict(reader)


def read_stacked(kind, path):
    """Return the values of an archive, one behind the other, as float64 or integers."""
    values = np.concatenate(list(read_table(kind, path).values()))
    return values.astype(np.float64) if values.dtype.kind == "f" else values


def read_posteriors(path, num_gauss):
    """Return the posteriors of an archive as (N,C): what gmm-get-post leaves out is 0."""
    frames = [frame for frames in read_table("post", path).values() for frame in frames]
    gamma = np.zeros((len(frames), num_gauss))
    for row, frame in zip(gamma, frames):
        for component, value in frame:
            row[component] = value
    return gamma


def read_plda(path):
    """Return the Plda of a file."""
    return Plda.from_params(tables.read_object("plda", str(path)))


def read_terms(path):
    """Return the Terms of a --report-file, in its order, all per frame or vector but ``num``."""
    terms = []
    for row in read_rows(path):
        try:
            lnp, q, h, kl, num = (float(row[name]) for name in ("lnp", "Q", "H", "KL", "num"))
            terms.append(
                Terms(int(row["iteration"]), row["step"], lnp / num, q / num, h / num, kl / num, num)
            )
        except (KeyError, ValueError, TypeError) as error:
            raise VoxarkError(f"{path}: not a table of the terms of EM ({error!r})") from None
    return terms


def iterations(text):
    """Return the numbers of a list like "1,2,5"."""
    try:
        numbers = [int(word) for word in text.split(",")]
    except ValueError:
        raise VoxarkError(f"--show={text}: numbers with commas are expected") from None
    if min(numbers) < 0:
        raise VoxarkError(f"--show={text}: iterations count from 0")
    return numbers


def choose_sequence(feats, key=""):
    """Return ``key``, or the first key of {key: x (T,D)} of 30 to 45 observations, or the first of all."""
    if key and key not in feats:
        raise VoxarkError(f"--utt={key}: there is no such sequence")
    return key or next((k for k, x in feats.items() if 30 <= len(x) <= 45), next(iter(feats)))
