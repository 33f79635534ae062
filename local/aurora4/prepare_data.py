#!/usr/bin/env python3
"""Make data directories of Aurora-4 as ELRA ships it (AU/384/02, 16 kHz).

Takes the utterances that the corpus's lists name (lists/devtest01_0330_16k.list and so on; in a tree without
lists, those in folders like dev_0330_car_wv2 and test_car_wv2), and looks for them below <corpus> whatever
folders lie above, in capital or small letters. 14 conditions: 01 clean, 02 car, 03 babble, 04 restaurant,
05 street, 06 airport, 07 train with the first microphone (wv1); 08 to 14 the same with the second (wv2).
Writes
  <out>/train        the development set, 330 sentences in 14 conditions, 4,620 utterances of 10 speakers, on
                     which FHVAEs are trained because noise and microphone are known
  <out>/test         the test set, 4,620 utterances of 8 other speakers
  <out>/train_multi  with --train-multi=true, the multi-condition training list (7,138 utterances)
  <out>/trials       of each pair of conditions (14 matched, 91 mismatched) so many target and nontarget pairs
                     of test utterances, drawn at random; a sentence never meets itself in another condition
  <out>/enroll_map   each utterance by itself
with wav.scp, utt2spk, spk2utt, utt2noise (7 labels), utt2mic (2), utt2uniq (the sentence),
utt2dur, dropped.prepare, and with --wsj0
text and spk2gender. Utterances are called 440c0201_07. Headerless samples, as ELRA's, get a header in wav.scp
(`cat header file |`); SPHERE and wav are read as they are, compressed SPHERE by sph2pipe. Any other count is
an error that says what is missing; --partial=true takes what is there, and leaves out broken files.

The trials say how well utterances of eight speakers, 28 pairs of them, are told apart across noises and
microphones; error rates of so few speakers are uncertain however many trials there are.

Usage: prepare_data.py [options] <corpus> <out-dir>
e.g.: prepare_data.py --wsj0=/corpora/WSJ0 /corpora/aurora4 egs/aurora4/data
See also: egs/aurora4/run.sh, utils/validate_data_dir.sh
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

import os
import shlex
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

from aurora4_files import CONDITIONS, LIST_OF_MULTI, LISTS, MICS, NOISES, Tree
from aurora4_files import inspect_audio, read_genders, read_transcripts, riff_header
from aurora4_trials import sample_trials

from voxark import corpora
from voxark.errors import VoxarkError

NUM_SENTENCES, NUM_SPEAKERS, NUM_MULTI = 330, {"train": 10, "test": 8}, 7138
HEADER = "raw_16k.header"
SHORTEST = (
    0.9  # of the longest recording of the sentence with the same microphone; noise does not shorten one
)


def find_parts(tree, train_multi):
    """{part: ({key: Utterance}, {key: why} of those that are not on the disk)}, and the lists that lack."""
    parts, absent = {}, []
    for part, pattern in LISTS.items():
        lists = {number: tree.find_list(pattern.format(number)) for number in CONDITIONS}
        if not any(lists.values()):
            parts[part] = tree.read_folders(part), {}
            continue
        absent += [pattern.format(number) for number, path in lists.items() if not path]
        found = [tree.read_list(path, number) for number, path in lists.items() if path]
        parts[part] = tuple(
            {key: value for one in of_lists for key, value in one.items()} for of_lists in zip(*found)
        )
    if train_multi:
        path = tree.find_list(LIST_OF_MULTI)
        if path is None:
            raise VoxarkError(f"{tree.corpus}: no {LIST_OF_MULTI} in it, which --train-multi=true needs")
        parts["train_multi"] = tree.read_list(path)
    if not any(utterances for utterances, _ in parts.values()):
        raise VoxarkError(
            f"{tree.corpus}: no Aurora-4 here: neither {LISTS['test'].format('01')} and its files "
            "nor a folder like test_clean_wv1 with files like 440c0201.wv1"
        )
    return parts, [f"the lists {corpora.some(absent)}"] if absent else []


def look_into(utterances, raw_byte_order):
    """({key: (AudioInfo, order of the bytes)}, {key: why} of broken files) of {key: Utterance}."""
    infos, broken = {}, {}
    for key, utterance in sorted(utterances.items()):
        try:
            infos[key] = inspect_audio(utterance.path)
        except VoxarkError as error:
            broken[key] = str(error)
    orders = Counter(order for _, order in infos.values() if order)
    if orders and orders.most_common(1)[0][0] != raw_byte_order:  # a single file may look wrong, not most
        other = next(key for key, (_, order) in infos.items() if order not in ("", raw_byte_order))
        raise VoxarkError(
            f"{utterances[other].path}: the samples look {infos[other][1]}-endian; see --raw-byte-order"
        )
    longest = Counter()
    for key, (info, _) in infos.items():
        place = utterances[key].stem, utterances[key].mic
        longest[place] = max(longest[place], info.num_samples)
    for key, (info, _) in list(infos.items()):
        whole = longest[utterances[key].stem, utterances[key].mic]
        if info.num_samples < SHORTEST * whole:
            del infos[key]
            broken[key] = (
                f"{utterances[key].path}: truncated: {info.num_samples} samples, where this sentence has "
                f"{whole} in other conditions"
            )
    return infos, broken


def make_entry(path, info, order, header, sph2pipe):
    """The entry of a file in wav.scp; headerless samples get the header before them."""
    if order:
        return f"cat {shlex.quote(header)} {shlex.quote(os.path.abspath(path))} |"
    return corpora.wav_entry(path, info, sph2pipe)


def read_part(utterances, infos, entries, transcripts, genders):
    """The DataDir of the utterances that have an entry for wav.scp, with the labels that are known."""
    own = {key: utterances[key] for key in entries}
    speakers = {utterance.speaker for utterance in own.values()}
    tables = {"utt2dur": {key: corpora.duration(infos[key][0].seconds) for key in entries}}
    tables["utt2uniq"] = {key: utterance.stem for key, utterance in own.items()}
    if all(utterance.condition for utterance in own.values()):
        tables["utt2noise"] = {key: CONDITIONS[utterance.condition][0] for key, utterance in own.items()}
        tables["utt2mic"] = {key: utterance.mic for key, utterance in own.items()}
    if all(utterance.stem in transcripts for utterance in own.values()):
        tables["text"] = {key: transcripts[utterance.stem] for key, utterance in own.items()}
    if speakers <= genders.keys():
        tables["spk2gender"] = {speaker: genders[speaker] for speaker in speakers}
    return corpora.make_data_dir(entries, {key: u.speaker for key, u in own.items()}, **tables)


def check(corpus, data, missing, partial):
    """Compare the counts with the publisher's, and see that there is something to train and to test on."""
    counts, missing = [], list(missing)
    for part, num_speakers in NUM_SPEAKERS.items():
        tables = data[part].tables
        of_condition = Counter(key.rpartition("_")[2] for key in data[part].utt2spk)
        counts += [
            (f"{part} utterances", len(data[part].utt2spk), len(CONDITIONS) * NUM_SENTENCES),
            (f"{part} speakers", len(data[part].spk2utt), num_speakers),
            (f"kinds of noise in {part}", len(set(tables.get("utt2noise", {}).values())), len(NOISES)),
            (f"microphones in {part}", len(set(tables.get("utt2mic", {}).values())), len(MICS)),
        ]
        missing += [
            f"condition {number} ({noise}, {mic}) of {part} has {of_condition[number]} of {NUM_SENTENCES}"
            for number, (noise, mic) in CONDITIONS.items()
            if of_condition[number] != NUM_SENTENCES
        ]
    if "train_multi" in data:
        counts.append(("train_multi utterances", len(data["train_multi"].utt2spk), NUM_MULTI))
    corpora.check_counts(corpus, counts, missing, partial)
    corpora.check_speakers(corpus, data, {"train": 1, "test": 2})


