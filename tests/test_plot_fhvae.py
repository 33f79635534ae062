"""Pictures of FHVAEs: labels of segments, samples, t-SNE, recombination, histogram, training, the program."""

import json
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from helpers import run, save_ark, write_lines
from voxark.errors import VoxarkError
from voxark.report.fhvae_histogram import HistogramOptions, log_density_sums, shifts_per_decade
from voxark.report.fhvae_labels import (
    LabelOptions, TimedLabels, UtteranceLabels, read_labels, title_of)
from voxark.report.fhvae_points import Sample, sample_points
from voxark.report.fhvae_recombination import (
    Piece, draw_pieces, draw_recombination, named_places, read_pieces, recombine)
from voxark.report.fhvae_training import draw_training, read_metrics
from voxark.report.fhvae_tsne import classes_of, draw_tsne, project


def ids_of(path):
    """The ids in an SVG that were given on purpose."""
    groups = ElementTree.parse(path).getroot().iter("{http://www.w3.org/2000/svg}g")
    images = ElementTree.parse(path).getroot().iter("{http://www.w3.org/2000/svg}image")
    return {element.get("id") for element in (*groups, *images)}


# ----------------------------------------------------------------------------------------------------- labels


def test_a_segment_has_the_label_at_its_middle(tmp_path):
    path = tmp_path / "phones.ctm"
    lines = ["u 1 0.00 0.10 aa", "u 1 0.10 0.04 s", "u 1 0.14 0.17 iy", "u 1 0.31 0.1 h#", "v 1 0 1 s"]
    write_lines(path, *lines)
    labels = read_labels(str(path))  # middles at 0.1075, 0.3075, 0.5075 s
    assert labels.title == "phone" and labels.of("u", 3) == ["s", "iy", None]
    assert labels.of("w", 2) == [None, None]
    write_lines(tmp_path / "map", "aa SON", "iy SON", "h# SIL")
    options = LabelOptions(ctm_map=str(tmp_path / "map"), segment_length=10, segment_shift=5)
    # middles at 0.0575, 0.1075, 0.1575, 0.2075 ... s; the map leaves out s
    classes = read_labels(f"class={path}", options)
    assert classes.title == "class"
    assert classes.of("u", 7) == ["SON", None, "SON", "SON", "SON", "SON", "SIL"]
    with pytest.raises(VoxarkError, match="must be positive"):
        LabelOptions(segment_shift=0).check()


def test_titles_of_tables():
    names = "d/utt2spk", "utt2noise", "x/phones.ctm", "utt2mic", "ark:d/utt2gender"
    assert [title_of(name) for name in names] == ["speaker", "noise", "phone", "microphone", "gender"]


def test_tables_of_labels(tmp_path):
    write_lines(tmp_path / "utt2spk", "a x", "b y")
    for name, title in (("", "speaker"), ("who it is=ark:", "who it is")):
        labels = read_labels(f"{name}{tmp_path}/utt2spk")
        assert labels.title == title and labels.of("b", 3) == ["y"] * 3 and labels.of("c", 1) == [None]


# ---------------------------------------------------------------------------------------------------- samples


def test_a_sample_is_the_whole_where_it_is_large_enough_and_else_any_row_alike():
    rows = Sample(10, np.random.default_rng(0))
    rows.offer([1, 2, 3], "abc")
    rows.offer([4], "d")
    assert rows.columns() == [(1, 2, 3, 4), tuple("abcd")]
    counts = np.zeros(2000)
    for seed in range(400):
        rows = Sample(50, np.random.default_rng(seed))
        for first in range(0, 2000, 100):
            rows.offer(range(first, first + 100))
        (chosen,) = rows.columns()
        assert len(set(chosen)) == 50 and list(chosen) == sorted(chosen)
        counts[list(chosen)] += 1
    halves = counts[:1000].sum(), counts[1000:].sum()
    assert abs(halves[0] - halves[1]) < 5 * np.sqrt(20_000)
    assert counts.max() < 35


