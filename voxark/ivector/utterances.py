"""Features and posteriors, read side by side, as the utterances that statistics are made of."""

from dataclasses import dataclass

from voxark.errors import VoxarkError
from voxark.ivector.baum_welch import check_posteriors
from voxark.options import option


@dataclass
class WeightOptions:
    """How much the frames count, named as Kaldi names it."""

    acoustic_weight: float = option(
        1.0, "Weight of the posteriors; below 1 because neighbouring frames are not independent")

    def check(self):
        """Raise VoxarkError for a weight that makes no sense."""
        if not self.acoustic_weight > 0:
            raise VoxarkError(f"--acoustic-weight={self.acoustic_weight:g}: a number above 0 is expected")

    def scale(self, post):
        """What the posteriors of an utterance are multiplied by."""
        return self.acoustic_weight


@dataclass
class ExtractionOptions(WeightOptions):
    """As WeightOptions, with a limit."""

    max_count: float = option(0.0, "Scale an utterance's posteriors down to this sum at most (0: no limit)")

    def check(self):
        """Raise VoxarkError for numbers that make no sense."""
        super().check()
        if self.max_count < 0:
            raise VoxarkError(f"--max-count={self.max_count:g}: a number from 0 is expected")

    def scale(self, post):
        """What the posteriors of an utterance are multiplied by."""
        count = self.acoustic_weight * float(post.value.sum(dtype="float64"))
        limited = self.max_count > 0 and count > self.max_count
        return self.acoustic_weight * (self.max_count / count if limited else 1.0)


def asked_once(rspecifier):
    """Return ``rspecifier`` with the flag o: an archive's values are let go when they have been used."""
    head, colon, rest = rspecifier.partition(":")
    flags = head.split(",")
    return f"{head},o:{rest}" if colon and "ark" in flags and "o" not in flags else rspecifier


def read_utterances(feats, posts, extractor, weights, counts):
    """Yield (key, x (T,D), Posteriors, scale) of each utterance that can be used.

    ``feats`` iterates (key, x); ``posts`` is read by key. ``counts`` (with fail(key, reason)) hears of
    utterances without posteriors, with posteriors of another length, without frames, and the like.
    """
    for key, x in feats:
        if key not in posts:
            counts.fail(key, "no posteriors")
            continue
        post = posts[key]
        try:
            if len(x) == 0:
                raise VoxarkError("no frames")
            check_posteriors(x, post, extractor.num_gauss, extractor.dim)
            if not post.value.any():
                raise VoxarkError("its frames have no posteriors above zero")
        except VoxarkError as error:
            counts.fail(key, str(error))
            continue
        yield key, x, post, weights.scale(post)
