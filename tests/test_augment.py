"""Waveforms and features by stretches, and what is added to them: noise, rooms, speed, masks."""

import threading

import numpy as np
import pytest

from helpers import needs_data, run, shared_data
from voxark import tables
from voxark.audio import write_wav
from voxark.e2e.audio_table import AudioTable
from voxark.e2e.augment import AugmentOptions, Augmenter, convolve, early_part, normalize_response
from voxark.e2e.batches import BatchOptions, BatchSampler, TrainingSet
from voxark.e2e.chunks import BatchReader, FeatureReader, NormalizeOptions
from voxark.e2e.spec_augment import SpecAugmentOptions, mask_features
from voxark.e2e.waveforms import WaveformFeatures, Waveforms
from voxark.errors import VoxarkError
from voxark.feat.fbank import FbankOptions
from voxark.feat.resample import resample
from voxark.random_numbers import seeded_rng

RATE = 8000


def signal(seed, length, scale=2000):
    rng = np.random.default_rng(seed)
    return np.convolve(rng.standard_normal(length + 20), np.ones(21) / 4.6, "valid") * scale


def write_wavs(folder, signals, rate=RATE):
    """A data directory with relative paths, which count from its parent."""
    folder.mkdir()
    lines = []
    for key, samples in signals.items():
        (folder / f"{key}.wav").write_bytes(write_wav(rate, samples.astype(np.int16)))
        lines.append(f"{key} {folder.name}/{key}.wav\n")
    (folder / "wav.scp").write_text("".join(lines))
    return str(folder)


@pytest.fixture
def corpus(tmp_path):
    signals = {"utt1": signal(1, 21000), "utt2": signal(2, 9000), "utt3": signal(3, 45000)}
    write_wavs(tmp_path / "speech", signals)
    scp = tmp_path / "wav.scp"
    scp.write_text("".join(f"{key} {tmp_path}/speech/{key}.wav\n" for key in signals))
    noises = write_wavs(tmp_path / "noise", {"hum": signal(4, 3000), "babble": signal(5, 90000)})
    response = np.zeros(1500)
    response[[40, 60, 700, 1300]] = 20000, -9000, 5000, 3000
    rooms = write_wavs(tmp_path / "rir", {"hall": response})
    return str(scp), noises, rooms, {key: value.astype(np.int16) for key, value in signals.items()}


# ----------------------------------------------------------------------------------------- stretches of audio


def test_stretches_of_every_kind_of_entry(corpus, tmp_path):
    scp, _, _, signals = corpus
    soundfile = pytest.importorskip("soundfile")
    entries = []
    for key, samples in signals.items():
        soundfile.write(tmp_path / f"{key}.flac", samples, RATE)
        soundfile.write(tmp_path / f"{key}f.wav", samples / 32768.0, RATE, subtype="FLOAT")
        entries += [
            (f"{key}-wav", f"{tmp_path}/speech/{key}.wav"),
            (f"{key}-flac", f"{tmp_path}/{key}.flac"),
            (f"{key}-float", f"{tmp_path}/{key}f.wav"),
            (f"{key}-pipe", f"cat {tmp_path}/speech/{key}.wav |"),
        ]
    with tables.open_writer("wav", f"ark,scp:{tmp_path}/w.ark,{tmp_path}/w.scp") as out:
        for key, samples in signals.items():
            out[f"{key}-ark"] = RATE, samples
    text = "".join(f"{key} {name}\n" for key, name in entries) + (tmp_path / "w.scp").read_text()
    (tmp_path / "all.scp").write_text(text)
    table, rng = AudioTable(str(tmp_path / "all.scp")), np.random.default_rng(0)
    assert table.rate == RATE and len(table) == 15
    for number, key in enumerate(table.keys):
        samples = signals[key.partition("-")[0]]
        assert table.lengths[number] == len(samples)
        np.testing.assert_array_equal(table.read(number), samples)
        first, last = np.sort(rng.integers(0, len(samples), 2))
        np.testing.assert_array_equal(table.read(number, first, last), samples[first:last])


