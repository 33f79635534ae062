"""Models of phones put together: a loop of all phones with bigram probabilities, and chains of phones."""

import os

import numpy as np
from phones import PHONES, runs

from voxark.errors import VoxarkError
from voxark.hmm.model import Hmm, read_hmm


def read_phone_models(folder):
    """Return {number of the phone: Hmm} of the files PHONE.hmm in a folder, all with the ending "prob"."""
    models = {}
    for number, phone in enumerate(PHONES):
        path = os.path.join(folder, f"{phone}.hmm")
        if os.path.exists(path):
            models[number] = read_hmm(path)
            if models[number].ending != "prob":
                raise VoxarkError(f"{path}: no exit probabilities (train it with --final=prob)")
    if not models:
        raise VoxarkError(f"{folder}: there is no PHONE.hmm in it")
    return models


def bigram(sequences, numbers, weight=10.0):
    """Return (first (K,), following (K,K), last (K,)) probabilities of the phones ``numbers`` (K,).

    following[a,b] + last[a] sum to 1 over b. Counts are smoothed: ``weight`` times the phones' own
    frequencies (with one more of each) is added to the counts behind each phone.
    """
    place = {number: i for i, number in enumerate(numbers)}
    size = len(numbers)
    first, last, single, pairs = np.zeros(size), np.zeros(size), np.ones(size), np.zeros((size, size))
    for sequence in sequences:
        known = [place[number] for number in sequence if number in place]
        if known:
            first[known[0]] += 1
            last[known[-1]] += 1
        np.add.at(single, known, 1)
        np.add.at(pairs, (known[:-1], known[1:]), 1)
    pairs += weight * single / single.sum()
    total = pairs.sum(axis=1) + last
    return first / first.sum(), pairs / total[:, None], last / total


def phone_loop(models, sequences, lm_scale=1.0, insertion_penalty=0.0):
    """Return (Hmm of all phones, phone of each state (S,)): from the end of each phone to the start of each.

    A step from phone to phone costs its bigram probability to the power ``lm_scale`` and the penalty in nats,
    so that rows no longer sum to 1.
    """
    numbers = sorted(models)
    first, following, last = bigram(sequences, numbers)
    sizes = [models[number].num_states for number in numbers]
    starts = np.cumsum(sizes) - sizes
    parts = [slice(start, start + size) for start, size in zip(starts, sizes)]
    transitions = np.zeros((sum(sizes),) * 2)
    initial, final, pdfs = np.zeros(sum(sizes)), np.zeros(sum(sizes)), []
    step = np.exp(-insertion_penalty)
    for i, (number, part) in enumerate(zip(numbers, parts)):
        model = models[number]
        initial[part] = first[i] * model.initial
        final[part] = last[i] ** lm_scale * step * model.final
        transitions[part, part] += model.transitions
        pdfs += [model.pdfs[pdf] for pdf in model.pdf_of]
        for j, (other, to) in enumerate(zip(numbers, parts)):
            between = following[i, j] ** lm_scale * step
            transitions[part, to] += between * np.outer(model.final, models[other].initial)
    return Hmm(initial, transitions, final, pdfs, None, "prob"), np.repeat(numbers, sizes)


def phone_chain(models, sequence):
    """Return (Hmm of the phones ``sequence`` one after the other, phone of each state (S,)).

    Phones that occur again share their densities. VoxarkError for a phone without a model.
    """
    missing = {PHONES[number] for number in sequence} - {PHONES[number] for number in models}
    if missing:
        raise VoxarkError(f"no model of the phones {' '.join(sorted(missing))}")
    pdfs, first_pdf = [], {}
    for number in sorted(set(sequence)):
        first_pdf[number] = len(pdfs)
        pdfs += models[number].pdfs
    sizes = [models[number].num_states for number in sequence]
    starts = np.cumsum(sizes) - sizes
    transitions = np.zeros((sum(sizes),) * 2)
    initial, final = np.zeros(sum(sizes)), np.zeros(sum(sizes))
    pdf_of = np.concatenate([models[number].pdf_of + first_pdf[number] for number in sequence])
    for i, (number, start, size) in enumerate(zip(sequence, starts, sizes)):
        part, model = slice(start, start + size), models[number]
        transitions[part, part] = model.transitions
        if i == 0:
            initial[part] = model.initial
        if i + 1 < len(sequence):
            following = models[sequence[i + 1]]
            to = slice(start + size, start + size + following.num_states)
            transitions[part, to] = np.outer(model.final, following.initial)
        else:
            final[part] = model.final
    return Hmm(initial, transitions, final, pdfs, pdf_of, "prob"), np.repeat(sequence, sizes)


def sequence_of(labels):
    """Return the list of phones that frame labels (T,) run through."""
    return [phone for _, _, phone in runs(labels)]
