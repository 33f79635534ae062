"""Measures as a text for people, and as JSON and CSV, exact, for programs.

CSV: lines ``table,name,latent,measure,value``, a line for each number. JSON: an object of ``num_utterances``,
``num_segments``, ``factors``, ``dci``, ``latents``, ``eer``, ``transformations``. What is not defined is
empty, in JSON null; infinities are inf, in JSON a string.
"""

import csv
import json
import math

from voxark.disentanglement.measure import LATENTS
from voxark.disentanglement.movement import Moved
from voxark.disentanglement.probes import ProbeResult

_PROBE = [name for name in ProbeResult._fields if name != "weights"]
_MOVED = [name for name in Moved._fields if name not in ("name", "kind")]


def write_measures(out, measures, output_format):
    """Write Measures to the text stream ``out`` as "text", "json" or "csv"."""
    if output_format == "text":
        out.write("".join(line + "\n" for line in text_lines(measures)))
    elif output_format == "json":
        json.dump(_plain(as_object(measures)), out, indent=1, allow_nan=False)
        out.write("\n")
    else:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["table", "name", "latent", "measure", "value"])
        writer.writerows(csv_rows(measures))


# ---------------------------------------------------------------------------------------------- for programs


def as_object(measures):
    """Measures as dicts and lists."""
    return {
        "num_utterances": measures.num_utterances,
        "num_segments": measures.num_segments,
        "factors": [_factor_object(measures, place) for place in range(len(measures.factors))],
        "dci": None if measures.dci is None else {"disentanglement": measures.dci.disentanglement},
        "latents": [_latent_object(name, of) for name, of in measures.usage.items()],
        "eer": [{"vectors": name, **of._asdict()} for name, of in measures.eer.items()],
        "transformations": [{**of._asdict(), "ratio": movement_ratio(of)} for of in measures.movements],
        "num_waves": measures.num_waves,
    }


def _factor_object(measures, place):
    of = measures.factors[place]
    found = {"name": of.name, "kind": of.kind, "disjoint": of.disjoint, "classes": of.classes,
             "num_train": of.num_train, "num_test": of.num_test, "left_out": of.left_out}
    for latent, result in of.probes.items():
        found[latent] = {name: getattr(result, name) for name in _PROBE}
        if latent in of.purity:
            found[latent] |= {"purity": of.purity[latent].purity, "chance_purity": of.purity[latent].chance}
    found["gain_ratio"] = of.ratio
    found["completeness"] = float(measures.dci.completeness[place])
    found["share_z2"] = share_of_z2(measures, place)
    return found


def share_of_z2(measures, place):
    """The share of a factor's importance in the joint code that lies in z2."""
    return float(measures.dci.share[len(measures.usage["z1"].variance) :, place].sum())


def _latent_object(name, of):
    kl = None if of.kl is None else of.kl.tolist()
    return {"latent": name, "dim": len(of.variance), "num_active": of.num_active,
            "kl": None if kl is None else float(of.kl.sum()), "kl_per_dim": kl,
            "variance_per_dim": of.variance.tolist()}


def movement_ratio(moved):
    """How far the latent that ought to move does, over the other: z2/z1 for sequences, z1/z2 for segments."""
    own, other = (moved.z2, moved.z1) if moved.kind == "sequence" else (moved.z1, moved.z2)
    if other > 0:
        return own / other
    return math.inf if own > 0 else math.nan


