#!/usr/bin/env bash
# The pictures of a lecture on GMM, EM, HMM and PLDA, drawn with voxark's programs, and one page that shows them.

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
root=$(cd "$here/../.." && pwd -P)

dir=
seed=0
quick=false
format=svg
stage=1
stop_stage=100
force=false
dry_run=false
nj=2
cmd=run.py
help_message="Usage: $0 [options]
e.g.: $0 --dir exp/lecture
      $0 --quick true --format png

Stages: 1 data, 2 mixtures, 3 training step by step, 4 lower bound, 5 random starts, 6 HMM, 7 PLDA,
  8 pictures, 9 page. A stage that has finished with the same inputs and options is skipped.
Options:
  --dir DIR                 where everything goes (default: egs/lecture/exp); the page is DIR/index.html
  --seed N                  of the data and of the random starts (default: $seed)
  --quick true              little data and few iterations: to see whether everything works
  --format svg|png          of the pictures (default: $format)
  --stage N, --stop-stage N first and last stage (default: all)
  --force                   run stages that have finished, too
  --dry-run                 only say what would be done: stages, what they read and make, sizes
  --nj N                    pictures and trainings at a time (default: $nj)
  --cmd LAUNCHER            how to run jobs (default: $cmd; Kaldi's run.pl, slurm.pl, queue.pl work too)"
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

for option in seed nj stage stop_stage; do
  [[ ${!option} =~ ^[0-9]+$ ]] || fail "--${option//_/-} ${!option}: expected a number"
done
[ "$nj" -gt 0 ] || fail "--nj 0: expected at least one job"
[[ $format == svg || $format == png ]] || fail "--format $format: expected svg or png"
dir=$(realpath -m "${dir:-$here/exp}")
# Kaldi's pipes and launchers take lines of shell.
for path in "$root" "$dir"; do
  [[ $path != *[[:space:]\'\"\`\$\&\;\|\<\>\(\)\\\*\?]* ]] ||
    fail "'$path': a path with blanks or characters of the shell does not work"
done

. "$root/path.sh"
. "$root/utils/stages.sh"
python3 -c 'import matplotlib' 2>/dev/null || fail "pictures need matplotlib: pip install 'voxark[plot]'"
local_dir=$root/local/lecture
data=$dir/data pictures=$dir/pictures

# What is drawn of each training, with commas; the last of it is as far as it goes.
if [ "$quick" = true ]; then
  sizes=(--num-frames=300 --num-sequences=12 --num-speakers=30)
  num_iters=6 show_viterbi=1,2,6 show_em=1,2,6 show_line=0,1,6 show_chain=0,1,4 show_plda=0,1,3
  num_seeds=3 seed_iters=8
else
  sizes=(--num-frames=600 --num-sequences=40 --num-speakers=80)
  num_iters=20 show_viterbi=1,2,4,8 show_em=1,3,8,16 show_line=0,1,2,3,5,10 show_chain=0,1,3,8 show_plda=0,1,2,10
  num_seeds=12 seed_iters=80
fi

quiet=(--print-args=false --verbose=-1)
last() { echo "${1##*,}"; }

stage_data() {
  rm -rf "$data"
  "$local_dir/make_data.py" "${quiet[@]}" --seed="$seed" "${sizes[@]}" "$data"
}

stage_mixtures() {
  local name part
  mkdir -p "$dir/mixtures"
  for name in gmm1d gmm2d; do
    for part in grid feats; do
      score-gmm "${quiet[@]}" --double=true "$data/$name/true.gmm" "ark:$data/$name/$part" \
        "ark,t:$dir/mixtures/$name.$part"
    done
  done
}

# step_by_step <program> <ending of models> <folder> <feats> <number of iterations> [<option>...]: one iteration at a
# time from <folder>/0.<ending>, with the terms of each in one table, <folder>/report.tsv.
step_by_step() {
  local program=$1 ending=$2 folder=$3 feats=$4 number=$5 n
  shift 5
  for ((n = 1; n <= number; n++)); do
    "$program" "${quiet[@]}" --initial-model="$folder/$((n - 1)).$ending" --num-iters=1 "$@" \
      --report-file="$folder/$n.tsv" "$feats" "$folder/$n.$ending"
  done
  for ((n = 1; n <= number; n++)); do
    awk -v n="$n" 'BEGIN { OFS = "\t" } NR > 1 { $1 = n } NR > 1 || n == 1' FS='\t' "$folder/$n.tsv"
  done >"$folder/report.tsv.partial"
  mv "$folder/report.tsv.partial" "$folder/report.tsv"
}

# posteriors <folder> <feats> <iterations, with commas> <by how much the models are earlier>
posteriors() {
  local n
  for n in ${3//,/ }; do
    gmm-get-post "${quiet[@]}" --n=3 "$1/$((n - $4)).gmm" "$2" "ark:$1/$((n - $4)).post"
  done
}

keep=(--double=true --min-gaussian-occupancy=2 --remove-low-count-gaussians=false)

stage_steps() {
  local how feats=ark:$data/gmm2d/feats
  for how in viterbi em; do
    mkdir -p "$dir/$how"
    gmm-copy "${quiet[@]}" --to=full "$data/gmm2d/start.gmm" "$dir/$how/0.gmm"
    step_by_step train-gmm-em gmm "$dir/$how" "$feats" "$num_iters" --training="$how" --covariance=full "${keep[@]}"
  done
  posteriors "$dir/viterbi" "$feats" "$show_viterbi" 1
  posteriors "$dir/em" "$feats" "$show_em" 1
  mkdir -p "$dir/em1d"
  gmm-copy "${quiet[@]}" "$data/gmm1d/start.gmm" "$dir/em1d/0.gmm"
  step_by_step train-gmm-em gmm "$dir/em1d" "ark:$data/gmm1d/feats" "$(last "$show_line")" "${keep[@]}"
  posteriors "$dir/em1d" "ark:$data/gmm1d/grid" "$show_line" 0
}

stage_bound() {
  "$local_dir/make_bound.py" "${quiet[@]}" --component=2 --start=1.7 --num-iters=4 "$data/gmm1d/true.gmm" \
    "$data/gmm1d/feats" "$dir/bound.tsv"
}

stage_seeds() {
  rm -rf "$dir/seeds"
  mkdir -p "$dir/seeds/log"
  $cmd JOB=1:"$num_seeds" "$dir/seeds/log/JOB.log" train-gmm-em --init=random-frames --srand=JOB --num-gauss=5 \
    --num-iters="$seed_iters" "${keep[@]}" --report-file="$dir/seeds/JOB.tsv" "ark:$data/gmm2d/feats" \
    "$dir/seeds/JOB.gmm"
}

stage_chain() {
  local n final feats=ark:$data/hmm/feats
  mkdir -p "$dir/hmm"
  cp "$data/hmm/start.hmm" "$dir/hmm/0.hmm"
  final=$(last "$show_chain")
  step_by_step train-hmm-em hmm "$dir/hmm" "$feats" "$final" --min-gaussian-occupancy=2 \
    --remove-low-count-gaussians=false
  for n in ${show_chain//,/ }; do
    score-hmm "${quiet[@]}" --write-post="ark:$dir/hmm/$n.post" "$dir/hmm/$n.hmm" "$feats" "ark,t:$dir/hmm/$n.likes"
  done
  align-hmm "${quiet[@]}" "$dir/hmm/$final.hmm" "$feats" "ark,t:$dir/hmm/ali"
}

stage_speakers() {
  local n final scored vectors=(ark:"$data/plda/spk2utt" ark:"$data/plda/vectors")
  mkdir -p "$dir/plda"
  final=$(last "$show_plda")
  for n in ${show_plda//,/ }; do
    train-plda "${quiet[@]}" --kaldi-compat=true --num-em-iters="$n" "${vectors[@]}" "$dir/plda/$n.plda"
  done
  train-plda "${quiet[@]}" --kaldi-compat=true --num-em-iters="$final" --report-file="$dir/plda/report.tsv" \
    "${vectors[@]}" "$dir/plda/final.plda"
  plda-info "${quiet[@]}" "$dir/plda/final.plda" >"$dir/plda/info"
  scored=(score-trials "${quiet[@]}" --backend=plda --model="$dir/plda/final.plda" --normalize-length=false)
  "${scored[@]}" "$data/plda/trials_grid" "ark:$data/plda/enroll" "ark:$data/plda/grid" "$dir/plda/scores_grid"
  "${scored[@]}" "$data/plda/trials_all" "ark:$data/plda/vectors" "ark:$data/plda/vectors" "$dir/plda/scores_all"
}

# Each line draws one picture.
drawings() {
  local a=$data/gmm1d b=$data/gmm2d h=$data/hmm p=$data/plda final
  final=$dir/hmm/$(last "$show_chain")
  cat <<END
plot_mixture.py $a/true.gmm $a/feats $a/grid $dir/mixtures/gmm1d.grid $pictures/01_mixture_1d.$format
plot_mixture.py $b/true.gmm $b/feats $b/grid $dir/mixtures/gmm2d.grid $pictures/02_mixture_2d.$format
plot_sampling.py $a/true.gmm $a/feats $a/labels $pictures/03_sampling.$format
plot_steps.py --training=viterbi --show=$show_viterbi $b/feats $dir/viterbi $pictures/04_viterbi.$format
plot_steps.py --training=em --show=$show_em $b/feats $dir/em $pictures/05_em.$format
plot_densities.py --show=$show_line $a/feats $a/grid $a/true.gmm $dir/em1d $pictures/06_em_1d.$format
plot_terms.py $dir/em/report.tsv $pictures/07_terms.$format
plot_bound.py $dir/bound.tsv $pictures/08_bound.$format
plot_convergence.py $dir/em/report.tsv $dir/viterbi/report.tsv $dir/mixtures/gmm2d.feats $pictures/09_convergence.$format
plot_optima.py $b/feats $dir/seeds $pictures/10_optima.$format
plot_hmm.py $final.hmm $h/true.hmm $h/feats $h/labels $dir/hmm/ali $pictures/11_hmm.$format
plot_lattice.py $final.hmm $h/feats $final.post $dir/hmm/ali $pictures/12_lattice.$format
plot_hmm_steps.py --show=$show_chain $h/feats $h/labels $h/true.hmm $dir/hmm $pictures/13_hmm_em.$format
plot_terms.py $dir/hmm/report.tsv $pictures/14_hmm_terms.$format
plot_plda.py $dir/plda/final.plda $p/true.plda $p/vectors $p/means $pictures/15_plda.$format
plot_plda_steps.py --show=$show_plda $p/true.plda $p/means $dir/plda $pictures/16_plda_em.$format
plot_terms.py --unit=vector $dir/plda/report.tsv $pictures/17_plda_terms.$format
plot_llr.py $p/enroll $p/grid $dir/plda/scores_grid $p/trials_all $dir/plda/scores_all $pictures/18_llr.$format
END
}

stage_pictures() {
  local program rest
  rm -rf "$pictures"
  mkdir -p "$pictures"
  drawings | while read -r program rest; do
    echo "$local_dir/$program ${quiet[*]} $rest"
  done | xargs -P "$nj" -d '\n' -I LINE bash -c LINE
}

stage_page() {
  "$local_dir/make_page.py" "${quiet[@]}" --format="$format" "$pictures" "$dir/index.html"
}

stages_begin "$dir/.stages" "$stage" "$stop_stage" "$force" "$dir/index.html"
run_stage data --title "data" --options "$seed ${sizes[*]}" --reads "$local_dir/make_data.py $local_dir/models.py" \
  --makes "$data/gmm1d/feats $data/gmm2d/feats $data/hmm/feats $data/plda/trials_all"
run_stage mixtures --title "mixtures" --after data --makes "$dir/mixtures/gmm1d.grid $dir/mixtures/gmm2d.feats"
run_stage steps --title "Viterbi training and EM, step by step" --after data \
  --options "$num_iters $show_viterbi $show_em $show_line ${keep[*]} $(declare -f step_by_step posteriors)" \
  --makes "$dir/viterbi/report.tsv $dir/em/report.tsv $dir/em1d/report.tsv"
run_stage bound --title "lower bound" --after data --reads "$local_dir/make_bound.py" --makes "$dir/bound.tsv"
run_stage seeds --title "random starts" --after data --options "$num_seeds $seed_iters ${keep[*]}" \
  --makes "$dir/seeds/$num_seeds.gmm"
run_stage chain --title "HMM" --after data --options "$show_chain $(declare -f step_by_step)" --makes "$dir/hmm/ali"
run_stage speakers --title "PLDA" --after data --options "$show_plda" \
  --makes "$dir/plda/report.tsv $dir/plda/scores_grid $dir/plda/scores_all"
run_stage pictures --title "pictures" --after "mixtures steps bound seeds chain speakers" --options "$(drawings)" \
  --reads "$(echo "$local_dir"/*.py) $root/voxark/report/drawing.py $root/voxark/report/rows.py" --makes "$(drawings | awk '{ print $NF }')"
run_stage page --title "page" --after pictures --reads "$local_dir/make_page.py $local_dir/slides.py $root/voxark/report/page.py" \
  --makes "$dir/index.html"
if stages_complete; then
  echo
  echo "Page:     $dir/index.html"
  echo "Pictures: $pictures/*.$format"
fi
