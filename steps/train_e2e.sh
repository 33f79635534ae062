#!/usr/bin/env bash
# Trains an end-to-end speaker verification system: parallel jobs write the voiced frames, less the mean of a sliding
# window, once; then one process, or several that share each batch, train on them.

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)

nj=4
cmd=run.py
train_cmd=
train_config=
train_opts=
num_workers=1
num_nodes=1
gpu=false
cmvn_config=$root/conf/sliding_cmvn.conf
cleanup=true
restart=false
help_message="Usage: $0 [options] <data-dir> <exp-dir>
e.g.: $0 --nj 8 --train-opts '--arch=xvector --loss=joint --num-epochs=30' data/train exp/xvector
  <data-dir> has feats.scp, vad.scp and utt2spk. Writes <exp-dir>/final.pt and config.json, the best model, metrics.jsonl
  (a line an epoch), what extract_embeddings.sh needs besides, and <exp-dir>/dropped: utterances left out, and why.
  A training that was stopped goes on to the same model; other options or features need another folder, or --restart.
Options:
  --nj <n>                    jobs that write the features (default: $nj)
  --cmd <launcher>            how to run jobs (default: $cmd)
  --train-cmd <launcher>      how to run the training, e.g. with a GPU of the cluster (default: --cmd)
  --train-config <file>       options of train-e2e-verif (default: none)
  --train-opts <options>      more options of train-e2e-verif, which win (default: none)
  --num-workers <n>           processes that train together on each machine, by torchrun (default: $num_workers)
  --num-nodes <n>             machines that train together, with a launcher that can (slurm.py; default: $num_nodes)
  --gpu <true|false>          train on GPUs, one a worker (default: $gpu)
  --cmvn-config <file>        options of apply-cmvn-sliding; conf/no_cmvn.conf does without
                              (default: conf/sliding_cmvn.conf)
  --cleanup <true|false>      remove the features when the training has ended (default: $cleanup)
  --restart <true|false>      remove a training that began with other options or input, and start anew
                              (default: $restart, which refuses)"
. "$root/utils/parse_options.sh"
subsample=1 num_iters=1  # of em_lib.sh; they are no options of this step
. "$root/utils/step_lib.sh"
. "$root/utils/em_lib.sh"
. "$root/utils/nnet_lib.sh"
if [[ $# -ne 2 ]]; then
  echo "$help_message" >&2
  exit 1
fi
data=${1%/} dir=${2%/}
em_check
[[ -s $data/utt2spk ]] || step_die "$data/utt2spk is missing or empty"
cmvn_config=$(step_config "$cmvn_config")
nnet_options
nnet_feats=("$data/feats.scp" "$data/vad.scp" "$cmvn_config")
nnet_labels=("$data/utt2spk")
nnet_begin
cp "$cmvn_config" "$dir/sliding_cmvn.conf"
echo 0 >"$dir/delta_order"
if [[ $(cat "$dir/voiced.done" 2>/dev/null) != "$made_from" ]]; then
  rm -f "$dir"/voiced.*
  em_split
  em_jobs voiced "$dir/voiced" scp copy-feats --failed-list="$dir/log/JOB/failed.copy" "$feats" \
    "ark,scp:$dir/voiced.JOB.ark,$dir/voiced.JOB.scp"
  collect_dropped.sh "$data/feats.scp" "$dir/dropped" "$dir"/log/*/failed.*
  cat "${outputs[@]}" | LC_ALL=C sort >"$dir/voiced.scp"
  echo "$made_from" >"$dir/voiced.done"
fi

# Only utterances that have voiced frames take part.
awk 'NR == FNR { has[$1]; next } $1 in has' "$dir/voiced.scp" "$data/utt2spk" >"$dir/utt2spk"
options=(--cmn=none "${options[@]}")
nnet_train train-e2e-verif "scp:$dir/voiced.scp" "ark:$dir/utt2spk" "$dir"
if [[ $cleanup == true ]]; then rm -f "$dir"/voiced.*; fi
sed -n 's/.*(train-e2e-verif) \(epoch .*\)/\1/p' "$dir/log/train.log" | tail -n 1
