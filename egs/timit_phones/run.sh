#!/usr/bin/env bash
# Phone segmentation by a loop of phone HMMs, and voice activity detection in noise, on TIMIT or a sample of it.

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
root=$(cd "$here/../.." && pwd -P)

data=
noise=
dir=$here/exp
stage=1
stop_stage=100
force=false
dry_run=false
nj=2
cmd=run.py
srand=0
cmvn=speaker-var
num_gauss=4
num_iters=10
num_realign=0
lm_scale=3
insertion_penalty=3
frame_gauss=8
vad_gauss=8
snrs="20 10 5 0"
cv=false
cv_cmvn="speaker-var speaker-mean utterance-var"
cv_gauss="1 2 4 8"
cv_lm_scales="2 3 4"
cv_penalties="-3 0 3"
cv_frame_gauss="1 4 8 16"
help_message="Usage: $0 [options] --data DIR
e.g.: $0 --data ../shared/data/timit_sample --noise ../shared/data/noise_rir/noise

DIR has two Kaldi data directories, train and test, with wav.scp, utt2spk and phones.ctm (TIMIT's 61 phones), and
test/trials. Stages: 1 data, 2 MFCC, 3 labels, 4 cross-validation (with --cv true), 5 phone models, 6 phone loop,
7 classifiers of single frames, 8 noisy recordings, 9 voice activity, 10 tables. A stage that has finished with the same
inputs and options is skipped.

  --data DIR                  the corpus
  --noise DIR                 recordings of noise (wav.scp) for stages 8 and 9 (default: none, clean recordings only)
  --dir DIR                   where everything goes (default: egs/timit_phones/exp)
  --stage N, --stop-stage N   first and last stage (default: all)
  --force                     run stages that have finished, too
  --dry-run                   only say what would be done: stages, what they read and make, sizes
  --nj N                      jobs at a time (default: $nj)
  --cmd LAUNCHER              how to run jobs (default: $cmd)
  --srand N                   seed of noises and models (default: $srand)
  --cmvn KIND                 speaker-var, speaker-mean or utterance-var (default: $cmvn)
  --num-gauss N               Gaussians of each state of a phone (default: $num_gauss)
  --num-iters N               EM iterations of each phone (default: $num_iters)
  --num-realign N             forced alignments of the training data after the hand labels (default: $num_realign)
  --lm-scale X, --insertion-penalty X   of the phone loop (default: $lm_scale, $insertion_penalty)
  --frame-gauss N             Gaussians of a phone in the classifier of single frames (default: $frame_gauss)
  --vad-gauss N               Gaussians of a class in the trained voice activity detector (default: $vad_gauss)
  --snrs \"DB ...\"             signal-to-noise ratios (default: $snrs)
  --cv true                   try settings on the training speakers: five folds of speakers (default: $cv)
  --cv-cmvn, --cv-gauss, --cv-lm-scales, --cv-penalties, --cv-frame-gauss \"...\"   which settings"
. "$root/utils/parse_options.sh"

fail() {
  echo "$0: ERROR: $*" >&2
  exit 1
}

[ $# -eq 0 ] || fail "unexpected argument '$1'"
[ -n "$data" ] || fail "--data DIR is needed (see --help)"
for file in train/wav.scp train/phones.ctm test/wav.scp test/phones.ctm test/trials; do
  [ -f "$data/$file" ] || fail "$data/$file: no such file"
done
[ -z "$noise" ] || [ -f "$noise/wav.scp" ] || fail "$noise/wav.scp: no such file"
case $cmvn in
  speaker-var | speaker-mean | utterance-var) ;;
  *) fail "--cmvn $cmvn: expected speaker-var, speaker-mean or utterance-var" ;;
esac
for option in nj num_gauss num_iters frame_gauss vad_gauss; do
  [ "${!option}" -gt 0 ] || fail "--${option//_/-} ${!option}: expected at least 1"
done
for path in "$root" "$data" "$noise" "$dir"; do
  [[ $path != *[[:space:]]* ]] || fail "'$path': paths with blanks do not work in pipes"
done
data=$(cd "$data" && pwd -P)
dir=$(realpath -m "$dir")

. "$root/path.sh"
. "$root/utils/stages.sh"
local=$root/local/timit_phones
without_sa=-sa  # the two sentences that every speaker reads have this in their keys

