#!/usr/bin/env bash
# speechocean762: FHVAE on real speech, several seeds, weights alpha and both samplings, as RESULTS.md reports.

set -euo pipefail
shopt -s inherit_errexit
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
root=$(cd "$here/../.." && pwd -P)

seeds="0 1 2"
systems="hierarchical flat alpha0 alpha1 alpha100"
config=$here/fhvae_lstm.conf
train_opts=
precision=float32
num_threads=2
device=cpu
lda_dim=24
nj=2
cmd=run.py
help_message="Usage: $0 [options] <data> <exp-dir>
e.g.: $0 --precision bf16 ../shared/data exp/speechocean762_fhvae
  <data> holds speechocean762/{train,test}, librispeech_mini/test_other and timit_sample/all, whose features come from
  egs/mini/run.sh. For each seed and system an FHVAE is trained on speechocean762/train without its labels; trials are
  scored by the cosine of mu2 and mu1, as they are and behind an LDA of the training speakers; z1 and z2 are probed
  for the speaker and gender, and in timit_sample for phone classes.
  Writes <exp-dir>/seed<n>/<system> (the models), results.csv, disentanglement.csv and results.txt. A training that
  has ended is not done again, one that was stopped goes on.
Options:
  --seeds \"<n> ...\"       seeds (default: $seeds)
  --systems \"<name> ...\"  hierarchical, flat, alpha<weight> (default: $systems)
  --config <file>         options of train-fhvae (default: $config)
  --train-opts <options>  more of them, which win; another <exp-dir> for others (default: none)
  --precision <p>         of training: bf16 is faster where the processor has it (default: $precision)
  --num-threads <n>       of training (default: $num_threads)
  --device <d>            of training: cpu or cuda (default: $device)
  --lda-dim <n>           dimension of LDA (default: $lda_dim)
  --nj <n>                jobs that make features (default: $nj)
  --cmd <launcher>        how to run jobs (default: $cmd)"
. "$root/utils/parse_options.sh"
if [ $# -ne 2 ]; then
  echo "$help_message" >&2
  exit 1
fi
source=$(cd "$1" && pwd -P)
mkdir -p "$2"
exp=$(cd "$2" && pwd -P)
config=$(realpath -e "$config")
read -r -a options <<<"$train_opts"
. "$root/path.sh"
. "$root/utils/stages.sh"
. "$root/local/mini/corpora.sh"
# system_options <system>: the options of train-fhvae that it stands for
system_options() {
  case $1 in
    hierarchical) ;;
    flat) echo "--sampling=flat" ;;
    alpha*) echo "--alpha=${1#alpha}" ;;
    *) echo "$0: --systems: $1: expected hierarchical, flat or alpha<weight>" >&2; exit 1 ;;
  esac
}

hold_folder "$exp"
for system in $systems; do system_options "$system" >/dev/null; done
rm -f "$exp"/results.{txt,csv} "$exp/disentanglement.csv" "$exp/warnings.log" # of an earlier run
make_features "$source" "$exp/data" "$nj" "$cmd"
train=$exp/data/speechocean762/data/train_fbank

# verify <corpus> <vectors> <system> <seed> <list> <trials>: a line of results by cosine
verify() {
  quietly "$exp/log" score-trials --backend=cosine "$6" "scp:$2.scp" "scp:$2.scp" "$2.scores"
  line "$3" "$4" "$5" "$2.scores" "$6"
}

# probe <system> <seed> <corpus> <folder of latent variables> <options of measure-disentanglement...>
probe() {
  local system=$1 seed=$2 corpus=$3 out=$4
  shift 4
  measure-disentanglement --print-args=false --verbose=-1 --format=csv "$@" "scp:$out/z1.scp" "scp:$out/z2.scp" \
    2>>"$exp/warnings.log" | awk -F, -v start="$system,$seed,$corpus" \
    '$1 == "factor" && $3 ~ /^z[12]$/ && $4 == "gain" { print start "," $2 "," $3 "," $5 }' >>"$exp/disentanglement.csv.partial"
}

