"""The recipe of egs/lecture: its tables, its pictures and its page, checked against what they claim."""

import ast
import csv
import re
import subprocess
import sys
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from helpers import ROOT, environment, forked_environment, load_ark

pytest.importorskip("matplotlib")
RUN, LOCAL = ROOT / "egs/lecture/run.sh", ROOT / "local/lecture"
NUM_PICTURES, NUM_STAGES = 18, 9


def recipe(*options, check=True):
    done = subprocess.run(
        [str(RUN), *map(str, options)], capture_output=True, text=True, env=forked_environment(), timeout=300
    )
    assert "Traceback" not in done.stderr, done.stderr
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done


def local(program, *arguments, check=True):
    """Run a program of local/lecture."""
    done = subprocess.run(
        [sys.executable, str(LOCAL / program), *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=120,
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert not check or done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(folder, output) of a quick run."""
    folder = tmp_path_factory.mktemp("lecture") / "exp"
    done = recipe("--quick", "true", "--dir", folder)
    assert "WARNING" not in done.stderr and "ERROR" not in done.stderr, done.stderr
    return folder, done.stdout


def rows(path):
    with open(path, newline="") as table:
        return list(csv.DictReader(table, delimiter="\t"))


def terms(path):
    """{(iteration, step): (lnp, Q, H, KL, num)} of a table of the terms of EM."""
    found = {
        (int(r["iteration"]), r["step"]): np.array([float(r[k]) for k in ("lnp", "Q", "H", "KL", "num")])
        for r in rows(path)
    }
    last = max(iteration for iteration, _ in found)
    assert list(found) == [(n, step) for n in range(1, last + 1) for step in "EM"]
    return found


# ---------------------------------------------------------------------------------------------- what is drawn


@pytest.mark.parametrize("name", ["em", "viterbi", "em1d", "hmm", "plda"])
def test_the_terms_that_are_drawn_add_up(finished, name):
    found = terms(finished[0] / name / "report.tsv")
    lnp, q, h, kl, num = np.array(list(found.values())).T
    assert np.all(np.abs(lnp - (q + h + kl)) <= 1e-9 * np.abs(lnp)) and np.all(kl >= -1e-9 * num)
    after_e, after_m = (np.array([v for (_, step), v in found.items() if step == s]) for s in "EM")
    np.testing.assert_allclose(after_m[:, 2], after_e[:, 2], rtol=1e-10)  # H stays in the M-step
    assert np.all(after_m[:, 1] >= after_e[:, 1] - 1e-9 * np.abs(after_e[:, 1]))  # and Q does not fall
    # one iteration goes on from the model that the one before wrote, in single precision
    np.testing.assert_allclose(after_e[1:, 0], after_m[:-1, 0], rtol=1e-6)
    if name == "viterbi":
        assert np.all(h == 0) and np.all(after_e[:, 3] > 0)
        bound = (q + h)[: 2 * len(after_e)]
        assert np.all(np.diff(bound) >= -1e-6 * np.abs(bound[1:]))
    else:
        assert np.all(np.abs(after_e[:, 3]) <= 1e-9 * num[0])  # the bound touches ln p after the E-step
        assert np.all(np.diff(after_m[:, 0]) >= -1e-6 * np.abs(after_m[1:, 0]))
        assert after_m[-1, 0] > after_e[0, 0] + 0.01 * num[0]


def mixture(path):
    """weights, means, variances (C,) of a <DiagGMM> in text over one dimension, read without our reader."""
    numbers = {
        name: np.array(values.split(), float)
        for name, values in re.findall(r"<(\w+)>\s+\[([^\]]*)\]", path.read_text())
    }
    return numbers["WEIGHTS"], numbers["MEANS_INVVARS"] / numbers["INV_VARS"], 1 / numbers["INV_VARS"]


def test_the_bound_touches_and_stays_below(finished):
    folder = finished[0]
    table = rows(folder / "bound.tsv")

    def get(iteration, kind):
        chosen = [r for r in table if r["iteration"] == str(iteration) and r["kind"] == kind]
        return np.array([[float(r["mu"]), float(r["value"])] for r in chosen]).T

    curve, touches, tops = get(0, "curve"), get(0, "touch"), get(0, "top")
    weights, means, variances = mixture(folder / "data/gmm1d/true.gmm")
    x = np.concatenate(list(load_ark(folder / "data/gmm1d/feats").values())).astype(float)
    for mu, value in curve.T[::40]:  # by the formula of the lecture
        means[1] = mu
        densities = weights * np.exp(-0.5 * (x - means) ** 2 / variances) / np.sqrt(2 * np.pi * variances)
        assert value == pytest.approx(np.log(densities.sum(axis=1)).mean(), abs=1e-6)
    num_iters = touches.shape[1]
    assert num_iters == tops.shape[1] == 4
    for iteration in range(1, num_iters + 1):
        bound, (touch_mu, touch), (top_mu, top) = (get(iteration, kind) for kind in ("curve", "touch", "top"))
        np.testing.assert_array_equal(bound[0], curve[0])
        assert touch_mu == touches[0, iteration - 1] and abs(touch - touches[1, iteration - 1]) <= 1e-9
        assert np.all(bound[1] <= curve[1] + 1e-12) and np.all(bound[1] <= top + 1e-12)
        assert top_mu == pytest.approx(
            touches[0, iteration] if iteration < num_iters else tops[0, -1], abs=1e-11
        )
        curvature = np.diff(bound[1], 2)
        assert curvature.max() < 0 and np.ptp(curvature) < 1e-9 * abs(bound[1]).max()  # a parabola
        assert tops[1, iteration - 1] >= top > touch  # the M-step gains, and ln p gains more
    assert np.all(np.diff(np.append(touches[1], tops[1, -1])) > 0)


def test_learned_models_are_near_the_true_ones(finished):
    sys.path.insert(0, str(LOCAL))
    from reading import read_plda

    plda = finished[0] / "plda"
    for learned, true in zip(
        *(read_plda(p).covariances() for p in (plda / "final.plda", finished[0] / "data/plda/true.plda"))
    ):
        assert np.linalg.norm(learned - true) < 0.5 * np.linalg.norm(true)
    starts = [float(np.trace(c)) for c in read_plda(plda / "0.plda").covariances()]
    assert starts == pytest.approx([2.0, 2.0], rel=1e-6)


# -------------------------------------------------------------------------------------------------- pictures


def test_no_picture_is_empty(finished):
    pictures = sorted((finished[0] / "pictures").glob("*"))
    assert [p.name[:2] for p in pictures] == [f"{n:02d}" for n in range(1, NUM_PICTURES + 1)]
    for path in pictures:
        root = ElementTree.parse(path).getroot()
        drawn = [e for e in root.iter() if e.tag.endswith(("}path", "}use", "}image"))]
        assert len(drawn) > 100, path
        assert not [e.get("d") for e in drawn if re.search("nan|inf", e.get("d", "") + e.get("x", ""))], path
        width, height = (float(root.get(side).removesuffix("pt")) for side in ("width", "height"))
        assert 500 < width < 900 and 200 < height < 500, path
    assert len({path.read_bytes() for path in pictures}) == NUM_PICTURES


def test_the_colours_of_the_points_are_the_posteriors(finished):
    """A point of a single component's posterior has its colour; soft ones are mixtures, hard ones never."""
    sys.path.insert(0, str(LOCAL))
    from voxark.report.drawing import COMPONENTS, mixed

    palette = [np.array([int(c[i : i + 2], 16) for i in (1, 3, 5)]) / 255 for c in COMPONENTS[:3]]
    np.testing.assert_allclose(mixed(np.eye(3)), palette)
    np.testing.assert_allclose(mixed(np.array([[0.25, 0.0, 0.75]]))[0], 0.25 * palette[0] + 0.75 * palette[2])
    points = {
        name: set(
            re.findall(
                r'style="fill: (#[0-9a-f]{6}); fill-opacity',
                (finished[0] / f"pictures/{name}.svg").read_text(),
            )
        )
        for name in ("04_viterbi", "05_em")
    }
    assert (
        set(COMPONENTS[:3]) <= points["04_viterbi"] and len(points["05_em"]) > len(points["04_viterbi"]) + 50
    )


def test_the_same_files_give_the_same_picture(finished, tmp_path):
    folder = finished[0]
    again = tmp_path / "05_em.svg"
    local("plot_steps.py", "--show=1,2,6", folder / "data/gmm2d/feats", folder / "em", again)
    assert again.read_bytes() == (folder / "pictures/05_em.svg").read_bytes()
    image = tmp_path / "terms.png"
    local("plot_terms.py", folder / "em/report.tsv", image)
    from matplotlib.image import imread

    pixels = imread(image)[..., :3]
    assert (
        pixels.shape[0] > 300 and pixels.std() > 0.05 and len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20
    )
    data = tmp_path / "data"
    local("make_data.py", "--num-frames=300", "--num-sequences=12", "--num-speakers=30", data)
    files = sorted(p.relative_to(data) for p in data.rglob("*") if p.is_file())
    assert len(files) > 20
    for name in files:
        assert (data / name).read_bytes() == (folder / "data" / name).read_bytes(), name
    local("make_data.py", "--seed=1", "--num-frames=300", "--num-sequences=12", "--num-speakers=30", data)
    for name in ("gmm1d/feats", "gmm2d/feats", "hmm/feats", "plda/vectors"):
        assert (data / name).read_bytes() != (folder / "data" / name).read_bytes(), name


def test_a_picture_of_wrong_numbers_is_refused(finished, tmp_path):
    lines = (finished[0] / "em/report.tsv").read_text().splitlines()
    fields = lines[3].split("\t")
    fields[4] = str(float(fields[4]) + 0.01)
    wrong = tmp_path / "wrong.tsv"
    wrong.write_text("\n".join([*lines[:3], "\t".join(fields), *lines[4:]]) + "\n")
    done = local("plot_terms.py", wrong, tmp_path / "x.svg", check=False)
    assert done.returncode == 1 and "not Q + H + KL" in done.stderr and not (tmp_path / "x.svg").exists()
    done = local("plot_terms.py", finished[0] / "bound.tsv", tmp_path / "x.svg", check=False)
    assert done.returncode == 1 and "not a table of the terms" in done.stderr
    done = local("plot_terms.py", finished[0] / "em/report.tsv", tmp_path / "x.gif", check=False)
    assert done.returncode == 1 and ".svg, .png or .pdf" in done.stderr
    hmm = finished[0] / "hmm"
    done = local(
        "plot_lattice.py",
        hmm / "4.hmm",
        finished[0] / "data/hmm/feats",
        hmm / "0.post",
        hmm / "ali",
        tmp_path / "x.svg",
        check=False,
    )
    assert done.returncode == 1 and "are not those of" in done.stderr


# -------------------------------------------------------------------------------------------------- the page


class Page(HTMLParser):
    """What a page has: elements with attributes, text of the captions; checks that tags are closed."""

    EMPTY = {"meta", "img", "br", "link", "input"}

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.captions = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in self.EMPTY:
            self.open.append(tag)
        if tag == "figcaption":
            self.captions.append("")

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> inside {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data):
        if "figcaption" in self.open and "code" not in self.open:
            self.captions[-1] += data


def test_the_page_holds_all_and_asks_for_nothing(finished):
    text = (finished[0] / "index.html").read_text()
    page = Page(text)
    assert not page.open
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    for tag, attributes in page.elements:
        assert tag not in ("script", "link", "iframe", "object")
        for name in ("href", "xlink:href", "src", "srcset"):
            target = attributes.get(name, "#")
            assert (
                target.startswith("data:image/png;base64,") or target.strip() == "#" or target[1:] in set(ids)
            ), target
    for target in re.findall(r"url\(([^)]*)\)", text):
        assert target.startswith("#") and target[1:] in set(ids), target
    addresses = set(re.findall(r"https?://[^\"' <)]+", text))
    assert addresses <= {"http://www.w3.org/1999/xlink", "http://www.w3.org/2000/svg"}, addresses
    pictures = [a for t, a in page.elements if t == "svg"]
    assert len(pictures) == NUM_PICTURES == len(page.captions)
    assert all(a["role"] == "img" and len(a["aria-label"]) > 30 for a in pictures)
    names = [a["id"] for t, a in page.elements if t == "article"]
    assert names == sorted(p.stem for p in (finished[0] / "pictures").iterdir())
    for caption in page.captions:
        sentences = caption.rpartition("Made by")[0].strip()
        assert len(re.findall(r"[.](?:\s|$)", sentences)) == 2, sentences
    assert "prefers-color-scheme: dark" in text and "@media print" in text
    body = text[text.index("<main>") :]
    assert "var(--ink)" in body and "#1b1f25" not in body  # nothing is left in the ink of a light page


def test_a_page_of_png_pictures_and_a_missing_one(finished, tmp_path):
    sys.path.insert(0, str(LOCAL))
    from slides import INTRODUCTION, SLIDES, TITLE
    from voxark.report.page import inline_png, page

    (tmp_path / "x.png").write_bytes(b"\x89PNG picture")
    picture = inline_png(tmp_path / "x.png", SLIDES[0])
    made = Page(page({SLIDES[0]: picture}, TITLE, INTRODUCTION))
    (image,) = [a for t, a in made.elements if t == "img"]
    assert image["alt"] == SLIDES[0].alt and image["src"] == "data:image/png;base64,iVBORyBwaWN0dXJl"
    done = local("make_page.py", tmp_path, tmp_path / "page.html", check=False)
    assert done.returncode == 1 and "01_mixture_1d.svg: no such picture" in done.stderr
    assert not (tmp_path / "page.html").exists()


# ------------------------------------------------------------------------------------------------ the recipe


def test_the_second_run_does_nothing_and_a_lost_picture_is_drawn_again(finished):
    folder, said = finished
    assert len(re.findall(r"stage \d+: .*: done in", said)) == NUM_STAGES
    again = recipe("--quick", "true", "--dir", folder).stdout
    assert again.count("finished before, skipped") == NUM_STAGES and ": done in" not in again
    assert str(folder / "index.html") in again
    assert not list(folder.rglob("*.partial*"))
    other = recipe("--quick", "true", "--dir", folder, "--seed", "1", "--stage", "8", check=False)
    assert other.returncode == 1 and "start from it: --stage 1" in other.stderr


@pytest.mark.parametrize("options, said", [
    (("--format", "gif"), "expected svg or png"),
    (("--seed", "one"), "expected a number"),
    (("--quick", "maybe"), "expects true or false"),
    (("folder",), "unexpected argument 'folder'"),
])  # fmt: skip
def test_wrong_options_are_refused(tmp_path, options, said):
    done = recipe("--dir", tmp_path / "exp", *options, check=False)
    assert done.returncode == 1 and said in done.stderr


def test_a_folder_whose_name_the_shell_would_read_is_refused(tmp_path):
    for name in ("a b", "a$b", "a;b"):
        done = recipe("--dir", tmp_path / name, check=False)
        assert done.returncode == 1 and "characters of the shell" in done.stderr


@pytest.mark.parametrize("program", sorted(p.name for p in LOCAL.glob("*.py") if p.stat().st_mode & 0o100))
def test_every_program_explains_itself(program):
    text = ast.get_docstring(ast.parse((LOCAL / program).read_text()))
    assert all(part in text for part in (f"Usage: {program} ", f"e.g.: {program} ", "See also: "))