def test_points_have_the_labels_of_their_segments():
    rng = np.random.default_rng(0)
    z1 = {f"u{n}": np.column_stack([np.full(3, n), np.arange(3)]) for n in range(8)}
    z2 = {key: 10.0 * z[:, :1] + rng.random((3, 1)) * 0.1 for key, z in z1.items()}
    speakers = UtteranceLabels("speaker", {f"u{n}": f"s{n}" for n in range(1, 8)})
    spans = {f"u{n}": (np.zeros(1), np.array([0.35]), [f"w{n}"]) for n in range(8)}
    words = TimedLabels("word", spans, LabelOptions())
    points = sample_points(z1.items(), z2, [speakers, words], 5, 3)
    assert points.z1.shape == (5, 2) and points.z2.shape == (5, 1)
    for a, b, speaker, word in zip(points.z1, points.z2, *points.labels):
        assert speaker == f"s{a[0]:.0f}" and word == f"w{a[0]:.0f}" and abs(b[0] - 10 * a[0]) < 0.2
        assert a[0] > 0 and a[1] < 2  # u0 has no speaker, the third segment no word
    assert len(sample_points(z1.items(), z2, [speakers, words], 100, 0).z1) == 14


@pytest.mark.parametrize("z1, z2, message", [
    ({"u": np.ones((2, 3))}, {}, "u: it is in the archive of z1 but not in that of z2"),
    ({"u": np.ones((2, 3))}, {"u": np.ones((3, 3))}, "u: 2 segments of z1, but 3 of z2"),
    ({"u": np.ones((2, 3)), "v": np.ones((2, 2))}, dict.fromkeys("uv", np.ones((2, 3))), "dimension 2"),
    ({"u": np.full((2, 3), np.inf)}, {"u": np.ones((2, 3))}, "u: z1 at frame 0"),
    ({"x": np.ones((2, 3))}, {"x": np.ones((2, 3))}, "none of 2 segments has a label"),
])  # fmt: skip
def test_archives_that_do_not_fit_are_refused(z1, z2, message):
    with pytest.raises(VoxarkError, match=message):
        sample_points(z1.items(), z2, [UtteranceLabels("speaker", {"u": "a", "v": "b"})], 10, 0)


# ------------------------------------------------------------------------------------------------------ t-SNE


def clusters(number=4, size=30, dim=6, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(number), size)
    centres = 8.0 * rng.standard_normal((number, dim))
    return centres[labels] + rng.standard_normal((number * size, dim)), labels


def test_clusters_stay_together_and_the_seed_decides():
    x, labels = clusters()
    y = project(x, 15.0)
    centres = np.array([y[labels == label].mean(0) for label in range(4)])
    nearest = np.linalg.norm(y[:, None] - centres, axis=2).argmin(1)
    assert np.mean(nearest == labels) > 0.98
    assert np.array_equal(y, project(x, 15.0))


@pytest.mark.parametrize("x, message", [
    (np.zeros((50, 3)), "the same values"), (np.ones((20, 3)), "20 segments"),
    (np.ones((50, 1)), "1 dimensions")])  # fmt: skip
def test_what_cannot_be_projected_is_refused(x, message):
    with pytest.raises(VoxarkError, match=message):
        project(x, 30.0)


def test_the_largest_classes_are_kept():
    assert classes_of(list("bbbaac"), 2) == (["a", "b"], 1)
    assert classes_of(list("cba"), 2) == (["a", "b"], 1)


@pytest.mark.filterwarnings("error")
def test_what_a_t_sne_picture_shows(tmp_path):
    rng = np.random.default_rng(0)
    places = [rng.standard_normal((60, 2)) for _ in range(2)]
    labels = [[f"s{n % 25:02d}" for n in range(60)], ["$x", "_y"] * 30]
    for name in ("1.svg", "2.svg"):
        draw_tsne(str(tmp_path / name), places, ["speaker", "odd $ name"], labels)
    assert (tmp_path / "1.svg").read_bytes() == (tmp_path / "2.svg").read_bytes()
    ids = ids_of(tmp_path / "1.svg")
    for name in ("z1-1", "z2-1"):
        assert {f"{name}-class-{n}" for n in range(1, 21)} <= ids
        assert f"{name}-class-21" not in ids and f"{name}-other" in ids
    assert {"z1-2-class-2", "z2-2-class-1"} <= ids and "z1-2-other" not in ids
    text = (tmp_path / "1.svg").read_text()
    assert "<!-- 5 others -->" in text and "<!-- _y -->" in text and "<!-- $x -->" in text