# extract <model> <corpus> <features>: mu2 and mu1 of segments 20 frames apart, as the paper's; more of z1 and z2 for probes
extract() {
  local out=$1/$2
  mkdir -p "$out"
  quietly "$1/log" extract-fhvae --mu1="ark,scp:$out/mu1.ark,$out/mu1.scp" "$1" "scp:$3" "ark,scp:$out/mu2.ark,$out/mu2.scp"
  quietly "$1/log" extract-fhvae --segment-shift=8 --z1="ark,scp:$out/z1.ark,$out/z1.scp" \
    --z2="ark,scp:$out/z2.ark,$out/z2.scp" "$1" "scp:$3"
}

# test_system <model> <system> <seed>
test_system() {
  local model=$1 corpus name out mu
  extract "$model" train "$train/feats.scp"
  for mu in mu2 mu1; do
    quietly "$model/log" train-lda --dim="$lda_dim" "scp:$model/train/$mu.scp" "ark:$train/utt2spk" "$model/$mu.lda"
  done
  for corpus in $corpora; do
    name=${corpus%%/*} out=$model/$name
    extract "$model" "$name" "$exp/data/$name/data/test_fbank/feats.scp"
    for mu in mu2 mu1; do
      quietly "$model/log" transform-vec "$model/$mu.lda" "scp:$out/$mu.scp" "ark,scp:$out/$mu.lda.ark,$out/$mu.lda.scp"
      verify "$name" "$out/$mu" "$2 $mu" "$3" "$name" "$source/$corpus/trials"
      verify "$name" "$out/$mu.lda" "$2 $mu LDA-$lda_dim" "$3" "$name" "$source/$corpus/trials"
    done
  done
  out=$model/speechocean762
  for mu in mu2 mu1; do
    line "$2 $mu" "$3" samegroup "$out/$mu.scores" "$source/speechocean762/test/trials_samegroup"
    line "$2 $mu LDA-$lda_dim" "$3" samegroup "$out/$mu.lda.scores" "$source/speechocean762/test/trials_samegroup"
  done
  probe "$2" "$3" speechocean762 "$out" --utt2spk="$source/speechocean762/test/utt2spk" --segment-shift=8 \
    --factors="gender=$source/speechocean762/test/spk2gender" --speaker-disjoint=gender
  probe "$2" "$3" timit_sample "$model/timit_sample" --utt2spk="$source/timit_sample/all/utt2spk" --segment-shift=8 \
    --ctm="61 phones=$source/timit_sample/all/phones.ctm,3 classes=$source/timit_sample/all/phones.ctm" \
    --ctm-map="3 classes=$root/conf/timit_phones_3.map"
}

echo "system,seed,list,eer,min_dcf,min_cllr" >"$exp/results.csv.partial"
echo "system,seed,list,factor,latent,gain" >"$exp/disentanglement.csv.partial"
for seed in $seeds; do
  for system in $systems; do
    model=$exp/seed$seed/$system
    read -r -a own <<<"$(system_options "$system")"
    mkdir -p "$model"
    quietly "$model/log" train-fhvae --config="$config" --srand="$seed" --precision="$precision" \
      --num-threads="$num_threads" --device="$device" --resume "${own[@]}" "${options[@]}" "scp:$train/feats.scp" "$model"
    test_system "$model" "$system" "$seed"
  done
done
mv "$exp/results.csv.partial" "$exp/results.csv"
mv "$exp/disentanglement.csv.partial" "$exp/disentanglement.csv"
{
  "$root/local/mini/seed_table.py" --print-args=false "$exp/results.csv"
  echo
  "$root/local/mini/seed_table.py" --print-args=false --gains "$exp/disentanglement.csv"
} >"$exp/results.txt.partial"
mv "$exp/results.txt.partial" "$exp/results.txt"
cat "$exp/results.txt"
