# shellcheck shell=bash disable=SC2034,SC2154  # cmd, nj, data, dir and the options are the step's
# What the steps share that train a mixture by EM with one array of jobs an iteration. A step sources it after
# utils/step_lib.sh, sets data, dir, cmd, nj and ext (the extension of its models), and calls
#
#   em_check                   refuses bad arguments; before it nothing is written to dir, which may hold a model
#   em_begin <word>...         what the models depend on besides the data; sets x, the last finished model, or -1
#   em_split                   splits the data; sets split, and feats, the features' pipe of job JOB
#   em_split_whole             the same, of whole utterances as they are in feats.scp
#   em_jobs <output> <command> one array of jobs, whose logs and outputs end in .JOB.<something>
#   em_train <est-gmm options> iterations x ... num_iters, each of acc-gmm-stats and est-gmm
#   em_end                     the ledger of dropped utterances, and final.<ext>
#
# A step that does without vad.scp says em_tables=(feats.scp).
#
# Models are whole or not there, so a run that was stopped goes on behind the last one that is there. The file
# .fingerprint says what they were made from; with other options or input the training starts anew.

em_tables=(feats.scp vad.scp)

em_check() {
  local path number
  step_plain_paths "$data" "$dir"
  for number in nj num_iters subsample; do
    [[ ${!number} =~ ^[1-9][0-9]*$ ]] || step_die "--${number//_/-} ${!number}: expected a number above zero"
  done
  for path in "${em_tables[@]/#/$data/}"; do
    [[ -s $path ]] || step_die "$path is missing or empty"
  done
}

# Prints sizes and times of the archives that the scripts of the data directory name.
em_archives() {
  cut -d' ' -f2- "${em_tables[@]/#/$data/}" | sed 's/:[0-9]*$//' | sort -u |
    { grep -v '|$' || true; } | { xargs -r -d '\n' stat -c '%n %s %y' -- 2>/dev/null || true; }
}

em_begin() {
  local fingerprint file
  fingerprint=$({
    printf '%s\n' "$@" "$subsample"
    em_archives
    cat "$data/feats.scp" "$data/vad.scp" "$dir/delta_order" "$dir/sliding_cmvn.conf"
  } | sha256sum | cut -d' ' -f1)
  if [[ $(cat "$dir/.fingerprint" 2>/dev/null) != "$fingerprint" ]]; then
    rm -f "$dir/.fingerprint" "$dir/final.$ext" "$dir/final.gmm" "$dir"/+([0-9])."$ext" "$dir/dropped"
    em_clean
    rm -rf "$dir/log"
    echo "$fingerprint" >"$dir/.fingerprint"
  elif [[ -f $dir/final.$ext ]]; then
    echo "$step_name: $dir/final.$ext is up to date (to make it again, remove $dir/.fingerprint)"
    exit 0
  fi
  mkdir -p "$dir/log"
  x=-1
  for file in "$dir"/+([0-9])."$ext"; do
    if [[ -f $file && $(basename "$file" ".$ext") -gt $x ]]; then x=$(basename "$file" ".$ext"); fi
  done
  if [[ $x -ge 0 ]]; then echo "$step_name: going on behind $dir/$x.$ext"; fi
}

# Removes what the jobs have written.
em_clean() {
  rm -f "$dir"/+([0-9]).+([0-9]).acc "$dir"/gselect.+([0-9]).ark "$dir/gselect.nj"
}

em_split_whole() {
  local most job
  most=$(wc -l <"$data/feats.scp")
  if [[ $nj -gt $most ]]; then
    echo "$step_name: $data has only $most utterances: reducing the number of jobs from $nj to $most"
    nj=$most
  fi
  "$step_utils/split_data.sh" --per-utt "$data" "$nj"
  split=$data/split${nj}utt
  for job in $(seq "$nj"); do mkdir -p "$dir/log/$job"; done
  feats=scp:$split/JOB/feats.scp
}

