"""Preparing a corpus as its publisher ships it: files, audio headers, counts, data directories, trials.

The programs local/CORPUS/prepare_data.py are written with these. Nothing here decodes whole recordings.
"""

import contextlib
import logging
import mmap
import os
import shlex
import shutil
from pathlib import Path
from typing import NamedTuple

from voxark import audio, datadir
from voxark.datadir_edit import DataDir
from voxark.errors import VoxarkError
from voxark.io.outputs import Output

logger = logging.getLogger(__name__)


def some(names, number=5):
    """Names for a message: the first few, and how many more there are."""
    names = [str(name) for name in names]
    more = f" and {len(names) - number} more" if len(names) > number else ""
    return ", ".join(names[:number]) + more


# ------------------------------------------------------------------------------------------- finding files


def find_files(root, is_wanted):
    """Find the wanted files below a folder: ({relative path in small letters: Path}, number of other files).

    ``is_wanted`` is called with the relative path in small letters, with `/` between folders. Links are
    followed. Raises VoxarkError for a folder that is absent or cannot be read, and for two wanted files
    whose paths differ in capital and small letters only.
    """
    root = Path(os.path.abspath(root))
    try:
        if not root.is_dir():
            raise VoxarkError(f"{root}: no such folder" if not root.exists() else f"{root}: not a folder")
    except OSError as error:
        _cannot_list(error)
    found, num_others, seen = {}, 0, set()
    for folder, subfolders, names in os.walk(root, onerror=_cannot_list, followlinks=True):
        identity = os.stat(folder).st_dev, os.stat(folder).st_ino
        if identity in seen:  # a link that leads back
            subfolders.clear()
            continue
        seen.add(identity)
        subfolders.sort()
        for name in sorted(names):
            path = Path(folder, name)
            key = path.relative_to(root).as_posix().lower()
            if not is_wanted(key):
                num_others += 1
            elif key in found:
                raise VoxarkError(
                    f"{found[key]} and {path} differ in capital letters only: remove one of them"
                )
            else:
                found[key] = path
    return found, num_others


def _cannot_list(error):
    raise VoxarkError(f"{error.filename}: the folder cannot be read: {error.strerror or error}")


def find_folder(root, name):
    """The folder of this name in ``root``, in any letters, or None; VoxarkError if there are two."""
    try:
        found = [
            path
            for path in sorted(Path(root).iterdir())
            if path.name.lower() == name.lower() and path.is_dir()
        ]
    except OSError as error:
        _cannot_list(error)
    if len(found) > 1:
        raise VoxarkError(f"{found[0]} and {found[1]} differ in capital letters only: remove one of them")
    return found[0] if found else None


def read_lines(path):
    """The lines of a text file of a corpus, in UTF-8 or else Latin-1, whatever its line ends.

    VoxarkError, naming the file, where it cannot be read or is empty.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise VoxarkError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    if not data:
        raise VoxarkError(f"{path}: the file is empty")
    try:
        return data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        return data.decode("latin-1").splitlines()


# --------------------------------------------------------------------------------------------- audio files


class AudioInfo(NamedTuple):
    """What the header of an audio file says; ``num_samples`` are those of one channel."""

    rate: int
    num_channels: int
    num_samples: int
    is_compressed_sphere: bool = False

    @property
    def seconds(self):
        """The length in seconds."""
        return self.num_samples / self.rate


def inspect_audio(path, rate=None):
    """Look into an audio file without decoding it: an AudioInfo.

    Raises VoxarkError, naming the file, where it cannot be read, is empty or corrupt, holds no sample, is
    shorter than its header says (all but compressed SPHERE), or has another rate than ``rate``.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(16)
            if not head:
                raise VoxarkError(f"{path}: the audio file is empty")
            # A map: read_audio looks at the header and leaves 16-bit samples where they are.
            info = _inspect(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), head, path)
    except OSError as error:
        raise VoxarkError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    if info.num_samples <= 0:
        raise VoxarkError(f"{path}: the audio file holds no samples")
    if rate is not None and info.rate != rate:
        raise VoxarkError(f"{path}: a sampling rate of {info.rate} Hz, where this corpus has {rate} Hz")
    return info


