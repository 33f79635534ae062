"""The synthetic speakers of the mini corpus: who they are, and how one of them says a sentence."""

import hashlib
from dataclasses import dataclass

import numpy as np

# espeak-ng's voice variants that sound like people and do not overload; their files name a gender, or do not.
VARIANTS = (
    "m1 m2 m3 m4 m5 m6 m8 Denis victor Lee Andy "
    "f1 f2 f3 f4 f5 Annie aunty belinda linda grandma "
    "boris max shelby quincy rob ian"
).split()
ACCENTS = "en en-US en-US-nyc en-GB-scotland en-GB-x-rp en-GB-x-gbclan en-GB-x-gbcwmd en-029".split()


def generator(seed, *key):
    """A random generator that depends on the seed and the key's words alone."""
    digest = hashlib.sha256("\0".join([str(seed), *key]).encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, dtype=np.uint32))


@dataclass
class Speaker:
    """A voice: espeak's variant, accent and settings, and our own shift of the whole spectrum by ``warp``."""

    name: str
    variant: str
    accent: str
    pitch: float
    pitch_range: float
    rate: float
    warp: float
    sentences: list

    @property
    def voice(self):
        """The voice's name for espeak-ng."""
        return f"gmw/{self.accent}+{self.variant}"


def draw_speaker(seed, group, index, sentences):
    """Speaker number ``index`` (from 0) of a group: the same one whatever the size of the corpus.

    As many speakers of a group as there are variants use each once. sentences is the list to take from; each
    speaker has an order of their own.
    """
    cycle, place = divmod(index, len(VARIANTS))
    variant = VARIANTS[generator(seed, "variants", group, str(cycle)).permutation(len(VARIANTS))[place]]
    name = f"{group}{index + 1:03d}"
    rng = generator(seed, "speaker", name)
    return Speaker(
        name=name,
        variant=variant,
        accent=str(rng.choice(ACCENTS)),
        pitch=float(rng.uniform(25, 75)),
        pitch_range=float(rng.uniform(25, 75)),
        rate=float(rng.uniform(145, 200)),
        warp=float(rng.uniform(0.9, 1.12)),
        sentences=[sentences[i] for i in rng.permutation(len(sentences))],
    )


def say(synthesizer, speaker, text, rate_out, rng):
    """One sentence in one session: samples (N,) float64 at rate_out Hz, and phones (name, start, end).

    Nobody speaks the same way twice: pitch, range and rate vary from session to session. Speech is resampled
    by more or less than the change of rate asks for, which moves all formants by ``warp`` as a vocal tract of
    another length does; start and end are in samples of the result.
    """
    from scipy.signal import resample_poly

    pitch = np.clip(speaker.pitch + rng.uniform(-10, 10), 0, 99)
    pitch_range = np.clip(speaker.pitch_range + rng.uniform(-15, 15), 0, 99)
    rate = speaker.rate * rng.uniform(0.92, 1.08) / speaker.warp
    speech = synthesizer.say(speaker.voice, text, round(rate), round(pitch), round(pitch_range))
    common = np.gcd(rate_out, speech.rate)
    up, down = rate_out // common, round(speech.rate // common * speaker.warp)
    samples = resample_poly(speech.samples / 32768.0, up, down)
    times = [
        (name, start * up // down, min(end * up // down, len(samples))) for name, start, end in speech.phones
    ]
    return samples, times