em_split() {
  em_split_whole
  feats=$(gmm_features.sh --log-dir "$dir/log/JOB" "$dir" "$data")
  feats=${feats//"scp:$data/"/"scp:$split/JOB/"}
  if [[ $subsample -gt 1 ]]; then feats+=" subsample-feats --n=$subsample ark:- ark:- |"; fi
}

# True if each utterance of a job was dropped for a reason: then it is no fault that the job has no output.
em_all_dropped() {
  local lists=("$dir/log/$1"/failed.*)
  [[ -f ${lists[0]} ]] || return 1
  awk 'FILENAME != ARGV[ARGC - 1] { dropped[$1]; next } !($1 in dropped) { exit 1 }' "${lists[@]}" \
    "$split/$1/feats.scp"
}

# em_jobs <name> <start of the outputs> <their extension> <command...>: sets outputs, the files written.
em_jobs() {
  local name=$1 start=$2 extension=$3 status=0 job
  shift 3
  rm -f "$dir"/log/+([0-9])/failed.*
  for job in $(seq "$nj"); do rm -f "$start.$job.$extension"; done
  $cmd JOB=1:"$nj" "$dir/log/$name.JOB.log" "$@" || status=$?
  if [[ $status -gt 128 ]]; then exit "$status"; fi
  outputs=()
  for job in $(seq "$nj"); do
    if [[ -s $start.$job.$extension ]]; then
      outputs+=("$start.$job.$extension")
    elif em_all_dropped "$job"; then
      : >"$start.$job.$extension"  # a table without entries for the jobs that read it
    else
      step_die "job $job of $nj has failed; see $dir/log/$name.$job.log (after a repair the same command goes on)"
    fi
  done
  if [[ ${#outputs[@]} -eq 0 ]]; then
    step_die "no utterance of $data could be used, e.g. $(awk '{ print; exit }' "$dir"/log/+([0-9])/failed.*)"
  fi
  if [[ $status -ne 0 && ${#outputs[@]} -eq $nj ]]; then
    step_die "$cmd has failed; see $dir/log/$name.*.log (after a repair the same command goes on)"
  fi
}

# em_train <option of acc-gmm-stats or empty> <option of est-gmm>...
em_train() {
  local selection=$1 removal last
  shift
  while [[ $x -lt $num_iters ]]; do
    em_jobs "acc.$x" "$dir/$x" acc acc-gmm-stats "--failed-list=$dir/log/JOB/failed.acc" --double="$double" \
      ${selection:+"$selection"} "$dir/$x.$ext" "$feats" "$dir/$x.JOB.acc"
    # Selections name Gaussians by their number, so none may go before the last iteration.
    removal=false
    if [[ $((x + 1)) -eq $num_iters ]]; then removal=$remove_low_count_gaussians; fi
    $cmd "$dir/log/update.$x.log" est-gmm --remove-low-count-gaussians="$removal" \
      --min-gaussian-weight="$min_gaussian_weight" "$@" "$dir/$x.$ext" "sum-gmm-stats - ${outputs[*]} |" \
      "$dir/$((x + 1)).$ext"
    if [[ $cleanup == true ]]; then rm -f "${outputs[@]}"; fi
    last=$(sed -n 's/.*log-likelihood per frame of the model before the update //p' "$dir/log/update.$x.log")
    x=$((x + 1))
    echo "$step_name: iteration $x of $num_iters: log-likelihood per frame before it ${last:-(see its log)}"
  done
}

em_end() {
  collect_dropped.sh "$data/feats.scp" "$dir/dropped" "$dir"/log/*/failed.*
  cp "$dir/$x.$ext" "$dir/final.$ext.partial"
  mv "$dir/final.$ext.partial" "$dir/final.$ext"
  if [[ $cleanup == true ]]; then
    em_clean
    rm -f "$dir"/+([0-9])."$ext"
  fi
}