# -------------------------------------------------------------------------------------------------- histogram


def test_log_sums_of_densities_by_brute_force():
    rng = np.random.default_rng(0)
    mu2, variance = rng.standard_normal((30, 3)), 0.4
    own = rng.integers(30, size=50)
    z2 = mu2[own] + rng.standard_normal((50, 3))
    sizes = [1, 2, 7, 29, 30]
    sums = log_density_sums(z2, own, mu2, sizes, variance, np.random.default_rng(5))
    order = list(np.random.default_rng(5).permutation(30))
    for n in range(50):
        logs = [multivariate_normal.logpdf(z2[n], mu2[j], variance) for j in range(30)]
        others = [j for j in order if j != own[n]]
        for size, value in zip(sizes, sums[:, n]):
            chosen = [own[n], *others[: size - 1]]
            assert value == pytest.approx(logsumexp([logs[j] for j in chosen]), abs=1e-9)


def test_the_mean_moves_by_ln_10_a_decade_where_own_sequences_do_not_matter():
    rng = np.random.default_rng(0)
    mu2 = rng.standard_normal((10_000, 2)) * 0.3
    own = rng.integers(10_000, size=300)
    z2 = mu2[own] + 0.5 * rng.standard_normal((300, 2))
    sizes = [10, 100, 1000, 10_000]
    means = log_density_sums(z2, own, mu2, sizes, 0.25, rng).mean(axis=1)
    shifts = shifts_per_decade(sizes, means)
    assert shifts[0] < 2.35 and shifts[1:] == pytest.approx(np.log(10), abs=0.03)
    assert shifts_per_decade([10, 1000], np.array([0.0, 3.0])).tolist() == [1.5]


def test_numbers_of_sequences():
    assert HistogramOptions().sizes(1000) == [10, 100, 1000]
    assert HistogramOptions().sizes(500) == [10, 100, 500]
    assert HistogramOptions().sizes(120) == [10, 100]
    assert HistogramOptions().sizes(7) == [7]
    assert HistogramOptions(num_sequences="50,5").sizes(60) == [5, 50]
    for text in ("0", "5,61", "a"):
        with pytest.raises(VoxarkError, match="--num-sequences="):
            HistogramOptions(num_sequences=text).sizes(60)
    with pytest.raises(VoxarkError, match="--variance=0"):
        HistogramOptions(variance=0.0).sizes(60)


# ---------------------------------------------------------------------------------------------- recombination


def utterances(number=6, seed=0):
    rng = np.random.default_rng(seed)
    return {f"u{n}": (rng.standard_normal((70, 12)) + n).astype(np.float32) for n in range(number)}


def test_places_by_name():
    assert named_places("a:b:3, c:0", "x-a") == [("a:b", 3), ("c", 0)]
    with pytest.raises(VoxarkError, match="--x-b=a: expected <utterance>:<first frame>, found 'a'"):
        named_places("a", "x-b")


class Table(dict):
    """A table by key."""

    name = "feats.scp"


@pytest.mark.parametrize("place, message", [
    ("u9:0", "no features of u9 in feats.scp"), ("u1:51", "u1: a segment from frame 51 on ends at 71")])
def test_places_that_are_not_there_are_refused(place, message):
    assert read_pieces(Table(utterances()), "u1:50", "x-a", 20, {"u1": "s"})[0][::3] == ("u1", "s")
    with pytest.raises(VoxarkError, match=message):
        read_pieces(Table(utterances()), place, "x-a", 20, {})


