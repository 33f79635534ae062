#!/usr/bin/env python3
"""Make data directories and trials out of LibriSpeech as its publisher ships it.

Writes train, dev and test with wav.scp (absolute paths of the flac files), text, utt2spk, spk2utt,
spk2gender, utt2dur, utt2chapter, utt2part and dropped.prepare, and trials and enroll_map. <corpus> is the
folder LibriSpeech or the one that it lies in. The numbers of utterances and speakers are compared with the
published ones. Trials are a sample of the pairs of test utterances, drawn for each speaker; by default the
two sides come from different chapters.

Usage: prepare_data.py [options] <corpus> <out-dir>
e.g.: prepare_data.py --train-parts='train-clean-100 train-clean-360 train-other-500' /corpora exp/data
See also: egs/librispeech/README.md, local/librispeech/download.sh, make-trials
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

import logging
from typing import Annotated

from layout import PARTS, find_root, read_chapters, read_part, read_speakers

from voxark import corpora
from voxark.errors import VoxarkError
from voxark.trials.make import SamplingOptions

logger = logging.getLogger("voxark.librispeech")


def split_parts(option, text):
    """The names in an option, which stand between blanks or commas; VoxarkError for one that is no part."""
    names = text.replace(",", " ").split()
    for name in names:
        if name not in PARTS:
            raise VoxarkError(
                f"--{option}: '{name}' is no part of LibriSpeech; the parts are {' '.join(PARTS)}"
            )
    return names


def choose_parts(train, dev, test):
    """{set: parts}; VoxarkError where a part is in two sets, or train or test has none.

    As a speaker is in one part only, which read_part checks, no speaker is in two sets then.
    """
    chosen = {"train": train, "dev": dev, "test": test}
    chosen = {name: split_parts(f"{name}-parts", text) for name, text in chosen.items()}
    for name in ("train", "test"):
        if not chosen[name]:
            raise VoxarkError(f"--{name}-parts names no part")
    names = [part for parts in chosen.values() for part in parts]
    twice = sorted({part for part in names if names.count(part) > 1})
    if twice:
        raise VoxarkError(f"the part {twice[0]} is asked for twice; training and test speakers must differ")
    return chosen


def data_dir(parts, genders):
    """The DataDir of {part: {utterance: Utterance}}."""
    table = {key: (part, own) for part, utterances in parts.items() for key, own in utterances.items()}
    speakers = {own.speaker for _, own in table.values()}
    return corpora.make_data_dir(
        {key: str(own.path) for key, (_, own) in table.items()},
        {key: own.speaker for key, (_, own) in table.items()},
        text={key: own.words for key, (_, own) in table.items()},
        utt2dur={key: corpora.duration(own.seconds) for key, (_, own) in table.items()},
        utt2chapter={key: f"{own.speaker}-{own.chapter}" for key, (_, own) in table.items()},
        utt2part={key: part for key, (part, _) in table.items()},
        spk2gender={speaker: genders[speaker][0] for speaker in speakers},
    )


@cli.program
def main(
    corpus: str,
    out_dir: str,
    *,
    train_parts: Annotated[str, "Parts to train on, with blanks or commas between them"] = "train-clean-100",
    dev_parts: Annotated[str, "Parts of the development set; may be empty"] = "dev-clean dev-other",
    test_parts: Annotated[str, "Parts to test on"] = "test-clean test-other",
    partial: Annotated[bool, "Prepare what is there where parts are not complete, with a warning"] = False,
    targets_per_speaker: Annotated[int, "Number of target trials of each test speaker (-1: all)"] = 100,
    nontargets_per_speaker: Annotated[
        int, "Number of nontarget trials in which each test speaker enrols (-1: all)"
    ] = 1000,
    other_chapter: Annotated[bool, "The two sides of a trial come from different chapters"] = True,
    same_gender: Annotated[bool, "The two sides of a trial have the same gender"] = False,
    srand: Annotated[int, "Seed of the choice of trials"] = 0,
) -> int:
    sampling = SamplingOptions(
        targets_per_speaker=targets_per_speaker, nontargets_per_speaker=nontargets_per_speaker, srand=srand
    )
    sampling.check()
    chosen = choose_parts(train_parts, dev_parts, test_parts)
    root = find_root(corpus)
    speakers, chapters = read_speakers(root), read_chapters(root)
    read = {name: {part: read_part(root, part, speakers, chapters, partial) for part in parts}
            for name, parts in chosen.items() if parts}  # fmt: skip
    counts = cli.Counts("utterances")
    with corpora.staging(out_dir, ["dev"]) as folder:
        for name, parts in read.items():
            data = data_dir({part: own.utterances for part, own in parts.items()}, speakers)
            dropped = {key: reason for part in parts.values() for key, reason in part.dropped.items()}
            if not data.utt2spk and name == "dev":
                continue
            if not data.utt2spk:
                raise VoxarkError(f"{root}: no utterance of {' '.join(parts)} can be used")
            corpora.write_data_dir(folder / name, data, dropped)
            counts.done(len(data.utt2spk))
        test = data.tables  # the last set
        same = [("spk2gender", test["spk2gender"])] if same_gender else []
        different = [("utt2chapter", test["utt2chapter"])] if other_chapter else []
        corpora.write_trials(folder, corpora.sample_trials(test["utt2spk"], sampling, same, different))
    return counts.finish()


if __name__ == "__main__":
    main()
