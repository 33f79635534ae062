"""Options of the voice activity detector that uses an HMM (apart, so that programs load fast without it)."""

from dataclasses import dataclass

from voxark.errors import VoxarkError
from voxark.options import option


@dataclass
class HmmVadOptions:
    """Options of --hmm; without --hmm-model the HMM is fitted to each recording, by its energy."""

    hmm: bool = option(False, "Decide by an HMM instead of the threshold on the energy")
    hmm_model: str = option("", "HMM trained before, on such features (default: fit one to each recording)")
    hmm_silence_states: str = option("0", "States of --hmm-model that are not speech, separated by commas")
    hmm_threshold: float = option(0.5, "A frame is voiced if its probability of speech is at least this")
    hmm_num_states: int = option(
        3, "States of the HMM fitted to a recording: 2 (silence, speech) or 3 (silence, weak, strong speech)")
    hmm_num_gauss: int = option(1, "Gaussians of each of its states")
    hmm_num_iters: int = option(4, "EM iterations that fit it")
    hmm_columns: int = option(13, "Number of columns of the features that it uses, the energy included")
    hmm_context: int = option(2, "Energies of this number of frames on each side that it uses besides")
    hmm_min_silence: int = option(
        15, "Least number of frames of a silence inside a recording: closures of stops are shorter")

    def check(self):
        """Raise VoxarkError for numbers that make no sense."""
        if self.hmm_num_states not in (2, 3):
            raise VoxarkError(f"--hmm-num-states={self.hmm_num_states}: expected 2 or 3")
        if min(self.hmm_num_gauss, self.hmm_num_iters, self.hmm_columns, self.hmm_min_silence) < 1:
            raise VoxarkError("--hmm-num-gauss, -num-iters, -columns and -min-silence must be at least 1")
        if self.hmm_context < 0 or not 0 < self.hmm_threshold < 1:
            raise VoxarkError("--hmm-context must not be negative, --hmm-threshold between 0 and 1")
        try:
            self.silence_states()
        except ValueError:
            raise VoxarkError(f"--hmm-silence-states={self.hmm_silence_states}: expected numbers") from None

    def silence_states(self):
        """Return the list of --hmm-silence-states."""
        return [int(word) for word in self.hmm_silence_states.split(",")]
