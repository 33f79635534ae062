"""The page's text: for each picture what the tutorial asks, and what is seen, in the numbers of this run.

:func:`make_slides` takes the second sentence's figures from the tables beside the pictures.
"""

from pathlib import Path

from spread import half_width, number_of
from voxark.errors import VoxarkError
from voxark.report.page import Slide
from voxark.report.rows import read_rows

TITLE = "End-to-end speaker verification: a tutorial's questions, answered by experiment"
INTRODUCTION = (
    "Embeddings, losses and recordings are simulated, so that it is known what is true; systems are "
    "trained with voxark's programs. Bars and ± are 95 % intervals over repetitions, those of "
    "networks over training sets with new speakers and a new start; the test set is the same for all. "
    "Tables beside the pictures have all numbers."
)
TOY, WEIGHTS, TRAINING, TRUTH = (
    "Is the loss that of the task?",
    "Trials that depend on each other",
    "Training networks",
    "The truth",
)


def percent(value, digits=1):
    """A rate as "12.3 %"."""
    return f"{100 * value:.{digits}f} %"


def with_error(value, error, number, scale=1.0, digits=2):
    """ "1.20 ± 0.30", the 95 % interval of the mean of ``number`` repetitions; of one, the value alone."""
    text = f"{scale * value:.{digits}f}".replace("-", "−")
    return text if number < 2 else f"{text} ± {scale * half_width(error, number):.{digits}f}"


def chosen(rows, **wanted):
    """The one row with these fields."""
    found = [row for row in rows if all(row[name] == str(value) for name, value in wanted.items())]
    if len(found) != 1:
        raise VoxarkError(f"{len(found)} rows have {wanted} where one is expected")
    return found[0]


def spread_of(row, value="mean", error="error", scale=1.0, digits=2):
    """A row's number with its interval; one of the columns says of how many repetitions it is the mean."""
    number = next(int(row[name]) for name in ("seeds", "repetitions", "trainings") if row.get(name))
    return with_error(number_of(row, value), float(row[error] or "nan"), number, scale, digits)


def densities(rows):
    """The text of 01 from the rows of its table."""
    first, second, flat = (
        f"{percent(number_of(row, 'identification'))} and {percent(number_of(row, 'verification'))}"
        for row in rows
    )
    return (
        "Three densities of one speaker's embeddings with the same variance, speakers at the same "
        "distance: does the one that is best for identification serve verification best? The errors of "
        f"identification and verification are {first} for the peaked density, {second} for the narrower "
        f"one, {flat} for the flat one: the order is not the same, and what is perfect for one is worst for "
        "the other."
    )


def triplets(rows):
    """The text of 02 from the rows of its table."""
    (row,) = rows
    return (
        "The triplet loss asks that each anchor is nearer to its own speaker than to others by a margin, "
        f"not that one threshold holds for all: {int(row['violations'])} of {int(row['triplets']):,} "
        f"triplets are violated. Yet the least verification error is {percent(number_of(row, 'min_error'))} "
        f"and the EER {percent(number_of(row, 'eer'))}, because distances within C exceed the gap between A "
        "and B."
    )


def weights(rows):
    """The text of 03 from the rows of its table."""
    low, high = sorted({float(row["c"]) for row in rows})[:: len({row["c"] for row in rows}) - 1]
    most = max(int(row["n"]) for row in rows)
    total = [
        number_of(row, "total")
        for c in (low, high)
        for row in rows
        if float(row["c"]) == c and row["n"] == str(most)
    ]
    return (
        "How much should a trial count if its speaker has many, when two of his trials are correlated by "
        f"<i>c</i> with a shared utterance and by <i>c</i>² without? With {most} utterances all his trials "
        f"together count {total[0]:.0f} times a speaker's of two at <i>c</i> = {low:g} and {total[1]:.1f} "
        f"times at <i>c</i> = {high:g} (uniform: {most * (most - 1) // 2}); short strokes are the limits "
        "1/<i>c</i>²."
    )


def variance(rows):
    """The text of 04 from the rows of its table."""
    worst = max(
        abs(number_of(row, name) - number_of(row, f"{name}_predicted")) / number_of(row, f"{name}_error")
        for row in rows
        for name in ("uniform", "blue")
    )
    ratios = [number_of(row, "ratio") for row in rows]
    return (
        "BLUE weights promise an average loss that varies less over training sets, with a variance that "
        f"can be told in advance: lines are predictions, marks {int(rows[0]['repetitions']):,} draws of all "
        f"losses. None is further than {worst:.1f} standard errors from its line, and the ratio BLUE over "
        f"uniform, written below, is between {min(ratios):.2f} and {max(ratios):.2f}."
    )


