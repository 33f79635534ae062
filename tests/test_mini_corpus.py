"""The corpus of synthetic speech: repeatable, labelled truly, and recorded as its labels say."""

import os
import signal
import subprocess
import sys
import time
import wave

import numpy as np
import pytest
from helpers import ROOT, environment

sys.path.insert(0, str(ROOT / "local" / "mini"))
import espeak  # noqa: E402
import recording  # noqa: E402
import speakers  # noqa: E402
from jobs import run_each  # noqa: E402
from voxark.errors import VoxarkError  # noqa: E402

pytestmark = pytest.mark.skipif(not espeak.is_installed(), reason="espeakng-loader is not installed")

SENTENCES = (ROOT / "local/mini/sentences.txt").read_text().splitlines()
RATE = recording.RATE


def make(folder, *options, check=True):
    command = [sys.executable, str(ROOT / "local/mini/make_corpus.py"), *options, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=120)
    assert "Traceback" not in done.stderr, done.stderr
    if check:
        assert done.returncode == 0, done.stderr
    return done


SMALL = ("--train-speakers=2", "--test-speakers=2", "--utts-per-speaker=2")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mini") / "corpus"
    make(folder, *SMALL, "--nj=2")
    return folder


def contents(folder):
    """Every file's bytes by name; the corpus's own place, which wav.scp names, is blotted out."""
    return {
        str(path.relative_to(folder)): path.read_bytes().replace(str(folder).encode(), b"@")
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def table(path):
    return dict(line.split(maxsplit=1) for line in path.read_text().splitlines())


def read_wav(path):
    with wave.open(str(path), "rb") as audio:
        assert (audio.getframerate(), audio.getnchannels(), audio.getsampwidth()) == (RATE, 1, 2)
        return np.frombuffer(audio.readframes(audio.getnframes()), "<i2")


# ---------------------------------------------------------------------------------------------- repeatable


def test_same_bytes_at_any_number_of_jobs(corpus, tmp_path):
    make(tmp_path / "again", *SMALL, "--nj=1")
    assert contents(tmp_path / "again") == contents(corpus)


def test_breathy_voices_say_the_same_at_another_time():
    """Their noise comes from generators that espeak-ng seeds with the clock."""
    program = ("import hashlib, espeak; speech = espeak.Synthesizer().say('gmw/en-US+f3', 'She sells shells.'); "
               "print(hashlib.sha256(speech.samples.tobytes()).hexdigest())")
    digests = set()
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True,
                              env=environment(PYTHONPATH=f"{ROOT}:{ROOT / 'local/mini'}"))
        digests.add(done.stdout)
        time.sleep(1.1)
    assert len(digests) == 1


def test_an_utterance_does_not_depend_on_the_size_but_on_the_seed(corpus, tmp_path):
    larger = tmp_path / "larger"
    make(larger, "--train-speakers=3", "--test-speakers=1", "--utts-per-speaker=3")
    name = "wav/train002/train002-02.wav"
    assert (larger / name).read_bytes() == (corpus / name).read_bytes()
    make(tmp_path / "other", "--train-speakers=2", "--test-speakers=1", "--utts-per-speaker=2", "--seed=1")
    assert (tmp_path / "other" / name).read_bytes() != (corpus / name).read_bytes()


def test_a_new_corpus_takes_the_place_of_the_old_one(tmp_path):
    folder = tmp_path / "corpus"
    (folder / "wav").mkdir(parents=True)
    (folder / "wav" / "left_over").write_text("x")
    make(folder, "--train-speakers=1", "--test-speakers=1", "--utts-per-speaker=2")
    assert not (folder / "wav" / "left_over").exists()


# ---------------------------------------------------------------------------------------------- labels


