#!/usr/bin/env bash
# The experiments that a tutorial on end-to-end speaker verification asks for, on speakers whose truth is known.

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
root=$(cd "$here/../.." && pwd -P)

dir=
seed=0
quick=false
format=svg
network_conf=$here/network.conf
scored=
num_seeds=3
num_speakers=300
few_speakers=50,120
num_epochs=5
num_test_speakers=200
num_repetitions=10000
num_trainings=20
dplda_seeds=3
stage=1
stop_stage=100
force=false
dry_run=false
nj=2
cmd=run.py
help_message="Usage: $0 [options]
e.g.: $0 --dir exp/e2e_tutorial
      $0 --quick true
      $0 --config egs/e2e_tutorial/big.conf --nj 16

Stages: 1 densities, 2 triplets, 3 weights, 4 variance, 5 batches, 6 data, 7 start, 8 networks, 9 measuring them,
  10 correlations, 11 batch size, 12 weights of DPLDA, 13 calibration of PLDA, 14 pictures, 15 page.
  A stage that has finished with the same inputs and options is skipped.
Options:
  --dir DIR                 where everything goes (default: egs/e2e_tutorial/exp); the page is DIR/index.html
  --seed N                  of everything that is drawn (default: $seed)
  --quick true              little of everything: to see whether it works
  --format svg|png          of the pictures (default: $format)
  --network-conf FILE       options of train-e2e-verif for all networks (default: egs/e2e_tutorial/network.conf)
  --scored FILE             more systems whose correlations are measured, a line each:
                            <name> <trials> <scores> <utt2spk>; scores are log-likelihood ratios
  --num-seeds N             training sets and networks of each kind (default: $num_seeds)
  --num-speakers N          training speakers of a network (default: $num_speakers)
  --few-speakers N,N        smaller numbers of them, for t-norm and calibration (default: $few_speakers)
  --num-epochs N            epochs of the start, and of what goes on from it; twice as many from scratch (default: $num_epochs)
  --num-test-speakers N     test speakers (default: $num_test_speakers)
  --num-repetitions N       draws of all losses and numbers of batches, stages 4 and 5 (default: $num_repetitions)
  --num-trainings N         trainings of PLDA and DPLDA for each setting, stages 12 and 13 (default: $num_trainings)
  --dplda-seeds N           runs for each size of mini-batches (default: $dplda_seeds)
  --stage N, --stop-stage N first and last stage (default: all)
  --force                   run stages that have finished, too
  --dry-run                 only say what would be done: stages, what they read and make, sizes
  --nj N                    jobs at a time (default: $nj)
  --cmd LAUNCHER            how to run jobs (default: $cmd; Kaldi's run.pl, slurm.pl, queue.pl work too)
  --config FILE             settings, one name=value a line; the command line wins"
. "$root/utils/parse_options.sh"
if [ $# -ne 0 ]; then
  echo "$help_message" >&2
  echo "$0: ERROR: unexpected argument '$1'" >&2
  exit 1
fi

fail() {
  echo "$0: ERROR: $*" >&2
  exit 1
}

for option in seed nj stage stop_stage num_seeds num_speakers num_epochs num_test_speakers num_repetitions \
  num_trainings dplda_seeds; do
  [[ ${!option} =~ ^[0-9]+$ ]] || fail "--${option//_/-} ${!option}: expected a number"
done
[[ $few_speakers =~ ^[0-9]+(,[0-9]+)*$ ]] || fail "--few-speakers $few_speakers: expected numbers with commas"
[ "$nj" -gt 0 ] || fail "--nj 0: expected at least one job"
for option in num_seeds dplda_seeds num_epochs num_trainings; do
  [ "${!option}" -gt 0 ] || fail "--${option//_/-} 0: at least 1 is expected"
done
[[ $format == svg || $format == png ]] || fail "--format $format: expected svg or png"
[ -f "$network_conf" ] || fail "--network-conf $network_conf: no such file"
# check_scored <list>: four words a line, names of their own, files that are there; sets scored_files
scored_files=
check_scored() {
  local name trials scores utt2spk more file line=0 taken=' PLDA DPLDA network '
  while read -r name trials scores utt2spk more || [ -n "$name" ]; do
    line=$((line + 1))
    if [ -z "$utt2spk" ] || [ -n "$more" ]; then
      fail "$1:$line: four words were expected: <name> <trials> <scores> <utt2spk>"
    fi
    [[ $name =~ ^[A-Za-z0-9][A-Za-z0-9_.+-]*$ ]] || fail "$1:$line: '$name' cannot be the name of a file"
    [[ $taken != *" $name "* ]] || fail "$1:$line: there is another system called $name"
    taken+="$name "
    for file in "$trials" "$scores" "$utt2spk"; do
      [ -f "$file" ] || fail "$1:$line: $file: no such file"
      scored_files+=" $file"
    done
  done <"$1"
}

if [ -n "$scored" ]; then
  [ -f "$scored" ] || fail "--scored $scored: no such file"
  check_scored "$scored"
fi
dir=$(realpath -m "${dir:-$here/exp}")
network_conf=$(cd "$(dirname "$network_conf")" && pwd -P)/$(basename "$network_conf")
# Kaldi's pipes and launchers take lines of shell.
for path in "$root" "$dir" "$network_conf"; do
  [[ $path != *[[:space:]\'\"\`\$\&\;\|\<\>\(\)\\\*\?]* ]] ||
    fail "'$path': a path with blanks or characters of the shell does not work"
done

. "$root/path.sh"
. "$root/utils/stages.sh"
python3 -c 'import matplotlib' 2>/dev/null || fail "pictures need matplotlib: pip install 'voxark[plot]'"
python3 -c 'import torch' 2>/dev/null || fail "networks need torch: pip install 'voxark[neural]'"
local_dir=$root/local/e2e_tutorial
data=$dir/data pictures=$dir/pictures dplda=$dir/dplda correlations=$dir/correlations

draws=200000 dplda_speakers=600 dplda_epochs=30 batch_sizes=50,150,500,1200
calibration_speakers=25,50,100,200,400 extra_options=''
if [ "$quick" = true ]; then
  num_seeds=1 num_speakers=60 few_speakers=30 num_epochs=1 num_test_speakers=60 num_repetitions=2000 num_trainings=2
  draws=50000 dplda_seeds=1 dplda_speakers=100 dplda_epochs=4 batch_sizes=50,200 calibration_speakers=25,100
  extra_options='--batches-per-epoch=10'
fi

quiet=(--print-args=false --verbose=-1)
jobs_at_a_time=(--max-jobs-run "$nj")

# draw_toy <program> <name of the picture> <option>...
draw_toy() {
  local program=$1 name=$2
  shift 2
  mkdir -p "$pictures"
  "$local_dir/$program.py" "${quiet[@]}" "$@" "$pictures/$name.tsv" "$pictures/$name.$format"
}

stage_densities() { draw_toy toy_densities 01_densities --srand="$seed" --num-draws="$((5 * draws))"; }
stage_triplets() { draw_toy toy_triplets 02_triplets --srand="$seed" --num-draws="$draws"; }
stage_weights() { draw_toy blue_weights 03_weights; }
stage_variance() { draw_toy blue_variance 04_variance --srand="$seed" --num-repetitions="$num_repetitions"; }
stage_batches() { draw_toy batch_estimates 05_batches --srand="$seed" --num-batches="$((2 * num_repetitions))"; }

# make_data <folder> <number that makes the seed> <option>...
make_data() {
  local folder=$1 number=$2
  shift 2
  "$local_dir/make_data.py" "${quiet[@]}" --srand="$((1000 * seed + number))" "$@" "$folder"
}

# first_speakers <data> <number> <folder>: the part of a data directory that is its first speakers'
first_speakers() {
  mkdir -p "$3"
  awk -v n="$2" '{ s = $2; sub(".*s", "", s) } s + 0 < n' "$1/utt2spk" >"$3/utt2spk"
  filter_scp "$3/utt2spk" "$1/feats.scp" >"$3/feats.scp"
}

stage_data() {
  local k n
  rm -rf "$data"
  make_data "$data/test" 901 --num-speakers="$num_test_speakers" --utts=4
  make_data "$data/dev" 902 --num-speakers=80 --utts=4
  make_data "$data/dplda_train" 903 --num-speakers="$dplda_speakers" --utts=5 --write-feats=false
  for ((k = 1; k <= num_seeds; k++)); do
    make_data "$data/train_$k" "$k" --num-speakers="$num_speakers" --utts=2-20
    for n in ${few_speakers//,/ }; do
      first_speakers "$data/train_$k" "$n" "$data/train_${k}_$n"
    done
  done
  make-trials "${quiet[@]}" "$data/test/utt2spk" "$data/test/trials"
}

# What is trained, a line each: <experiment> <system> <number of speakers> <seed> <model> <data>, then the options.
# job <experiment> <system> <speakers> <seed> <option>...
job() {
  local experiment=$1 system=$2 speakers=$3 k=$4 from
  shift 4
  from=$data/train_$k
  [ "$speakers" = "$num_speakers" ] || from=${from}_$speakers
  echo "$experiment $system $speakers $k $dir/nets/$k/$experiment-$system-$speakers $from --srand=$((100 * seed + k))" \
    "--batch-speakers=$((speakers < 96 ? speakers / 2 : 48)) $* $extra_options"
}

all_jobs() {
  local k n go_on few=$num_epochs more=$((2 * num_epochs))
  for ((k = 1; k <= num_seeds; k++)); do
    job 2x2 start "$num_speakers" "$k" --loss=identification --batches=identification --num-epochs="$few"
    go_on="--init-model=$dir/nets/$k/2x2-start-$num_speakers --num-epochs=$few --lr=0.002"
    job 2x2 joint-identification "$num_speakers" "$k" --loss=identification --batches=identification "$go_on"
    job 2x2 joint-verification "$num_speakers" "$k" --loss=verification "$go_on"
    job 2x2 backend-verification "$num_speakers" "$k" --loss=verification --freeze-extractor=true "$go_on"
    job schedule identification "$num_speakers" "$k" --loss=identification --batches=identification \
      --num-epochs="$more"
    job schedule verification "$num_speakers" "$k" --loss=verification --num-epochs="$more"
    job schedule constant "$num_speakers" "$k" --loss=joint --num-epochs="$more"
    job schedule linear "$num_speakers" "$k" --loss=joint --loss-schedule=linear --ramp-epochs="$few" \
      --num-epochs="$more"
    for n in uniform "blue --c=0.3" meta; do
      job weights "${n%% *}" "$num_speakers" "$k" --loss=verification --batches=A --utts-per-speaker=0 \
        --trial-weights="$n" "$go_on" --batch-speakers=16
    done
    for n in ${few_speakers//,/ } "$num_speakers"; do
      job speakers identification "$n" "$k" --loss=identification --batches=identification --backend=cosine \
        --num-epochs="$more"
      job speakers verification "$n" "$k" --loss=verification --backend=cosine --num-epochs="$more"
      # with all speakers this is the system "schedule verification"
      [ "$n" = "$num_speakers" ] || job calibration dplda "$n" "$k" --loss=verification --num-epochs="$more"
    done
  done
}

# train <name of the list>: the systems whose lines are on standard input
train() {
  local list=$dir/nets/$1.jobs log=$dir/nets/log/$1
  rm -rf "$log"
  mkdir -p "$log"
  cut -d' ' -f5- >"$list"
  $cmd "${jobs_at_a_time[@]}" JOB=1:"$(wc -l <"$list")" "$log/JOB.log" \
    "$local_dir/train_job.sh" "$list" JOB "$network_conf" "$data/dev"
}

stage_start() { all_jobs | awk '$2 == "start"' | train start; }
stage_networks() { all_jobs | awk '$2 != "start"' | train others; }
stage_measure() {
  all_jobs | cut -d' ' -f1-6 >"$dir/systems"
  "$local_dir/evaluate.py" "${quiet[@]}" "$dir/systems" "$data/test" "$dir/systems.tsv"
}

# correlated <name> <trials> <scores> <utt2spk>: of scores and of losses, added to the list
correlated() {
  local on
  for on in score loss; do
    estimate-trial-correlations "${quiet[@]}" --num-groups=20 --on="$on" --utt2spk="ark:$4" "$2" "$3" "$correlations/$1.$on.json"
    echo "$1 $on $correlations/$1.$on.json" >>"$correlations/list"
  done
}

stage_correlations() {
  local network=$dir/nets/1/schedule-constant-$num_speakers trials=$data/test/trials name vectors model options
  local of_test=ark:$data/test/vectors of_train=ark:$data/dplda_train/vectors utt2spk=$data/dplda_train/utt2spk
  rm -rf "$correlations"
  mkdir -p "$correlations"
  utt2spk_to_spk2utt "$utt2spk" >"$correlations/spk2utt"
  train-plda "${quiet[@]}" "ark:$correlations/spk2utt" "$of_train" "$correlations/plda"
  train-dplda "${quiet[@]}" --init="$correlations/plda" --dev-share=0 --regularize=0.1 "$of_train" "ark:$utt2spk" \
    "$correlations/dplda"
  extract-embeddings "${quiet[@]}" --device=cpu "$network" "scp:$data/test/feats.scp" "ark:$correlations/embeddings"
  while read -r name vectors model options; do
    # shellcheck disable=SC2086  # options are several words
    score-trials "${quiet[@]}" --model="$model" $options "$trials" "$vectors" "$vectors" "$correlations/$name.raw"
    calibrate-scores "${quiet[@]}" --train-trials="$trials" --cross-validate=5 --utt2spk="ark:$data/test/utt2spk" \
      "$correlations/$name.raw" "$correlations/$name.scores"
    correlated "$name" "$trials" "$correlations/$name.scores" "$data/test/utt2spk"
  done <<END_OF_SYSTEMS
PLDA $of_test $correlations/plda --backend=plda --normalize-length=false
DPLDA $of_test $correlations/dplda --backend=dplda
network ark:$correlations/embeddings $network --backend=e2e
END_OF_SYSTEMS
  if [ -n "$scored" ]; then
    while read -r name trials vectors utt2spk || [ -n "$name" ]; do
      correlated "$name" "$trials" "$vectors" "$utt2spk"
    done <"$scored"
  fi
}

stage_batch_size() {
  local from=("ark:$data/dplda_train/vectors" "ark:$data/dplda_train/utt2spk") n k kind
  local common=(--print-args=false --start=identity --regularize=0.003 "--dev-vectors=ark:$data/test/vectors"
    "--dev-utt2spk=ark:$data/test/utt2spk")
  rm -rf "$dplda"
  mkdir -p "$dplda/log"
  train-dplda "${quiet[@]}" "${common[@]}" --max-iters=200 --patience=1000 --report-file="$dplda/lbfgs.tsv" \
    "${from[@]}" "$dplda/lbfgs.dplda"
  for n in ${batch_sizes//,/ }; do
    for kind in "A $((n / 5))" "B $((n / 2))"; do
      for ((k = 1; k <= dplda_seeds; k++)); do
        echo "${kind% *} ${kind#* } $k"
      done
    done
  done >"$dplda/jobs"
  # shellcheck disable=SC2016  # the job's shell expands these
  $cmd "${jobs_at_a_time[@]}" JOB=1:"$(wc -l <"$dplda/jobs")" "$dplda/log/JOB.log" "$local_dir/batch_job.sh" \
    "$dplda" JOB "${common[@]}" --batches-per-epoch=20 --max-iters="$dplda_epochs" "${from[@]}"
}

stage_weights_of_dplda() {
  "$local_dir/weights_of_dplda.py" "${quiet[@]}" --srand="$seed" --num-repetitions="$num_trainings" \
    --num-test-speakers="$num_test_speakers" "$dir/weights_of_dplda.tsv"
}

stage_calibration() {
  "$local_dir/calibration_of_plda.py" "${quiet[@]}" --srand="$seed" --num-repetitions="$num_trainings" \
    --speakers="$calibration_speakers" --num-test-speakers="$num_test_speakers" "$dir/calibration_of_plda.tsv"
}

# Each line draws one picture.
drawings() {
  local systems=$dir/systems.tsv
  cat <<END
plot_correlations.py $correlations/list $pictures/06_correlations.tsv $pictures/06_correlations.$format
plot_batch_size.py $dplda $pictures/07_batch_size.tsv $pictures/07_batch_size.$format
plot_two_by_two.py $systems $pictures/08_two_by_two.tsv $pictures/08_two_by_two.$format
plot_schedule.py $systems $pictures/09_schedule.tsv $pictures/09_schedule.$format
plot_trial_weights.py $dir/weights_of_dplda.tsv $systems $pictures/10_trial_weights.tsv $pictures/10_trial_weights.$format
plot_tnorm.py $systems $pictures/11_tnorm.tsv $pictures/11_tnorm.$format
plot_calibration.py $dir/calibration_of_plda.tsv $systems $pictures/12_calibration.tsv $pictures/12_calibration.$format
END
}

stage_pictures() {
  local program rest
  drawings | while read -r program rest; do
    echo "$local_dir/$program ${quiet[*]} $rest"
  done | xargs -P "$nj" -d '\n' -I LINE bash -c LINE
}

stage_page() {
  "$local_dir/make_page.py" "${quiet[@]}" --format="$format" "$pictures" "$dir/index.html"
}

# toy <stage> <title> <picture> <options> <program>: a stage that computes and draws one picture
toy() {
  run_stage "$1" --title "$2" --options "$format $4 $(declare -f draw_toy)" --reads "$local_dir/$5.py $shared" \
    --makes "$pictures/$3.tsv $pictures/$3.$format"
}

shared="$local_dir/world.py $local_dir/spread.py $local_dir/simulated_losses.py $root/voxark/report/drawing.py"
shared+=" $root/voxark/report/rows.py $root/voxark/trials/blue.py"
stages_begin "$dir/.stages" "$stage" "$stop_stage" "$force" "$dir/index.html"
toy densities "identification and verification error" 01_densities "$seed $draws" toy_densities
toy triplets "triplets" 02_triplets "$seed $draws" toy_triplets
toy weights "weights of trials" 03_weights "" blue_weights
toy variance "variance of weighted averages" 04_variance "$seed $num_repetitions" blue_variance
toy batches "estimates of mini-batches" 05_batches "$seed $num_repetitions" batch_estimates
run_stage data --title "simulated recordings" --reads "$local_dir/make_data.py $local_dir/world.py" --options "$seed \
  $num_seeds $num_speakers $few_speakers $num_test_speakers $dplda_speakers $(declare -f make_data first_speakers)" \
  --makes "$data/test/trials $data/test/feats.scp"
run_stage start --title "networks that identify" --after data --reads "$network_conf $local_dir/train_job.sh" \
  --options "$(all_jobs | awk '$2 == "start"') $(declare -f train)" \
  --makes "$dir/nets/1/2x2-start-$num_speakers/final.pt"
run_stage networks --title "networks of all experiments" --after start \
  --options "$(all_jobs)" --makes "$(all_jobs | awk '{ print $5 "/final.pt" }')"
run_stage measure --title "measuring the networks" --after networks --makes "$dir/systems.tsv" \
  --reads "$local_dir/evaluate.py $local_dir/measuring.py $local_dir/spread.py"
run_stage correlations --title "correlations of trials" --after networks --options "$(declare -f correlated)" \
  --reads "$scored $scored_files" --makes "$correlations/list"
run_stage batch_size --title "sizes of mini-batches" --after data --reads "$local_dir/batch_job.sh" \
  --options "$batch_sizes $dplda_seeds $dplda_epochs" --makes "$dplda/lbfgs.tsv"
run_stage weights_of_dplda --title "weights in the training of DPLDA" \
  --options "$seed $num_trainings $num_test_speakers" \
  --reads "$local_dir/weights_of_dplda.py $local_dir/measuring.py $shared" --makes "$dir/weights_of_dplda.tsv"
run_stage calibration --title "calibration of PLDA" \
  --options "$seed $num_trainings $calibration_speakers $num_test_speakers" \
  --reads "$local_dir/calibration_of_plda.py $local_dir/measuring.py $shared" --makes "$dir/calibration_of_plda.tsv"
run_stage pictures --title "pictures" --after "measure correlations batch_size weights_of_dplda calibration" \
  --options "$(drawings)" --reads "$(echo "$local_dir"/plot_*.py) $local_dir/system_plots.py $shared" \
  --makes "$(drawings | awk '{ print $NF }')"
run_stage page --title "page" --after "densities triplets weights variance batches pictures" \
  --reads "$local_dir/make_page.py $local_dir/slides.py $root/voxark/report/page.py" --makes "$dir/index.html"
if stages_complete; then
  echo
  echo "Page:     $dir/index.html"
  echo "Pictures: $pictures/*.$format, their numbers beside them in *.tsv"
fi