stage_data() {
  "$root/local/mini/import_data.py" --print-args=false "$data/train" "$data/test" "$data/test/trials" "$dir/data"
  validate_data_dir.sh --no-text --no-feats "$dir/data/train"
  validate_data_dir.sh --no-text --no-feats "$dir/data/test"
}

stage_mfcc() {
  local part
  for part in train test; do
    make_mfcc.sh --nj "$nj" --cmd "$cmd" --compress false --mfcc-config "$here/mfcc.conf" "$dir/data/$part"
  done
}

# features <kind of normalisation> <output folder>: MFCC with deltas, normalised: <folder>/{train,test}.scp
features() {
  local part from=$dir/data
  mkdir -p "$2"
  for part in train test; do
    local vars=true by_speaker=("--spk2utt=ark:$from/$part/spk2utt") of_speaker=("--utt2spk=ark:$from/$part/utt2spk")
    if [ "$1" = speaker-mean ]; then vars=false; fi
    if [ "$1" = utterance-var ]; then by_speaker=() of_speaker=(); fi
    compute-cmvn-stats ${by_speaker[@]+"${by_speaker[@]}"} "scp:$from/$part/feats.scp" "ark:$2/$part.cmvn"
    apply-cmvn --norm-vars=$vars ${of_speaker[@]+"${of_speaker[@]}"} "ark:$2/$part.cmvn" \
      "scp:$from/$part/feats.scp" ark:- |
      add-deltas ark:- "ark,scp:$2/$part.ark,$2/$part.scp"
  done
}

stage_labels() {
  local part
  for part in train test; do
    "$local/make_labels.py" "$dir/data/$part/phones.ctm" "ark:$dir/data/$part/utt2num_frames" \
      "ark,scp:$dir/data/$part.labels.ark,$dir/data/$part.labels.scp"
    "$local/make_labels.py" --classes=vad "$dir/data/$part/phones.ctm" "ark:$dir/data/$part/utt2num_frames" \
      "ark:$dir/data/$part.vad_labels.ark"
  done
}

# train_phones <labels-rspecifier> <feats.scp> <folder> <Gaussians>: <folder>/models/PHONE.hmm
train_phones() {
  local labels=$1 feats=$2 out=$3 gauss=$4 part number
  rm -rf "$out/segments" "$out/models" "$out/lists"
  "$local/make_segments.py" "$labels" "$feats" "$out/segments"
  mkdir -p "$out/lists"
  # Phones by decreasing number of segments in turn, so that jobs take equally long.
  wc -l "$out"/segments/*.scp | awk '$2 != "total" { sub(/.*\//, "", $2); sub(/\.scp$/, "", $2); print $1, $2 }' |
    sort -k1,1nr -k2 | awk -v nj="$nj" -v out="$out/lists/" '{ print $2 >(out ((NR - 1) % nj + 1)) }'
  number=$(find "$out/lists" -type f | wc -l)
  $cmd "JOB=1:$number" "$out/log/train.JOB.log" "$local/train_phones.sh" "$out/lists/JOB" "$out/segments" \
    "$out/models" --topo="$here/phone.topo" --final=prob --num-gauss="$gauss" --num-iters="$num_iters" \
    --var-floor-factor=0.05 --init=uniform --srand="$srand"
}

# realign <labels-rspecifier> <feats.scp> <folder of models> <labels-wspecifier>: the same phones, best boundaries
realign() {
  "$local/make_phone_loop.py" --chains "$3/models" "$1" "ark:$3/chains.hmm" "ark:$3/chains.phones"
  align-hmm "ark:$3/chains.hmm" "scp:$2" ark:- |
    "$local/states_to_phones.py" "ark:$3/chains.phones" ark:- "$4"
  rm "$3/chains.hmm"
}

# decode <folder of models> <labels-rspecifier for the bigram> <feats.scp> <labels-wspecifier> <scale> <penalty>
decode() {
  "$local/make_phone_loop.py" --lm-scale="$5" --insertion-penalty="$6" "$1/models" "$2" "$1/loop.hmm" \
    "ark:$1/loop.phones"
  align-hmm "$1/loop.hmm" "scp:$3" ark:- | "$local/states_to_phones.py" "ark:$1/loop.phones" ark:- "$4"
}

# split_fold <number> <kind of normalisation> <folder>: script files of the utterances used and held out
split_fold() {
  local file
  mkdir -p "$3"
  awk -v fold="$1" '(NR - 1) % 5 + 1 == fold { for (i = 2; i <= NF; i++) print $i }' "$dir/data/train/spk2utt" \
    >"$3/held_out"
  for file in "$dir/cv/$2/train" "$dir/data/train.labels"; do
    filter_scp --exclude "$3/held_out" "$file.scp" >"$3/$(basename "$file").used.scp"
    filter_scp "$3/held_out" "$file.scp" >"$3/$(basename "$file").held.scp"
  done
}

# cv_score <archives of labels of all folds>
cv_score() {
  cat "$@" >"$dir/cv/decoded"
  "$local/score_frames.py" --without="$without_sa" "scp:$dir/data/train.labels.scp" "ark:$dir/cv/decoded"
}

# cross_validate <kind of normalisation> <Gaussians> <realignments>: lines of results to $dir/cv/results
cross_validate() {
  local kind=$1 gauss=$2 realigned=$3 fold out scale penalty i labels
  for fold in 1 2 3 4 5; do
    out=$dir/cv/$kind.$gauss.$realigned.$fold
    split_fold "$fold" "$kind" "$out"
    labels=scp:$out/train.labels.used.scp
    train_phones "$labels" "$out/train.used.scp" "$out" "$gauss"
    for ((i = 0; i < realigned; i++)); do
      realign "$labels" "$out/train.used.scp" "$out" "ark:$out/realigned.$i"
      train_phones "ark:$out/realigned.$i" "$out/train.used.scp" "$out" "$gauss"
    done
    for scale in $cv_lm_scales; do
      for penalty in $cv_penalties; do
        decode "$out" "$labels" "$out/train.held.scp" "ark:$out/decoded.$scale.$penalty" "$scale" "$penalty"
      done
    done
  done
  for scale in $cv_lm_scales; do
    for penalty in $cv_penalties; do
      printf 'loop   %-14s %3d %2d %4s %4s  %s\n' "$kind" "$gauss" "$realigned" "$scale" "$penalty" \
        "$(cv_score "$dir/cv/$kind.$gauss.$realigned".*/"decoded.$scale.$penalty")" >>"$dir/cv/results"
    done
  done
}

