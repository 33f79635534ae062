"""Panels of scores: densities, reliability, cross-entropy over priors (APE), proportions (Tippett)."""

import numpy as np

from voxark.report import curves
from voxark.report.det import below, color_of, shortened, style_of
from voxark.report.drawing import BLUE, MUTED, VERMILLION

_LOG_ODDS = np.linspace(-7.0, 7.0, 141)  # of the priors of the cross-entropy, in nats


def draw_histograms(grid_axes, systems, log_scale=False):
    """The densities of both classes of each System, in axes of its own; they stand one over the other."""
    for number, (axes, system) in enumerate(zip(grid_axes, systems)):
        bins = curves.histogram(system.roc)
        _set_densities(axes, bins, log_scale)
        drawn = (("nontarget", bins.nontarget, VERMILLION), ("target", bins.target, BLUE))
        for name, heights, color in drawn:
            axes.stairs(heights, bins.edges, fill=True, color=color, alpha=0.3)
            line = axes.stairs(heights, bins.edges, color=color, linewidth=1.4, label=name)
            line.set_gid(f"{name}-{number + 1}")
        threshold = system.roc.eer()[1]
        if bins.edges[0] <= threshold <= bins.edges[-1]:
            axes.axvline(threshold, color=MUTED, linewidth=1.0, linestyle=":", label="threshold of the EER")
        if len(systems) > 1:
            _name(axes, system.label, color_of(number))
        if bins.outside > 0:
            percent = 100 * bins.outside
            text = f"{percent:.0f}" if percent >= 10 else f"{percent:.2g}" if percent >= 0.001 else "< 0.001"
            axes.text(1.0, 1.01, f"{text} % outside", transform=axes.transAxes, ha="right", va="bottom",
                      fontsize=8.5, color=MUTED)  # fmt: skip
    grid_axes[0].set_title("scores", pad=6 if len(systems) == 1 else 20)
    grid_axes[-1].set_xlabel("score")
    below(grid_axes[-1], *grid_axes[-1].get_legend_handles_labels())


def _set_densities(axes, bins, log_scale):
    """The scales of the axes of a Histogram."""
    heights = np.concatenate((bins.target, bins.nontarget))
    heights = heights[heights > 0] if heights.any() else np.ones(1)  # there is none if all are infinite
    if log_scale:
        axes.set_yscale("log")
        axes.set_ylim(0.5 * heights.min(), 2.0 * heights.max())
    else:
        axes.set_ylim(0.0, 1.08 * heights.max())
    axes.set(xlim=(bins.edges[0], bins.edges[-1]), ylabel="density")


def _name(axes, label, color):
    """The name of a system over its axes, in its colour."""
    label = shortened(label, 45)
    axes.text(0.0, 1.01, label, transform=axes.transAxes, ha="left", va="bottom", fontsize=9, color=color,
              fontweight="bold", parse_math=False)  # fmt: skip


def draw_reliability(axes, systems):
    """The LLR that labels bear out (PAV) against the score: on the diagonal, scores are calibrated LLRs."""
    found = [curves.pav_curve(system.roc) for system in systems]
    (low, high), limit = _reliability_limits(systems, found)
    for number, (score, llr) in enumerate(found):
        # what is infinite, or far away, leaves the picture
        score = np.clip(score, low - 10 * (high - low), high + 10 * (high - low))
        style = style_of(number, len(systems))
        if np.ptp(score) == 0:  # a single score: a line has no length
            style["marker"] = "o"
        axes.plot(score, np.clip(llr, -9 * limit, 9 * limit), zorder=3, gid=f"pav-{number + 1}", **style)
    (diagonal,) = axes.plot((low, high), (low, high), color=MUTED, linewidth=0.9, linestyle=":", zorder=1,
                            gid="calibrated")  # fmt: skip
    axes.axhline(0.0, color=MUTED, linewidth=0.6, alpha=0.5, zorder=0)
    axes.set(xlim=(low, high), ylim=(-limit, limit), title="calibration: reliability")
    axes.set(xlabel="score", ylabel="LLR that the labels bear out (PAV)")
    below(axes, [diagonal], ["score = LLR: calibrated"])