def _inspect(data, head, path):
    if head[:7] == b"NIST_1A":
        start, fields = audio.sphere_fields(data, path)
        if "embedded-" in fields.get("sample_coding", "") or data[start : start + 4] == b"ajkg":
            try:
                return AudioInfo(
                    int(fields["sample_rate"]),
                    int(fields.get("channel_count", 1)),
                    int(fields["sample_count"]),
                    True,
                )
            except (KeyError, ValueError) as error:
                raise VoxarkError(f"{path}: corrupt SPHERE header: {error}") from None
    elif head[:4] not in (b"RIFF", b"RIFX", b"RF64"):
        return _inspect_soundfile(path)
    rate, samples = audio.read_audio(data, path)
    return AudioInfo(rate, 1 if samples.ndim == 1 else samples.shape[1], len(samples))


def _inspect_soundfile(path):
    try:
        import soundfile
    except (ImportError, OSError) as error:
        raise VoxarkError(
            f"{path}: this format is read by libsndfile, which is missing ({error}); pip install soundfile"
        ) from None
    try:
        info = soundfile.info(str(path))
    except (soundfile.SoundFileError, RuntimeError) as error:
        reason = (str(error).partition(": ")[2] or str(error)).strip().rstrip(".")
        raise VoxarkError(f"{path}: not an audio file that can be read ({reason})") from None
    try:
        with soundfile.SoundFile(
            str(path)
        ) as file:  # the last sample is there: the file has not been cut off
            whole = file.frames <= 0 or file.seek(file.frames - 1) >= 0 and len(file.read(1)) == 1
    except (soundfile.SoundFileError, RuntimeError):
        whole = False
    if not whole:
        raise VoxarkError(
            f"{path}: truncated audio: of the {info.frames} samples that it announces, the last "
            "cannot be read"
        )
    return AudioInfo(info.samplerate, info.channels, info.frames)


def wav_entry(path, info, sph2pipe="sph2pipe"):
    """The entry of a file in wav.scp: its absolute path, or a pipe through sph2pipe for compressed SPHERE.

    Raises VoxarkError, naming the file, where sph2pipe is needed and is not there.
    """
    path = os.path.abspath(path)
    if not info.is_compressed_sphere:
        return path
    if shutil.which(sph2pipe) is None:
        raise VoxarkError(
            f"{path}: a compressed SPHERE file, for which '{sph2pipe}' is needed, but no such program "
            "is found; build the LDC's sph2pipe_v2.5 and put it on PATH, or say --sph2pipe=FILE"
        )
    program = os.path.abspath(sph2pipe) if os.sep in sph2pipe else sph2pipe
    return f"{shlex.quote(program)} -f wav -p {shlex.quote(path)} |"


# -------------------------------------------------------------------------------------------------- counts


def check_counts(corpus, counts, missing=(), partial=False):
    """Compare counts with the publisher's.

    ``counts``: (what, found, expected) of each, in which expected is a number or a range of numbers, as
    range(200000, sys.maxsize); ``missing``: what is known to be lacking, in words.

    Raises VoxarkError that says all differences; with ``partial`` that is a warning.
    """
    wrong = []
    for what, found, expected in counts:
        if isinstance(expected, range):
            if found not in expected:
                wrong.append(f"{found:,} {what}, expected {expected.start:,} or more")
        elif found != expected:
            wrong.append(f"{found:,} {what}, expected {expected:,}")
    if not wrong:
        return
    text = f"{corpus}: " + "; ".join(wrong) + (f"; missing: {some(missing, 10)}" if missing else "")
    if not partial:
        raise VoxarkError(f"{text}. --partial=true prepares what is there")
    logger.warning("%s. Going on with what is there (--partial=true)", text)


def check_speakers(corpus, data, least):
    """Raise VoxarkError unless each part of ``least`` ({part: number}) of ``data`` has so many speakers."""
    for part, number in least.items():
        found = len(data[part].spk2utt)
        if found < number:
            raise VoxarkError(f"{corpus}: {found} {part} speakers, {number} at least are needed")


def check_broken(broken, partial=False):
    """Raise VoxarkError with the first of the messages of broken files; with ``partial`` warn of each."""
    if broken and not partial:
        more = f" (and {len(broken) - 1} more broken files)" if len(broken) > 1 else ""
        raise VoxarkError(f"{broken[0]}{more}; --partial=true leaves it out")
    for problem in broken:
        logger.warning("left out: %s", problem)


