"""What there is in voxark: families of programs, the steps, the tools and the recipes, with one line each."""

import os
import textwrap

from voxark import __version__, command_help
from voxark.errors import VoxarkError

FAMILIES = {
    "Features": (
        "compute-fbank", "compute-mfcc", "compute-vad", "compute-cmvn-stats", "apply-cmvn",
        "apply-cmvn-sliding", "add-deltas", "select-voiced-frames", "subsample-feats", "pool-feats"),
    "Gaussian mixtures and hidden Markov models": (
        "train-gmm-em", "acc-gmm-stats", "sum-gmm-stats", "est-gmm", "gmm-copy", "gmm-info", "gmm-gselect",
        "gmm-get-post", "adapt-gmm-map", "score-gmm", "train-hmm-em", "align-hmm", "score-hmm"),
    "i-vectors": (
        "train-ivector-extractor", "acc-ivector-stats", "sum-ivector-stats", "est-ivector-extractor",
        "extract-ivectors", "ivector-info"),
    "Back-end: vectors, LDA, PLDA": (
        "compute-vec-mean", "transform-vec", "train-lda", "train-plda", "acc-plda-stats", "sum-plda-stats",
        "est-plda", "adapt-plda", "plda-copy", "plda-info", "train-dplda"),
    "Trials, scores and error rates": (
        "make-trials", "score-trials", "normalize-scores", "calibrate-scores", "fuse-scores", "compute-eer",
        "estimate-trial-correlations", "compute-trial-weights"),
    "End-to-end verification": (
        "train-e2e-verif", "init-ivec-mimic", "extract-embeddings", "e2e-info", "average-checkpoints"),
    "FHVAE: disentangled representations": (
        "train-fhvae", "extract-fhvae", "convert-fhvae", "measure-disentanglement", "fhvae-info"),
    "Tables and data": (
        "copy-feats", "copy-vector", "feat-to-dim", "feat-to-len", "extract-segments"),
    "Pictures and reports": ("plot-det", "plot-fhvae", "make-report"),
    "voxark itself": ("voxark",),
}  # fmt: skip
_OTHERS = "Other programs"
_NARROW = 60  # columns below which a line of explanation stands under its name
_WIDEST = 120


def program_sections(folder):
    """[(family, [(program, sentence)])] of the programs in ``folder``."""
    sentences = _sentences(command_help.programs_of(folder))
    placed = {name for names in FAMILIES.values() for name in names}
    families = {**FAMILIES, _OTHERS: [name for name in sentences if name not in placed]}
    sections = [(title, [(name, sentences[name]) for name in names if name in sentences])
                for title, names in families.items()]  # fmt: skip
    return [(title, entries) for title, entries in sections if entries]


def step_sections(root):
    """[(title, [(step, sentence)])] of steps/."""
    steps = _sentences(command_help.scripts_of(root, "steps"))
    return [("Steps: procedures over data directories, every job through --cmd", _base_names(steps))]


def tool_sections(root):
    """[(title, [(tool, sentence)])] of utils/."""
    tools = _sentences(command_help.scripts_of(root, "utils"))
    return [("Tools: data directories, tables, job launchers", _base_names(tools))]


def recipe_sections(root):
    """[(title, [(script, sentence)])] of egs/."""
    recipes = _sentences(command_help.scripts_of(root, *command_help.recipe_folders(root)))
    return [("Recipes: from a corpus to results, and experiments beside them", list(recipes.items()))]


def _sentences(sources):
    return {
        name: command_help.first_sentence(command_help.introduction(source))
        for name, source in sources.items()
    }


def _base_names(sentences):
    return [(os.path.basename(path), sentence) for path, sentence in sentences.items()]


_SECTIONS = {"steps": step_sections, "utils": tool_sections, "recipes": recipe_sections}
_CLOSING = {
    "programs": "PROGRAM --help says more. Also: voxark steps, voxark utils, voxark recipes, voxark doctor, "
                "voxark completion bash|zsh|fish, voxark version.",
    "steps": "After `. ./path.sh` they are on PATH; STEP --help says more.",
    "utils": "After `. ./path.sh` they are on PATH; TOOL --help says more.",
    "recipes": "SCRIPT --help says more; the README.md beside it says what comes out.",
}  # fmt: skip


def overview(what, program, width=None, bold=False):
    """The text of one overview: programs, steps, utils or recipes.

    ``program`` is the path of bin/voxark, beside which the others lie; ``width`` (columns) and ``bold`` are
    as in :func:`lay_out`. Raises VoxarkError where pip has installed voxark, which brings programs only.
    """
    if what == "programs":
        sections = program_sections(os.path.dirname(os.path.realpath(program)))
        title = f"voxark {__version__}: speaker verification and disentangled speech representations"
        title = fill(title, width) + "\n\n"
    else:
        root = command_help.checkout_of(program)
        if root is None:
            folder = "egs" if what == "recipes" else what
            raise VoxarkError(
                f"{what}: {program} was installed by pip, which brings programs and library but not "
                f"{folder}/: take a checkout of voxark for it (git clone)"
            )
        sections, title = _SECTIONS[what](root), ""
    return title + lay_out(sections, width, bold) + "\n" + fill(_CLOSING[what], width) + "\n"


def lay_out(sections, width=None, bold=False):
    """Sections [(title, [(name, text)])] as lines of at most ``width`` columns; None: one line an entry."""
    longest = max((len(name) for _, entries in sections for name, _ in entries), default=0)
    lines = []
    for title, entries in sections:
        title = fill(title, width)
        lines.append(f"\033[1m{title}\033[0m" if bold else title)
        for name, text in entries:
            if width is not None and width < _NARROW:
                lines += [f"  {name}", fill(text, width, "    ", "    ")]
            else:
                lines.append(fill(text, width, f"  {name:<{longest}}  ", " " * (longest + 4)))
        lines.append("")
    return "\n".join(lines)


def fill(text, width=None, first="", following=""):
    """A text in lines of at most ``width`` columns, which begin with the given indents; None: one line."""
    if width is None:
        return first + text
    options = {"break_long_words": False, "break_on_hyphens": False}
    columns = max(20, min(width, _WIDEST))
    return textwrap.fill(text, columns, initial_indent=first, subsequent_indent=following, **options)
