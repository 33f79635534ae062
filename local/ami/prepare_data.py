#!/usr/bin/env python3
"""Make data directories and trials out of the AMI corpus as its publisher ships it.

Writes train, dev and test (the partition Full-corpus-ASR) with wav.scp, segments, reco2dur, text, utt2spk,
spk2utt, spk2gender, utt2dur, utt2mic, utt2uniq (the same for both microphones), utt2meeting, utt2room,
utt2overlap and dropped.prepare, and trials and enroll_map. <corpus> holds amicorpus/MEETING/audio and
ami_public_manual_1.6.2. Utterances are the segments of the annotations that have words, one for each
microphone: the talker's headset (ihm) and the first microphone of the array on the table (sdm). utt2overlap
is the part of an utterance in which others talk too. Trials are a sample of the pairs of test utterances,
drawn for each speaker; by default the two sides come from different meetings.

Usage: prepare_data.py [options] <corpus> <out-dir>
e.g.: prepare_data.py --mics='ihm sdm' --max-overlap=0.3 /corpora/ami exp/data
See also: egs/ami/README.md, local/ami/download.sh, make-trials
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

import logging
import sys
from dataclasses import dataclass
from typing import Annotated, Literal

from layout import Annotations, find_annotations, find_audio, read_partition
from sets import Prepared, separate_speakers
from utterances import Limits

from voxark import corpora
from voxark.errors import VoxarkError
from voxark.options import option
from voxark.trials.make import SamplingOptions

logger = logging.getLogger("voxark.ami")

SETS = ("train", "dev", "test")
# "over 200,000 utterances" of IHM and SDM together: Hsu and Glass (2018), Scalable FHVAE, section 4.1
MIN_TRAIN_SEGMENTS, NUM_TEST_SPEAKERS = 200001, 16


@dataclass
class TrialOptions:
    """Which pairs of test utterances may be trials."""

    trial_min_seconds: float = option(2.0, "Utterances of trials are at least so long")
    trial_max_overlap: float = option(0.1, "Others talk in at most this part of an utterance of a trial")
    trial_mics: Literal["any", "same", "cross"] = option(
        "any", "Microphones of the two sides: any, the same, or one of each kind"
    )
    other_meeting: bool = option(True, "The two sides of a trial come from different meetings")
    same_gender: bool = option(False, "The two sides of a trial have the same gender")
    targets_per_speaker: int = option(500, "Number of target trials of each test speaker (-1: all)")
    nontargets_per_speaker: int = option(
        5000, "Number of nontarget trials in which each test speaker enrols (-1: all)"
    )
    srand: int = option(0, "Seed of the choice of trials")

    def sampling(self):
        """The SamplingOptions; VoxarkError for numbers that make no sense."""
        options = SamplingOptions(targets_per_speaker=self.targets_per_speaker, srand=self.srand,
                                  nontargets_per_speaker=self.nontargets_per_speaker)  # fmt: skip
        options.check()
        return options


def read_mics(text):
    """The microphones in an option, without repetition."""
    names = text.replace(",", " ").split()
    if not names or set(names) - {"ihm", "sdm"}:
        raise VoxarkError(f"--mics={text}: expected ihm, sdm or both")
    return sorted(set(names))


def expected_files(name, meeting, mics):
    """The streams of a meeting that the publisher has, in small letters."""
    streams = [f"Headset-{number}" for number in range(meeting.num_headsets)] if "ihm" in mics else []
    streams += ["Array1-01"] if "sdm" in mics and meeting.has_array else []
    return [f"{name}.{stream}" for stream in streams]


def check_files(corpus, partition, audio, annotations, mics, partial):
    """Compare recordings and annotations with what the publisher has; return the meetings to prepare."""
    wanted = {name: meeting for name, meeting in partition.items() if meeting.set in SETS}
    present, absent, missing, num_found, num_expected = [], [], [], 0, 0
    for name, meeting in wanted.items():
        files = expected_files(name, meeting, mics)
        lost = [file for file in files if file.lower() not in audio]
        num_found, num_expected = num_found + len(files) - len(lost), num_expected + len(files)
        if len(lost) == len(files):
            absent.append(f"all recordings of {name}")
            continue
        present.append(name)
        missing += [f"amicorpus/{name}/audio/{file}.wav" for file in lost] + annotations.missing(name)
    others = {key.partition(".")[0] for key in audio} - {name.lower() for name in wanted}
    if others:
        logger.info("meetings in none of the sets, left out: %s", corpora.some(sorted(others)))
    num_annotated = sum(not annotations.missing(name) for name in wanted)
    corpora.check_counts(str(corpus), [("meetings with recordings", len(present), len(wanted)),
                                       ("recordings", num_found, num_expected),
                                       ("meetings with annotations", num_annotated, len(wanted))],
                         missing + absent, partial)  # fmt: skip
    return [name for name in present if name in annotations.meetings]


def check_numbers(corpus, sets, mics, partial):
    """Compare with the published numbers. Training segments count before options leave any out."""
    num_speakers = len(sets["test"].speakers())
    counts = [("test speakers", num_speakers, NUM_TEST_SPEAKERS)]
    if len(mics) == 2:
        expected = range(MIN_TRAIN_SEGMENTS, sys.maxsize)
        counts.append(("training segments of both microphones", sets["train"].num_segments, expected))
    corpora.check_counts(str(corpus), counts, (), partial)


def make_trials(test, options, annotations):
    """Blocks of trials of a Prepared test set."""
    chosen = {
        key: own
        for key, own in test.utterances.items()
        if own.seconds >= options.trial_min_seconds and own.overlap <= options.trial_max_overlap
    }
    if not chosen:
        raise VoxarkError(
            "no test utterance is long enough and free enough of other talkers for trials: lower "
            "--trial-min-seconds or raise --trial-max-overlap"
        )
    mic = ("utt2mic", {key: own.mic for key, own in chosen.items()})
    # the same words in two microphones are no trial, whatever the options
    stretch = ("stretch", {key: own.stretch for key, own in chosen.items()})
    meeting = ("utt2meeting", {key: own.meeting for key, own in chosen.items()})
    same = [mic] if options.trial_mics == "same" else []
    if options.same_gender:
        same.append(("spk2gender", {name: annotations.gender(name) for name in test.speakers()}))
    different = [meeting if options.other_meeting else stretch] + (
        [mic] if options.trial_mics == "cross" else []
    )
    speakers = {key: own.speaker for key, own in chosen.items()}
    return corpora.sample_trials(speakers, options.sampling(), same, different)


@cli.program
def main(
    corpus: str,
    out_dir: str,
    *,
    annotations: Annotated[str, "Folder of the annotations; default: in <corpus> or beside it"] = "",
    mics: Annotated[str, "Microphones: ihm (headsets), sdm (array 1, microphone 1) or both"] = "ihm sdm",
    min_seconds: Annotated[float, "Shorter segments are left out"] = 0.1,
    max_overlap: Annotated[
        float, "Utterances of sdm are left out where others talk in more than this part of them"
    ] = 1.0,
    need_words: Annotated[bool, "Leave out segments without a word (laughs, coughs)"] = True,
    partial: Annotated[
        bool, "Prepare what is there where the corpus is not complete, with a warning"
    ] = False,
    trials: TrialOptions,
) -> int:
    trials.sampling()
    chosen, limits = read_mics(mics), Limits(min_seconds, max_overlap, need_words)
    audio, partition = find_audio(corpus), read_partition()
    notes = Annotations(find_annotations(corpus, annotations))
    sets = {name: Prepared() for name in SETS}
    for name in cli.progress(
        check_files(corpus, partition, audio, notes, chosen, partial), description="meetings"
    ):
        sets[partition[name].set].add(name, notes, audio, chosen, limits, partial)
    check_numbers(corpus, sets, chosen, partial)
    separate_speakers(sets)
    counts = cli.Counts("utterances")
    with corpora.staging(out_dir, ["dev"]) as folder:
        for name, prepared in sets.items():
            if not prepared.utterances and name != "dev":
                raise VoxarkError(f"{corpus}: no utterance of the set {name} can be used")
            if prepared.utterances:
                corpora.write_data_dir(folder / name, prepared.data_dir(notes), prepared.dropped)
            counts.done(len(prepared.utterances))
        corpora.write_trials(folder, make_trials(sets["test"], trials, notes))
    return counts.finish()


if __name__ == "__main__":
    main()