def test_segments_are_those_of_extract_segments(corpus, tmp_path):
    scp, _, _, signals = corpus
    (tmp_path / "segments").write_text("a utt3 0.5 1.2504\nb utt1 1 -1\nc utt3 2 5.9\n")
    run("extract-segments", f"scp:{scp}", tmp_path / "segments", f"ark:{tmp_path}/cut.ark")
    expected = dict(tables.open_reader("wav", f"ark:{tmp_path}/cut.ark"))
    waves = Waveforms(scp, str(tmp_path / "segments"))
    assert waves.keys == ["a", "b", "c"] and waves.recordings.tolist() == [0, 1, 0]
    for number, key in enumerate(waves.keys):
        np.testing.assert_array_equal(waves.samples(number), expected[key][1])
    np.testing.assert_array_equal(waves.read(0, 100, 300)[:, 0], expected["a"][1][100:300])


def test_errors_of_audio_name_key_and_file(corpus, tmp_path):
    scp, _, _, signals = corpus
    waves = Waveforms(scp)
    path = tmp_path / "speech" / "utt3.wav"
    path.write_bytes(path.read_bytes()[:20000])
    for broken in (lambda: waves.samples(2, 20000, 30000), lambda: Waveforms(scp)):
        with pytest.raises(VoxarkError, match="^utt3: .*utt3.wav: "):
            broken()
    path.write_bytes(write_wav(16000, signals["utt3"]))
    with pytest.raises(VoxarkError, match="^utt3: .*16000 Hz, but 8000 Hz are expected"):
        Waveforms(scp)
    with pytest.raises(VoxarkError, match="^utt1: samples 5 to 99999 of 21000"):
        waves.samples(0, 5, 100000)
    with pytest.raises(VoxarkError, match="wav.scp is expected"):
        Augmenter(AugmentOptions(noise_dir=str(tmp_path)[:-1] + "x"), RATE)
    with pytest.raises(VoxarkError, match="8000 Hz, but --sample-frequency=16000"):
        WaveformFeatures(waves, FbankOptions())


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--snip-edges=false",),
        ("--use-energy=true", "--frame-shift=7.5"),
        ("--snip-edges=false", "--frame-length=60", "--window-type=hamming"),
    ],
)
def test_features_of_stretches_are_those_of_compute_fbank_to_the_bit(corpus, tmp_path, options):
    scp = tmp_path / "wavs.scp"
    write_wavs(
        tmp_path / "more",
        {"short": signal(6, 330), "long": signal(7, 120000), "offset": signal(8, 20000) + 900},
    )
    text = "".join(f"{key} {tmp_path}/more/{key}.wav\n" for key in ("short", "long", "offset"))
    scp.write_text((tmp_path / "wav.scp").read_text() + text)
    run(
        "compute-fbank",
        f"--sample-frequency={RATE}",
        "--dither=0",
        *options,
        f"scp:{scp}",
        f"ark:{tmp_path}/f.ark",
    )
    expected = dict(tables.open_reader("mat", f"ark:{tmp_path}/f.ark"))
    words = {word[2:].partition("=")[0].replace("-", "_"): word.partition("=")[2] for word in options}
    kinds = {
        "snip_edges": lambda text: text == "true",
        "use_energy": lambda text: text == "true",
        "window_type": str,
    }
    fbank = FbankOptions(
        sample_frequency=RATE,
        dither=0.0,
        **{name: kinds.get(name, float)(value) for name, value in words.items()},
    )
    features, rng = WaveformFeatures(Waveforms(str(scp)), fbank), np.random.default_rng(0)
    assert features.dim == 23 + ("use_energy" in words)
    for number, key in enumerate(features.keys):
        if key not in expected:
            assert features.lengths[number] == 0 and key == "short"
            continue
        length = len(expected[key])
        assert features.lengths[number] == length
        np.testing.assert_array_equal(features.read(number), expected[key])
        for _ in range(8):
            first = int(rng.integers(0, length))
            last = int(rng.integers(first, length + 1))
            np.testing.assert_array_equal(features.read(number, first, last), expected[key][first:last])
            np.testing.assert_allclose(
                features.read(number, first, last, draw=(0,)), expected[key][first:last], atol=2e-3
            )