# classify_frames <labels-rspecifier> <feats.scp> <folder> <Gaussians> <feats.scp to decode> <labels-wspecifier>
classify_frames() {
  mkdir -p "$3"
  train-hmm-em --topo=ergodic --num-states=61 --training=fixed --ali="$1" --num-gauss="$4" --num-iters="$num_iters" \
    --srand="$srand" "scp:$2" "$3/classes.hmm"
  "$local/make_frame_classifier.py" "$3/classes.hmm" "$1" "$3/frames.hmm"
  align-hmm "$3/frames.hmm" "scp:$5" "$6"
}

cross_validate_frames() {
  local gauss fold out
  for gauss in $cv_frame_gauss; do
    for fold in 1 2 3 4 5; do
      out=$dir/cv/frames.$gauss.$fold
      split_fold "$fold" "$cmvn" "$out"
      classify_frames "scp:$out/train.labels.used.scp" "$out/train.used.scp" "$out" "$gauss" "$out/train.held.scp" \
        "ark:$out/decoded"
    done
    printf 'frames %-14s %3d %2s %4s %4s  %s\n' "$cmvn" "$gauss" - - - \
      "$(cv_score "$dir/cv/frames.$gauss".*/decoded)" >>"$dir/cv/results"
  done
}

stage_cv() {
  local kind gauss
  rm -rf "$dir/cv"
  mkdir -p "$dir/cv"
  for kind in $cv_cmvn; do
    features "$kind" "$dir/cv/$kind"
    cross_validate "$kind" "$num_gauss" 0
  done
  for gauss in $cv_gauss; do
    if [ "$gauss" != "$num_gauss" ]; then cross_validate "$cmvn" "$gauss" 0; fi
  done
  cross_validate "$cmvn" "$num_gauss" 1
  cross_validate_frames
}

