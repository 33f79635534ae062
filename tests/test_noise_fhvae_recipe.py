"""egs/mini/noise_fhvae.sh on a corpus of tones; local/mini/mix_noise.py: conditions, levels, parts of noises."""

import csv
import itertools
import subprocess
import sys

import numpy as np
import pytest
from helpers import ROOT, forked_environment, run_script, shell, write_lines
from scipy.io import wavfile
from scipy.signal import fftconvolve

sys.path.insert(0, str(ROOT / "local/mini"))
import mix_noise  # noqa: E402

from voxark import tables  # noqa: E402
from voxark.e2e.audio_table import AudioTable  # noqa: E402
from voxark.errors import VoxarkError  # noqa: E402

RATE = 16000
NOISES = ("hum", "hiss", "tick")
TINY = ("--arch=fc --hidden-dim=16 --z1-dim=4 --z2-dim=4 --sequence-batch-size=30 --segment-batch-size=32 "
        "--num-steps=12 --steps-per-epoch=6 --dev-share=0.2")


def save_wav(path, samples):
    path.parent.mkdir(parents=True, exist_ok=True)
    wavfile.write(path, RATE, np.rint(samples).astype(np.int16))


def make_corpus(folder, name, num_speakers, first, seconds=1.0):
    """A Kaldi data directory of tones, four utterances a speaker, with all pairs as trials."""
    rng, time, keys = np.random.default_rng(first), np.arange(int(seconds * RATE)) / RATE, []
    for speaker, number in itertools.product(range(first, first + num_speakers), range(4)):
        key = f"s{speaker:02d}-u{number}"
        phase = 2 * np.pi * (90 + 17 * speaker) * time
        voice = sum(np.sin(k * phase + rng.uniform(0, 6)) / k for k in range(1, 9))
        save_wav(folder / "wav" / f"{key}.wav", 1000 * (voice + 0.3 * rng.standard_normal(len(time))))
        keys.append(key)
    data = folder / name
    data.mkdir()
    write_lines(data / "wav.scp", *(f"{key} wav/{key}.wav" for key in keys))
    write_lines(data / "utt2spk", *(f"{key} {key[:3]}" for key in keys))
    write_lines(data / "spk2gender", *(f"{spk} m" for spk in sorted({key[:3] for key in keys})))
    write_lines(data / "trials", *(f"{a} {b} {'target' if a[:3] == b[:3] else 'nontarget'}"
                                   for a, b in itertools.combinations(keys, 2)))
    return data


def make_collections(folder):
    """Noises of 4 s, one of which changes, and a room response: an early echo and one 92 ms late."""
    rng, time = np.random.default_rng(1), np.arange(4 * RATE) / RATE
    sounds = {"hum": np.sin(2 * np.pi * np.where(time < 2.8, 200, 3000) * time),
              "hiss": rng.standard_normal(len(time)),
              "tick": rng.standard_normal(len(time)) * (1 + (time * 8 % 1 < 0.2))}
    for name, samples in sounds.items():
        save_wav(folder / f"noise/{name}.wav", 3000 * samples)
    response = np.zeros(1600)
    response[[20, 300, 1500]] = 20000, -9000, 8000
    save_wav(folder / "rir/room.wav", response)
    for kind, names in (("noise", sounds), ("rir", ["room"])):
        write_lines(folder / kind / "wav.scp", *(f"{name} {kind}/{name}.wav" for name in names))
    return folder


def as_recordings(source, data):
    """A data directory whose utterances are segments of one recording a speaker."""
    waves = {}
    for line in (source / "wav.scp").read_text().splitlines():
        key, path = line.split()
        waves.setdefault(key[:3], []).append((key, wavfile.read(source.parent / path)[1]))
    data.mkdir(parents=True)
    segments = []
    for speaker, parts in waves.items():
        save_wav(data.parent / f"wav/{speaker}.wav", np.concatenate([samples for _, samples in parts]))
        segments += [f"{key} {speaker} {5 * n:.2f} {5 * n + 5:.2f}" for n, (key, _) in enumerate(parts)]
    write_lines(data / "wav.scp", *(f"{speaker} wav/{speaker}.wav" for speaker in waves))
    write_lines(data / "segments", *segments)
    for name in ("utt2spk", "trials"):
        (data / name).write_text((source / name).read_text())
    return data


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("noise") / "data"
    make_corpus(folder / "speechocean762", "train", 8, 0)
    make_corpus(folder / "speechocean762", "test", 10, 10)
    make_corpus(folder / "timit_sample", "all", 10, 30)
    as_recordings(make_corpus(folder / "plain", "all", 4, 50, 5.0), folder / "ami_excerpts/all")
    make_collections(folder / "noise_rir")
    return folder


