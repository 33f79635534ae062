"""Files of Gaussian mixtures, with diagonal or full covariances: the file says which."""

from voxark import tables
from voxark.gmm.diag import DiagGmm
from voxark.gmm.full import FullGmm
from voxark.kaldi_files import DiagGmmParams


def gmm_from_params(params):
    """Return the DiagGmm or FullGmm of what a file holds (DiagGmmParams or FullGmmParams)."""
    return (DiagGmm if isinstance(params, DiagGmmParams) else FullGmm).from_params(params)


def read_gmm(rxfilename):
    """Read <DiagGMM> or <FullGMM>: return a DiagGmm or a FullGmm; VoxarkError names the file."""
    return tables.read_model("gmm", rxfilename, gmm_from_params)


def write_gmm(wxfilename, gmm, binary=True):
    """Write a DiagGmm as <DiagGMM> or a FullGmm as <FullGMM>, in float32 as Kaldi does."""
    kind = "diag-gmm" if isinstance(gmm, DiagGmm) else "full-gmm"
    tables.write_object(kind, wxfilename, gmm.to_params(), binary=binary)
