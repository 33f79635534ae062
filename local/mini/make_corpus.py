#!/usr/bin/env python3
"""Make the mini corpus: synthetic speech of many speakers, rooms, noises and microphones, with all labels.

Writes <dir>/wav/SPEAKER/UTTERANCE.wav (16 kHz, 16 bits) and the Kaldi data directories <dir>/train and
<dir>/test, whose speakers differ: wav.scp, utt2spk, spk2utt, text, phones.ctm, utt2dur, utt2noise, utt2snr,
utt2mic, utt2room, spk2gender (only of voices that have one), spk2accent, spk2voice, and the list test/trials.
Speech comes from espeak-ng. The same seed gives the same bytes at any number of jobs, and the same recording
of an utterance in every size.

Usage: make_corpus.py [options] <dir>
e.g.: make_corpus.py --size=tiny --nj=2 egs/mini/data/corpus
See also: egs/mini/run.sh
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

import json
import logging
import os
import re
import shutil
import wave
from pathlib import Path
from typing import Annotated, Literal

import numpy as np

import espeak
from jobs import run_each
from recording import RATE, draw_conditions, record
from speakers import draw_speaker, generator, say
from voxark.errors import VoxarkError
from voxark.io.outputs import Output
from voxark.trials.lists import ListWriter
from voxark.trials.make import all_trials

logger = logging.getLogger("voxark.mini")

SIZES = {  # size: training speakers, test speakers, utterances of each
    "tiny": (24, 10, 6),
    "small": (40, 20, 10),
    "large": (200, 60, 20),
}
NUM_BABBLERS = 8
UTT2LABEL = ("utt2spk", "text", "utt2dur", "utt2noise", "utt2snr", "utt2mic", "utt2room")


def make_utterance(synthesizer, speaker, index, seed, babblers):
    """Speak and record an utterance: (name, samples int16, labels, phones (name, start, end) in samples)."""
    utt = f"{speaker.name}-{index + 1:02d}"
    rng = generator(seed, "utterance", utt)
    text = speaker.sentences[index]
    speech, phones = say(synthesizer, speaker, text, RATE, rng)
    before, after = (int(RATE * rng.uniform(0.1, 0.35)) for _ in range(2))
    length = before + len(speech) + after
    phones = [(name, before + start, before + end) for name, start, end in phones]
    phones = _pad_with_silence(phones, length)
    active = np.zeros(length, dtype=bool)
    for name, start, end in phones:
        active[start:end] = name != "sil"
    conditions = draw_conditions(rng)
    samples = record(np.pad(speech, (before, after)), active, conditions, babblers, rng)
    labels = {
        "utt2spk": speaker.name, "text": re.sub(r"[^A-Z' ]", "", text.upper()),
        "utt2dur": f"{length / RATE:.4f}", "utt2snr": f"{conditions.snr_db:.1f}",
        "utt2noise": conditions.noise, "utt2mic": conditions.mic, "utt2room": conditions.room,
    }  # fmt: skip
    return utt, samples, labels, phones


def _pad_with_silence(phones, length):
    """Let the first and the last silence reach the ends of the recording."""
    first, last = phones[0], phones[-1]
    if first[0] == "sil":
        phones = phones[1:]
    if last[0] == "sil":
        phones = phones[:-1]
    return [("sil", 0, phones[0][1])] + phones + [("sil", phones[-1][2], length)]


def write_wav(path, samples):
    """Write int16 samples (N,) as a mono wav file."""
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE)
        out.writeframes(samples.astype("<i2").tobytes())


def make_speaker(speaker, num_utts, seed, babblers, folder):
    """Make a speaker's recordings in folder/wav; return {utterance: (labels, phones)}."""
    synthesizer = espeak.Synthesizer()
    (folder / "wav" / speaker.name).mkdir(parents=True)
    made = {}
    for index in range(num_utts):
        utt, samples, labels, phones = make_utterance(synthesizer, speaker, index, seed, babblers)
        write_wav(folder / "wav" / speaker.name / f"{utt}.wav", samples)
        made[utt] = (labels, phones)
    return made


def make_babbler(speaker, seed):
    """Four sentences of dry speech of somebody who is in neither set: (N,) float32."""
    synthesizer = espeak.Synthesizer()
    rng = generator(seed, "babble", speaker.name)
    said = [say(synthesizer, speaker, text, RATE, rng)[0] for text in speaker.sentences[:4]]
    return np.concatenate(said).astype(np.float32)


