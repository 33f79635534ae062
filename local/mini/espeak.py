"""espeak-ng through ctypes: speech with the times of its phones.

The library keeps state from one call to the next (vibrato, noise), so the same calls in the same order from a
fresh process give the same samples. Whoever needs repeatable speech starts a process for each chunk of work.
"""

import ctypes
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from voxark.errors import VoxarkError

INSTALL_HINT = "pip install espeakng-loader (GPL-3; only the mini corpus uses it)"

_RETRIEVAL = 1  # espeak_AUDIO_OUTPUT: samples go to the callback, nothing is played
_PHONEME_EVENTS, _DO_NOT_EXIT = 0x0001, 0x8000
_EVENT_END_OF_LIST, _EVENT_PHONEME = 0, 7
_PARAMETERS = {"rate": 1, "pitch": 3, "pitch_range": 4}
_UTF8 = 1
_NOTHING_SAID = ctypes.c_uint(0)

# espeak's phone names (stress marks removed) as ARPAbet; what English accents add is folded into the nearest.
_ARPABET = {
    "sil": "_ _: _! _| _^ _::",
    "aa": "0 A: A@ A# A:# A0", "ae": "a aa", "ah": "V", "ao": "O: O@ O2 o@ O", "aw": "aU",
    "ax": "@ @2 @5 a# @#", "ay": "aI aI@ aI2 aI3", "eh": "E e@ E2 E#", "el": "@L", "er": "3: 3 IR VR",
    "ey": "eI e:", "ih": "I I2 I#",
    "ia": "i@ i@3", "iy": "i: i i#", "ow": "oU o: o", "oy": "OI", "uh": "U U@ U#", "uw": "u: u u#",
    "b": "b", "ch": "tS", "d": "d", "dh": "D d[", "dx": "t#", "f": "f", "g": "g", "hh": "h x", "jh": "dZ",
    "k": "k", "l": "l l/ l/2 L", "m": "m m-", "n": "n n-", "ng": "N", "p": "p", "q": "?", "r": "r r- r/ R",
    "s": "s", "sh": "S",
    "t": "t t2", "th": "T t[", "v": "v", "w": "w w#", "y": "j ;", "z": "z z/2", "zh": "Z",
}  # fmt: skip
_TO_ARPABET = {name: phone for phone, names in _ARPABET.items() for name in names.split()}
PHONES = tuple(_ARPABET)


class _Identity(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Identity),
    ]


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


@dataclass
class Speech:
    """Samples (N,) int16, their rate in Hz, and phones as (name, start, end) in samples, without gaps."""

    samples: np.ndarray
    rate: int
    phones: list


def is_installed():
    """True when the package that ships espeak-ng can be imported."""
    return importlib.util.find_spec("espeakng_loader") is not None


def data_dir():
    """The folder of espeak-ng's voices, of the installed package."""
    if not is_installed():
        raise VoxarkError(f"the mini corpus needs espeak-ng: {INSTALL_HINT}")
    import espeakng_loader

    return Path(espeakng_loader.get_data_path())


def variant_gender(variant):
    """'m', 'f', or None where the voice variant's file names no gender."""
    path = data_dir() / "voices" / "!v" / variant
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        words = line.lower().split()
        if len(words) > 1 and words[0] == "gender":
            return {"male": "m", "female": "f"}.get(words[1])
    return None


def to_arpabet(name):
    """The ARPAbet phone of one of espeak's names for English, stress marks and all."""
    bare = name.lstrip("',%=")
    if bare not in _TO_ARPABET:
        raise VoxarkError(f"espeak-ng phone '{name}' is not in the table of {__file__}; add it there")
    return _TO_ARPABET[bare]


class Synthesizer:
    """espeak-ng in this process; make one, and only one, in a process that does nothing else with it."""

    def __init__(self):
        data = data_dir()
        import espeakng_loader

        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        self._libc = ctypes.CDLL(None)
        options = _PHONEME_EVENTS | _DO_NOT_EXIT
        self.rate = self._library.espeak_Initialize(_RETRIEVAL, 0, str(data).encode(), options)
        if self.rate <= 0:
            raise VoxarkError(
                f"espeak-ng does not start with the voices in {data}; reinstall: {INSTALL_HINT}"
            )
        self._blocks, self._marks = [], []
        self._callback = _Callback(self._receive)  # kept: the library holds only its address
        self._library.espeak_SetSynthCallback(self._callback)

    def _receive(self, samples, count, events):
        if samples and count > 0:
            self._blocks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        i = 0
        while events[i].type != _EVENT_END_OF_LIST:
            if events[i].type == _EVENT_PHONEME:
                self._marks.append((events[i].sample, events[i].id.string.decode("utf-8", "replace")))
            i += 1
        return 0

    def say(self, voice, text, rate=170, pitch=50, pitch_range=50):
        """Speak one sentence: ``Speech``.

        voice is like gmw/en-US+f2; rate is in words a minute; pitch and pitch_range are 0 to 99, 50 is usual.
        """
        self._blocks.clear()
        self._marks.clear()
        # breathy voices draw noise from these two generators, which espeak-ng seeds with the time
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(1))
        self._libc.srand(1)
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise VoxarkError(f"espeak-ng has no voice '{voice}'")
        for name, value in (("rate", rate), ("pitch", pitch), ("pitch_range", pitch_range)):
            self._library.espeak_SetParameter(_PARAMETERS[name], int(value), 0)
        data = text.encode("utf-8") + b"\0"
        status = self._library.espeak_Synth(
            data, len(data), 0, 0, 0, _UTF8, ctypes.byref(_NOTHING_SAID), None
        )
        if status != 0 or self._library.espeak_Synchronize() != 0 or not self._blocks:
            raise VoxarkError(f"espeak-ng said nothing for '{text}' with voice {voice} (status {status})")
        samples = np.concatenate(self._blocks)
        return Speech(samples, self.rate, _segments(self._marks, len(samples)))


def _segments(marks, num_samples):
    """Turn the marks (start, name) into phones that fill 0..num_samples; neighbouring silences are one."""
    starts = [(0, "sil")] + [(min(start, num_samples), to_arpabet(name)) for start, name in marks if name]
    phones = []
    for (start, name), (end, _) in zip(starts, starts[1:] + [(num_samples, "")], strict=True):
        if end <= start:
            continue
        if phones and name == "sil" and phones[-1][0] == "sil":
            phones[-1] = ("sil", phones[-1][1], end)
        else:
            phones.append((name, start, end))
    return phones
