#!/usr/bin/env bash
# Trains an FHVAE on the features of a data directory, whole utterances without labels: one process, or several that
# share the gradients of each step.

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)

cmd=run.py
train_cmd=
train_config=
train_opts=
num_workers=1
num_nodes=1
gpu=false
restart=false
help_message="Usage: $0 [options] <data-dir> <exp-dir>
e.g.: $0 --train-config conf/fhvae.conf --train-opts '--alpha=10 --srand=1' data/train exp/fhvae
  <data-dir> has feats.scp, log mel features as a rule, and where it has utt2num_frames the archives need not be looked
  through. Writes <exp-dir>/final.pt and config.json, the best model, metrics.jsonl (a line each validation), and
  <exp-dir>/dropped: utterances that took no part, and why.
  A training that was stopped goes on to the same model; other options or features need another folder, or --restart.
Options:
  --cmd <launcher>            how to run jobs (default: $cmd)
  --train-cmd <launcher>      how to run the training, e.g. with a GPU of the cluster (default: --cmd)
  --train-config <file>       options of train-fhvae (default: none)
  --train-opts <options>      more options of train-fhvae, which win (default: none)
  --num-workers <n>           processes that train together on each machine, by torchrun (default: $num_workers)
  --num-nodes <n>             machines that train together, with a launcher that can (slurm.py; default: $num_nodes)
  --gpu <true|false>          train on GPUs, one a worker (default: $gpu)
  --restart <true|false>      remove a training that began with other options or input, and start anew
                              (default: $restart, which refuses)"
. "$root/utils/parse_options.sh"
nj=1 subsample=1 num_iters=1  # of em_lib.sh; they are no options of this step
. "$root/utils/step_lib.sh"
. "$root/utils/em_lib.sh"
. "$root/utils/nnet_lib.sh"
if [[ $# -ne 2 ]]; then
  echo "$help_message" >&2
  exit 1
fi
data=${1%/} dir=${2%/}
em_tables=(feats.scp)
em_check
nnet_options
nnet_feats=("$data/feats.scp")
nnet_words=("$((num_workers * num_nodes)) workers")
for option in "${options[@]}"; do # another development set chooses another model
  if [[ $option == --dev-feats=scp:* && -f ${option#--dev-feats=scp:} ]]; then
    dev_scp=${option#--dev-feats=scp:}
    nnet_words+=("$(cat "$dev_scp"; sed 's/^[^ ]* //; s/:[0-9]*$//' "$dev_scp" | sort -u |
      { xargs -r -d '\n' stat -c '%n %s %y' -- 2>/dev/null || true; })")
  fi
done
nnet_begin
lengths=()
if [[ -s $data/utt2num_frames ]]; then lengths=(--utt2num-frames="$data/utt2num_frames"); fi
nnet_train train-fhvae "${lengths[@]}" "scp:$data/feats.scp" "$dir"
collect_dropped.sh --max-percent 100 "$data/feats.scp" "$dir/dropped" "$dir/skipped"
sed -n 's/.*(train-fhvae) \(epoch .*\)/\1/p' "$dir/log/train.log" | tail -n 1