def _reliability_limits(systems, found):
    """((low, high) of the scores, limit of the LLRs): where there are blocks of finite LLR, and some more."""
    low, high = curves.score_range([system.roc for system in systems])
    score, llr = map(np.concatenate, zip(*found))
    inside = np.isfinite(score) & np.isfinite(llr)
    score, llr = score[inside], llr[inside]
    if len(score) and np.ptp(score) > 0:
        margin = 0.15 * np.ptp(score)
        low, high = max(low, score.min() - margin), min(high, score.max() + margin)
    if len(llr) and np.abs(llr).max() > 0.1:
        return (low, high), 1.15 * np.abs(llr).max()
    return (low, high), np.log(2.0 * max(max(s.roc.num_target, s.roc.num_nontarget) for s in systems))


def draw_cross_entropy(axes, systems):
    """Cross-entropy of the scores, taken as LLRs, over the prior; PAV's and the default for comparison."""
    from matplotlib.lines import Line2D

    highest = 0.05
    for number, system in enumerate(systems):
        actual, least, default = curves.cross_entropies(system.roc, _LOG_ODDS)
        axes.plot(_LOG_ODDS, actual, zorder=3, gid=f"actual-{number + 1}", **style_of(number, len(systems)))
        axes.plot(_LOG_ODDS, least, color=color_of(number), linewidth=1.2, linestyle=(0, (4, 2)), zorder=3,
                  gid=f"pav-entropy-{number + 1}")  # fmt: skip
        highest = max(highest, 1.15 * actual[np.isfinite(actual)].max(initial=0.0), 1.15 * least.max())
    axes.plot(_LOG_ODDS, default, color=MUTED, linewidth=1.1, linestyle=":", zorder=4, gid="default")
    axes.axvline(0.0, color=MUTED, linewidth=0.6, alpha=0.5, zorder=0)
    axes.set(xlim=_LOG_ODDS[[0, -1]], ylim=(0.0, min(highest, 1.25)))
    axes.set_title("calibration: cross-entropy (APE)")
    axes.set(xlabel="log odds of the prior of a target", ylabel="cross-entropy [bits]")
    handles = [Line2D([], [], color=MUTED, linestyle=style) for style in ("-", (0, (4, 2)), ":")]
    labels = ["scores as LLRs (at 0: Cllr)", "after PAV (at 0: minCllr)", "scores that say nothing"]
    below(axes, handles, labels)


def draw_tippett(axes, systems):
    """The proportions of targets and of nontargets whose score is at least x."""
    from matplotlib.lines import Line2D

    low, high = curves.score_range([system.roc for system in systems])
    low, high = low - 0.03 * (high - low), high + 0.03 * (high - low)
    dashed = (0, (4, 2))
    for number, system in enumerate(systems):
        style, roc = style_of(number, len(systems)), system.roc
        for name, scores, line in (("target", roc.target, "-"), ("nontarget", roc.nontarget, dashed)):
            x, proportion = curves.proportion_above(scores)
            x = np.concatenate(([-np.inf], x, [np.inf]))
            x = np.clip(x, 2 * low - high, 2 * high - low)  # what is infinite lies outside of the axes
            proportion = 100.0 * np.concatenate((proportion[:1], proportion, proportion[-1:]))
            axes.plot(x, proportion, gid=f"tippett-{name}-{number + 1}", **style | {"linestyle": line})
    axes.axvline(0.0, color=MUTED, linewidth=0.6, alpha=0.5, zorder=0)
    axes.set(xlim=(low, high), ylim=(-1, 101), title="Tippett")
    axes.set(xlabel="score", ylabel="trials with at least this score [%]")
    handles = [Line2D([], [], color=MUTED, linestyle=line) for line in ("-", dashed)]
    below(axes, handles, ["targets", "nontargets"])
