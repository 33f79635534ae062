"""A training that takes long and works little, as it waits for its audio: it reaches time limits at little cost."""

from pathlib import Path

import pytest
from helpers import run, write_lines

torch = pytest.importorskip("torch")

import test_train_e2e  # noqa: E402
from voxark.nnet.checkpoint import load_state  # noqa: E402

PROGRAM = "train-e2e-verif"


def write(folder, num_epochs, pause=0.03):
    """Write its data; returns (arguments of the slow one, those of a fast one that gives the same model).

    It waits ``pause`` seconds for each of its chunks, 704 where it ends by itself behind epoch 22.
    """
    audio, labels = test_train_e2e.write_audio(folder / "audio")
    scp = Path(audio.removeprefix("scp:"))
    slow = [f"{key} sleep {pause}; cat {wav} |" for key, wav in map(str.split, scp.read_text().splitlines())]
    write_lines(folder / "slow.scp", *slow)
    options = test_train_e2e.words(audio=True, num_epochs=num_epochs, batches_per_epoch=4, batch_speakers=4,
                                   fbank_config=scp.parent / "fbank.conf")
    return [*options, f"{folder}/slow.scp", labels], [*options, audio, labels]


def check(folder, fast):
    """The model in ``folder``/parts is the one that a training makes that was never stopped."""
    run(PROGRAM, *fast, folder / "whole")
    assert same(folder / "whole", folder / "parts")


def same(one, two):
    """True if the networks of two folders are equal, bit for bit."""
    one, two = (load_state(str(folder / "state.pt"))["model"] for folder in (one, two))
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