def test_pieces_drawn_at_random_are_of_other_utterances_and_other_labels():
    labels = {f"u{n}": "ab"[n % 2] for n in range(6)}
    for seed in range(10):
        a, b = draw_pieces(utterances().items(), (4, 2), 20, labels, np.random.default_rng(seed))
        assert len({piece.key for piece in a + b}) == 6
        assert {piece.label for piece in b} == {"a", "b"}
        for piece in a + b:
            x = piece.feats
            levels = [x[start : start + 20].mean() for start in (0, 20, 40)]
            assert x[piece.start : piece.start + 20].mean() >= np.median(levels)
    with pytest.raises(VoxarkError, match="4 and 3 are asked for"):
        draw_pieces(utterances().items(), (4, 3), 20, labels, np.random.default_rng(0))


@pytest.mark.filterwarnings("error")
def test_what_a_recombination_picture_shows(tmp_path):
    table = utterances()
    a = [Piece(key, 3 * n, x) for n, (key, x) in enumerate(list(table.items())[:4])]
    b = [Piece("u4", 0, table["u4"], "$l"), Piece("u5", 50, table["u5"], "_m")]
    mixed = np.random.default_rng(0).standard_normal((2, 4, 20, 12))
    for name in ("1.svg", "2.svg"):
        draw_recombination(str(tmp_path / name), a, b, mixed, 15)
    assert (tmp_path / "1.svg").read_bytes() == (tmp_path / "2.svg").read_bytes()
    wanted = {f"a-{n}" for n in range(1, 5)} | {"b-1", "b-2", "b-1-box", "b-2-box"}
    wanted |= {f"c-{row}-{column}" for row in (1, 2) for column in range(1, 5)}
    text = (tmp_path / "1.svg").read_text()
    assert all(f'id="{name}"' in text for name in wanted)


# --------------------------------------------------------------------------------------------------- training


def metrics(number=6, **more):
    lines = []
    for n in range(number):
        line = {"epoch": n, "steps": 100 * n, "dev_bound": -500.0 + 20 * n - n**3, "dev_disc": -3.0 + 0.3 * n,
                "dev_log_px": -400.0, "dev_kl_z1": 10.0, "dev_kl_z2": 9.0, "dev_log_pmu2": -1.0,
                "dev_seq_acc": 0.1 * n, "active_z1": 4, "active_z2": 5, "lr": 0.001}  # fmt: skip
        if n:
            line.update(train_bound=-510.0 + 20 * n, train_disc=-3.0, train_grad=100.0 * n)
        lines.append({**line, **more})
    return lines


def write_metrics(folder, lines):
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(folder)


@pytest.mark.filterwarnings("error")
def test_what_a_picture_of_trainings_shows(tmp_path):
    folders = [write_metrics(tmp_path / "one", metrics()), write_metrics(tmp_path / "two", metrics(4)),
               write_metrics(tmp_path / "young", metrics(1)),
               write_metrics(tmp_path / "null", metrics(4, dev_bound=None))]  # fmt: skip
    draw_training(str(tmp_path / "x.svg"), folders)
    ids = ids_of(tmp_path / "x.svg")
    assert {"dev_bound-1", "dev_bound-2", "train_bound-1", "dev_disc-3", "best-1", "train_grad-2"} <= ids
    assert "train_bound-3" not in ids and "best-4" not in ids
    assert "<!-- two (marker: best) -->" in (tmp_path / "x.svg").read_text()


@pytest.mark.parametrize("text, message", [
    (None, "cannot be read"), ("", "no lines of an FHVAE"), ("{", "damaged"), ('{"epoch": 1}\n', "no lines"),
    ("[1]\n", "no lines"), ("\xff", "damaged")])  # fmt: skip
def test_folders_without_figures_are_refused(tmp_path, text, message):
    if text is not None:
        (tmp_path / "metrics.jsonl").write_bytes(text.encode("latin-1"))
    with pytest.raises(VoxarkError, match=message):
        read_metrics(str(tmp_path))


# ---------------------------------------------------------------------------------------------------- program