def mix(corpus, data, out, *options, check=True):
    rooms = corpus / "noise_rir"
    return run_script(ROOT / "local/mini/mix_noise.py", f"--noise-dir={rooms}/noise",
                      f"--rir-dir={rooms}/rir", "--num-noises=3", "--min-noise-length=1", *options, data, out,
                      check=check)


def labels(folder, name):
    return dict(line.split() for line in (folder / name).read_text().splitlines())


def waves(folder):
    with tables.open_reader("wav", f"scp:{folder}/wav.scp") as reader:
        return {key: samples for key, (_, samples) in reader}


# ------------------------------------------------------------------------------------------------------ mixing


@pytest.fixture(scope="module")
def mixed(corpus):
    """A folder with each utterance of the training corpus in all eight conditions."""
    out = corpus.parent / "mixed"
    mix(corpus, corpus / "speechocean762/train", out, "--copies=8", "--noise-end=0.7")
    return out


def test_every_copy_has_its_labels(corpus, mixed):
    noise, mic, snr = (labels(mixed, name) for name in ("utt2noise", "utt2mic", "utt2snr"))
    source, speaker = labels(mixed, "utt2source"), labels(mixed, "utt2spk")
    assert len(noise) == 8 * 32 and noise.keys() == mic.keys() == source.keys() == speaker.keys()
    assert noise.keys() == waves(mixed).keys()
    assert list(noise) == sorted(noise)
    for utterance in set(source.values()):
        found = {(noise[key], mic[key]) for key in source if source[key] == utterance}
        assert found == set(itertools.product(("clean", *NOISES), ("near", "far")))
    assert all(key == f"{source[key]}-{noise[key]}-{mic[key]}" and speaker[key] == key[:3] for key in noise)
    assert snr.keys() == {key for key in noise if noise[key] != "clean"}
    values = np.array(list(snr.values()), float)
    assert values.min() >= 5 and values.max() <= 20 and abs(values.mean() - 12.5) < 1.5
    shell(f"validate_data_dir.sh --no-text --no-feats {mixed}")


def test_what_is_mixed_in(corpus, mixed):
    """Near and clean: the same samples; far: through the response; noise: at its ratio to the early speech."""
    found, snr = waves(mixed), labels(mixed, "utt2snr")
    speech = wavfile.read(corpus / "speechocean762/wav/s03-u1.wav")[1].astype(float)
    np.testing.assert_array_equal(found["s03-u1-clean-near"], speech)
    h = wavfile.read(corpus / "noise_rir/rir/room.wav")[1].astype(float)
    heard = fftconvolve(speech, h / np.sqrt(h @ h))[20 : 20 + len(speech)]
    assert np.abs(found["s03-u1-clean-far"] - heard).max() <= 1
    early = fftconvolve(speech, h[: 20 + 800] / np.sqrt(h @ h))[20 : 20 + len(speech)]
    for mic, heard, measured in (("near", speech, speech), ("far", heard, early)):
        noise = found[f"s03-u1-hiss-{mic}"] - heard
        ratio = 10 * np.log10(np.mean(measured**2) / np.mean(noise**2))
        assert ratio == pytest.approx(float(snr[f"s03-u1-hiss-{mic}"]), abs=0.1)


def pitch(samples):
    return np.argmax(np.abs(np.fft.rfft(samples * np.hanning(len(samples))))) * RATE / len(samples)


def test_training_and_test_have_different_parts_of_a_noise(corpus, mixed, tmp_path):
    """The first 70 % of the hum are at 200 Hz, the rest at 3 kHz."""
    mix(corpus, corpus / "speechocean762/train", tmp_path / "rest", "--copies=8", "--noise-begin=0.7")
    for folder, expected in ((mixed, 200), (tmp_path / "rest", 3000)):
        found = waves(folder)
        for key in ("s00-u0", "s05-u2", "s07-u3"):
            hum = found[f"{key}-hum-near"].astype(float) - found[f"{key}-clean-near"]
            assert pitch(hum) == pytest.approx(expected, abs=5)


