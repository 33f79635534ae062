#!/usr/bin/env bash
# What hierarchical sampling of an FHVAE is for, measured: the time of a step against the size of the cache, memory and
# time against the number of training sequences, and what becomes of the discriminative term with that number.

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
root=$(cd "$here/../.." && pwd -P)

dir=
size=default
model=
feats=
num_pieces=
num_rounds=
forms=product,plain,naive
max_memory=4096
max_sequences=
precision=float32
device=cpu
num_threads=1
stage=1
stop_stage=100
force=false
dry_run=false
help_message="Usage: $0 [options]
e.g.: $0 --dir exp/fhvae_scaling
      $0 --model exp/fhvae --feats data/train/feats.scp --num-pieces 100000
      $0 --size tiny

Stages: 1 step times (table 2), 2 sequences, 3 scaling, 4 model, 5 pieces, 6 histogram (figure 1), 7 pictures,
  8 results. A stage that has finished with the same inputs and options is skipped.
Options:
  --dir DIR                 where everything goes (default: egs/fhvae_scaling/exp); results.txt and results.csv are there
  --size tiny|default       tiny: little of everything, to see whether it works (default: $size)
  --model DIR               an FHVAE that train-fhvae has trained, for figure 1 (default: one of drawn sequences)
  --feats SCP               features of 80 log mel filters or what --model takes, for figure 1; goes with --model
  --num-pieces N            sequences of figure 1, pieces of utterances (default: 10000; 100000 with --model)
  --num-rounds N            steps with each size of the cache (default: 20, tiny 4)
  --forms LIST              forms of the discriminative term that are timed (default: $forms)
  --max-memory N            MiB that a training may ask for in stage 3, and arrays in stage 1 (default: $max_memory)
  --max-sequences N         training sequences up to which stage 3 goes, a power of ten (default: 1000000)
  --precision float32|bf16  of the networks' products in stage 1 (default: $precision)
  --device cpu|cuda         of stage 1 (default: $device)
  --num-threads N           threads of stage 1 (default: $num_threads)
  --stage N, --stop-stage N first and last stage (default: all)
  --force                   run stages that have finished, too
  --dry-run                 only say what would be done: stages, what they read and make, sizes
  --config FILE             settings, one name=value a line; the command line wins"
. "$root/utils/parse_options.sh"

fail() {
  echo "$0: ERROR: $*" >&2
  exit 1
}

