# shellcheck shell=bash disable=SC2154  # data, dir, cmd, help_message and the options are the step's
# What the steps share that train a network. A step sources it after utils/step_lib.sh and utils/em_lib.sh, sets data,
# dir, cmd, train_cmd, train_config, train_opts, num_workers, num_nodes, gpu and restart, and calls
#
#   nnet_options                    checks them; sets options, those of the program
#   nnet_begin                      nnet_feats are the files that features come from, nnet_labels other input, nnet_words
#                                   what the model depends on besides; exits where the model is up to date
#   nnet_train <program> <arg>...   runs the program with --resume, in as many processes on as many nodes as asked for
#
# begun_with says what a training in the folder began with, train.done what the model was made from.

nnet_feats=() nnet_labels=() nnet_words=()

nnet_options() {
  local number
  for number in num_workers num_nodes; do
    [[ ${!number} =~ ^[1-9][0-9]*$ ]] || step_die "--${number//_/-} ${!number}: expected a number above zero"
  done
  read -r -a options <<<"$train_opts"
  if [[ -n $train_config ]]; then
    train_config=$(step_config "$train_config")
    options=(--config="$train_config" "${options[@]}")
  fi
  [[ ! -s $dir/final.ie && ! -s $dir/final.ubm ]] || step_die "$dir holds another model: choose another folder"
}

nnet_begin() {
  mkdir -p "$dir/log"
  made_from=$({ em_archives; cat "${nnet_feats[@]}"; } | sha256sum | cut -d' ' -f1)
  asked=$({
    echo "$made_from" "${options[@]}"
    if [[ ${#nnet_words[@]} -gt 0 ]]; then echo "${nnet_words[@]}"; fi
    cat "${nnet_labels[@]}" ${train_config:+"$train_config"} </dev/null
  } | sha256sum | cut -d' ' -f1)
  if [[ -f $dir/train.done && $(<"$dir/train.done") == "$asked" ]]; then
    echo "$step_name: $dir/final.pt is up to date (to make it again, remove $dir)"
    exit 0
  fi
  nnet_refuse_or_restart
}

# What is in the folder must have been trained on the same features, and with --restart with the same options, too;
# without, the program itself says which option differs, and takes those that change nothing but the time.
nnet_refuse_or_restart() {
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

nnet_train() {
  local program=("$1") launcher=${train_cmd:-$cmd} device=()
  if [[ $num_nodes -gt 1 ]]; then
    # The launcher runs it once on each node, and sets where they meet.
    launcher+=" --num-nodes $num_nodes"
    # shellcheck disable=SC2016 # the job's shell expands them
    program=(torchrun --nnodes="$num_nodes" --nproc-per-node="$num_workers" --rdzv-backend=c10d
      '--rdzv-id=$VOXARK_JOB' '--rdzv-endpoint=$MASTER_ADDR:$MASTER_PORT' "$(command -v "$1")")
  elif [[ $num_workers -gt 1 ]]; then
    program=(torchrun --standalone --nproc-per-node="$num_workers" "$(command -v "$1")")
  fi
  shift
  if [[ ! -e $dir/state.pt ]]; then printf '%s\n' "$made_from" "$asked" >"$dir/begun_with"; fi
  if [[ $gpu == true ]]; then
    launcher+=" --gpu $num_workers"
    device=(--device=cuda)
  fi
  echo "$step_name: training; $dir/log/train.log follows it, and $dir/metrics.jsonl"
  $launcher "$dir/log/train.log" "${program[@]}" "${options[@]}" "${device[@]}" --resume "$@"
  printf '%s\n' "$made_from" "$asked" >"$dir/begun_with"
  echo "$asked" >"$dir/train.done"
}