def test_tables_are_complete_and_sorted(corpus):
    for part in ("train", "test"):
        folder = corpus / part
        utts = list(table(folder / "wav.scp"))
        assert utts == sorted(utts) and len(utts) == 4
        for name in ("utt2spk", "text", "utt2dur", "utt2noise", "utt2snr", "utt2mic", "utt2room"):
            assert list(table(folder / name)) == utts, name
        spk2utt = table(folder / "spk2utt")
        inverse = {utt: spk for spk, members in spk2utt.items() for utt in members.split()}
        assert inverse == {utt: spk.strip() for utt, spk in table(folder / "utt2spk").items()}
        assert list(spk2utt) == sorted(spk2utt)
        assert all(utt.startswith(spk + "-") for utt, spk in inverse.items())  # so that both orders agree
    both = [set(table(corpus / part / "spk2utt")) for part in ("train", "test")]
    assert not both[0] & both[1]


def test_labels_are_of_the_known_kinds(corpus):
    spoken = {"".join(c for c in line.upper() if c.isalpha() or c in "' ") for line in SENTENCES}
    for part in ("train", "test"):
        folder = corpus / part
        assert {v.strip() for v in table(folder / "utt2noise").values()} <= set(recording.NOISES)
        assert {v.strip() for v in table(folder / "utt2mic").values()} <= set(recording.MICS)
        assert {v.strip() for v in table(folder / "utt2room").values()} <= set(recording.ROOMS)
        assert {v.strip() for v in table(folder / "text").values()} <= spoken
        voices = table(folder / "spk2voice")
        genders = {spk: espeak.variant_gender(voice.strip()) for spk, voice in voices.items()}
        assert {s: g.strip() for s, g in table(folder / "spk2gender").items()} == {
            s: g for s, g in genders.items() if g
        }


def test_phones_fill_each_recording(corpus):
    for part in ("train", "test"):
        folder = corpus / part
        phones = {}
        for line in (folder / "phones.ctm").read_text().splitlines():
            utt, channel, start, length, phone = line.split()
            assert channel == "1" and phone in espeak.PHONES
            phones.setdefault(utt, []).append((float(start), float(length), phone))
        for utt, path in table(folder / "wav.scp").items():
            seconds = len(read_wav(path.strip())) / RATE
            assert float(table(folder / "utt2dur")[utt]) == pytest.approx(seconds, abs=1e-4)
            end = 0.0
            for start, length, _ in phones[utt]:
                assert start == pytest.approx(end, abs=2e-5) and length > 0
                end = start + length
            assert end == pytest.approx(seconds, abs=2e-5)
            assert phones[utt][0][2] == phones[utt][-1][2] == "sil" and len(phones[utt]) > 15


def test_trials_are_all_pairs_of_test_utterances(corpus):
    spk_of = table(corpus / "test" / "utt2spk")
    trials = [line.split() for line in (corpus / "test" / "trials").read_text().splitlines()]
    assert len({frozenset(t[:2]) for t in trials}) == len(trials) == 6
    assert all((spk_of[a] == spk_of[b]) == (label == "target") for a, b, label in trials)


def test_levels_are_sane(corpus):
    for part in ("train", "test"):
        for path in table(corpus / part / "wav.scp").values():
            samples = read_wav(path.strip()).astype(float)
            assert 1000 < np.abs(samples).max() < 32767
            assert np.abs(samples.mean()) < 30 and np.count_nonzero(samples) > 0.98 * len(samples)


# ---------------------------------------------------------------------------------------------- speech


def _say(arguments):
    """In a process of its own: a sentence by a speaker, without any jitter of session."""
    warp, text = arguments
    speaker = speakers.Speaker("x", "m3", "en-US", 50, 40, 165, warp, [])

    class Steady:
        def uniform(self, low, high):
            return (low + high) / 2

    return speakers.say(espeak.Synthesizer(), speaker, text, RATE, Steady())


def band_energy(samples, low, high):
    power = np.abs(np.fft.rfft(samples * np.hanning(len(samples)))) ** 2
    frequency = np.fft.rfftfreq(len(samples), 1 / RATE)
    return power[(frequency >= low) & (frequency < high)].sum()