[ $# -eq 0 ] || fail "unexpected argument '$1'"
for option in max_memory num_threads stage stop_stage; do
  [[ ${!option} =~ ^[0-9]+$ ]] || fail "--${option//_/-} ${!option}: expected a number"
done
[[ $size == tiny || $size == default ]] || fail "--size $size: expected tiny or default"
[[ -n $model && -n $feats || -z $model$feats ]] || fail "--model and --feats go together"
[ -z "$model" ] || [ -f "$model/final.pt" ] || fail "--model $model: there is no model in it"
[ -z "$feats" ] || [ -f "$feats" ] || fail "--feats $feats: no such file"

cache_sizes=10,100,1000,2000,5000,10000,20000
network=() small_network=(--num-layers=1 --hidden-dim=64 --sequence-batch-size=1000)
training=(--num-layers=1 --hidden-dim=64 --sequence-batch-size=500 --num-steps=600 --steps-per-epoch=200)
num_utts=2500 scaling_utts=1000
if [ "$size" = tiny ]; then
  cache_sizes=10,300 num_utts=60 scaling_utts=50
  : "${max_sequences:=1000}" "${num_pieces:=100}" "${num_rounds:=4}"
  network=(--num-layers=1 --hidden-dim=8 --segment-batch-size=16)
  small_network=(--arch=fc --hidden-dim=8 --num-layers=1 --sequence-batch-size=20 --num-steps=3)
  training=(--arch=fc --hidden-dim=16 --sequence-batch-size=40 --segment-batch-size=32 --num-steps=30 --steps-per-epoch=30)
fi
: "${max_sequences:=1000000}" "${num_pieces:=$([ -n "$model" ] && echo 100000 || echo 10000)}" "${num_rounds:=20}"
[[ $max_sequences =~ ^1000*$ ]] || fail "--max-sequences $max_sequences: expected 100, 1000, 10000, ..."
[[ $num_pieces =~ ^[1-9][0-9]+$ ]] || fail "--num-pieces $num_pieces: expected a number, 10 at least"
[[ $num_rounds =~ ^[1-9][0-9]*$ ]] || fail "--num-rounds $num_rounds: expected a number above zero"

dir=$(realpath -m "${dir:-$here/exp}")
[[ $dir != *[[:space:]]* && $root != *[[:space:]]* ]] || fail "'$dir': a path with blanks does not work"
. "$root/path.sh"
. "$root/utils/stages.sh"
python3 -c 'import matplotlib' 2>/dev/null || fail "pictures need matplotlib: pip install 'voxark[plot]'"
python3 -c 'import torch' 2>/dev/null || fail "networks need torch: pip install 'voxark[neural]'"
local_dir=$root/local/fhvae_scaling
data=$dir/data pieces=$dir/pieces encoder=${model:-$dir/model}

numbers=100
if [ "$size" = default ]; then numbers=1000; fi
for ((n = 10 * numbers; n <= max_sequences; n *= 10)); do numbers+=,$n; done

stage_step_times() {
  "$local_dir/step_times.py" --sizes="$cache_sizes" --forms="$forms" --num-rounds="$num_rounds" \
    --max-memory="$max_memory" --precision="$precision" --device="$device" --num-threads="$num_threads" \
    ${network[@]+"${network[@]}"} "$dir/table2.tsv"
}

stage_sequences() {
  rm -rf "$data"
  "$local_dir/make_sequences.py" --num-utts="$scaling_utts" --num-keys="$((max_sequences + 50))" "$data/scaling"
  if [ -z "$model" ]; then
    "$local_dir/make_sequences.py" --num-utts="$num_utts" --num-keys=1 --srand=1 "$data/figure1"
  fi
}

stage_scaling() {
  "$local_dir/measure_scaling.py" --sizes="$numbers" --max-memory="$max_memory" "$data/scaling" "$dir/scaling.tsv" -- \
    "${small_network[@]}"
}

stage_model() {
  if [ -n "$model" ]; then return 0; fi
  rm -rf "$dir/model"
  train-fhvae "${training[@]}" "scp:$data/figure1/feats.scp" "$dir/model"
}

# Segments 3 frames apart, two of them a sequence: an utterance of 4 s is some sixty sequences.
stage_pieces() {
  rm -rf "$pieces"
  mkdir -p "$pieces"
  "$local_dir/encode_pieces.py" --segment-shift=3 --num-segments=2 --max-pieces="$num_pieces" "$encoder" \
    "scp:${feats:-$data/figure1/feats.scp}" "ark:$pieces/z2.ark" "ark:$pieces/mu2.ark"
}

stage_histogram() {
  plot-fhvae histogram "$dir/figure1.svg" "ark:$pieces/z2.ark" "ark:$pieces/mu2.ark" 2>"$dir/figure1.log" || {
    cat "$dir/figure1.log" >&2
    return 1
  }
  "$local_dir/other_sequences.py" "ark:$pieces/z2.ark" "ark:$pieces/mu2.ark" "$dir/others.tsv"
}

stage_pictures() {
  "$local_dir/plot_step_times.py" "$dir/table2.tsv" "$dir/table2.svg"
  "$local_dir/plot_scaling.py" "$dir/scaling.tsv" "$dir/scaling.svg"
}

stage_results() {
  "$local_dir/summarise.py" "$dir/table2.tsv" "$dir/scaling.tsv" "$dir/figure1.log" "$dir/others.tsv" \
    "$dir/results.txt" "$dir/results.csv"
}

core="$root/voxark/fhvae/objective.py $root/voxark/fhvae/trainer.py $local_dir/forms.py"
stages_begin "$dir/.stages" "$stage" "$stop_stage" "$force" "$dir/results.txt" "$dir/results.csv"
run_stage step_times --title "time of a step against the size of the cache" --reads "$local_dir/step_times.py $core" \
  --options "$cache_sizes $forms $num_rounds $max_memory $precision $device $num_threads ${network[*]-}" \
  --makes "$dir/table2.tsv"
run_stage sequences --title "sequences" --options "$max_sequences $num_utts $scaling_utts ${model:+given}" \
  --reads "$local_dir/make_sequences.py" --makes "$data/scaling/keys.scp"
run_stage scaling --title "memory and time against the number of sequences" --after sequences \
  --options "$numbers $max_memory ${small_network[*]}" --makes "$dir/scaling.tsv" \
  --reads "$local_dir/measure_scaling.py $local_dir/measure_training.py $root/voxark/fhvae/sources.py $core"
run_stage model --title "model for figure 1" --after sequences --options "${training[*]} $model" \
  --makes "$encoder/final.pt"
run_stage pieces --title "latent variables of pieces of utterances" --after model --options "$num_pieces" \
  --reads "$local_dir/encode_pieces.py $encoder/final.pt $feats" --makes "$pieces/z2.ark $pieces/mu2.ark"
run_stage histogram --title "histogram of figure 1" --after pieces --reads "$root/voxark/report/fhvae_histogram.py \
  $local_dir/other_sequences.py" --makes "$dir/figure1.svg $dir/figure1.log $dir/others.tsv"
run_stage pictures --title "pictures" --after "step_times scaling" --makes "$dir/table2.svg $dir/scaling.svg" \
  --reads "$local_dir/plot_step_times.py $local_dir/plot_scaling.py $local_dir/published.py"
run_stage results --title "results" --after "step_times scaling histogram" --reads "$local_dir/summarise.py" \
  --makes "$dir/results.txt $dir/results.csv"
if stages_complete; then
  cat "$dir/results.txt"
  echo
  echo "Results:  $dir/results.txt, $dir/results.csv"
  echo "Pictures: $dir/table2.svg, $dir/scaling.svg, $dir/figure1.svg"
fi
