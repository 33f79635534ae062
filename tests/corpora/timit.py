"""TIMIT trees as the LDC ships them (LDC93S1) and as others pass them on, small ones and one of full size."""

import functools
import os
import sys

import numpy as np
from corpora import sounds
from helpers import ROOT, shared_data

sys.path.insert(0, str(ROOT / "local" / "timit"))
from timit_speakers import CORE_TEST, DEV, NUM_TRAIN  # noqa: E402

LAYOUTS = ("ldc", "lower", "riff", "double")
NUM_TEST = {
    "dr1": 11,
    "dr2": 26,
    "dr3": 26,
    "dr4": 32,
    "dr5": 28,
    "dr6": 11,
    "dr7": 23,
    "dr8": 11,
}  # 168 speakers
_TOP = {"ldc": "TIMIT", "lower": "timit", "riff": "", "double": "data"}


class Sentence:
    """One sentence on the disk: samples (n,) int16, phones and words as (first, behind last, label)."""

    def __init__(self, samples, phones, words):
        self.samples, self.phones, self.words = samples, phones, words

    def cut(self, seconds):
        """The same up to the last phone that ends within so many seconds."""
        end = max(
            end for _, end, _ in self.phones if end <= seconds * sounds.RATE or end == self.phones[0][1]
        )
        phones, words = ([row for row in rows if row[1] <= end] for rows in (self.phones, self.words))
        return Sentence(self.samples[:end], phones, words)


def path_of(layout, part, dialect, speaker, sentence, kind):
    """The relative path of a file in one of LAYOUTS; kind: wav, phn, wrd or txt."""
    name = f"{sentence}.{kind}"
    path = f"{part}/{dialect}/{speaker}/{name}"
    if layout == "lower":
        return f"timit/{path}"
    path = path.upper() + (".wav" if layout == "double" and kind == "wav" else "")
    return f"{_TOP[layout]}/{path}".lstrip("/")


def write_sentence(folder, layout, part, dialect, speaker, name, sentence):
    """Write the four files of a sentence."""
    encode = sounds.wav if layout in ("riff", "double") else sounds.sphere
    lines = {"phn": sentence.phones, "wrd": sentence.words}
    text = " ".join(word for _, _, word in sentence.words)
    contents = {
        "wav": encode(sentence.samples),
        "txt": f"0 {len(sentence.samples)} {text.capitalize()}.\n".encode(),
    }
    for kind, rows in lines.items():
        contents[kind] = "".join(f"{start} {end} {label}\n" for start, end, label in rows).encode()
    for kind, data in contents.items():
        path = folder / path_of(layout, part, dialect, speaker, name, kind)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _spread(words, phones):
    """Words laid over the phones between the silences."""
    inner = phones[1:-1]
    edges = np.linspace(0, len(inner), len(words) + 1).astype(int)
    return [(inner[a][0], inner[b - 1][1], word) for word, a, b in zip(words, edges, edges[1:]) if b > a]


def synthetic_sentence(speaker, name, seconds):
    """A Sentence of a synthetic voice; the sa sentences are the same words for all."""
    samples, phones = sounds.Voice(speaker).say("timit", speaker, name, seconds=seconds)
    words = sounds.seeded("words", name if name.startswith("sa") else (speaker, name)).choice(sounds.WORDS, 5)
    return Sentence(samples, phones, _spread([str(word) for word in words], phones))


def _rows(path, rate):
    rows = {}
    for line in path.read_text().splitlines():
        key, _, start, length, label = line.split()
        end = float(start) + float(length)
        rows.setdefault(key, []).append((round(float(start) * rate), round(end * rate), label))
    return rows


def recorded_speakers(source):
    """{speaker: {name of the sentence: function that gives the Sentence}} of a folder like timit_sample."""
    import soundfile

    phones, words = (_rows(source / "all" / name, sounds.RATE) for name in ("phones.ctm", "words.ctm"))

    def read(key, path):
        samples, _ = soundfile.read(source / path, dtype="int16")
        return Sentence(samples, phones[key], words[key])

    speakers = {}
    for line in (source / "all" / "wav.scp").read_text().splitlines():
        key, path = line.split()
        speaker, name = key.split("-")
        speakers.setdefault(speaker, {})[name] = functools.partial(read, key, path)
    return speakers


def synthetic_speakers(number, sentences):
    """The same of so many synthetic speakers, men and women in turn."""
    speakers = {}
    for i in range(number):
        speaker = f"{'mf'[i % 2]}sy{chr(ord('a') + i // 10)}{i % 10}"
        names = [
            "sa1",
            *(f"si{630 + 10 * i + j}" for j in range(3)),
            *(f"sx{3 + 5 * i + j}" for j in range(sentences)),
        ]
        speakers[speaker] = {
            name: functools.partial(synthetic_sentence, speaker, name, 1.6 + 0.1 * (len(name) + i % 5))
            for name in names
        }
    return speakers


