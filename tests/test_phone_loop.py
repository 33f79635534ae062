"""The recipe egs/timit_phones: labels, phone loops and chains, scores, noise, and a run on made-up phones."""

import itertools
import re
import subprocess
import sys

import numpy as np
import pytest

from helpers import ROOT, environment, forked_environment, load_ark, needs_data, run, save_ark, shared_data, write_lines
from voxark.audio import write_wav
from voxark.gmm.diag import DiagGmm
from voxark.hmm.decode import align
from voxark.hmm.model import Hmm, read_hmm, write_hmm
from voxark.hmm.topology import named_topology, read_topology
from voxark.hmm.viterbi import path_score

LOCAL = ROOT / "local" / "timit_phones"
sys.path.insert(0, str(LOCAL))
import add_noise  # noqa: E402
import graphs  # noqa: E402
import phones  # noqa: E402
from score_frames import accuracy, most_frequent  # noqa: E402


def number_of(*names):
    return [phones.PHONES.index(name) for name in names]


def local(program, *arguments, check=True):
    done = subprocess.run(
        [sys.executable, str(LOCAL / program), *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=60,
    )
    assert "Traceback" not in done.stderr and (done.returncode == 0 or not check), done.stderr
    return done


# ---------------------------------------------------------------------- phones and labels


def test_foldings_have_the_sizes_of_the_literature():
    assert len(set(phones.PHONES)) == 61 and sorted(phones.PHONES) == phones.PHONES
    for number in (61, 48, 39, 3):
        classes = phones.class_numbers(number)
        assert set(classes.tolist()) - {-1} == set(range(number))
        unscored = [phones.PHONES[i] for i in np.flatnonzero(classes < 0)]
        assert unscored == (["q"] if number in (48, 39) else [])
    of_three = {name: sum(phones.fold(p, 3) == name for p in phones.PHONES) for name in ("SIL", "OBS", "SON")}
    assert of_three == {"SIL": 9, "OBS": 19, "SON": 33}
    assert [phones.fold(p, 39) for p in ("zh", "el", "ix", "ax-h", "pcl", "epi", "hv", "ux")] == [
        "sh", "l", "ih", "ah", "sil", "sil", "hh", "uw"]
    fine, coarse = phones.class_numbers(48), phones.class_numbers(39)
    assert all(
        len(set(coarse[fine == c])) == 1 for c in range(48)
    )  # each folding is one of the folding before


def test_frames_belong_to_the_phone_at_their_centre(tmp_path):
    write_lines(tmp_path / "ctm", "u 1 0.00000 0.0320 h#", "u 1 0.0320 0.0100 b", "u 1 0.0420 0.0400 aa")
    found = phones.read_phones(tmp_path / "ctm")["u"]
    labels = phones.frame_labels(found, 8)  # centres at 12.5, 22.5, 32.5, ... ms
    h, b, aa = number_of("h#", "b", "aa")
    assert labels.tolist() == [h, h, b, aa, aa, aa, aa, aa] and labels.dtype == np.int32
    lengths = write_lines(tmp_path / "lengths", "u 8", "other 3")
    done = local("make_labels.py", "--classes=vad", tmp_path / "ctm", lengths, f"ark:{tmp_path}/labels")
    assert "other: " in done.stderr and "done 1, failed 1" in done.stderr
    assert load_ark(tmp_path / "labels")["u"].tolist() == [0, 0, 2, 2, 2, 2, 2, 2]
    write_lines(tmp_path / "ctm", "u 1 0.0 0.1 h#", "u 1 0.1 0.1 xx")
    done = local("make_labels.py", tmp_path / "ctm", lengths, f"ark:{tmp_path}/labels", check=False)
    assert done.returncode == 1 and "line 2" in done.stderr


def test_segments_are_runs_of_labels(tmp_path):
    aa, b = number_of("aa", "b")
    save_ark(tmp_path / "labels", {"u": np.array([aa, aa, b, aa, aa, aa], np.int32)})
    x = np.arange(12, dtype=np.float32).reshape(6, 2)
    run(
        "copy-feats", save_ark(tmp_path / "f", {"u": x}), f"ark,scp:{tmp_path}/feats.ark,{tmp_path}/feats.scp"
    )
    local("make_segments.py", f"ark:{tmp_path}/labels", tmp_path / "feats.scp", tmp_path / "segments")
    run("copy-feats", f"scp:{tmp_path}/segments/aa.scp", f"ark:{tmp_path}/aa")
    found = load_ark(tmp_path / "aa")
    assert list(found) == ["u-00000", "u-00003"]
    np.testing.assert_array_equal(found["u-00000"], x[:2])
    np.testing.assert_array_equal(found["u-00003"], x[3:])


# ---------------------------------------------------------------------- loops and chains


def phone_model(centre, topology=("left-to-right", 2)):
    initial, transitions, final = named_topology(*topology, "prob")
    pdfs = [DiagGmm([1.0], [[centre, 2.0 * place]], [[1.0, 1.0]]) for place in range(len(initial))]
    return Hmm(initial, transitions, final, pdfs, None, "prob")


def test_bigrams_are_smoothed_distributions():
    first, following, last = graphs.bigram([[3, 5, 3], [5, 5, 9]], [3, 5], weight=1.0)  # 9 has no model
    np.testing.assert_allclose(following.sum(axis=1) + last, 1.0)
    np.testing.assert_allclose(first, [0.5, 0.5])
    single = np.array([2 + 1, 3 + 1]) / 7
    np.testing.assert_allclose(
        following[0], (np.array([0, 1]) + single) / 3
    )  # behind 3: 5 once, the end once
    np.testing.assert_allclose(following[1], (np.array([1, 1]) + single) / 4)


def test_a_loop_is_normalised_without_penalties_and_scores_as_its_phones_do():
    models = {i: phone_model(float(4 * i)) for i in range(3)}
    sequences = [[1, 0, 1, 2], [2, 1, 0, 1]]
    loop, phone_of = graphs.phone_loop(models, sequences)
    assert loop.unnormalised() == [] and phone_of.tolist() == [0, 0, 1, 1, 2, 2]
    first, following, last = graphs.bigram(sequences, [0, 1, 2])
    b = np.random.default_rng(0).standard_normal((5, 6))
    states = np.array([2, 3, 4, 5, 5])  # phone 1, then 2 with one self-loop
    plain = b[range(5), states].sum() + np.log(first[1]) + np.log(0.25) * 3 + np.log(0.75)
    expected = (
        plain + np.log(following[1, 2]) + np.log(last[2])
    )  # 0.25: to the next state, out of 1, to the next
    assert np.isfinite(expected)
    np.testing.assert_allclose(path_score(loop, b, [5], states), expected + np.log(0.25))
    scaled, _ = graphs.phone_loop(models, sequences, lm_scale=2.0, insertion_penalty=1.5)
    difference = np.log(following[1, 2]) + np.log(last[2]) - 2 * 1.5
    np.testing.assert_allclose(path_score(scaled, b, [5], states), expected + np.log(0.25) + difference)


def test_a_penalty_makes_fewer_phones():
    models = {i: phone_model(2.0 * i) for i in range(4)}
    sequences = list(itertools.permutations(range(4)))
    x = np.random.default_rng(1).normal(3.0, 3.0, (200, 2)).astype(np.float32)
    numbers = []
    for penalty in (-4.0, 0.0, 4.0, 8.0):
        loop, phone_of = graphs.phone_loop(models, sequences, 1.0, penalty)
        ((_, _, path),) = align(loop, [("u", x)], None)
        numbers.append(len(phones.runs(phone_of[path])))
    assert numbers == sorted(numbers, reverse=True) and numbers[0] > numbers[-1]


def test_a_chain_goes_through_its_phones_and_shares_their_densities():
    models = {0: phone_model(0.0), 1: phone_model(6.0, ("left-to-right", 1))}
    chain, phone_of = graphs.phone_chain(models, [0, 1, 0, 1])
    assert chain.num_states == 6 and len(chain.pdfs) == 3 and chain.unnormalised() == []
    assert chain.pdf_of.tolist() == [0, 1, 2, 0, 1, 2] and phone_of.tolist() == [0, 0, 1, 0, 0, 1]
    truth = np.repeat([0, 1, 0, 1], [8, 5, 9, 4])
    x = np.stack((6.0 * truth, np.zeros(26)), axis=1) + 0.3 * np.random.default_rng(0).standard_normal(
        (26, 2)
    )
    ((_, _, path),) = align(chain, [("u", x)], None)
    np.testing.assert_array_equal(phone_of[path], truth)
    with pytest.raises(Exception, match="no model of the phones"):
        graphs.phone_chain({}, [0])


def test_phones_that_can_be_a_single_frame():
    initial, transitions, final = read_topology(str(ROOT / "egs/timit_phones/phone.topo"), "prob")
    pdf = DiagGmm([1.0], [[0.0]], [[1.0]])
    assert Hmm(initial, transitions, final, [pdf] * 3, None, "prob").shortest_path == 1
    np.testing.assert_allclose(transitions.sum(axis=1) + final, 1.0)


def test_classifier_of_frames_takes_the_best_class_of_each(tmp_path):
    rng = np.random.default_rng(0)
    pdfs = [DiagGmm([1.0], [[float(c)]], [[1.0]]) for c in range(3)]
    write_hmm(str(tmp_path / "hmm"), Hmm(*named_topology("ergodic", 3, "set"), pdfs))
    labels = rng.choice(3, p=[0.6, 0.3, 0.1], size=50).astype(np.int32)
    save_ark(tmp_path / "labels", {"u": labels})
    local("make_frame_classifier.py", tmp_path / "hmm", f"ark:{tmp_path}/labels", tmp_path / "frames")
    x = rng.normal(1.0, 1.5, (200, 1)).astype(np.float32)
    ((_, _, path),) = align(read_hmm(str(tmp_path / "frames")), [("u", x)], None)
    prior = np.bincount(labels, minlength=3) / 50
    expected = np.argmax(np.log(prior) - 0.5 * (x - np.arange(3.0)) ** 2, axis=1)
    np.testing.assert_array_equal(path, expected)


# ---------------------------------------------------------------------- scores and noise


def test_accuracies_by_hand(tmp_path):
    true, found = number_of("aa", "ix", "q", "s"), number_of("ao", "ih", "q", "z")
    assert accuracy(np.array(true), np.array(found), 61) == 25.0
    assert accuracy(np.array(true), np.array(found), 48) == 0.0  # q is not scored; ix is not ih among 48
    assert accuracy(np.array(true), np.array(found), 39) == pytest.approx(200 / 3)
    assert accuracy(np.array(true), np.array(found), 3) == 100.0
    assert phones.PHONES[most_frequent(np.array(number_of("q", "q", "q", "s", "s", "aa")), 39)] == "s"
    save_ark(tmp_path / "true", {"a-sa1": np.array(true, np.int32), "a-si1": np.array(true[:2], np.int32)})
    save_ark(tmp_path / "found", {"a-sa1": np.array(found, np.int32), "a-si1": np.array(true[:2], np.int32)})
    tables = f"ark:{tmp_path}/true", f"ark:{tmp_path}/found"
    assert local("score_frames.py", *tables).stdout.split() == ["50.00", "40.00", "80.00", "100.00", "6"]
    assert local("score_frames.py", "--without=-sa", *tables).stdout.split() == ["100.00"] * 4 + ["2"]
    save_ark(tmp_path / "found", {"a-sa1": np.array(found, np.int32)})
    done = local("score_frames.py", *tables, check=False)
    assert done.returncode == 1 and "a-si1" in done.stderr


def test_detector_errors_by_hand(tmp_path):
    save_ark(tmp_path / "labels", {"u": np.array([0, 0, 1, 2, 2, 2], np.int32)})
    save_ark(tmp_path / "vad", {"u": np.array([1, 0, 0, 1, 1, 1], np.float32)})
    found = local("score_vad.py", f"ark:{tmp_path}/labels", f"ark:{tmp_path}/vad").stdout.split()
    assert found == ["25.00", "50.00", "33.33", "37.50"]


@pytest.mark.parametrize("snr", [20.0, 0.0, -10.0])
def test_noise_has_the_ratio_that_was_asked_for(snr):
    rng = np.random.default_rng(0)
    speech, noise = 3000.0 * rng.standard_normal(8000), 10.0 * rng.standard_normal(3000)
    name, stretch = add_noise.draw_stretch([("n", noise)], 8000, rng)
    assert name == "n" and len(stretch) == 8000
    mixed = add_noise.add_noise(speech, stretch, snr)
    gain = np.linalg.lstsq(np.stack((speech, stretch), axis=1), mixed, rcond=None)[0]
    power = np.mean(np.square(gain[0] * speech)) / np.mean(np.square(gain[1] * stretch))
    assert 10 * np.log10(power) == pytest.approx(snr) and np.abs(mixed).max() <= 32000.0 + 1e-6
    assert gain[0] == pytest.approx(1.0) or np.abs(mixed).max() == pytest.approx(32000.0)


# ---------------------------------------------------------------------- the recipe

TONES = {"h#": None, "aa": 500.0, "iy": 2200.0, "s": 5200.0, "m": 250.0}


def make_corpus(folder, rng):
    """Two data directories of made-up speech: each phone is a tone of its own with a little noise."""
    for part, speakers in (("train", ("fa", "fb", "mc")), ("test", ("fx", "my"))):
        (folder / part).mkdir(parents=True)
        rows = {name: [] for name in ("wav.scp", "utt2spk", "phones.ctm", "spk2utt")}
        for speaker in speakers:
            keys = [f"{speaker}-{sentence}" for sentence in ("sa1", "si1", "sx1")]
            rows["spk2utt"].append(f"{speaker} {' '.join(keys)}")
            for key in keys:
                names = ["h#", *rng.permutation(["aa", "iy", "s", "m", "aa", "s"]), "h#"]
                samples, start = [], 0.0
                for name in names:
                    length = round(rng.uniform(0.12, 0.3), 3)
                    t = np.arange(round(16000 * length)) / 16000
                    wave = 0 * t if TONES[name] is None else 3000 * np.sin(2 * np.pi * TONES[name] * t)
                    samples.append(wave + 30 * rng.standard_normal(len(t)))
                    rows["phones.ctm"].append(f"{key} 1 {start:.5f} {length:.5f} {name}")
                    start += length
                (folder / f"{key}.wav").write_bytes(write_wav(16000, np.concatenate(samples)))
                rows["wav.scp"].append(f"{key} {folder / key}.wav")
                rows["utt2spk"].append(f"{key} {speaker}")
        for name, lines in rows.items():
            write_lines(folder / part / name, *lines)
    write_lines(folder / "test" / "trials", "fx-si1 fx-sx1 target", "fx-si1 my-sx1 nontarget")
    (folder / "noise").mkdir()
    for name in ("n1", "n2"):
        noise = 200 * rng.standard_normal(20000)
        (folder / "noise" / f"{name}.wav").write_bytes(write_wav(16000, noise))
    write_lines(folder / "noise" / "wav.scp", "n1 n1.wav", "n2 n2.wav")


def recipe(*options, check=True):
    done = subprocess.run(
        [str(ROOT / "egs/timit_phones/run.sh"), *map(str, options)],
        capture_output=True,
        text=True,
        env=forked_environment(),
        timeout=300,
    )
    assert "Traceback" not in done.stderr
    assert done.returncode == 0 or not check, done.stdout + done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phones")
    make_corpus(folder / "corpus", np.random.default_rng(0))
    options = (
        "--data",
        folder / "corpus",
        "--noise",
        folder / "corpus/noise",
        "--dir",
        folder / "exp",
        "--snrs",
        "10",
        "--num-iters",
        4,
        "--num-gauss",
        1,
        "--frame-gauss",
        2,
        "--vad-gauss",
        1,
        "--num-realign",
        1,
    )
    return folder, options, recipe(*options)


def table_rows(text):
    return {line[:44].strip(): [float(word) for word in line[44:].split()] for line in text.splitlines()
            if re.search(r"[a-z].*( +[0-9]+\.[0-9]{2}){4}$", line) and not line.startswith(("clean", "10 "))}


def test_the_recipe_segments_made_up_phones(finished):
    folder, _, done = finished
    rows = table_rows(done.stdout.split("All sentences")[0])
    assert rows["phone loop"][0] > 85 and rows["forced alignment of the true phones"][0] > 85
    assert rows["phone loop"][0] > rows["most frequent class"][0] + 30
    assert all(0 <= value <= 100 for row in rows.values() for value in row)
    assert len(list((folder / "exp/phones/models").glob("*.hmm"))) == len(TONES)
    detectors = [line for line in done.stdout.splitlines() if line.startswith(("clean", "10 "))]
    assert len(detectors) == 6
    trained = [float(line.split()[-1]) for line in detectors if "trained" in line]
    assert max(trained) < 15  # mean of miss and false alarm
    assert (folder / "exp/results.txt").read_text().strip() in done.stdout


def test_a_finished_recipe_is_skipped_and_noise_is_optional(finished):
    folder, options, _ = finished
    again = recipe(*options)
    assert again.stdout.count("finished before, skipped") == 9
    refused = recipe("--data", folder / "nowhere", check=False)
    assert refused.returncode == 1 and "no such file" in refused.stderr
    assert recipe(*options, "--cmvn", "none", check=False).returncode == 1


@needs_data("timit_sample")
def test_labels_of_the_real_corpus_cover_it():
    found = phones.read_phones(shared_data("timit_sample/all/phones.ctm"))
    assert len(found) == 160
    frames = np.concatenate(
        [phones.frame_labels(p, int((p[-1][1] - 0.025) / 0.01) + 1) for p in found.values()]
    )
    silent = np.isin(frames, number_of(*phones.SILENCES)).mean()
    assert 0.05 < silent < 0.25 and len(np.unique(frames)) == 61