def test_seed_and_key_alone_decide(corpus, mixed, tmp_path):
    few = tmp_path / "few"
    few.mkdir()
    for name in ("wav.scp", "utt2spk"):
        lines = (corpus / "speechocean762/train" / name).read_text().splitlines()[5:9][::-1]
        write_lines(few / name, *(line.replace(" wav/", f" {corpus}/speechocean762/wav/") for line in lines))
    mix(corpus, few, tmp_path / "a", "--copies=8", "--noise-end=0.7")
    whole, part = waves(mixed), waves(tmp_path / "a")
    assert len(part) == 32 and all(np.array_equal(samples, whole[key]) for key, samples in part.items())
    mix(corpus, few, tmp_path / "one")
    assert waves(tmp_path / "one").keys() < part.keys() and len(waves(tmp_path / "one")) == 4
    mix(corpus, few, tmp_path / "b", "--copies=8", "--noise-end=0.7", "--srand=1")
    other = waves(tmp_path / "b")
    key = "s01-u1-hiss-far"
    assert other.keys() == part.keys() and not np.array_equal(other[key], part[key])


def test_conditions_are_drawn_evenly():
    recording = mix_noise.Recording("n", np.ones(100, np.float32))
    mixer = mix_noise.Mixer(dict.fromkeys("abcdef", recording), recording, RATE, (5, 20), 0)
    drawn = [condition for n in range(1400) for condition in mixer.draw(f"u{n}", 2)]
    counts = np.array([drawn.count(condition) for condition in mixer.conditions])
    assert len(counts) == 14 and counts.sum() == 2800 and counts.min() > 150 and counts.max() < 250
    assert all(len(set(mixer.draw(f"u{n}", 14))) == 14 for n in range(20))


def test_loud_sums_are_not_clipped():
    rng = np.random.default_rng(0)
    noise = mix_noise.Recording("n", rng.standard_normal(5000).astype(np.float32))
    mixer = mix_noise.Mixer({"n": noise}, noise, RATE, (5, 5), 0)
    speech = (32767 * np.sin(0.05 * np.arange(5000))).astype(np.int16)
    mixed, snr = mixer.mix("u", speech, mix_noise.Condition("n", "near"))
    assert snr == 5 and np.abs(mixed.astype(int)).max() == 32000


def test_noises_are_chosen(corpus):
    table = mix_noise.open_collection(str(corpus / "noise_rir/noise"), RATE)
    assert mix_noise.choose_noises(table, ["tick", "hum"], 6, 1, 0) == ["tick", "hum"]
    drawn = {tuple(mix_noise.choose_noises(table, [], 2, 1, srand)) for srand in range(20)}
    assert drawn == set(itertools.combinations(sorted(NOISES), 2))
    with pytest.raises(VoxarkError, match="0 recordings have 5 s or more, 2 are needed"):
        mix_noise.choose_noises(table, [], 2, 5, 0)


def test_silence_is_refused(tmp_path):
    samples = np.ones(2 * RATE)
    samples[3000 : 3000 + int(0.6 * RATE)] = 0
    save_wav(tmp_path / "n.wav", 100 * samples)
    write_lines(tmp_path / "wav.scp", f"n {tmp_path}/n.wav")
    table = AudioTable(str(tmp_path / "wav.scp"))
    with pytest.raises(VoxarkError, match="n is silent for more than 0.5 s"):
        mix_noise.part_of_noise(table, "n", 0.0, 1.0)
    assert len(mix_noise.part_of_noise(table, "n", 0.5, 1.0).read(0)) == RATE


@pytest.mark.parametrize("options, message", [
    (["--noises=hum,drum"], "has no drum"),
    (["--noises=hum,hum"], "different names"),
    (["--noise-begin=0.7", "--noise-end=0.7"], "--noise-begin is below --noise-end"),
    (["--copies=9"], "--copies=9: from 1 to the number of conditions"),
    (["--copies=0"], "--copies=0"),
    (["--response=hall"], "has no hall"),
    (["--noise-dir="], "--noise-dir and --rir-dir are needed"),
    (["--min-snr=20", "--max-snr=5"], "must not be above"),
])
def test_wrong_options(corpus, tmp_path, options, message):
    failed = mix(corpus, corpus / "speechocean762/train", tmp_path / "out", *options, check=False)
    assert failed.returncode == 1 and message in failed.stderr
    assert not (tmp_path / "out/wav.scp").exists()


