"""Aurora-4 trees in ELRA's layout, small ones and one of full size, and the documents of WSJ0."""

import os
import sys

import numpy as np
from corpora import sounds, timit
from helpers import ROOT, shared_data
from scipy.signal import lfilter

sys.path.insert(0, str(ROOT / "local" / "aurora4"))
from aurora4_files import CONDITIONS, LIST_OF_MULTI, LISTS  # noqa: E402

SHORTEN = "pcm,embedded-shorten-v2.00"
DEV_SPEAKERS = dict(zip("050 051 052 053 420 421 422 423 22g 22h".split(), "fmfmfmfmfm"))
TEST_SPEAKERS = {
    "440": "f",
    "441": "m",
    "442": "f",
    "443": "m",
    "444": "f",
    "445": "m",
    "446": "f",
    "447": "m",
}
_NOISE_FILTERS = {
    "car": ([1], [1, -0.97]),
    "babble": ([1, 0.5], [1, -0.8]),
    "restaurant": ([1], [1, -0.5]),
    "street": ([1, 1], [1, -0.9]),
    "airport": ([1, -1], [1, -0.3]),
    "train": ([1, -0.9], [1]),
}


def distort(samples, noise, mic, *words):
    """Samples (n,) int16 in a condition: a noise of its own spectrum at 10 dB, and a microphone."""
    signal = samples.astype(np.float64)
    if noise != "clean":
        coloured = lfilter(
            *_NOISE_FILTERS[noise], sounds.seeded("noise", noise, *words).standard_normal(len(signal))
        )
        signal += coloured * np.sqrt(0.1 * np.mean(signal**2) / np.mean(coloured**2))
    if mic == "wv2":
        signal = lfilter([0.6, -0.35], [1, 0.2], signal)
    return np.clip(np.round(signal), -32768, 32767).astype(np.int16)


def raw(samples):
    """Headerless samples as ELRA ships them: the high byte first."""
    return samples.astype(">i2").tobytes()


def entry_of(part, condition, speaker, stem):
    """A line of the lists."""
    noise, mic = CONDITIONS[condition]
    folder = f"dev_0330_{noise}_{mic}" if part == "train" else f"test_{noise}_{mic}"
    return f"{folder}/{speaker}_16k/{stem}.{mic}"


def path_of(part, condition, speaker, stem):
    """Where the file of such a line lies: the development set has a folder more than the lists say."""
    disc = f"dev0330_{CONDITIONS[condition][0]}/" if part == "train" else ""
    return disc + entry_of(part, condition, speaker, stem)


def write_lists(folder, stems, conditions):
    """The lists of both parts; ``stems``: {part: {speaker: names}}."""
    (folder / "lists").mkdir(parents=True, exist_ok=True)
    for part, name in LISTS.items():
        for condition in conditions:
            pairs = [(speaker, stem) for speaker in stems[part] for stem in stems[part][speaker]]
            lines = [f"{entry_of(part, condition, speaker, stem)}\n" for speaker, stem in pairs]
            (folder / "lists" / name.format(condition)).write_text("".join(lines))


def _voices(source, number):
    """[{name of the sentence: function that gives samples}] of so many speakers, women and men in turn."""
    if source is None:
        source = shared_data("timit_sample")
    if source and source.is_dir():
        speakers = timit.recorded_speakers(source)
    else:
        speakers = timit.synthetic_speakers(2 * number, 6)
    by_sex = {sex: sorted(name for name in speakers if name[0] == sex) for sex in "fm"}
    names = [name for pair in zip(by_sex["f"], by_sex["m"]) for name in pair]
    assert len(names) >= number, f"{len(names)} speakers, {number} wanted"
    return [speakers[name] for name in names[:number]]


