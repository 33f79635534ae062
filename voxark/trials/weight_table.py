"""The weights of a list's trials by how many utterances their speakers have, as a table for people."""

import numpy as np

from voxark.trials.blue import nontarget_classes, target_classes


def utterances_of_speakers(of_class):
    """Numbers of utterances (S,) that each speaker has among the trials of a ClassOfList."""
    both = np.stack((of_class.speakers.ravel(), of_class.utterances.ravel()))
    speakers = np.unique(both, axis=1)[0]
    return np.bincount(speakers)


def write_weight_table(out, classes, correlations, weights):
    """Write the table to ``out``, which takes text.

    classes: the ClassOfLists of targets and nontargets, or None; correlations: Correlations; weights (M,):
    relative weights of all trials of the list.
    """
    targets, nontargets = classes
    if targets is not None:
        _write_targets(out, targets, correlations.target, weights[targets.places])
    if nontargets is not None:
        _write_nontargets(out, nontargets, correlations.nontarget, weights[nontargets.places])


def _write_targets(out, targets, components, weights):
    counts = utterances_of_speakers(targets)
    n_of_trial = counts[targets.speakers[0]][targets.which]
    forms = target_classes(counts, components)
    number = int(forms.num_trials @ forms.num_speakers)
    out.write(
        f"# targets: {_correlations(components)}. All pairs of these utterances: {number} trials "
        f"worth {1 / forms.variance:.1f}, with equal weights {1 / forms.uniform_variance:.1f}\n"
        "# utterances n  speakers  trials  mean weight  speaker's sum | all pairs: w(n)  N(n)w(n)\n"
    )
    for place, n in enumerate(forms.n.tolist()):
        chosen = n_of_trial == n
        num_speakers, relative = int(forms.num_speakers[place]), float(forms.relative[place])
        out.write(
            f"{n:14d}  {num_speakers:8d}  {chosen.sum():6d}  {weights[chosen].mean():11.5f}  "
            f"{weights[chosen].sum() / num_speakers:13.4f} | {relative:15.5f}  "
            f"{relative * forms.num_trials[place]:8.4f}\n"
        )


def _write_nontargets(out, nontargets, components, weights):
    counts = utterances_of_speakers(nontargets)
    of_trial = np.sort(counts[nontargets.speakers], axis=0)[:, nontargets.which]
    forms = nontarget_classes(counts, components)
    number = int(np.triu(forms.num_trials).sum())
    out.write(
        f"# nontargets: {_correlations(components)}. All pairs of these utterances: {number} trials "
        f"worth {1 / forms.variance:.1f}, with equal weights {1 / forms.uniform_variance:.1f}\n"
        "# utterances n, m  trials  mean weight  sum of a pair | all pairs: w(n,m)  nm w(n,m)\n"
    )
    width = int(of_trial.max()) + 1
    code = of_trial[0] * width + of_trial[1]
    found, where = np.unique(code, return_inverse=True)
    sums, sizes = np.bincount(where, weights), np.bincount(where)
    low, high = np.sort(nontargets.speakers, axis=0).astype(np.int64)
    pairs = np.unique(low * len(counts) + high)  # of speakers who meet in the list
    of_pair = np.sort(counts[np.stack(np.divmod(pairs, len(counts)))], axis=0)
    num_pairs = np.bincount(np.searchsorted(found, of_pair[0] * width + of_pair[1]), minlength=len(found))
    place = {n: number for number, n in enumerate(forms.n.tolist())}
    for number, pair in enumerate(found.tolist()):
        n, m = divmod(pair, width)
        relative = float(forms.relative[place[n], place[m]])
        out.write(
            f"{n:10d} {m:6d}  {sizes[number]:6d}  {sums[number] / sizes[number]:11.5f}  "
            f"{sums[number] / num_pairs[number]:13.4f} | {relative:17.5f}  {relative * n * m:9.4f}\n"
        )


def _correlations(components):
    return ", ".join(f"{name} {value:.4g}" for name, value in components.correlations.items())