@cli.program
def main(
    corpus: str,
    out_dir: str,
    *,
    wsj0: Annotated[
        str, "WSJ0, for its transcripts (.dot) and spkrinfo.txt; default: those in <corpus>, if any"
    ] = "",
    train_multi: Annotated[
        bool, "Write train_multi, too: more speakers, noise and microphone unknown"
    ] = False,
    targets_per_pair: Annotated[int, "Target trials of each pair of conditions"] = 200,
    nontargets_per_pair: Annotated[int, "Nontarget trials of each pair of conditions"] = 2000,
    srand: Annotated[int, "Seed of the choice of trials"] = 0,
    partial: Annotated[bool, "Take what is there of an incomplete corpus, leave out broken files"] = False,
    sph2pipe: Annotated[str, "The program that decodes compressed SPHERE files"] = "sph2pipe",
    raw_byte_order: Annotated[Literal["big", "little"], "Order of the bytes of headerless samples"] = "big",
) -> int:
    if min(targets_per_pair, nontargets_per_pair) < 1:
        raise VoxarkError("--targets-per-pair and --nontargets-per-pair must be positive")
    counts, tree, header = cli.Counts("utterances"), Tree(corpus), os.path.abspath(Path(out_dir, HEADER))
    cli.logger.info("%s: %d other files are ignored", corpus, tree.num_others)
    parts, missing = find_parts(tree, train_multi)
    transcripts, genders = read_documents(tree, wsj0, parts)
    data, dropped = {}, {}
    for part, (utterances, not_there) in parts.items():
        infos, broken = look_into(utterances, raw_byte_order)
        corpora.check_broken(list(broken.values()), partial)
        entries = {key: make_entry(utterances[key].path, *infos[key], header, sph2pipe) for key in infos}
        data[part] = read_part(utterances, infos, entries, transcripts, genders)
        dropped[part] = {**not_there, **broken}
        missing += not_there.values()
    report_labels(data)
    check(corpus, data, missing, partial)
    with corpora.staging(out_dir, ["train_multi"]) as folder:
        (folder / HEADER).write_bytes(riff_header(raw_byte_order))
        for part in data:
            corpora.write_data_dir(folder / part, data[part], dropped[part])
            counts.done(len(data[part].utt2spk))
        corpora.write_trials(
            folder, [make_trials(data["test"], targets_per_pair, nontargets_per_pair, srand)]
        )
    return counts.finish()