stage_phones() {
  local i labels=scp:$dir/data/train.labels.scp
  rm -rf "$dir/phones"
  features "$cmvn" "$dir/phones"
  train_phones "$labels" "$dir/phones/train.scp" "$dir/phones" "$num_gauss"
  for ((i = 0; i < num_realign; i++)); do
    realign "scp:$dir/data/train.labels.scp" "$dir/phones/train.scp" "$dir/phones" "ark:$dir/phones/realigned.$i"
    train_phones "ark:$dir/phones/realigned.$i" "$dir/phones/train.scp" "$dir/phones" "$num_gauss"
  done
}

stage_loop() {
  decode "$dir/phones" "scp:$dir/data/train.labels.scp" "$dir/phones/test.scp" "ark:$dir/phones/decoded" \
    "$lm_scale" "$insertion_penalty"
  # What the hand labels say was spoken, with boundaries by forced alignment.
  realign "scp:$dir/data/test.labels.scp" "$dir/phones/test.scp" "$dir/phones" "ark:$dir/phones/forced"
}

stage_frames() {
  local gauss
  for gauss in 1 "$frame_gauss"; do
    classify_frames "scp:$dir/data/train.labels.scp" "$dir/phones/train.scp" "$dir/frames" "$gauss" \
      "$dir/phones/test.scp" "ark:$dir/frames/decoded.$gauss"
  done
}

# list_noises train|test: every other recording, with paths relative to the folder or to the one that it is in.
list_noises() {
  local key path number=0 wanted=1
  if [ "$1" = test ]; then wanted=0; fi
  while read -r key path; do
    number=$((number + 1))
    [ $((number % 2)) -eq $wanted ] || continue
    for place in "$path" "$noise/$path" "$noise/../$path"; do
      if [ -f "$place" ]; then echo "$key $place"; continue 2; fi
    done
    fail "$noise/wav.scp: $path: no such file"
  done <"$noise/wav.scp"
}

stage_noisy() {
  local part snr
  mkdir -p "$dir/vad"
  for part in train test; do
    compute-mfcc --config="$root/conf/mfcc.conf" "scp:$dir/data/$part/wav.scp" "ark:$dir/vad/$part.clean.ark"
    [ -n "$noise" ] || continue
    list_noises "$part" >"$dir/vad/noise.$part.scp"
    for snr in $snrs; do
      "$local/add_noise.py" --snr="$snr" --srand="$srand" "scp:$dir/data/$part/wav.scp" \
        "scp:$dir/vad/noise.$part.scp" ark:- |
        compute-mfcc --config="$root/conf/mfcc.conf" ark:- "ark:$dir/vad/$part.$snr.ark"
    done
  done
}

# vad_features <archive>: a pipe with mean-normalised MFCC and deltas
vad_features() {
  echo "compute-cmvn-stats ark:$1 ark:- | apply-cmvn ark:- ark:$1 ark:- | add-deltas ark:- ark:- |"
}

# Utterances of all conditions in one archive; keys get the condition's name behind them.
pooled_vad_data() {
  local condition
  for condition in $conditions; do
    copy-feats "ark:$(vad_features "$dir/vad/train.$condition.ark")" ark,t:- |
      sed "s/^\([^ ]*\)  *\[/\1.$condition  [/" >>"$1.feats"
    "$local/make_labels.py" --classes=vad "$dir/data/train/phones.ctm" "ark:$dir/data/train/utt2num_frames" ark,t:- |
      sed "s/ /.$condition /" >>"$1.labels"
  done
}

stage_vad() {
  local condition
  rm -f "$dir/vad/pooled.feats" "$dir/vad/pooled.labels"
  pooled_vad_data "$dir/vad/pooled"
  train-hmm-em --topo=ergodic --num-states=3 --training=fixed --ali="ark:$dir/vad/pooled.labels" \
    --srand="$srand" --num-gauss="$vad_gauss" --num-iters="$num_iters" "ark:$dir/vad/pooled.feats" "$dir/vad/vad.hmm"
  for condition in $conditions; do
    local feats=$dir/vad/test.$condition.ark decisions=$dir/vad/decisions.$condition
    compute-vad --config="$root/conf/vad.conf" "ark:$feats" "ark:$decisions.energy"
    compute-vad --hmm "ark:$feats" "ark:$decisions.hmm"
    compute-vad --hmm-model="$dir/vad/vad.hmm" "ark:$(vad_features "$feats")" "ark:$decisions.model"
  done
  rm -f "$dir/vad/pooled.feats"
}