def build(
    folder,
    source=None,
    num_train=4,
    num_test=4,
    sentences=3,
    conditions=tuple(CONDITIONS),
    seconds=2.0,
    num_multi=0,
    encode=None,
    lists=True,
):
    """Make a small tree; returns the folder.

    ``source``: as of corpora.timit.build. Each of the first development and test speakers has ``sentences``
    sentences cut to ``seconds`` in each of the ``conditions``. ``encode(part, condition, samples)`` gives the
    bytes of a file (headerless samples by default). ``num_multi``: speakers of the multi-condition training.
    """
    encode = encode or (lambda part, condition, samples: raw(samples))
    chosen = {"train": list(DEV_SPEAKERS)[:num_train], "test": list(TEST_SPEAKERS)[:num_test]}
    voices, stems = iter(_voices(source, num_train + num_test)), {}
    for part, speakers in chosen.items():
        stems[part] = {
            speaker: [f"{speaker}c02{i + 1:02d}" for i in range(sentences)] for speaker in speakers
        }
        for speaker in speakers:
            voice = next(voices)
            names = timit._chosen(voice, sentences)[1:]
            for stem, name in zip(stems[part][speaker], names):
                samples = voice[name]().samples[: int(seconds * sounds.RATE)]
                for condition in conditions:
                    path = folder / path_of(part, condition, speaker, stem)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    noisy = distort(samples, *CONDITIONS[condition], condition, stem)
                    path.write_bytes(encode(part, condition, noisy))
    if lists:
        write_lists(folder, stems, conditions)
    if num_multi:
        _build_multi(folder, num_multi, sentences, seconds)
    (folder / "README").write_text("A tree for tests.\n")
    return folder


def _build_multi(folder, number, sentences, seconds):
    """Training files of synthetic speakers in any condition, each sentence once, and their list."""
    lines = []
    for i in range(number):
        speaker = f"{11 + i:03d}"
        for j in range(sentences):
            mic, stem = f"wv{1 + (i + j) % 2}", f"{speaker}c02{j + 1:02d}"
            samples, _ = sounds.Voice(f"{'fm'[i % 2]}{speaker}").say("multi", stem, seconds=seconds)
            path = folder / "train_multi" / f"{speaker}_16k" / f"{stem}.{mic}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(raw(distort(samples, "street", mic, stem)))
            lines.append(path.relative_to(folder).as_posix())
    (folder / "lists" / LIST_OF_MULTI).write_text("".join(f"{line}\n" for line in lines))


def build_wsj0(folder, speakers=None, sentences=3):
    """WSJ0's transcripts and table of speakers for the sentences of :func:`build`; returns the folder."""
    speakers = speakers or {**DEV_SPEAKERS, **TEST_SPEAKERS}
    (folder / "wsj0" / "doc").mkdir(parents=True)
    rows = [f"{speaker.upper():8}{sex.upper()}    --   New York" for speaker, sex in speakers.items()]
    text = ";; File: spkrinfo.txt\n;; ID    SEX  AGE  REGION\n" + "".join(f"{row}\n" for row in rows)
    (folder / "wsj0" / "doc" / "spkrinfo.txt").write_text(text)
    for speaker in speakers:
        part = "si_dt_05" if speaker in DEV_SPEAKERS else "si_et_05"
        path = folder / "wsj0" / part / speaker / f"{speaker}c0200.dot"
        path.parent.mkdir(parents=True)
        text = "The [loud_breath] *chief* exec:utive . of number {} ,COMMA said so .PERIOD ({}C02{:02d})\n"
        path.write_text("".join(text.format(i + 1, speaker.upper(), i + 1) for i in range(sentences)))
    return folder


def fake_sph2pipe(folder):
    """Make a program sph2pipe for files that corpora.sounds.sphere marks with SHORTEN; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "sph2pipe"
    plain = "pcm".ljust(len(SHORTEN))
    lines = [
        "#!/bin/sh",
        "for file; do :; done",
        f'head -c 1024 "$file" | sed "s/{SHORTEN}/{plain}/"',
        'tail -c +1025 "$file"',
    ]
    program.write_text("".join(f"{line}\n" for line in lines))
    program.chmod(0o755)
    return program


def build_full(folder):
    """All 2 x 4,620 utterances, a hundredth of a second each; equal files are one file (hard links)."""
    folder.mkdir(parents=True)
    original, stems = folder / "original.bin", {}
    original.write_bytes(raw(np.arange(-80, 80, dtype=np.int16)))
    for part, speakers in (("train", list(DEV_SPEAKERS)), ("test", list(TEST_SPEAKERS))):
        stems[part] = {speaker: [] for speaker in speakers}
        for i in range(330):
            speaker = speakers[i % len(speakers)]
            stems[part][speaker].append(f"{speaker}c{i // len(speakers):04d}")
        for condition in CONDITIONS:
            for speaker, names in stems[part].items():
                for stem in names:
                    path = folder / path_of(part, condition, speaker, stem)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    os.link(original, path)
    write_lists(folder, stems, CONDITIONS)
    return folder