def test_a_silent_utterance_is_counted(corpus, tmp_path):
    data = make_corpus(tmp_path / "c", "all", 1, 0)
    save_wav(tmp_path / "c/wav/s00-u2.wav", np.zeros(RATE))
    done = mix(corpus, data, tmp_path / "out")
    assert "done 3, failed 1 (copies)" in done.stderr and "its utterance is silent" in done.stderr
    assert len(labels(tmp_path / "out", "utt2noise")) == 3 and len(waves(tmp_path / "out")) == 3


# ------------------------------------------------------------------------------------------------------ recipe


def recipe(*words):
    return subprocess.run([str(ROOT / "egs/mini/noise_fhvae.sh"), *map(str, words)], capture_output=True,
                          text=True, env=forked_environment(with_torch=True), timeout=300)


@pytest.fixture(scope="module")
def run_twice(corpus):
    """(folder, first run, its rows of gains, its rows of error rates, second run, the model after the first)."""
    pytest.importorskip("torch")
    exp = corpus.parent / "exp"
    words = ("--seeds", 3, "--nj", 1, "--num-threads", 1, "--noises", ",".join(NOISES), "--response", "room",
             "--lda-dim", 3, "--train-opts", TINY, corpus, exp)
    first = recipe(*words)
    assert first.returncode == 0, first.stdout + first.stderr
    rows = []
    for name in ("disentanglement", "results"):
        with (exp / f"{name}.csv").open(newline="") as lines:
            rows.append(list(csv.DictReader(lines)))
    model = (exp / "seed3/final.pt").read_bytes()
    return exp, first, *rows, recipe(*words), model


def test_all_factors_of_all_lists(run_twice):
    exp, first, gains, rates, _, _ = run_twice
    expected = {(name, factor, latent) for name, factors in (
        ("speechocean762", "speaker noise mic"), ("timit_sample", "speaker noise mic"),
        ("ami_pieces", "speaker recording")) for factor in factors.split() for latent in ("z1", "z2", "both")}
    assert {(row["list"], row["factor"], row["latent"]) for row in gains} == expected
    assert len(gains) == len(expected)
    assert all(-20 < float(row["gain"]) <= 1 and row["seed"] == "3" for row in gains)
    assert [(row["system"], row["list"]) for row in rates] == [
        (name, data) for data in ("speechocean762", "timit_sample", "ami_excerpts")
        for name in ("mu2", "mu2 LDA-3", "mu1", "mu1 LDA-3")]
    assert all(0 <= float(row["eer"]) <= 0.6 for row in rates)
    header, *table = first.stdout[first.stdout.index("system"):].splitlines()
    assert header.split()[:4] == ["system", "data", "factor", "seeds"] and len(table) == 8 + 2 + 12
    noise = labels(exp / "data/train", "utt2noise")
    assert len(noise) == 2 * 32 and set(noise.values()) == {"clean", *NOISES}
    assert len(labels(exp / "data/timit_sample", "utt2mic")) == 40
    pieces = [line.split() for line in (exp / "data/ami_pieces/segments").read_text().splitlines()]
    assert pieces[:2] == [["s50-u0-000", "s50", "0.000", "2.500"], ["s50-u0-001", "s50", "2.500", "5.000"]]
    assert len(pieces) == 32 and labels(exp / "data/ami_pieces", "utt2spk")["s52-u3-001"] == "s52"
    trial = (exp / "data/speechocean762/trials").read_text().split()[:2]
    assert set(trial) <= labels(exp / "data/speechocean762", "utt2noise").keys()


def test_what_is_done_is_not_done_again(run_twice):
    exp, first, _, _, second, model = run_twice
    assert second.returncode == 0, second.stderr
    assert "fbank: finished before, skipped" in second.stdout
    assert "is up to date" in (exp / "log").read_text() and (exp / "seed3/final.pt").read_bytes() == model
    assert second.stdout[second.stdout.index("system"):] == first.stdout[first.stdout.index("system"):]
    assert (exp / "results.txt").read_text() in second.stdout


def test_wrong_arguments(corpus, tmp_path):
    assert "Usage" in recipe(corpus).stderr
    failed = recipe("--noises", "drum", "--response", "room", corpus, tmp_path / "exp")
    assert failed.returncode == 1 and "has no drum" in failed.stderr
    assert not (tmp_path / "exp/results.txt").exists()
