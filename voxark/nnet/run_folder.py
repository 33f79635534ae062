"""The folder of a training run: what is kept so that it can stop at any moment, and go on to the same bits.

    state.pt        all that --resume needs, written whole or not at all: the other files follow from it
    config.json, final.pt    the best model so far
    checkpoints/    epoch-<n>.pt: parameters behind the last epochs
    metrics.jsonl   a line for each epoch
    skipped         utterances that take no part, and why

state.pt is written last: whatever a killed run has written of an epoch that its state knows nothing of is
written again, over it, when the run goes on.
"""

import fcntl
import json
import logging
import os
import re

from voxark.errors import VoxarkError
from voxark.io.outputs import Output, open_text_output
from voxark.nnet.checkpoint import load_state, save_state
from voxark.nnet.model_folder import check_folder_name, read_config, write_config, write_parameters
from voxark.trials.lists import write_trials

logger = logging.getLogger(__name__)

# Options that may change when a run goes on: they do not change what is computed, or only how far it goes.
FREE_OPTIONS = frozenset((
    "resume", "num_epochs", "num_steps", "patience_steps", "save_interval", "save_minutes", "keep_checkpoints",
    "tensorboard", "verify_grad", "loader_threads", "num_threads", "device", "utt2num_frames", "max_held"))


class RunFolder:
    """The files of one run in ``path``; ``writes`` is true for the one process that writes them.

    ``model_class``: what is trained (:mod:`voxark.nnet.model_folder`).
    """

    def __init__(self, path, model_class, writes=True):
        self.path, self.model_class, self.writes = path.rstrip("/") or "/", model_class, writes
        self.state_path, self._written_epoch = self.file("state.pt"), None
        check_folder_name(path)
        if writes:
            try:
                os.makedirs(self.file("checkpoints"), exist_ok=True)
                self._lock()
                self._remove_remains()
            except OSError as error:
                raise VoxarkError(f"{path}: cannot be made a folder of a run: {error.strerror}") from None

    def file(self, *names):
        """Path of a file of the folder."""
        return os.path.join(self.path, *names)

    def _lock(self):
        """Keep the folder for this process: a job that was started twice must not mix two runs."""
        self._held = open(self.file(".lock"), "w")
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise VoxarkError(f"{self.path}: another process trains into this folder") from None
        except OSError:
            pass  # a file system without locks

    def close(self):
        """Let another process have the folder."""
        if self.writes:
            self._held.close()

    def _remove_remains(self):
        """Remove the unfinished outputs of a process that was killed."""
        for folder in (self.path, self.file("checkpoints")):
            for name in os.listdir(folder):
                if re.fullmatch(r"\..+\.tmp[0-9]+\.[0-9]+", name):
                    os.unlink(os.path.join(folder, name))

    def saved_state(self, resume):
        """The state to go on from, or None to start.

        VoxarkError if there is one and ``resume`` is false, if it is damaged or another kind of checkpoint,
        and for a folder with a model that training would write over.
        """
        if not os.path.exists(self.state_path):
            self._refuse_model(resume)
            if resume:
                logger.info("%s holds no state: the run starts anew", self.path)
            return None
        if not resume:
            raise VoxarkError(
                f"{self.path} holds a run already: --resume goes on with it; remove the folder to start anew")
        state = load_state(self.state_path)
        if not isinstance(state.get("settings") if isinstance(state, dict) else None, dict):
            raise VoxarkError(f"{self.state_path}: a checkpoint, but not the state of a training: remove the "
                              "folder to start anew")
        return state

    def _refuse_model(self, resume):
        """VoxarkError if the folder has a model and no state, unless it is what a run starts with.

        A run that was killed before its first state has left the model of epoch 0, or parameters alone.
        """
        if not os.path.exists(self.file("final.pt")):
            return
        config = self.file("config.json")
        if resume and (not os.path.exists(config) or read_config(config, self.model_class).get("epoch") == 0):
            return
        raise VoxarkError(f"{self.path} holds a model, but no state of its training to go on from: train "
                          "into another folder, or remove it")

    def save_state(self, state):
        """Replace state.pt."""
        if self.writes:
            save_state(self.state_path, state)

    def write_model(self, model, parameters, epoch):
        """Write config.json and final.pt, of the parameters of an epoch, unless that was done before."""
        if not self.writes or epoch == self._written_epoch:
            return
        write_parameters(self.file("final.pt"), parameters)
        write_config(self.file("config.json"), {**model.config, "epoch": epoch})
        self._write_more(model, parameters)
        self._written_epoch = epoch

    def _write_more(self, model, parameters):
        """Write what else belongs to a model, beside config.json and final.pt."""

    def write_history(self, history):
        """Write metrics.jsonl: dicts, one an epoch. What is not finite is null, as in JSON."""
        if not self.writes:
            return
        with open_text_output(self.file("metrics.jsonl")) as out:
            for line in history:
                out.write(json.dumps({name: _plain(value) for name, value in line.items()}) + "\n")

    def write_checkpoint(self, epoch, parameters, keep):
        """Write checkpoints/epoch-<n>.pt, and remove all but the last ``keep``."""
        if not self.writes or keep < 1:
            return
        write_parameters(self.file("checkpoints", f"epoch-{epoch}.pt"), parameters)
        for number, name in self._checkpoints():
            if number > epoch or number <= epoch - keep:
                os.unlink(self.file("checkpoints", name))

    def _checkpoints(self):
        """(epoch, file name) of each checkpoint."""
        for name in sorted(os.listdir(self.file("checkpoints"))):
            number = name.removeprefix("epoch-").removesuffix(".pt")
            if name.startswith("epoch-") and name.endswith(".pt") and number.isdigit():
                yield int(number), name

    def write_table(self, name, entries):
        """Write a text file of lines ``<key> <value>``."""
        if self.writes:
            with open_text_output(self.file(name)) as out:
                for key, value in entries:
                    out.write(f"{key} {value}\n")

    def write_trials(self, name, trials):
        """Write a TrialList."""
        if self.writes:
            with Output(self.file(name)) as out:
                write_trials(out, trials)


def _plain(value):
    if isinstance(value, float) and value - value != 0.0:
        return None
    return round(value, 9) if isinstance(value, float) else value


def check_same(saved, settings):
    """Refuse to go on with options, or data, that are not the saved run's: VoxarkError naming the first.

    Both are flat dicts of option or fact to value; FREE_OPTIONS may differ.
    """
    for name in sorted(saved.keys() | settings.keys()):
        if name in FREE_OPTIONS or saved.get(name) == settings.get(name):
            continue
        if name.startswith("data "):
            raise VoxarkError(
                f"the data are not those of the saved run: {name[5:]} was {saved.get(name)}, and is "
                f"{settings.get(name)}; go on with the same data, or train into another folder")
        option = f"--{name.replace('_', '-')}"
        raise VoxarkError(
            f"{option}={settings.get(name)} now, but {option}={saved.get(name)} in the saved run: go on with "
            "the same options, or train into another folder")
