#!/usr/bin/env python3
"""Make data directories of TIMIT as the LDC ships it (LDC93S1), or of a release as wav files.

Looks for .../train|test/dr1..dr8/SPEAKER/SENTENCE.wav below <corpus>, in capital or small letters: SPHERE (as
shipped) or RIFF wav, also under names like SA1.WAV.wav, with .phn, .wrd and .txt beside. Writes
  <out>/train     462 speakers of TRAIN, 3,696 utterances (without the sa sentences, which all speakers read)
  <out>/dev       50 speakers of TEST, 400 utterances (Kaldi's development set)
  <out>/test      the 24 speakers of the core test set, 192 utterances
  <out>/trials    all 18,336 pairs of test utterances, 672 of them target; <out>/enroll_map: each by itself
with wav.scp, utt2spk, spk2utt, spk2gender, utt2dialect, utt2dur, text (words), phones.ctm (61 phones, times
in seconds) and dropped.prepare (what was left out, and why). Utterances are called fcjf0_si1027. Any other
count is an error that says what is missing. --partial=true takes what is there, leaves out broken files, and
tests on the core test speakers that are there; where those are fewer than two, on all speakers of TEST
outside the development set. conf/timit_phones_39.map and conf/timit_phones_3.map fold the phones.

Usage: prepare_data.py [options] <corpus> <out-dir>
e.g.: prepare_data.py /corpora/LDC93S1/timit egs/timit/data
See also: egs/timit/run.sh, utils/validate_data_dir.sh
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

from typing import Annotated

from timit_files import RATE, find_utterances, missing, read_phones, read_words
from timit_speakers import CORE_TEST, DEV

from voxark import corpora
from voxark.errors import VoxarkError
from voxark.trials.make import all_trials

COUNTS = {"train": (462, 3696), "dev": (50, 400), "test": (24, 192)}  # speakers, utterances
NUM_TRIALS, NUM_TARGETS = 18336, 672


def choose_parts(utterances, partial):
    """{"train", "dev", "test": {key: Utterance}}, sa sentences among them, by the speakers' lists."""
    of_speaker = {name: "test" for names in CORE_TEST.values() for name in names}
    of_speaker.update((name, "dev") for names in DEV.values() for name in names)
    in_test = {u.speaker for u in utterances.values() if u.part == "test"}
    core_there = [name for name in sorted(in_test) if of_speaker.get(name) == "test"]
    if partial and len(core_there) < 2:
        of_speaker.update((name, "test") for name in in_test if name not in of_speaker)
    parts, num_unused = {"train": {}, "dev": {}, "test": {}}, 0
    for key, utterance in utterances.items():
        part = of_speaker.get(utterance.speaker, "train" if utterance.part == "train" else "")
        if not part:
            num_unused += 1
            continue
        if utterance.part == "train" and part != "train":
            file = next(iter(utterance.files.values()))
            raise VoxarkError(f"{file}: {utterance.speaker} is a speaker of TEST, and here is TRAIN")
        parts[part][key] = utterance
    cli.logger.info("%d utterances of TEST are of no speaker of the core test or development set", num_unused)
    return parts


def read_utterance(utterance, partial):
    """(AudioInfo, phones, words) of an utterance; VoxarkError names the wrong file."""
    if utterance.audio is None:
        other = next(iter(utterance.files.values()))
        raise VoxarkError(f"{other.with_suffix('')}.wav is missing, though {other} is there")
    info = corpora.inspect_audio(utterance.audio, RATE)
    phones = read_phones(utterance.files["phn"], info.num_samples) if "phn" in utterance.files else []
    words = read_words(utterance)
    if not partial and not (phones and words):
        lacking = ".wrd or .txt file with words" if phones else ".phn file"
        raise VoxarkError(f"{utterance.audio}: no {lacking} beside it")
    return info, phones, words


def read_part(utterances, sph2pipe, partial):
    """A DataDir of {key: Utterance}, and {key: why} of those that were left out."""
    wavs, utt2dur, text, phones, dropped, broken = {}, {}, {}, [], {}, []
    for key, utterance in sorted(utterances.items()):
        if utterance.kind == "sa":
            dropped[key] = "an sa sentence, which all speakers read"
            continue
        try:
            info, own, words = read_utterance(utterance, partial)
        except VoxarkError as error:
            dropped[key] = str(error)
            broken.append(str(error))
            continue
        wavs[key] = corpora.wav_entry(utterance.audio, info, sph2pipe)
        utt2dur[key] = corpora.duration(info.seconds)
        phones += [(key, f"1 {start:.6f} {length:.6f} {phone}") for start, length, phone in own]
        if words:
            text[key] = words
    corpora.check_broken(broken, partial)
    if len(text) < len(wavs):
        cli.logger.warning(
            "the words of %d of %d utterances are unknown: no file text", len(wavs) - len(text), len(wavs)
        )
        text = {}
    spoken = {key: utterances[key] for key in wavs}
    data = corpora.make_data_dir(
        wavs,
        {key: utterance.speaker for key, utterance in spoken.items()},
        {"phones.ctm": phones},
        spk2gender={utterance.speaker: utterance.speaker[0] for utterance in spoken.values()},
        utt2dialect={key: utterance.dialect for key, utterance in spoken.items()},
        utt2dur=utt2dur,
        text=text,
    )
    return data, dropped


def check(corpus, data, parts, partial):
    """Compare the counts with the publisher's, and see that there is something to train and to test on."""
    counts = []
    for part, (num_speakers, num_utterances) in COUNTS.items():
        counts.append((f"{part} speakers", len(data[part].spk2utt), num_speakers))
        counts.append((f"{part} utterances", len(data[part].utt2spk), num_utterances))
    lacking = missing(parts)
    corpora.check_counts(corpus, counts, lacking, partial)
    corpora.check_speakers(corpus, data, {"train": 1, "test": 2})


@cli.program
def main(
    corpus: str,
    out_dir: str,
    *,
    partial: Annotated[bool, "Take what is there of an incomplete corpus, leave out broken files"] = False,
    sph2pipe: Annotated[
        str, "The program that decodes compressed SPHERE files, should there be any"
    ] = "sph2pipe",
) -> int:
    counts = cli.Counts("utterances")
    parts = choose_parts(find_utterances(corpus), partial)
    results = {part: read_part(utterances, sph2pipe, partial) for part, utterances in parts.items()}
    data = {part: found for part, (found, _) in results.items()}
    check(corpus, data, parts, partial)
    with corpora.staging(out_dir, COUNTS) as folder:
        for part, (found, dropped) in results.items():
            if found.utt2spk:
                corpora.write_data_dir(folder / part, found, dropped)
                counts.done(len(found.utt2spk))
        num_targets, num_nontargets = corpora.write_trials(folder, all_trials(data["test"].utt2spk))
        if not partial and (num_targets, num_targets + num_nontargets) != (NUM_TARGETS, NUM_TRIALS):
            raise VoxarkError(
                f"{num_targets + num_nontargets} trials, {num_targets} of them target; expected "
                f"{NUM_TRIALS} and {NUM_TARGETS}: a speaker has too few or too many utterances"
            )
    return counts.finish()


if __name__ == "__main__":
    main()