def test_phone_times_match_the_sound():
    spoken = dict(
        run_each(
            _say,
            [(1.0, "Six sisters saw a zoo, and she sews."), (1.12, "Sam sees a silver sofa, so he leaves.")],
            2,
        )
    )
    for samples, phones in spoken.values():
        hiss, vowel, silence = [], [], []
        for phone, start, end in phones:
            middle = samples[start + (end - start) // 4 : end - (end - start) // 4]
            if phone == "s":
                hiss.append(band_energy(middle, 3500, 8000) / band_energy(middle, 100, 1500))
            elif phone in ("iy", "ao", "aa", "eh", "ae", "ow", "uw"):
                vowel.append(band_energy(middle, 3500, 8000) / band_energy(middle, 100, 1500))
            elif phone == "sil" and end - start > 400:
                silence.append(np.square(middle).mean())
        assert len(hiss) >= 3 and len(vowel) >= 3
        assert min(hiss) > 3 * max(vowel)
        assert max(silence) < 1e-3 * np.square(samples).mean()


def pitch_of(samples):
    """Median pitch in Hz of the loud frames, by autocorrelation."""
    found = []
    for start in range(0, len(samples) - 1024, 400):
        frame = samples[start : start + 1024] * np.hanning(1024)
        if np.square(frame).mean() > 0.3 * np.square(samples).mean():
            echo = np.fft.irfft(np.abs(np.fft.rfft(frame, 4096)) ** 2)[:400]
            lag = 60 + echo[60:320].argmax()
            found.append(RATE / lag)
    return np.median(found)


def test_warp_moves_the_whole_spectrum_and_keeps_the_tempo():
    text = "We were away a year ago."
    spoken = dict(run_each(_say, [(0.9, text), (1.1, text)], 2))
    low, high = spoken[0.9, text][0], spoken[1.1, text][0]
    assert pitch_of(high) / pitch_of(low) == pytest.approx(1.1 / 0.9, rel=0.06)
    assert len(high) / len(low) == pytest.approx(1.0, abs=0.08)


def test_speakers_of_a_group_use_every_voice():
    drawn = [speakers.draw_speaker(0, "train", i, SENTENCES) for i in range(2 * len(speakers.VARIANTS))]
    half = len(speakers.VARIANTS)
    for part in (drawn[:half], drawn[half:]):
        assert sorted(s.variant for s in part) == sorted(speakers.VARIANTS)
    assert len({(s.variant, s.accent, s.pitch, s.warp) for s in drawn}) == len(drawn)
    assert drawn[0].sentences[:10] != drawn[1].sentences[:10]
    assert len(set(SENTENCES)) == len(SENTENCES) >= 60


def test_every_phone_of_every_accent_has_a_name():
    spoken = run_each(_phones_of, speakers.ACCENTS, 2)
    assert set().union(*(phones for _, phones in spoken)) <= set(espeak.PHONES)


def _phones_of(accent):
    synthesizer = espeak.Synthesizer()
    return {
        name for text in SENTENCES[:40] for name, _, _ in synthesizer.say(f"gmw/{accent}+m1", text).phones
    }


# ---------------------------------------------------------------------------------------------- recording


def tone_and_silence(seconds=2.0):
    """Half a second of silence, then a voice-like buzz: samples and where it is active."""
    time_axis = np.arange(int(RATE * seconds)) / RATE
    buzz = sum(np.sin(2 * np.pi * 140 * k * time_axis) / k for k in range(1, 40))
    active = time_axis >= 0.5
    return np.where(active, 0.1 * buzz, 0.0), active


@pytest.mark.parametrize("noise", recording.NOISES)
def test_signal_to_noise_ratio_is_what_the_label_says(noise, monkeypatch):
    monkeypatch.setattr(
        recording, "_through_microphone", lambda x, name, rng: x
    )  # the label is of the air before it
    speech, active = tone_and_silence()
    rng = np.random.default_rng(5)
    babblers = [rng.standard_normal(RATE) for _ in range(8)]
    conditions = recording.Conditions("studio", "dry", noise, 12.0, -25.0)
    heard = recording.record(speech, active, conditions, babblers, rng).astype(float) / 32768
    noise_power, both_power = np.square(heard[~active]).mean(), np.square(heard[active]).mean()
    assert 10 * np.log10(both_power / noise_power - 1) == pytest.approx(12.0, abs=1.0)
    assert 10 * np.log10(both_power) == pytest.approx(-25.0, abs=0.1)


@pytest.mark.parametrize("room", recording.ROOMS)
def test_rooms_keep_the_direct_sound_in_place(room):
    click = np.zeros(RATE)
    click[2000] = 1.0
    heard = recording._reverberate(click, room, np.random.default_rng(1))
    assert len(heard) == len(click) and np.abs(heard).argmax() == 2000
    assert np.allclose(heard[:2000], 0, atol=1e-12)
    tail = np.square(heard[2001:]).sum()
    assert tail == 0 if room == "dry" else 0.01 < tail < 1.0


def test_microphones_sound_different():
    noise = np.random.default_rng(0).standard_normal(4 * RATE)
    rise = {}
    for mic in recording.MICS:
        heard = recording._through_microphone(noise, mic, np.random.default_rng(2))
        rise[mic] = [
            10 * np.log10(band_energy(heard, low, high) / band_energy(noise, low, high))
            for low, high in ((30, 150), (900, 1300), (2700, 3300), (7000, 7900))
        ]
    assert all(abs(gain) < 3 for gain in rise["studio"][1:])
    assert rise["handset"][0] < -8 and rise["handset"][3] < -8
    assert rise["headset"][2] > 3 and rise["laptop"][1] > 3


def test_a_loud_recording_does_not_clip():
    speech, active = tone_and_silence()
    conditions = recording.Conditions("headset", "hall", "white", 20.0, 10.0)
    heard = recording.record(speech, active, conditions, [], np.random.default_rng(0))
    assert 32000 < np.abs(heard.astype(int)).max() < 32767


# ---------------------------------------------------------------------------------------- what goes wrong


def test_wrong_options_are_told(tmp_path):
    assert "tiny" in make(tmp_path / "x", "--size=huge", check=False).stderr
    assert "only 120 sentences" in make(tmp_path / "x", "--utts-per-speaker=500", check=False).stderr
    assert not list(tmp_path.iterdir())


def test_a_missing_synthesizer_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setattr(espeak, "is_installed", lambda: False)
    with pytest.raises(VoxarkError, match="pip install espeakng-loader"):
        espeak.data_dir()


def test_unknown_voice_and_unknown_phone_are_told():
    with pytest.raises(VoxarkError, match="no voice 'gmw/en-XX"):
        list(run_each(_say_with_wrong_voice, ["x"], 1))
    with pytest.raises(VoxarkError, match="not in the table"):
        espeak.to_arpabet("@@@")


def _say_with_wrong_voice(_):
    return espeak.Synthesizer().say("gmw/en-XX+m1", "Hello.").rate


def test_a_process_that_dies_is_an_error():
    with pytest.raises(VoxarkError, match="died"):
        list(run_each(lambda item: os._exit(3), ["a", "b"], 2))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_run_leaves_nothing_that_looks_finished(tmp_path, number):
    folder = tmp_path / "corpus"
    command = [sys.executable, str(ROOT / "local/mini/make_corpus.py"), "--size=large", str(folder)]
    process = subprocess.Popen(
        command, env=environment(), stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.time() + 30
    while not list(tmp_path.glob(".corpus.partial.*/wav/*/*.wav")) and time.time() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    said = process.communicate(timeout=30)[1]
    assert "Traceback" not in said, said
    assert not folder.exists()
    assert bool(list(tmp_path.iterdir())) == (number == signal.SIGKILL)
    make(folder, "--train-speakers=1", "--test-speakers=1", "--utts-per-speaker=2")
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]
