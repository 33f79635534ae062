#!/usr/bin/env bash
# Decides which frames of a data directory's features are voiced, by their energy.

set -euo pipefail

# Begin configuration section.
nj=4
cmd=run.py
vad_config=conf/vad.conf
# End configuration section.

help_message="Usage: $0 [options] <data-dir> [<log-dir> [<vad-dir>]]
e.g.: $0 --nj 8 data/train exp/make_vad/train mfcc
  The features' first column is the log-energy, as make_mfcc.sh gives it. <log-dir> is <data-dir>/log and
  <vad-dir> is <data-dir>/data if they are not given. Writes <data-dir>/vad.scp, and <data-dir>/dropped.vad:
  the utterances without decisions, and why.
Options:
  --nj <n>               jobs (default: $nj)
  --cmd <launcher>       how to run jobs, as run.py or \"slurm.pl --mem 2G\" (default: $cmd)
  --vad-config <file>    options of compute-vad (default: $vad_config)"

echo "$0 $*"
. "$(dirname "${BASH_SOURCE[0]}")/../utils/step_lib.sh"
. "$(dirname "${BASH_SOURCE[0]}")/../utils/parse_options.sh"
vad_config=$(step_config "$vad_config")
step_arguments "$@"
step_begin vad vad.scp feats
step_record+=(--config "$vad_config")
if step_is_done; then exit 0; fi
"$step_utils/validate_data_dir.sh" --no-text --no-wav --no-spk-sort --partial --only feats.scp "$data"
step_split --per-utt
step_run compute-vad --config="$vad_config" "$(step_failed_list compute-vad)" "scp,p:$split/JOB/feats.scp" \
  "ark,scp:$tables.ark,$tables.scp"
step_collect