def write_data_dir(folder, final_wav_dir, speakers, made):
    """Write one Kaldi data directory: every table sorted by key, as LC_ALL=C sorts."""
    folder.mkdir(parents=True)
    utts = sorted(made)
    for name in UTT2LABEL:
        _write_table(folder / name, [(utt, made[utt][0][name]) for utt in utts])
    spk_of = {utt: made[utt][0]["utt2spk"] for utt in utts}
    _write_table(folder / "wav.scp", [(utt, final_wav_dir / spk_of[utt] / f"{utt}.wav") for utt in utts])
    names = sorted(s.name for s in speakers)
    _write_table(folder / "spk2utt", [(n, " ".join(u for u in utts if spk_of[u] == n)) for n in names])
    genders = [(s.name, espeak.variant_gender(s.variant)) for s in sorted(speakers, key=lambda s: s.name)]
    _write_table(folder / "spk2gender", [(name, gender) for name, gender in genders if gender])
    _write_table(folder / "spk2accent", [(s.name, s.accent) for s in sorted(speakers, key=lambda s: s.name)])
    _write_table(folder / "spk2voice", [(s.name, s.variant) for s in sorted(speakers, key=lambda s: s.name)])
    with open(folder / "phones.ctm", "w", encoding="utf-8") as out:
        for utt in utts:
            for name, start, end in made[utt][1]:
                out.write(f"{utt} 1 {start / RATE:.5f} {(end - start) / RATE:.5f} {name}\n")


def _write_table(path, rows):
    path.write_text("".join(f"{key} {value}\n" for key, value in rows), encoding="utf-8")


def write_trials(path, made):
    """Write every pair of test utterances once: the one that sorts first enrols."""
    with Output(str(path)) as out:
        writer = ListWriter(out)
        for block in all_trials({utt: labels["utt2spk"] for utt, (labels, _) in made.items()}):
            writer.write_trials(block)


def make_corpus(folder, final, groups, num_utts, seed, num_jobs):
    """Make the corpus in ``folder``, which will be renamed to ``final``; groups: {"train": n, "test": n}."""
    sentences = (Path(__file__).parent / "sentences.txt").read_text(encoding="utf-8").splitlines()
    if num_utts > len(sentences):
        raise VoxarkError(f"--utts-per-speaker={num_utts}: there are only {len(sentences)} sentences")
    import scipy.signal  # noqa: F401 - loaded once, here, and not in every child

    crowd = {s.name: s for s in (draw_speaker(seed, "babble", i, sentences) for i in range(NUM_BABBLERS))}
    heard = dict(run_each(lambda name: make_babbler(crowd[name], seed), crowd, num_jobs))
    babblers = [heard[name] for name in crowd]
    who = {g: [draw_speaker(seed, g, i, sentences) for i in range(n)] for g, n in groups.items()}
    by_name = {s.name: s for members in who.values() for s in members}
    finished = run_each(
        lambda name: make_speaker(by_name[name], num_utts, seed, babblers, folder), by_name, num_jobs
    )
    utterances = dict(cli.progress(finished, total=len(by_name), description="speakers"))
    for group, members in who.items():
        made = {utt: item for s in members for utt, item in utterances[s.name].items()}
        write_data_dir(folder / group, final / "wav", members, made)
        if group == "test":
            write_trials(folder / group / "trials", made)
        seconds = sum(float(labels["utt2dur"]) for labels, _ in made.values())
        logger.info(
            "%s: %d speakers, %d utterances, %.1f minutes", group, len(members), len(made), seconds / 60
        )


def _remove_leftovers(final):
    """Delete what killed runs left beside the corpus; a folder of a process that still runs is let be."""
    for path in final.parent.glob(f".{final.name}.partial.*"):
        try:
            os.kill(int(path.name.rpartition(".")[2]), 0)
        except ProcessLookupError:
            shutil.rmtree(path, ignore_errors=True)
        except (PermissionError, ValueError):
            pass  # somebody else's


@cli.program
def main(
    directory: str,
    *,
    size: Annotated[Literal["tiny", "small", "large"], "How many speakers and utterances."] = "small",
    train_speakers: Annotated[int, "Number of training speakers; 0: as --size says."] = 0,
    test_speakers: Annotated[int, "Number of test speakers; 0: as --size says."] = 0,
    utts_per_speaker: Annotated[int, "Number of utterances of each speaker; 0: as --size says."] = 0,
    seed: Annotated[int, "Seed of every random choice."] = 0,
    nj: Annotated[int, "Number of parallel jobs."] = 2,
) -> int:
    train, test, num_utts = SIZES[size]
    train, test, num_utts = train_speakers or train, test_speakers or test, utts_per_speaker or num_utts
    if min(train, test, num_utts, nj) < 1 or num_utts < 2:
        raise VoxarkError(
            "numbers of speakers and jobs must be at least 1, of utterances of a speaker at least 2"
        )
    espeak.data_dir()  # says how to install it before any work is done
    final = Path(directory).absolute()
    final.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(final)
    partial = final.with_name(f".{final.name}.partial.{os.getpid()}")
    try:
        partial.mkdir()
        make_corpus(partial, final, {"train": train, "test": test}, num_utts, seed, nj)
        facts = {"train_speakers": train, "test_speakers": test, "utts_per_speaker": num_utts, "seed": seed}
        (partial / "corpus.json").write_text(json.dumps(facts) + "\n", encoding="utf-8")
        if final.exists():
            shutil.rmtree(final)
        os.rename(partial, final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    counts = cli.Counts("utterances")
    counts.done((train + test) * num_utts)
    return counts.finish()


if __name__ == "__main__":
    main()
