"""The kinds of pictures of plot-fhvae: from tables and folders to what is drawn of them."""

import logging
from dataclasses import dataclass

import numpy as np

from voxark import tables
from voxark.checks import SameDimension, check_finite
from voxark.errors import VoxarkError
from voxark.report import fhvae_histogram, fhvae_recombination, fhvae_training, fhvae_tsne
from voxark.report.fhvae_labels import LabelOptions, check_titles, read_labels
from voxark.report.fhvae_points import Sample, sample_points

logger = logging.getLogger(__name__)


@dataclass
class PictureOptions:
    """Options of all kinds of pictures."""

    seed: int
    max_points: int
    tsne: fhvae_tsne.TsneOptions
    labels: LabelOptions
    recombination: fhvae_recombination.RecombinationOptions
    histogram: fhvae_histogram.HistogramOptions

    def check(self):
        """Raise VoxarkError for a picture of nothing."""
        if self.max_points < 1:
            raise VoxarkError(f"--max-points={self.max_points}: at least one segment is needed")


def tsne_picture(path, inputs, options):
    """t-SNE of archives of z1 and z2, coloured by tables of labels."""
    options.tsne.check()
    options.labels.check()
    fhvae_tsne.require_scikit_learn()
    factors = [read_labels(source, options.labels) for source in inputs[2:]]
    check_titles(factors)
    with tables.open_reader("mat", inputs[0]) as z1, tables.open_random("mat", inputs[1]) as z2:
        points = sample_points(z1, z2, factors, options.max_points, options.seed)
    places = [fhvae_tsne.project(z, options.tsne.perplexity, options.seed) for z in (points.z1, points.z2)]
    titles = [factor.title for factor in factors]
    fhvae_tsne.draw_tsne(path, places, titles, points.labels, options.tsne.max_classes)
    logger.info("%s: %d segments by %s", path, len(points.z1), ", ".join(titles))


def recombination_picture(path, inputs, options):
    """Segments of features, recombined by a model."""
    seed, options = options.seed, options.recombination
    options.check()
    from voxark.nnet.needs import require_torch

    require_torch()
    from voxark.fhvae.model import load_model

    model = load_model(inputs[0])
    length = model.segment_length
    labels = tables.read_table("token", options.utt2label) if options.utt2label else {}
    if options.x_a:
        with tables.open_random("mat", inputs[1]) as feats:
            a, b = (fhvae_recombination.read_pieces(feats, text, name, length, labels)
                    for text, name in ((options.x_a, "x-a"), (options.x_b, "x-b")))
    else:
        rng = np.random.default_rng(seed)
        with tables.open_reader("mat", inputs[1]) as feats:
            a, b = fhvae_recombination.draw_pieces(feats, (options.num_a, options.num_b), length, labels, rng)
    mixed = fhvae_recombination.recombine(model, a, b)
    fhvae_recombination.draw_recombination(path, a, b, mixed, options.context)
    for name, pieces in (("x-a", a), ("x-b", b)):
        logger.info("--%s=%s", name, ",".join(f"{piece.key}:{piece.start}" for piece in pieces))


def _read_s_vectors(rspecifier):
    """(row by key, mu2 (M,D)) of a table of s-vectors."""
    keys, rows, same = {}, [], SameDimension()
    with tables.open_reader("vec", rspecifier) as reader:
        for key, mu2 in reader:
            same.require(key, len(mu2))
            check_finite(mu2, f"{key}: mu2")
            keys[key] = len(rows)
            rows.append(mu2)
    if not rows:
        raise VoxarkError(f"{rspecifier}: there are no s-vectors")
    return keys, np.array(rows)


def histogram_picture(path, inputs, options):
    """The histogram of log-sums of densities over growing numbers of sequences."""
    variance = options.histogram.variance
    keys, mu2 = _read_s_vectors(inputs[1])
    sizes = options.histogram.sizes(len(keys))
    rng, absent = np.random.default_rng(options.seed), 0
    chosen = Sample(options.max_points, rng)
    with tables.open_reader("mat", inputs[0]) as reader:
        for key, z2 in reader:
            if key not in keys:
                absent += 1
                continue
            if z2.shape[1] != mu2.shape[1]:
                raise VoxarkError(f"{key}: z2 of {z2.shape[1]} dimensions, but mu2 of {mu2.shape[1]}")
            check_finite(z2, f"{key}: z2")
            chosen.offer(z2, [keys[key]] * len(z2))
    if absent:
        logger.warning("%d utterances of z2 have no mu2, and are left out", absent)
    if not chosen.offered:
        raise VoxarkError("no utterance of z2 has an mu2: are the keys the same?")
    z2, own = map(np.array, chosen.columns())
    sums = fhvae_histogram.log_density_sums(z2, own, mu2, sizes, variance, rng)
    fhvae_histogram.draw_histogram(path, sizes, sums, variance)
    means = sums.mean(axis=1)
    for size, mean in zip(sizes, means):
        logger.info("M = %d: mean %.3f over %d segments", size, mean, len(z2))
    for size, larger, shift in zip(sizes, sizes[1:], fhvae_histogram.shifts_per_decade(sizes, means)):
        logger.info("from M = %d to %d: mean shift per decade %.3f (ln 10 = 2.303)", size, larger, shift)


def training_picture(path, inputs, options):
    """The curves of trainings."""
    fhvae_training.draw_training(path, inputs)


# kind -> its function, and how many inputs it takes at least and at most (0: any number)
KINDS = {
    "tsne": (tsne_picture, 3, 0),
    "recombination": (recombination_picture, 2, 2),
    "histogram": (histogram_picture, 2, 2),
    "training": (training_picture, 1, 0),
}