def _plain(value):
    """The same with None for NaN, and texts for infinities."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def csv_rows(measures):
    """Lists table, name, latent, measure, value."""
    found = as_object(measures)
    rows = []
    for of in found["factors"]:
        for latent in (*LATENTS, "both"):
            rows += [["factor", of["name"], latent, name, value] for name, value in of[latent].items()]
        for name in ("num_train", "num_test", "gain_ratio", "completeness", "share_z2"):
            rows.append(["factor", of["name"], "", name, of[name]])
        rows.append(["factor", of["name"], "", "num_classes", len(of["classes"])])
    if found["dci"]:
        rows.append(["dci", "", "", "disentanglement", found["dci"]["disentanglement"]])
    for of in found["latents"]:
        rows += [["latent", "", of["latent"], name, of[name]] for name in ("dim", "num_active", "kl")]
        for name in ("kl_per_dim", "variance_per_dim"):
            values = enumerate(of[name] or [])
            rows += [["latent", str(place), of["latent"], name[:-8], value] for place, value in values]
    for of in found["eer"]:
        names = ("eer", "num_target", "num_nontarget")
        rows += [["eer", "", of["vectors"], name, of[name]] for name in names]
    for of in found["transformations"]:
        rows += [["transformation", of["name"], "", name, of[name]] for name in (*_MOVED, "ratio")]
    return [[*row[:4], _csv_value(row[4])] for row in rows]


def _csv_value(value):
    return "" if value is None or isinstance(value, float) and math.isnan(value) else value


# ------------------------------------------------------------------------------------------------ for people


def text_lines(measures):
    """The report for people: a list of lines without their ends."""
    blocks = []
    if measures.num_utterances:
        blocks.append([f"{measures.num_segments} segments of {measures.num_utterances} utterances"])
    if measures.factors:
        blocks += [_factor_lines(measures), _dci_lines(measures)]
    if measures.usage:
        blocks.append(_usage_lines(measures))
    if measures.eer:
        blocks.append(_eer_lines(measures))
    if measures.movements:
        blocks.append(_movement_lines(measures))
    return [line for place, block in enumerate(blocks) for line in ([""] if place else []) + block]


def _factor_lines(measures):
    lines = [["factor", "apart", "classes", "train", "test", "latent", "accuracy", "majority", "gain", "MI",
              "H(y)", "MI/H", "purity", "chance", "ratio of gains"]]
    for of in measures.factors:
        for latent in LATENTS:
            result, purity = of.probes[latent], of.purity[latent]
            start = [of.name, of.disjoint, str(len(of.classes)), str(of.num_train), str(of.num_test)]
            cells = [_shown(v) for v in (result.accuracy, result.majority, result.gain, result.information,
                                         result.entropy, result.information / result.entropy, *purity)]
            last = f"{'z2/z1' if of.kind == 'sequence' else 'z1/z2'} {_shown(of.ratio)}"
            first = latent == "z1"
            lines.append([*(start if first else [""] * 5), latent, *cells, "" if first else last])
    note = "MI: lower bound of the mutual information, nats; purity: of 10 neighbours; of held-out segments"
    return [*_aligned(lines, 2), note]


def _dci_lines(measures):
    lines = [["z1 and z2 together", "completeness", "accuracy", "gain", "importance in z2"]]
    for place, of in enumerate(measures.factors):
        both = of.probes["both"]
        values = measures.dci.completeness[place], both.accuracy, both.gain, share_of_z2(measures, place)
        lines.append([of.name, *map(_shown, values)])
    return [*_aligned(lines, 1), f"disentanglement {_shown(measures.dci.disentanglement)}"]


def _usage_lines(measures):
    lines = [["latent", "dimensions", "active", "KL (nats)", "largest", "smallest"]]
    for name, of in measures.usage.items():
        cells = ["-"] * 3 if of.kl is None else [_shown(v) for v in (of.kl.sum(), of.kl.max(), of.kl.min())]
        lines.append([name, str(len(of.variance)), str(of.num_active), *cells])
    return _aligned(lines, 1)


def _eer_lines(measures):
    lines = [["vectors", "EER %", "target", "nontarget"]]
    for name, of in measures.eer.items():
        lines.append([name, f"{100 * of.eer:.2f}", str(of.num_target), str(of.num_nontarget)])
    return _aligned(lines, 1)


def _movement_lines(measures):
    lines = [["transformation", "of the", "segments", "input", "z1", "z2", "mu2", "ratio"]]
    for moved in measures.movements:
        ratio = f"{'z2/z1' if moved.kind == 'sequence' else 'z1/z2'} {_shown(movement_ratio(moved))}"
        values = [_shown(value) for value in (moved.input, moved.z1, moved.z2, moved.mu2)]
        lines.append([moved.name, moved.kind, str(moved.num_segments), *values, ratio])
    note = (f"distances moved, relative to those of segments of different utterances ({measures.num_waves} "
            "utterances); mu2 of another segment: of either half of the segments")
    return [*_aligned(lines, 2), note]


def _shown(value):
    return "-" if math.isnan(value) else f"{value:.3f}"


def _aligned(lines, num_left):
    """Lines of cells as text: the first ``num_left`` columns to the left, the others to the right."""
    widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]))]
    return ["  ".join(f"{cell:<{w}}" if place < num_left else f"{cell:>{w}}"
                      for place, (cell, w) in enumerate(zip(line, widths))).rstrip() for line in lines]