# ------------------------------------------------------------------------------------------- data directories


def make_data_dir(wavs, utt2spk, lists=None, **tables):
    """A DataDir; its files are by utterance, speaker or recording, as their names say.

    ``wavs``: entries of wav.scp; ``tables``: other files by name, {key: value} each, of which empty ones are
    left out; ``lists``: files of several lines a key, as {"phones.ctm": [(key, rest of the line)]}.
    """

    return DataDir("", {"wav.scp": wavs, "utt2spk": utt2spk, **{n: t for n, t in tables.items() if t}}, lists)


def write_data_dir(path, data, dropped):
    """Write a DataDir, and the ledger dropped.prepare of ``dropped``: {utterance: reason}."""
    data.write(path)
    datadir.write_lines(
        Path(path, "dropped.prepare"), (f"{key} {reason}" for key, reason in sorted(dropped.items()))
    )
    logger.info(
        "%s: %d speakers, %d utterances, %d left out",
        Path(path).name,
        len(data.spk2utt),
        len(data.utt2spk),
        len(dropped),
    )


def duration(seconds):
    """Text of utt2dur and reco2dur."""
    return f"{seconds:.6g}" if seconds < 100 else f"{seconds:.3f}"


@contextlib.contextmanager
def staging(out, names=()):
    """A new folder in ``out``; its contents take the place of those in ``out`` at the end, if all is well.

    Of ``names``, those that it does not make are removed; all else in ``out`` is left alone. After an error
    or a signal nothing has changed.
    """
    out = Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for old in out.glob(".prepare.*"):  # of a run that was killed
            shutil.rmtree(old, ignore_errors=True)
        folder = out / f".prepare.{os.getpid()}"
        folder.mkdir()
    except OSError as error:
        raise VoxarkError(f"{error.filename}: {error.strerror}") from None
    try:
        yield folder
        old = folder / ".old"
        old.mkdir()
        for name in names:
            if (out / name).exists() and not (folder / name).exists():
                (out / name).rename(old / name)
        for new in sorted(folder.iterdir(), key=lambda path: (path.is_file(), path.name)):  # trials last
            if new == old:
                continue
            if (out / new.name).exists():
                (out / new.name).rename(old / new.name)
            new.rename(out / new.name)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# -------------------------------------------------------------------------------------------------- trials


def sample_trials(utt2spk, options, same=(), different=()):
    """Blocks of trials of {utterance: speaker}, sampled as SamplingOptions say, each pair of utterances once.

    ``same``, ``different``: (name, {utterance or speaker: label}) of the labels that must agree, or differ.
    """
    from voxark.trials.make import Pairs, trial_blocks
    from voxark.trials.make_sides import gather_utterances, utterance_side

    everything = gather_utterances([utt2spk], same, different)
    side = utterance_side(everything, everything.numbers_of(list(utt2spk)))
    return trial_blocks(Pairs(side, side, everything.speaker_names, unordered=True), options)


def write_trials(folder, blocks):
    """Write ``folder``/trials of blocks of TrialLists, and enroll_map: each utterance is a model.

    Returns the numbers of target and nontarget trials; VoxarkError unless there are both.
    """
    from voxark.trials.lists import ListWriter

    num_targets = num_nontargets = 0
    models = set()
    with Output(str(Path(folder, "trials"))) as out:
        writer = ListWriter(out)
        for block in blocks:
            writer.write_trials(block)
            num_targets += int(block.target.sum())
            num_nontargets += int((~block.target).sum())
            models.update(block.enroll_ids[number] for number in set(block.enroll.tolist()))
        if not num_targets or not num_nontargets:
            raise VoxarkError(
                f"{num_targets} target and {num_nontargets} nontarget trials can be made of the test "
                "utterances; both are needed: two speakers at least, one with two utterances"
            )
    datadir.write_lines(Path(folder, "enroll_map"), (f"{model} {model}" for model in sorted(models)))
    logger.info(
        "trials: %d models, %d target and %d nontarget trials", len(models), num_targets, num_nontargets
    )
    return num_targets, num_nontargets
