"""What the pictures of trained systems share: a column of a system's seeds, their mean and its error."""

from spread import Mean, number_of
from voxark.report.drawing import INK, MUTED

MEASURES = {"eer": ("EER (%)", 100.0), "cllr": ("Cllr", 1.0)}


def column(axes, place, values, color, scale=1.0, marker="o", label=None):
    """Seeds' values ({seed: number}) as dots in a column, their mean as a line with its 95 % interval."""
    mean = Mean.of(list(values.values()))
    shifts = [0.16 * (k - (len(values) - 1) / 2) / max(len(values) - 1, 1) for k in range(len(values))]
    dots = [scale * value for value in values.values()]
    axes.plot([place + shift for shift in shifts], dots, marker, color=color, markersize=4.5, alpha=0.55)
    axes.errorbar(
        [place],
        [scale * mean.value],
        [scale * mean.half_width],
        fmt="_",
        color=color,
        markersize=22,
        capsize=5,
        label=label,
    )
    return mean


def true_value(rows, name):
    """The measure of the true log-likelihood ratios."""
    return number_of(next(row for row in rows if row["system"] == "true"), name)


def mark_truth(axes, value, label="true LLRs"):
    """A line at what the true log-likelihood ratios reach."""
    axes.axhline(value, color=INK, linestyle=":", linewidth=1.3, label=label)
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 0.85 * value), high)
    axes.tick_params(color=MUTED)