def test_threads_compute_features_at_once(corpus):
    features = WaveformFeatures(Waveforms(corpus[0]), FbankOptions(sample_frequency=RATE, dither=0.0))
    expected, wrong = [features.read(n) for n in range(3)], []

    def work(number):
        for _ in range(20):
            if not np.array_equal(features.read(number), expected[number]):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(n % 3,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# ------------------------------------------------------------------------------------------- what is added


@pytest.mark.parametrize("speed", [0.9, 1.1, 1.25])
def test_speed_of_a_stretch_is_that_of_the_whole(corpus, speed):
    scp, _, _, signals = corpus
    waves, rng = Waveforms(scp, speeds=(speed,)), np.random.default_rng(0)
    assert waves.keys[3:] == [f"sp{speed:g}-{key}" for key in signals]
    assert waves.recordings.tolist() == [0, 1, 2, 0, 1, 2]
    for number, samples in enumerate(signals.values(), 3):
        whole = resample(samples, round(RATE * speed), RATE)
        assert waves.lengths[number] == len(whole) == np.ceil(len(samples) / speed - 1e-9)
        np.testing.assert_allclose(waves.samples(number), whole, atol=0.01)
        for _ in range(20):
            first, last = np.sort(rng.integers(0, len(whole) + 1, 2))
            np.testing.assert_allclose(waves.samples(number, first, last), whole[first:last], atol=0.01)


def test_speed_moves_a_tone(tmp_path):
    tone = 8000 * np.sin(2 * np.pi * 1000 / RATE * np.arange(RATE))
    write_wavs(tmp_path / "tones", {"tone": tone})
    (tmp_path / "wav.scp").write_text(f"tone {tmp_path}/tones/tone.wav\n")
    fast = Waveforms(str(tmp_path / "wav.scp"), speeds=(1.1,)).samples(1)
    spectrum = np.abs(np.fft.rfft(fast * np.hanning(len(fast))))
    assert abs(np.argmax(spectrum) * RATE / len(fast) - 1100) < 2


def test_speakers_of_copies_are_new_or_the_same(corpus):
    waves = Waveforms(corpus[0], speeds=(0.9,))
    utt2spk = {"utt1": "a", "utt2": "a", "utt3": "b"}
    assert waves.utt2spk(utt2spk) == {
        **utt2spk,
        "sp0.9-utt1": "sp0.9-a",
        "sp0.9-utt2": "sp0.9-a",
        "sp0.9-utt3": "sp0.9-b",
    }
    assert waves.utt2spk(utt2spk, new_speakers=False)["sp0.9-utt3"] == "b"


def augmenter(corpus, srand=0, **options):
    return Augmenter(AugmentOptions(**options), RATE, srand)


def test_noise_has_the_drawn_ratio_and_runs_with_the_utterance(corpus):
    scp, noises, _, signals = corpus
    add = augmenter(corpus, noise_dir=noises, noise_prob=1.0, min_snr=3.0, max_snr=12.0)
    waves, ratios, used = Waveforms(scp, augmenter=add), [], set()
    pool = {
        key: signal(seed, n).astype(np.int16).astype("f8")
        for key, seed, n in (("hum", 4, 3000), ("babble", 5, 90000))
    }
    for draw in range(60):
        clean, noisy = waves.samples(0, 2000, 12000).astype("f8"), waves.samples(0, 2000, 12000, ("x", draw))
        noise = noisy - clean
        ratios.append(10 * np.log10(np.mean(clean**2) / np.mean(noise**2)))
        u = seeded_rng(0, "augment", "utt1", "x", draw).random(6)
        key = add.noises.keys[int(u[3] * 2)]
        at = (int(u[4] * len(pool[key])) + 2000 + np.arange(10000)) % len(pool[key])
        assert np.corrcoef(noise, pool[key][at])[0, 1] > 0.9999
        used.add(key)
    assert used == {"hum", "babble"}
    assert 3 - 1e-3 < min(ratios) < 4 and 11 < max(ratios) < 12 + 1e-3 and abs(np.mean(ratios) - 7.5) < 1.2


def test_reverberation_keeps_energy_and_alignment(corpus):
    scp, _, rooms, signals = corpus
    waves = Waveforms(scp, augmenter=augmenter(corpus, rir_dir=rooms, rir_prob=1.0))
    h, peak = normalize_response(tables.read_object("wav", f"{rooms}/hall.wav")[1])
    assert peak == 40 and len(h) == 1301 and np.isclose(np.sum(np.square(h, dtype="f8")), 1.0)
    x = signals["utt1"].astype("f8")
    whole = np.convolve(x, h.astype("f8"))[peak : peak + len(x)]
    np.testing.assert_allclose(waves.samples(0, draw=(1,)), whole, atol=0.05)
    for first, last in ((0, 500), (30, 31), (700, 9000), (15000, 21000), (20990, 21000)):
        np.testing.assert_allclose(waves.samples(0, first, last, (2,)), whole[first:last], atol=0.05)
    lags = [np.dot(whole[100:-100], x[100 + lag : len(x) - 100 + lag]) for lag in range(-5, 6)]
    assert np.argmax(lags) == 5
    white = np.random.default_rng(0).standard_normal(100000)
    y = convolve(white.astype("f4"), h, peak, 0)
    assert abs(np.mean(y**2) / np.mean(white**2) - 1) < 0.05
    early = early_part(h, peak, RATE)
    assert np.flatnonzero(early).tolist() == [40, 60]


def test_noise_is_measured_against_the_early_sound(corpus):
    scp, noises, rooms, signals = corpus
    both = Waveforms(
        scp,
        augmenter=augmenter(
            corpus, noise_dir=noises, noise_prob=1.0, rir_dir=rooms, rir_prob=1.0, min_snr=5, max_snr=5
        ),
    )
    room = Waveforms(scp, augmenter=augmenter(corpus, rir_dir=rooms, rir_prob=1.0))
    noise = both.samples(0, draw=(3,)) - room.samples(0, draw=(3,))
    h, peak = normalize_response(tables.read_object("wav", f"{rooms}/hall.wav")[1])
    early = convolve(
        np.append(signals["utt1"], np.zeros(peak)).astype("f4"), early_part(h, peak, RATE), peak, 0
    )
    assert abs(10 * np.log10(np.mean(early.astype("f8") ** 2) / np.mean(noise.astype("f8") ** 2)) - 5) < 0.01


def test_draws_depend_on_seed_key_and_place_alone(corpus):
    scp, noises, rooms, _ = corpus
    options = {"noise_dir": noises, "rir_dir": rooms}
    waves = Waveforms(scp, augmenter=augmenter(corpus, **options), speeds=(0.9,))
    again = Waveforms(scp, augmenter=augmenter(corpus, **options), speeds=(0.9,))
    forward = {(n, draw): waves.samples(n, 500, 4000, (0, draw)) for n in range(6) for draw in range(8)}
    for (n, draw), samples in reversed(forward.items()):
        np.testing.assert_array_equal(again.samples(n, 500, 4000, (0, draw)), samples)
    clean = waves.samples(0, 500, 4000)
    kinds = sum(np.array_equal(forward[0, draw], clean) for draw in range(8))
    assert 0 < kinds < 8
    other = Waveforms(scp, augmenter=augmenter(corpus, srand=1, **options))
    assert any(
        not np.array_equal(other.samples(0, 500, 4000, (0, draw)), forward[0, draw]) for draw in range(8)
    )
    assert not Augmenter(AugmentOptions(), RATE).any()


def test_wrong_options_are_refused(tmp_path):
    for wrong in (
        {"noise_prob": 1.5},
        {"min_snr": 9, "max_snr": 8},
        {"speed_perturb": "1.0"},
        {"speed_perturb": "fast"},
        {"speed_perturb": "0.9,0.9"},
    ):
        with pytest.raises(VoxarkError, match="--"):
            Augmenter(AugmentOptions(**wrong), RATE)
    assert AugmentOptions(speed_perturb="0.9, 1.1").speeds() == [0.9, 1.1]
    write_wavs(tmp_path / "silent", {"zero": np.zeros(500)})
    add = Augmenter(AugmentOptions(rir_dir=str(tmp_path / "silent"), rir_prob=1.0), RATE)
    with pytest.raises(VoxarkError, match="^zero: an impulse response of zeros"):
        add("key", (0,), lambda first, last: np.zeros(last - first), 1000, 0, 10)


# ------------------------------------------------------------------------------------------- masks, batches


def test_masks_cover_bands_of_the_drawn_widths():
    options = SpecAugmentOptions(time_masks=1, time_mask_frames=12, freq_masks=1, freq_mask_bins=5)
    widths = []
    for seed in range(400):
        x = np.random.default_rng(seed).standard_normal((50, 16)).astype("f4")
        y = mask_features(x.copy(), options, np.random.default_rng(seed))
        same = x == y
        rows, cols = ~same.any(axis=1), ~same.any(axis=0)
        assert (same == ~(rows[:, None] | cols[None])).all()
        for mask in (rows, cols):
            assert np.abs(np.diff(mask.astype(int))).sum() <= 2
        np.testing.assert_allclose(y[rows], np.broadcast_to(x.mean(axis=0), (rows.sum(), 16)), atol=1e-6)
        widths.append((rows.sum(), cols.sum()))
    widths = np.array(widths)
    assert widths.max(axis=0).tolist() == [10, 5] and widths.min(axis=0).tolist() == [
        0,
        0,
    ]  # a fifth of 50 frames
    assert abs(widths[:, 0].mean() - 5) < 0.5 and abs(widths[:, 1].mean() - 2.5) < 0.3
    x = np.ones((1, 3), "f4")
    assert np.array_equal(
        mask_features(x.copy(), SpecAugmentOptions(3, 20, 0.2, 3, 9), np.random.default_rng(0)), x
    )
    for wrong in (SpecAugmentOptions(time_masks=-1), SpecAugmentOptions(time_mask_share=2.0)):
        with pytest.raises(VoxarkError):
            wrong.check()


def test_batches_of_augmented_waveforms_are_pure(corpus):
    scp, noises, rooms, _ = corpus

    def reader():
        add = augmenter(corpus, noise_dir=noises, rir_dir=rooms)
        features = WaveformFeatures(
            Waveforms(scp, speeds=(0.9, 1.1), augmenter=add), FbankOptions(sample_frequency=RATE)
        )
        data = TrainingSet(np.arange(9), np.arange(9) // 3, features.lengths, features.recordings)
        sampler = BatchSampler(data, BatchOptions(batch_speakers=3, min_chunk=40, max_chunk=60))
        return BatchReader(
            sampler,
            FeatureReader(features, NormalizeOptions()),
            SpecAugmentOptions(time_masks=1, freq_masks=1),
            augments=True,
        )

    one, other = reader(), reader()
    batches = [one(0, number) for number in range(4)]
    for batch in reversed(batches):
        again = other(0, batch.plan.number)
        assert all(np.array_equal(a, b) for a, b in zip(batch.chunks, again.chunks, strict=True))
        assert all(x.shape == (size, 23) for x, size in zip(batch.chunks, batch.plan.size, strict=True))


@needs_data("noise_rir")
def test_recorded_noises_and_rooms(tmp_path):
    write_wavs(tmp_path / "speech", {"utt": signal(0, 48000)}, 16000)
    (tmp_path / "wav.scp").write_text(f"utt {tmp_path}/speech/utt.wav\n")
    options = AugmentOptions(
        noise_dir=str(shared_data("noise_rir/noise")),
        rir_dir=str(shared_data("noise_rir/rir")),
        noise_prob=1.0,
        rir_prob=1.0,
    )
    add = Augmenter(options, 16000)
    assert len(add.noises) == 19 and len(add.rirs) == 16
    waves = Waveforms(str(tmp_path / "wav.scp"), augmenter=add)
    whole = [waves.samples(0, draw=(n,)) for n in range(40)]
    powers = [np.mean(np.square(x)) for x in whole]
    assert np.isfinite(powers).all() and np.ptp(np.log(powers)) > 0.1