def batches(rows):
    """The text of 05 from the rows of its table."""
    worst = {
        how: [abs(number_of(row, "deviations")) for row in rows if row["weights"] == how]
        for how in ("weighted", "plain")
    }
    return (
        "The weights assume that every trial is used equally often, which mini-batches A (all utterances "
        "of some speakers) and B (two each) do not do: do batches still average to the objective? With "
        "weights divided by the probability that a trial is in a batch all four means are within "
        f"{max(worst['weighted']):.1f} standard errors of it; plain averages miss it by "
        f"{min(worst['plain']):.0f} and more."
    )


def correlations(rows):
    """The text of 06 from the rows of its table."""
    names = list(dict.fromkeys(row["system"] for row in rows))

    def found(kind, on):
        return ", ".join(
            f"{number_of(chosen(rows, system=name, on=on, kind=kind), 'correlation'):.2f}" for name in names
        )

    return (
        "Scores, and losses, of trials that share a speaker or an utterance are correlated; how much, in "
        f"our systems? Target scores with a common utterance: {found('c1', 'score')}, of the speaker alone "
        f"{found('c2', 'score')} ({', '.join(names)}); nontarget scores with a common utterance and both "
        f"speakers {found('c_us', 'score')}."
    )


def batch_size(rows):
    """The text of 07 from the rows of its table."""

    def of(kind):
        mine = sorted((int(row["vectors"]), row) for row in rows if row["batch"] == kind)
        return [spread_of(row, "last", digits=3) for _, row in (mine[0], mine[-1])], mine[0][0], mine[-1][0]

    (small, large), least, most = of("B")
    (small_a, large_a), _, _ = of("A")
    return (
        "A verification loss seems to need very large batches: DPLDA, trained with Adam on batches of "
        f"different sizes for the same number of steps, against L-BFGS on all pairs. From {least} to {most} "
        f"vectors the development loss goes from {small} to {large} with batches B and from {small_a} to "
        f"{large_a} with batches A; all pairs give {number_of(rows[0], 'lbfgs'):.3f}."
    )


def two_by_two(rows):
    """The text of 08 from the rows of its table."""

    def effect(what):
        return spread_of(chosen(rows, measure="eer", what=what), scale=100.0)

    return (
        "Was it training jointly that helped, or the loss of the task? From one start, joint training "
        f"changes the EER by {effect('joint - back-end only, identification')} points with the "
        f"identification loss and by {effect('joint - back-end only, verification')} with the verification "
        "loss; verification instead of identification by "
        f"{effect('verification - identification, back-end only')} for the back-end alone and by "
        f"{effect('verification - identification, joint')} for the whole."
    )


def schedule(rows):
    """The text of 09 from the rows of its table."""

    def of(system, name="mean", error="error"):
        return spread_of(chosen(rows, measure="eer", system=system), name, error, 100.0)

    return (
        "Is it the right way to begin with identification and to raise the weight of verification? EERs "
        f"from scratch are {of('identification')} % with identification, {of('verification')} % with "
        f"verification, {of('constant')} % with both at constant weights and {of('linear')} % with the "
        "schedule, which differs from constant weights by "
        f"{of('linear', 'minus_constant', 'minus_constant_error')} points."
    )


def trial_weights(rows):
    """The text of 10 from the rows of its table."""

    def of(system, weights):
        return spread_of(chosen(rows, system=system, weights=weights), "cllr_minus_uniform", digits=4)

    best = min(
        (row for row in rows if row["system"] == "dplda"),
        key=lambda row: number_of(row, "cllr_minus_uniform"),
    )
    return (
        "Do better weights make better systems, where some speakers have two utterances and some twenty? A "
        f"DPLDA's Cllr changes by {of('dplda', best['weights'])} at the best of the correlations, "
        f"<i>c</i> = {best['weights'].partition('=')[2]}, a network's by {of('network', 'blue')} with BLUE "
        f"weights and by {of('network', 'meta')} with learned ones."
    )