def read_documents(tree, wsj0, parts):
    """The transcripts of the utterances of all parts by stem, and the speakers' genders, of WSJ0."""
    trees = [tree] + ([Tree(wsj0)] if wsj0 else [])
    stems = {utterance.stem for utterances, _ in parts.values() for utterance in utterances.values()}
    transcripts = read_transcripts(trees, stems)
    if wsj0 and not transcripts:
        raise VoxarkError(
            f"--wsj0={wsj0}: no .dot file in it has a transcript of an utterance of {tree.corpus}"
        )
    return transcripts, read_genders(trees)


def report_labels(data):
    """Say which labels a part lacks."""
    for part, found in data.items():
        lacking = [name for name in ("text", "spk2gender") if name not in found.tables]
        if lacking:
            cli.logger.info(
                "%s: no %s: WSJ0's .dot files and spkrinfo.txt do not have all of it (see --wsj0)",
                part,
                " and no ".join(lacking),
            )


def make_trials(test, num_targets, num_nontargets, srand):
    """The TrialList of the test data."""
    keys = list(test.utt2spk)
    stems, conditions = zip(*(key.split("_") for key in keys))
    return sample_trials(
        keys, list(test.utt2spk.values()), stems, conditions, num_targets, num_nontargets, srand
    )


if __name__ == "__main__":
    main()