@pytest.fixture
def archives(tmp_path):
    x, _ = clusters(number=12, size=8)
    names = [f"u{n:02d}" for n in range(12)]
    rng = np.random.default_rng(1)
    z2 = {name: part.astype(np.float32) for name, part in zip(names, np.split(x, 12))}
    z1 = {name: rng.standard_normal((8, 5)).astype(np.float32) for name in names}
    mu2 = {name: z.sum(0) / (len(z) + 0.25) for name, z in z2.items()}
    write_lines(tmp_path / "utt2spk", *(f"{name} s{n % 4}" for n, name in enumerate(names)))
    lines = [f"{name} 1 {0.2 * n:.2f} 0.2 {'aa s h#'.split()[n % 3]}" for name in names for n in range(8)]
    write_lines(tmp_path / "phones.ctm", *lines)
    tables = {"z1": z1, "z2": z2, "mu2": mu2}
    return [save_ark(tmp_path / f"{name}.ark", table) for name, table in tables.items()]


def test_the_program_draws_t_sne(archives, tmp_path):
    arguments = ["--perplexity=10", "tsne", tmp_path / "x.svg", *archives[:2], tmp_path / "utt2spk",
                 f"sound={tmp_path / 'phones.ctm'}"]  # fmt: skip
    done = run("plot-fhvae", *arguments)
    assert "96 segments by speaker, sound" in done.stderr
    first = (tmp_path / "x.svg").read_bytes()
    assert {"z1-1-class-4", "z2-2-class-3"} <= ids_of(tmp_path / "x.svg")
    assert b"<!-- h# -->" in first
    run("plot-fhvae", *arguments)
    assert (tmp_path / "x.svg").read_bytes() == first
    classes = write_lines(tmp_path / "map", "aa SON", "s OBS", "h# SIL")
    run("plot-fhvae", f"--ctm-map={classes}", "--max-points=40", "--seed=2", *arguments)
    assert b"<!-- SON -->" in (tmp_path / "x.svg").read_bytes()


def test_the_program_draws_histograms(archives, tmp_path):
    done = run("plot-fhvae", "--num-sequences=2,6,12", "histogram", tmp_path / "x.png", *archives[1:])
    means = [float(x) for x in re.findall(r"M = \d+: mean (\S+) over 96 segments", done.stderr)]
    shift = float(re.search(r"from M = 2 to 6: mean shift per decade (\S+)", done.stderr)[1])
    assert means == sorted(means) and shift == pytest.approx((means[1] - means[0]) / np.log10(3), abs=0.003)
    assert (tmp_path / "x.png").read_bytes()[:4] == b"\x89PNG"


def test_the_program_draws_trainings(tmp_path):
    folder = write_metrics(tmp_path / "one", metrics())
    done = run("plot-fhvae", "training", tmp_path / "x.pdf", folder)
    best = max(metrics(), key=lambda line: line["dev_bound"])
    assert f"500 steps; best bound {best['dev_bound']} after {best['steps']}" in done.stderr
    assert (tmp_path / "x.pdf").read_bytes()[:5] == b"%PDF-"


def test_the_program_draws_recombinations(tmp_path):
    torch = pytest.importorskip("torch")
    from voxark.fhvae.inference import decode, encode
    from voxark.fhvae.model import FhvaeModel, model_config
    from voxark.fhvae.options import ModelOptions
    from voxark.nnet.model_folder import write_config, write_parameters

    torch.manual_seed(0)
    options = ModelOptions(arch="fc", num_layers=1, hidden_dim=8, z1_dim=3, z2_dim=4)
    model = FhvaeModel(model_config(options, 12)).eval()
    write_parameters(str(tmp_path / "final.pt"), model.state_dict())
    write_config(str(tmp_path / "config.json"), model.config)
    table, feats = utterances(), save_ark(tmp_path / "f.ark", utterances())
    labels = write_lines(tmp_path / "utt2spk", *(f"u{n} s{n}" for n in range(6)))
    done = run("plot-fhvae", "--num-a=3", "--num-b=2", f"--utt2label={labels}", "recombination",
               tmp_path / "1.svg", tmp_path, feats)  # fmt: skip
    named = re.findall(r"--x-[ab]=\S+", done.stderr)
    assert [option.count(":") for option in named] == [3, 2]
    run("plot-fhvae", *named, f"--utt2label={labels}", "recombination", tmp_path / "2.svg", tmp_path, feats)
    assert (tmp_path / "1.svg").read_bytes() == (tmp_path / "2.svg").read_bytes()

    a, b = ([Piece(key, start, table[key]) for key, start in places]
            for places in ([("u0", 0), ("u1", 7)], [("u2", 9), ("u3", 50), ("u0", 0)]))
    mixed = recombine(model, a, b)
    assert mixed.shape == (3, 2, 20, 12)
    z1, z2 = encode(model, table["u1"][7:27]).z1_mean, encode(model, table["u3"][50:70]).z2_mean
    np.testing.assert_allclose(mixed[1, 1], decode(model, z1, z2)[0][0], atol=1e-5)
    own = encode(model, table["u0"][:20])
    np.testing.assert_allclose(mixed[2, 0], decode(model, own.z1_mean, own.z2_mean)[0][0], atol=1e-5)


