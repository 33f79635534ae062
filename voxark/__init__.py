"""voxark: speaker verification and disentangled speech representations, in Kaldi's file formats."""

__version__ = "0.1.0"