def tnorm(rows):
    """The text of 11 from the rows of its table."""
    sizes = sorted({int(row["speakers"]) for row in rows})

    def gap(size, how):
        row = chosen(rows, speakers=size, loss="identification - verification", scores=how)
        return spread_of(row, "eer", scale=100.0)

    return (
        "It was reported that the verification loss wins with much training data, and that t-norm brings "
        "both losses nearer to each other. EERs of identification less verification are "
        f"{gap(sizes[0], 'no normalisation')} points with {sizes[0]} training speakers and "
        f"{gap(sizes[-1], 'no normalisation')} with {sizes[-1]}; with t-norm {gap(sizes[0], 't-norm')} and "
        f"{gap(sizes[-1], 't-norm')}."
    )


def calibration(rows):
    """The text of 12 from the rows of its table."""

    def slopes(system):
        mine = [row for row in rows if row["system"] == system and row["measure"] == "slope"]
        ends = sorted(mine, key=lambda row: int(row["speakers"]))
        first, last = (f"{spread_of(row)} ({row['speakers']} speakers)" for row in (ends[0], ends[-1]))
        return f"{first} to {last}"

    return (
        "How well can the log-likelihood ratios of a trained system be those of the truth, which is known "
        f"here? The slope that calibration asks for, 1 for the truth, goes from {slopes('PLDA')} with PLDA, "
        f"from {slopes('DPLDA')} with DPLDA and from {slopes('network')} with networks; below 1 is "
        "over-confident."
    )


PICTURES = (  # section, name, title, text, programs, alt
    (
        TOY, "01_densities", "Identification or verification error", densities, "toy_densities.py",
        "Three panels with the densities of three neighbouring speakers each, and bars of both errors.",
    ),
    (
        TOY, "02_triplets", "No triplet is wrong, verification is", triplets, "toy_triplets.py",
        "Two narrow discs side by side, a wide one far away; histograms of distances within and between.",
    ),
    (
        WEIGHTS, "03_weights", "The weight of a trial and of a speaker", weights,
        "blue_weights.py, with voxark.trials.blue",
        "Curves of the weight of a trial and of all trials of a speaker against the number of utterances.",
    ),
    (
        WEIGHTS, "04_variance", "Best linear unbiased: the variance", variance,
        "blue_variance.py, with voxark.trials.blue",
        "Variance of the average loss against the correlation, predicted and drawn, with both weights.",
    ),
    (
        WEIGHTS, "05_batches", "Unbiased in mini-batches", batches,
        "batch_estimates.py, with voxark.e2e.batch_weights",
        "Running means over mini-batches approach a dotted line, or another value where they are biased.",
    ),
    (
        WEIGHTS, "06_correlations", "Correlations that were measured", correlations,
        "estimate-trial-correlations, train-plda, train-dplda, train-e2e-verif",
        "Bars of correlations by what two trials share, for several systems, of scores and of losses.",
    ),
    (
        TRAINING, "07_batch_size", "The size of mini-batches", batch_size,
        "train-dplda --optimizer=adam --batch",
        "Development loss over epochs for sizes of batches, and its end against the size, for A and B.",
    ),
    (
        TRAINING, "08_two_by_two", "Joint training, or the loss of the task", two_by_two,
        "train-e2e-verif --init-model --freeze-extractor",
        "EER and Cllr of four systems: back-end alone or joint, identification or verification loss.",
    ),
    (
        TRAINING, "09_schedule", "One loss, both, and a schedule", schedule,
        "train-e2e-verif --loss-schedule",
        "EER and Cllr of systems with one loss, with both at constant weights, and with a schedule.",
    ),
    (
        TRAINING, "10_trial_weights", "Uniform, BLUE and learned weights", trial_weights,
        "weights_of_dplda.py, train-e2e-verif --trial-weights",
        "Differences of Cllr from uniform weights against the correlation, and Cllr of networks.",
    ),
    (
        TRAINING, "11_tnorm", "Training speakers and t-norm", tnorm,
        "train-e2e-verif --backend=cosine, evaluate.py",
        "EER of both losses against training speakers with and without t-norm, and their difference.",
    ),
    (
        TRUTH, "12_calibration", "Are the LLRs calibrated?", calibration,
        "calibration_of_plda.py, train-e2e-verif, evaluate.py",
        "Calibration loss, slope, offset and distance from the truth against the number of speakers.",
    ),
)  # fmt: skip


def make_slides(folder):
    """The Slides, with what the tables of a folder say; VoxarkError for a table that is missing."""
    slides = []
    for section, name, title, text, programs, alt in PICTURES:
        table = Path(folder) / f"{name}.tsv"
        if not table.is_file():
            raise VoxarkError(f"{table}: no such table; egs/e2e_tutorial/run.sh writes it")
        slides.append(Slide(section, name, title, alt, text(read_rows(table)), programs))
    return slides
