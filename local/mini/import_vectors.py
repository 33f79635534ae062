#!/usr/bin/env python3
"""Make a folder of utterance vectors in Kaldi's form out of arrays that another toolkit has saved (npz).

The npz holds `utts` (N names), `spks` (N names) and `x` (N,D). Writes <out>/vectors.ark and vectors.scp, utt2spk and
spk2utt, all sorted by utterance.

Usage: import_vectors.py [options] <npz> <out-dir>
e.g.: import_vectors.py ge2e_dvectors/so762_dev_test.npz exp/dvectors/test
See also: egs/mini/vectors.sh, transform-vec
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

from collections import defaultdict
from pathlib import Path
from typing import Annotated
import zipfile

import numpy as np

from voxark import tables
from voxark.errors import VoxarkError


def read_arrays(path):
    """(utterances, speakers, x (N,D) float32) of an npz file, checked."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("utts", "spks", "x")}
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise VoxarkError(f"{path}: an npz file with arrays utts, spks and x was expected: {error}") from None
    utts, spks, x = arrays["utts"].astype(str), arrays["spks"].astype(str), arrays["x"]
    if x.ndim != 2 or not len(x) == len(utts) == len(spks) or len(x) == 0:
        raise VoxarkError(f"{path}: utts {utts.shape}, spks {spks.shape} and x {x.shape} do not belong together")
    for name, words in (("utts", utts), ("spks", spks)):
        bad = [word for word in words.tolist() if len(word.split()) != 1]
        if bad:
            raise VoxarkError(f"{path}: {name}: {bad[0]!r} is no name: one word was expected")
    if len(set(utts.tolist())) < len(utts):
        raise VoxarkError(f"{path}: utts holds a name twice")
    if not np.isfinite(x).all():
        raise VoxarkError(f"{path}: {utts[np.argmin(np.isfinite(x).all(axis=1))]}: NaN or infinite values")
    return utts.tolist(), spks.tolist(), x.astype(np.float32)


@cli.program
def main(
    npz: str,
    out_dir: str,
    *,
    spk_prefix: Annotated[str, "Put before speakers' names, where two corpora give the same name to two people"] = "",
) -> int:
    utts, spks, x = read_arrays(npz)
    spks = [spk_prefix + spk for spk in spks]
    out = Path(out_dir)
    out.mkdir(parents=True, exist_ok=True)
    order = sorted(range(len(utts)), key=lambda n: utts[n].encode())
    counts, members = cli.Counts("vectors"), defaultdict(list)
    with tables.open_writer("vec", f"ark,scp:{out.absolute()}/vectors.ark,{out.absolute()}/vectors.scp") as writer:
        for n in order:
            writer[utts[n]] = x[n]
            members[spks[n]].append(utts[n])
    counts.done(len(order))
    with tables.open_text_output(str(out / "utt2spk")) as file:
        file.write("".join(f"{utts[n]} {spks[n]}\n" for n in order))
    with tables.open_text_output(str(out / "spk2utt")) as file:
        file.write("".join(f"{spk} {' '.join(members[spk])}\n" for spk in sorted(members, key=str.encode)))
    cli.logger.info("%d speakers, dimension %d", len(members), x.shape[1])
    return counts.finish()


if __name__ == "__main__":
    main()
