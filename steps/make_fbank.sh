#!/usr/bin/env bash
# Computes log mel filter-bank features of a data directory.

set -euo pipefail

# Begin configuration section.
nj=4
cmd=run.py
fbank_config=conf/fbank.conf
compress=true
# shellcheck disable=SC2034  # make_feats reads the next two by name
write_utt2num_frames=true write_utt2dur=true
# End configuration section.

help_message="Usage: $0 [options] <data-dir> [<log-dir> [<fbank-dir>]]
e.g.: $0 --nj 8 data/train exp/make_fbank/train fbank
  <log-dir> is <data-dir>/log and <fbank-dir> is <data-dir>/data if they are not given. Writes
  <data-dir>/feats.scp, and <data-dir>/dropped.fbank if there are utterances without features: which, and why.
Options:
  --nj <n>                             jobs (default: $nj)
  --cmd <launcher>                     how to run jobs, as run.py or \"slurm.pl --mem 2G\" (default: $cmd)
  --fbank-config <file>                 options of compute-fbank (default: $fbank_config)
  --compress true|false                write compressed features (default: $compress)
  --write-utt2num-frames true|false    write <data-dir>/utt2num_frames (default: $write_utt2num_frames)
  --write-utt2dur true|false           write <data-dir>/utt2dur (default: $write_utt2dur)"

echo "$0 $*"
. "$(dirname "${BASH_SOURCE[0]}")/../utils/step_lib.sh"
. "$(dirname "${BASH_SOURCE[0]}")/../utils/parse_options.sh"
make_feats fbank "$fbank_config" "$@"
