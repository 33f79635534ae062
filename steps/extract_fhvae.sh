#!/usr/bin/env bash
# Extracts the latent variables of each utterance of a data directory with an FHVAE.

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)

nj=4
cmd=run.py
gpu=false
what=mu2
segment_shift=20
help_message="Usage: $0 [options] <model-dir> <data-dir> <exp-dir>
e.g.: $0 --nj 8 --what 'mu2 z1 z2' exp/fhvae data/test exp/fhvae_test
  <model-dir> comes from train_fhvae.sh or train-fhvae; <data-dir> has feats.scp. Writes a table for each of --what,
  mu2 as <exp-dir>/vectors.scp, for score.sh, the others as <exp-dir>/<name>.scp, and <exp-dir>/dropped: utterances
  left out, and why.
Options:
  --nj <n>              jobs (default: $nj)
  --cmd <launcher>      how to run jobs (default: $cmd)
  --gpu <true|false>    a GPU for each job (default: $gpu)
  --what \"<name> ...\"   mu2 (s-vectors), mu1: vectors; z1, z2 (means), z1_var, z2_var (variances): matrices with a row
                        for each segment (default: $what)
  --segment-shift <n>   frames from one segment to the next (default: $segment_shift)"
. "$root/utils/parse_options.sh"
subsample=1 num_iters=1  # of em_lib.sh; they are no options of this step
. "$root/utils/step_lib.sh"
. "$root/utils/em_lib.sh"
if [[ $# -ne 3 ]]; then
  echo "$help_message" >&2
  exit 1
fi
model=${1%/} data=${2%/} dir=${3%/}
for file in final.pt config.json; do
  [[ -s $model/$file ]] || step_die "$model/$file is missing or empty: is it a folder of train_fhvae.sh?"
done
[[ ! $dir -ef $model ]] || step_die "$dir holds the model: choose another folder"
[[ ! $dir -ef $data ]] || step_die "$dir holds the data: choose another folder"
step_plain_paths "$model"
em_tables=(feats.scp)
em_check
[[ $segment_shift =~ ^[1-9][0-9]*$ ]] || step_die "--segment-shift $segment_shift: expected a number above zero"

# Programs know mu2 as an argument, the others as options.
tables=() wanted=() mu2=()
for name in $what; do
  table=$name
  case $name in
    mu2) table=vectors ;;
    mu1 | z1 | z2 | z1_var | z2_var) ;;
    *) step_die "--what: $name: expected mu2, mu1, z1, z2, z1_var or z2_var" ;;
  esac
  [[ " ${tables[*]} " != *" $table "* ]] || step_die "--what: $name is there twice"
  tables+=("$table")
  output="ark,scp:$dir/$table.JOB.ark,$dir/$table.JOB.scp"
  if [[ $name == mu2 ]]; then mu2=("$output"); else wanted+=("--${name//_/-}=$output"); fi
done
[[ ${#tables[@]} -gt 0 ]] || step_die "--what: nothing to write is asked for"

mkdir -p "$dir"
for table in vectors mu1 z1 z2 z1_var z2_var; do
  rm -f "$dir/$table.scp" "$dir/$table".+([0-9]).@(ark|scp)
done
rm -rf "$dir/dropped" "$dir/log"
device=cpu
if [[ $gpu == true ]]; then cmd+=" --gpu 1" device=cuda; fi
em_split_whole
em_jobs extract "$dir/${tables[0]}" scp extract-fhvae --device="$device" --segment-shift="$segment_shift" \
  --failed-list="$dir/log/JOB/failed.extract" "${wanted[@]}" "$model" "$feats" "${mu2[@]}"
collect_dropped.sh "$data/feats.scp" "$dir/dropped" "$dir"/log/*/failed.*
for table in "${tables[@]}"; do
  scripts=()
  for job in $(seq "$nj"); do
    if [[ -f $dir/$table.$job.scp ]]; then scripts+=("$dir/$table.$job.scp"); fi
  done
  cat "${scripts[@]}" | LC_ALL=C sort >"$dir/$table.scp.partial"
  mv "$dir/$table.scp.partial" "$dir/$table.scp"
done
