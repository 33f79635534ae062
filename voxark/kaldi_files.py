"""Kaldi's objects in binary and text, both ways, byte for byte: what the modules of voxark/io know of them.

A codec is a pair of functions: ``read_x(source, binary)`` takes a :class:`voxark.io.streams.Source` that
stands behind the ``\\0B`` mark (binary) or at the text; ``write_x(out, value, binary)`` takes anything with a
``write(bytes)`` method. Numbers in text have seven significant digits, as Kaldi writes them.
"""

from voxark.io.array_files import (  # noqa: F401 - this module is the interface
    read_int_vector, read_matrix, read_packed, read_vector, write_int_vector, write_matrix, write_packed,
    write_vector)
from voxark.io.basic_types import (  # noqa: F401
    expect_token, read_flags, read_float, read_int, read_token, write_double, write_flags, write_float,
    write_int, write_token)
from voxark.io.ivector_files import (  # noqa: F401
    IvectorExtractorParams, IvectorStatsParams, read_ivector_extractor, read_ivector_stats,
    write_ivector_extractor, write_ivector_stats)
from voxark.io.model_files import (  # noqa: F401
    FLAG_MEANS, FLAG_VARIANCES, FLAG_WEIGHTS, DiagGmmParams, DpldaParams, FullGmmParams, GmmAccsParams,
    PldaParams, read_diag_gmm, read_dplda, read_full_gmm, read_gmm, read_gmm_accs, read_plda, write_diag_gmm,
    write_dplda, write_full_gmm, write_gmm, write_gmm_accs, write_plda)
from voxark.io.posteriors import (  # noqa: F401
    GaussSelection, Posteriors, read_int_lists, read_posterior, read_posterior_arrays, read_selection_arrays,
    write_int_lists, write_posterior, write_posterior_arrays, write_selection_arrays)
