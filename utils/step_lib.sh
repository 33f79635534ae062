# shellcheck shell=bash disable=SC2154  # cmd, help_message and the options are the step's
# What the steps over data directories share. A step sources it after its defaults (nj, cmd, help_message):
#
#   step_arguments "$@"              data, log_dir and out_dir, of <data-dir> [<log-dir> [<out-dir>]]
#   step_begin vad vad.scp feats     what is made, the table of it, what it is made from (wav or feats)
#   step_record+=(--config FILE)     what the output depends on besides
#   if step_is_done; then exit 0; fi
#   step_split --per-utt             splits the data directory: $split/1 ... $split/$nj
#   step_run compute-vad ...         one $cmd call of nj jobs, which write the tables $tables.scp
#   step_collect                     merges them, writes the ledger dropped.vad, fails over 5 % dropped
#
# A failed job is forgiven if each of its utterances has a result or a reason: a program ends with status 1
# when none of its utterances could be used, and how many utterances a job has is the user's choice.

shopt -s extglob
step_utils=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
step_name=$(basename "$0")

step_die() {
  echo "$step_name: ERROR $*" >&2
  exit 1
}

# step_job_paths <path>...: launchers put paths into a line of bash, and replace the word JOB in it.
step_job_paths() {
  local path word='(^|[^A-Za-z0-9_])JOB([^A-Za-z0-9_]|$)'
  for path in "$@"; do
    if [[ $path =~ $word || $path == *[\'\"\`\$\&\;\|\<\>\(\)\\]* ]]; then
      step_die "'$path': a path with the word JOB or a character of the shell in it cannot be given to jobs"
    fi
  done
}

# step_plain_paths <path>...: refuses blanks, too, which the commands in the names of tables cannot have.
step_plain_paths() {
  local path
  for path in "$@"; do
    if [[ $path == *[[:space:]]* ]]; then
      step_die "'$path': a path with blanks cannot stand in the commands that read tables"
    fi
  done
  step_job_paths "$@"
}

# Prints the absolute path of a folder, which is made if it is not there.
step_folder() {
  mkdir -p "$1"
  (cd "$1" && pwd)
}

# Prints the path of a configuration file; one that the current folder lacks is looked for in the checkout.
step_config() {
  local file
  for file in "$1" "${step_utils%/utils}/$1"; do
    if [[ -f $file ]]; then
      echo "$file"
      return
    fi
  done
  echo "$step_name: ERROR $1: no such file" >&2
  return 1
}

step_arguments() {
  if [[ $# -lt 1 || $# -gt 3 ]]; then
    echo "$help_message" >&2
    exit 1
  fi
  [[ $nj =~ ^[1-9][0-9]*$ ]] || step_die "--nj $nj: expected a number above zero"
  data=${1%/}
  [[ -d $data ]] || step_die "$data: no such directory"
  log_dir=$(step_folder "${2:-$data/log}")
  out_dir=$(step_folder "${3:-$data/data}")
  step_job_paths "$data" "$log_dir" "$out_dir"
}

# step_begin <what> <output table> wav|feats: names of what the jobs write.
step_begin() {
  what=$1 output=$2
  local name
  name=$(basename "$(cd "$data" && pwd)")
  tag=${what}_$name
  if [[ $3 == wav ]]; then tag=raw_$tag; fi  # as Kaldi names features
  tables=$out_dir/$tag.JOB
  log=$log_dir/${step_name%.sh}_$name.JOB.log
  step_record=(--name "$step_name" --what "$what" --output "$output" --source "$3")
  step_extra=()
  step_failed=()
}

step_is_done() {
  "$step_utils/step_outputs.py" is-done "${step_record[@]}" "$data" || return 1
  echo "$step_name: $data/$output is up to date (to make it again, remove $data/.done.$what)"
}

# step_split [--per-utt]: sets split, the folder of the parts, and lowers nj to what can be split.
step_split() {
  local units=spk2utt most
  if [[ ${1:-} == --per-utt ]]; then units=utt2spk; fi
  most=$(wc -l <"$data/$units")
  if [[ $nj -gt $most ]]; then
    echo "$step_name: $data has only $most lines in $units: reducing the number of jobs from $nj to $most"
    nj=$most
  fi
  "$step_utils/split_data.sh" "$@" "$data" "$nj"
  split=$(cd "$data" && pwd)/split$nj
  if [[ ${1:-} == --per-utt ]]; then split+=utt; fi
}

# step_failed_list <program>: prints the option that makes a program of the jobs list its failed keys.
step_failed_list() {
  echo "--failed-list=$log_dir/failed.$1.$tag.JOB"
}

# step_run <command...>: runs the jobs. What an earlier run left is removed first; it must not pass for
# theirs.
step_run() {
  local word file owner status=0
  owner=$(cd "$data" && pwd)
  if [[ -f $out_dir/$tag.owner && $(<"$out_dir/$tag.owner") != "$owner" ]]; then
    file=$(<"$out_dir/$tag.owner")/$output
    if grep -Fqs "$out_dir/$tag." "$file"; then
      step_die "$out_dir holds the $what of $file already, under the same names: choose another folder"
    fi
  fi
  if [[ -f $data/$output ]]; then
    mkdir -p "$data/.backup"
    mv "$data/$output" "$data/.backup/$output"
  fi
  rm -f "$data/.done.$what" "$out_dir/$tag".+([0-9]).@(ark|scp)
  echo "$owner" >"$out_dir/$tag.owner"
  for word in "$@"; do
    if [[ $word == --failed-list=* ]]; then
      step_failed+=(--failed "${word#*=}")
      rm -f "$log_dir"/failed.*."$tag".+([0-9])
    fi
  done
  jobs_failed=()
  $cmd JOB=1:"$nj" "$log" "$@" || status=$?
  if [[ $status -gt 128 ]]; then exit "$status"; fi
  if [[ $status -ne 0 ]]; then jobs_failed=(--jobs-failed); fi
}

step_collect() {
  "$step_utils/step_outputs.py" collect "${step_record[@]}" --nj "$nj" --log "$log" --tables "$tables.scp" \
    ${step_failed[@]+"${step_failed[@]}"} ${step_extra[@]+"${step_extra[@]}"} \
    ${jobs_failed[@]+"${jobs_failed[@]}"} "$data"
}

# make_feats fbank|mfcc <config> <data-dir> [<log-dir> [<feat-dir>]]: the body of make_fbank.sh and
# make_mfcc.sh. It reads compress, write_utt2num_frames and write_utt2dur of the step.
make_feats() {
  local config name compute
  config=$(step_config "$2")
  step_arguments "${@:3}"
  step_begin "$1" feats.scp wav
  step_record+=(--options "compress=$compress" --config "$config")
  if step_is_done; then return; fi
  "$step_utils/validate_data_dir.sh" --no-text --no-feats --no-spk-sort \
    --only "wav.scp segments reco2dur" "$data"
  step_split --per-utt
  compute=("compute-$1" --config="$config" --compress="$compress" "$(step_failed_list "compute-$1")")
  for name in num_frames dur; do
    local wanted=write_utt2$name option=${name/#dur/utt2dur}
    if [[ ${!wanted} == true ]]; then
      compute+=("--write-${option//_/-}=ark,t:$log_dir/utt2$name.$tag.JOB")
      step_extra+=(--extra "$log_dir/utt2$name.$tag.JOB" "utt2$name")
    fi
  done
  if [[ -f $data/segments ]]; then
    # Kaldi's launchers do not set pipefail
    step_run set -o pipefail \; extract-segments "$(step_failed_list extract-segments)" \
      "scp,p:$split/JOB/wav.scp" "$split/JOB/segments" ark:- \| \
      "${compute[@]}" ark:- "ark,scp:$tables.ark,$tables.scp"
  else
    step_run "${compute[@]}" "scp,p:$split/JOB/wav.scp" "ark,scp:$tables.ark,$tables.scp"
  fi
  step_collect
}
