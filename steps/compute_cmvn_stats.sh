#!/usr/bin/env bash
# Computes statistics for mean and variance normalisation of a data directory's features, by speaker.

set -euo pipefail

# Begin configuration section.
nj=4
cmd=run.py
per_utt=false
# End configuration section.

help_message="Usage: $0 [options] <data-dir> [<log-dir> [<cmvn-dir>]]
e.g.: $0 data/train exp/make_mfcc/train mfcc
  <log-dir> is <data-dir>/log and <cmvn-dir> is <data-dir>/data if they are not given. Writes
  <data-dir>/cmvn.scp, and <data-dir>/dropped.cmvn: the utterances that the statistics lack, and why.
Options:
  --nj <n>                jobs (default: $nj)
  --cmd <launcher>        how to run jobs, as run.py or \"slurm.pl --mem 2G\" (default: $cmd)
  --per-utt true|false    statistics of each utterance, not of each speaker (default: $per_utt)"

echo "$0 $*"
. "$(dirname "${BASH_SOURCE[0]}")/../utils/step_lib.sh"
. "$(dirname "${BASH_SOURCE[0]}")/../utils/parse_options.sh"
step_arguments "$@"
step_begin cmvn cmvn.scp feats
step_record+=(--options "per_utt=$per_utt")
if [[ $per_utt == false ]]; then step_record+=(--by-speaker); fi
if step_is_done; then exit 0; fi
"$step_utils/validate_data_dir.sh" --no-text --no-wav --no-spk-sort --partial --only feats.scp "$data"
command=(compute-cmvn-stats "$(step_failed_list compute-cmvn-stats)")
if [[ $per_utt == true ]]; then
  step_split --per-utt
else
  step_split
  command+=("--spk2utt=ark:$split/JOB/spk2utt")
fi
step_run "${command[@]}" "scp,p:$split/JOB/feats.scp" "ark,scp:$tables.ark,$tables.scp"
step_collect