def _chosen(sentences, number):
    """So many names, si before sx, and sa1."""
    names = [name for name in sentences if not name.startswith("sa")]
    names.sort(key=lambda name: (name[:2], int(name[2:])))
    return ["sa1", *names[:number]]


def build(
    folder, source=None, layout="ldc", num_train=8, num_dev=2, num_test=6, sentences=6, max_seconds=3.0
):
    """Make a small tree of real speech or else of synthetic voices; returns the folder.

    ``source``: a folder like ../shared/data/timit_sample, which is the default where it exists; False for
    synthetic voices. The test and development speakers have names of the core test and the development set,
    of their own sex. Each speaker has ``sentences`` sentences besides sa1, cut to ``max_seconds``.
    """
    if source is None:
        source = shared_data("timit_sample")
    number = num_train + num_dev + num_test
    if source and source.is_dir():
        speakers = recorded_speakers(source)
    else:
        speakers = synthetic_speakers(number, sentences)
    by_sex = {sex: sorted(name for name in speakers if name[0] == sex) for sex in "fm"}
    order = [name for pair in zip(by_sex["f"], by_sex["m"]) for name in pair]
    order += sorted(set(speakers) - set(order))
    assert len(order) >= number, f"{len(order)} speakers, {number} wanted"
    free = {
        part: [(dialect, name) for dialect in lists for name in lists[dialect]]
        for part, lists in (("dev", DEV), ("test", CORE_TEST))
    }
    for place, speaker in enumerate(order[:number]):
        if place < num_test + num_dev:
            part, lists = "test", free["test" if place < num_test else "dev"]
            chosen = next(pair for pair in lists if pair[1][0] == speaker[0])
            lists.remove(chosen)
            dialect, name = chosen
        else:
            part, dialect, name = "train", f"dr{place % 8 + 1}", speaker
        for sentence in _chosen(speakers[speaker], sentences):
            seconds = 1.0 if sentence == "sa1" else max_seconds
            write_sentence(
                folder, layout, part, dialect, name, sentence, speakers[speaker][sentence]().cut(seconds)
            )
    readme = folder / _TOP[layout] / ("readme.doc" if layout == "lower" else "README.DOC")
    readme.write_text("A tree for tests.\n")
    return folder


# ------------------------------------------------------------------------------------------------- full size


def full_speakers():
    """[(part, dialect, speaker)] of all 630 speakers; names that no list of ours has are made up."""
    known = {(dialect, name) for lists in (CORE_TEST, DEV) for dialect in lists for name in lists[dialect]}
    speakers = [("test", dialect, name) for dialect, name in sorted(known)]
    for part, numbers in (("train", NUM_TRAIN), ("test", NUM_TEST)):
        for dialect, number in numbers.items():
            own = sum(p == part and d == dialect for p, d, _ in speakers)
            for i in range(number - own):
                first, second = divmod(i, 26)
                letters = chr(ord("a") + first) + chr(ord("a") + second)
                speakers.append(
                    (part, dialect, f"{'fm'[i % 3 > 0]}{'xy'[part == 'test']}{letters}{dialect[2]}")
                )
    return speakers


def build_full(folder, layout="ldc"):
    """All 6,300 utterances of 630 speakers, a hundredth of a second each; equal files are hard links."""
    originals, samples = {}, np.arange(-80, 80, dtype=np.int16)
    contents = {
        "wav": sounds.sphere(samples),
        "phn": b"0 40 h#\n40 120 aa\n120 160 h#\n",
        "wrd": b"40 120 ah\n",
    }
    folder.mkdir(parents=True, exist_ok=True)
    for kind, data in contents.items():
        originals[kind] = folder / f"original.{kind}.bin"
        originals[kind].write_bytes(data)
    for number, (part, dialect, speaker) in enumerate(full_speakers()):
        names = ["sa1", "sa2"]
        names += [f"si{3 * number + i + 1}" for i in range(3)] + [f"sx{5 * number + i + 1}" for i in range(5)]
        for name in names:
            for kind, original in originals.items():
                path = folder / path_of(layout, part, dialect, speaker, name, kind)
                if name == "sa1" and kind == "wav":
                    path.parent.mkdir(parents=True)
                os.link(original, path)
    return folder


def replace(path, data):
    """Give one file other contents, of which the other links know nothing; None removes it."""
    path.unlink()
    if data is not None:
        path.write_bytes(data)
