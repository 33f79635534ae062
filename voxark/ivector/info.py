"""What an i-vector extractor is, in words and numbers, for ivector-info."""

import numpy as np

from voxark.ivector.extractor import CENTRED_OFFSET, IvectorExtractor
from voxark.ivector.train import fixed_bytes


def describe(params):
    """Return the figures, name -> value, of voxark.kaldi_files.IvectorExtractorParams.

    An extractor whose weights depend on the i-vector is described by its shape only: the rest cannot use it.
    """
    num_gauss, dim, ivector_dim = params.m.shape
    form = "centred" if params.offset == CENTRED_OFFSET else "kaldi"
    shape = {"num_gauss": num_gauss, "dim": dim, "ivector_dim": ivector_dim, "form": form,
             "offset": float(params.offset), "weights_depend_on_ivector": bool(params.w.size)}
    if params.w.size:
        return {**shape, "form": "kaldi"}
    model = IvectorExtractor.from_params(params)
    explained, residual = model.variance_shares()
    quadratic = [np.einsum("dr,dr->r", t, s @ t) for t, s in zip(model.t, model.sigma_inv)]
    per_frame = np.sort(model.weights @ np.array(quadratic))[::-1]  # what a frame adds to the diagonal of L
    packed = model.ivector_dim * (model.ivector_dim + 1) // 2
    extraction = 8e-6 * num_gauss * (2 * dim * model.ivector_dim + packed + 2 * dim * dim)
    return {
        **shape, "ivector_dim": model.ivector_dim, "offset": float(model.offset),
        "trace_explained": float(explained), "trace_residual": float(residual),
        "share_explained": float(explained / (explained + residual)),
        "precision_per_frame_largest": float(per_frame[0]),
        "precision_per_frame_smallest": float(per_frame[-1]),
        "megabytes_to_extract": float(extraction),
        "megabytes_to_train": 1e-6 * fixed_bytes(num_gauss, dim, model.ivector_dim),
        "kilobytes_of_an_utterance": 8e-3 * num_gauss * (dim + 1),
    }