@pytest.mark.parametrize("arguments, message", [
    (["pie", "P", "Z1"], "there are the kinds tsne, recombination, histogram, training"),
    (["tsne", "P", "Z1", "Z2"], "wrong number of arguments behind the picture: 2"),
    (["histogram", "P", "Z2", "M", "M"], "wrong number of arguments behind the picture: 3"),
    (["histogram", "x.txt", "Z2", "M"], "ends in .svg, .png or .pdf"),
    (["tsne", "P", "Z1", "Z2", "U", "U"], "two tables of labels are called 'speaker'"),
    (["--perplexity=200", "tsne", "P", "Z1", "Z2", "U"], "96 segments"),
    (["--max-classes=21", "tsne", "P", "Z1", "Z2", "U"], "--max-classes=21"),
    (["--max-points=0", "tsne", "P", "Z1", "Z2", "U"], "--max-points=0"),
    (["tsne", "P", "Z1", "M", "U"], "a matrix was expected"),
    (["histogram", "P", "Z1", "M"], "z2 of 5 dimensions, but mu2 of 6"),
    (["--variance=0", "histogram", "P", "Z2", "M"], "--variance=0"),
    (["--x-a=u00:0", "recombination", "P", "F", "Z1"], "--x-a and --x-b"),
    (["--num-a=0", "recombination", "P", "F", "Z1"], "--num-a and --num-b are at least 1"),
    (["recombination", "P", "F", "Z1"], "config.json"),
    (["training", "P", "F"], "metrics.jsonl"),
])  # fmt: skip
def test_wrong_input_is_refused(archives, tmp_path, arguments, message):
    place = dict(zip(("Z1", "Z2", "M"), archives)) | {"U": tmp_path / "utt2spk", "F": tmp_path / "none",
                                                      "P": tmp_path / "x.svg"}  # fmt: skip
    done = run("plot-fhvae", *(place.get(word, word) for word in arguments), check=False)
    assert done.returncode == 1 and message in done.stderr, done.stderr
    assert not (tmp_path / "x.svg").exists()


def test_help_needs_neither_torch_nor_matplotlib(tmp_path):
    for name in ("torch", "matplotlib", "sklearn"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name} was imported')\n")
    from helpers import ROOT, environment

    done = run("plot-fhvae", "--help", env=environment(PYTHONPATH=f"{tmp_path}:{ROOT}"))
    assert b"plot-fhvae [options] recombination" in done.stdout


def test_missing_packages_are_named(archives, tmp_path):
    from helpers import ROOT, environment

    (tmp_path / "sklearn.py").write_text("raise ImportError('no sklearn')\n")
    done = run("plot-fhvae", "tsne", tmp_path / "x.svg", *archives[:2], tmp_path / "utt2spk", check=False,
               env=environment(PYTHONPATH=f"{tmp_path}:{ROOT}"))  # fmt: skip
    assert done.returncode == 1 and "t-SNE needs scikit-learn: pip install" in done.stderr