# row <title> <labels-rspecifier> [<option of score_frames.py>...]
row() {
  local title=$1 found=$2
  shift 2
  printf '%-44s' "$title"
  "$local/score_frames.py" "$@" "scp:$dir/data/test.labels.scp" "$found" |
    awk '{ printf "%7s %6s %6s %6s\n", $1, $2, $3, $4 }'
}

phone_table() {
  local labels=ark:$dir/phones/decoded option
  for option in "--without=$without_sa" "--without="; do
    if [ "$option" = --without= ]; then echo; echo "All sentences:"; else echo "Without the sentences sa1, sa2:"; fi
    printf '%-44s%7s %6s %6s %6s\n' "Frames right, in percent, of classes:" 61 48 39 3
    row "most frequent class" "$labels" "$option" --majority="scp:$dir/data/train.labels.scp"
    row "one Gaussian a phone, single frames" "ark:$dir/frames/decoded.1" "$option"
    row "GMM of $frame_gauss a phone, single frames" "ark:$dir/frames/decoded.$frame_gauss" "$option"
    row "phone loop" "$labels" "$option"
    row "forced alignment of the true phones" "ark:$dir/phones/forced" "$option"
  done
}

vad_table() {
  local condition name
  printf '%-10s %-22s %7s %12s %7s %7s\n' Condition Detector miss "false alarm" total mean
  for condition in $conditions; do
    for name in energy hmm model; do
      local title=$name
      case $name in
        energy) title="energy" ;;
        hmm) title="--hmm, per recording" ;;
        model) title="--hmm-model, trained" ;;
      esac
      printf '%-10s %-22s' "$condition" "$title"
      "$local/score_vad.py" "ark:$dir/data/test.vad_labels.ark" "ark:$dir/vad/decisions.$condition.$name" |
        awk '{ printf " %7s %12s %7s %7s\n", $1, $2, $3, $4 }'
    done
  done
}

stage_results() {
  {
    phone_table
    echo
    vad_table
  } >"$dir/results.txt.partial"
  mv "$dir/results.txt.partial" "$dir/results.txt"
}

conditions=clean
if [ -n "$noise" ]; then conditions="clean $snrs"; fi
phone_options="$srand $cmvn $num_gauss $num_iters $num_realign"
programs="$root/bin/train-hmm-em $root/bin/align-hmm $(echo "$local"/*.py "$root"/voxark/hmm/*.py)"
stages_begin "$dir/.stages" "$stage" "$stop_stage" "$force" "$dir/results.txt"
run_stage data --title "data directories" --options "$data" --makes "$dir/data/test/wav.scp" \
  --reads "$data/train/wav.scp $data/train/phones.ctm $data/test/wav.scp $data/test/phones.ctm"
run_stage mfcc --title "MFCC" --after data --reads "$here/mfcc.conf" \
  --makes "$dir/data/train/feats.scp $dir/data/test/feats.scp"
run_stage labels --title "labels of frames" --after mfcc --reads "$local/make_labels.py $local/phones.py" \
  --makes "$dir/data/train.labels.scp $dir/data/test.vad_labels.ark"
run_stage cv --title "cross-validation on the training speakers" --after labels --reads "$here/phone.topo $programs" \
  --options "$phone_options $cv_cmvn $cv_gauss $cv_lm_scales $cv_penalties $cv_frame_gauss" --when "$cv" \
  --makes "$dir/cv/results"
run_stage phones --title "phone models" --after labels --options "$phone_options" --reads "$here/phone.topo $programs" \
  --makes "$dir/phones/models"
run_stage loop --title "phone loop" --after phones --options "$lm_scale $insertion_penalty" \
  --makes "$dir/phones/decoded"
run_stage frames --title "single frames" --after phones --options "$frame_gauss" --makes "$dir/frames/decoded.1"
run_stage noisy --title "noisy recordings" --after labels --options "$srand $noise $snrs" \
  --reads "$local/add_noise.py $root/conf/mfcc.conf" --makes "$dir/vad/test.clean.ark"
run_stage vad --title "voice activity" --after noisy --options "$vad_gauss" \
  --reads "$programs $root/bin/compute-vad $root/conf/vad.conf" --makes "$dir/vad/vad.hmm"
run_stage results --title "tables" --after "loop frames vad" --makes "$dir/results.txt"
if stages_complete; then
  echo
  cat "$dir/results.txt"
fi
