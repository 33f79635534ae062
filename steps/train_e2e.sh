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
  --num-workers <n>           processes that train together on one machine, by torchrun (default: $num_workers)
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
if [[ $# -ne 2 ]]; then
  echo "$help_message" >&2
  exit 1
fi
data=${1%/} dir=${2%/}
em_check
[[ -s $data/utt2spk ]] || step_die "$data/utt2spk is missing or empty"
[[ $num_workers =~ ^[1-9][0-9]*$ ]] || step_die "--num-workers $num_workers: expected a number above zero"
cmvn_config=$(step_config "$cmvn_config")
read -r -a options <<<"$train_opts"
if [[ -n $train_config ]]; then options=(--config="$(step_config "$train_config")" "${options[@]}"); fi
[[ ! -s $dir/final.ie && ! -s $dir/final.ubm ]] || step_die "$dir holds another model: choose another folder"

# What is in the folder must have been trained on the same features, and with --restart with the same options, too;
# without, the program itself says which option differs, and takes those that change nothing but the time.
refuse_or_restart() {
  local begun=() name
  if [[ ! -e $dir/state.pt || ! -f $dir/begun_with ]]; then return; fi
  mapfile -t begun <"$dir/begun_with"
  if [[ $restart == true && ${begun[1]:-} != "$asked" ]]; then
    echo "$step_name: $dir was trained with other options or input: it starts anew"
    for name in state.pt final.pt config.json metrics.jsonl dplda front.mat checkpoints tensorboard train.done log; do
      rm -rf "${dir:?}/$name"
    done
    mkdir "$dir/log"
  elif [[ ${begun[0]} != "$made_from" ]]; then
    step_die "$dir was trained on other features than those of $data: choose another folder, or --restart true"
  fi
}

mkdir -p "$dir/log"
made_from=$({ em_archives; cat "$data/feats.scp" "$data/vad.scp" "$cmvn_config"; } | sha256sum | cut -d' ' -f1)
asked=$({ echo "$made_from" "${options[@]}"; cat "$data/utt2spk" ${train_config:+"${options[0]#--config=}"}; } |
  sha256sum | cut -d' ' -f1)
if [[ -f $dir/train.done && $(<"$dir/train.done") == "$asked" ]]; then
  echo "$step_name: $dir/final.pt is up to date (to make it again, remove $dir)"
  exit 0
fi
refuse_or_restart
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
program=(train-e2e-verif)
if [[ $num_workers -gt 1 ]]; then
  program=(torchrun --standalone --nproc-per-node="$num_workers" "$(command -v train-e2e-verif)")
fi
if [[ ! -e $dir/state.pt ]]; then printf '%s\n' "$made_from" "$asked" >"$dir/begun_with"; fi
launcher=${train_cmd:-$cmd}
if [[ $gpu == true ]]; then
  launcher+=" --gpu $num_workers"
  options+=(--device=cuda)
fi
echo "$step_name: training; $dir/log/train.log follows it, and $dir/metrics.jsonl"
$launcher "$dir/log/train.log" "${program[@]}" --cmn=none "${options[@]}" --resume "scp:$dir/voiced.scp" \
  "ark:$dir/utt2spk" "$dir"
printf '%s\n' "$made_from" "$asked" >"$dir/begun_with"
echo "$asked" >"$dir/train.done"
if [[ $cleanup == true ]]; then rm -f "$dir"/voiced.*; fi
sed -n 's/.*(train-e2e-verif) \(epoch .*\)/\1/p' "$dir/log/train.log" | tail -n 1
