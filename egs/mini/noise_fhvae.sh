#!/usr/bin/env bash
# An FHVAE on speech with noise and two microphones, mixed as Aurora-4 has them: what z1 and z2 know of each.

set -euo pipefail
shopt -s inherit_errexit
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
root=$(cd "$here/../.." && pwd -P)

seeds=0
copies=2
noises=asc_boiler,asc_washing_machine,aud_hens,sb_diffuse4ch_ch0,sb_noise1,sb_noise5
response=aud_ir0
config=$here/fhvae_lstm.conf
train_opts=
precision=float32
num_threads=2
device=cpu
lda_dim=24
nj=2
cmd=run.py
help_message="Usage: $0 [options] <data> <exp-dir>
e.g.: $0 --precision bf16 ../shared/data exp/noise_fhvae
  <data> holds speechocean762/{train,test}, timit_sample/all, ami_excerpts/all, and noise_rir/{noise,rir}. Each
  utterance of the first two corpora is copied with one of seven noise labels (clean, six noises) and one of two
  microphones (near, far). Training has the first 70 % of each noise, the tests the rest. An FHVAE is trained on the
  copies of speechocean762/train without labels; then z1 and z2 of the test copies are probed for speaker, noise and
  microphone, the last two with other speakers than the probe's training, and those of ami_excerpts, with nothing mixed
  in but cut in pieces of four seconds at most, for speaker and recording. Trials, of ami_excerpts uncut, are scored by
  the cosine of mu2 and mu1, as they are and behind an LDA of the training speakers.
  Writes <exp-dir>/seed<n> (the models, the tables, and all measures in <list>/measures.csv), disentanglement.csv,
  results.csv and results.txt. A training that has ended is not done again, one that was stopped goes on.
Options:
  --seeds \"<n> ...\"       seeds of the models (default: $seeds)
  --copies <n>            copies of each training utterance, in different conditions (default: $copies)
  --noises <name>,...     the noises (default: $noises)
  --response <name>       the room response of the far microphone (default: $response)
  --config <file>         options of train-fhvae (default: $config)
  --train-opts <options>  more of them, which win; another <exp-dir> for others (default: none)
  --precision <p>         of training: bf16 is faster where the processor has it (default: $precision)
  --num-threads <n>       of training (default: $num_threads)
  --device <d>            of training: cpu or cuda (default: $device)
  --lda-dim <n>           dimension of LDA (default: $lda_dim)
  --nj <n>                jobs that make features and extract (default: $nj)
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
. "$root/path.sh"
. "$root/utils/stages.sh"
. "$root/local/mini/corpora.sh"
stages_begin "$exp/.stages" 1 100 false "$exp/results.txt" "$exp/disentanglement.csv" "$exp/results.csv"
rm -f "$exp/results.txt" "$exp/disentanglement.csv" "$exp/results.csv" "$exp/warnings.log" # of an earlier run
data=$exp/data
rooms=$source/noise_rir
mixing=(--noise-dir="$rooms/noise" --rir-dir="$rooms/rir" --noises="$noises" --response="$response")

# mix <name> <corpus> <options of mix_noise.py...>
mix() {
  local name=$1 corpus=$2
  shift 2
  quietly "$exp/log" "$root/local/mini/mix_noise.py" "${mixing[@]}" "$@" "$source/$corpus" "$data/$name"
}

# trials <name> <trials>: those of the copies
trials() {
  awk 'NR == FNR { copy[$2] = $1; next } { print copy[$1], copy[$2], $3 }' "$data/$1/utt2source" "$2" >"$data/$1/trials"
}

stage_mix() {
  local ami=$source/ami_excerpts/all
  rm -rf "$data"
  mkdir -p "$data"
  mix train speechocean762/train --noise-end=0.7 --copies="$copies"
  mix speechocean762 speechocean762/test --noise-begin=0.7
  mix timit_sample timit_sample/all --noise-begin=0.7
  trials speechocean762 "$source/speechocean762/test/trials"
  trials timit_sample "$source/timit_sample/all/trials"
  quietly "$exp/log" "$root/local/mini/import_data.py" "$source/speechocean762/train" "$ami" "$ami/trials" "$data/ami"
  mv "$data/ami/test" "$data/ami_excerpts"
  mv "$data/ami/trials" "$data/ami_excerpts/trials"
  rm -r "$data/ami"
  awk '{ print $1, $2 }' "$data/ami_excerpts/segments" >"$data/ami_excerpts/utt2recording"
}

# The excerpts are few and of uneven length: probes get pieces of them, of four seconds at most.
stage_pieces() {
  local whole=$data/ami_excerpts out=$data/ami_pieces name
  rm -rf "$out"
  mkdir "$out"
  cp "$whole/wav.scp" "$out"
  awk '{ n = int(($4 - $3) / 4); if (n * 4 < $4 - $3) n++
    for (i = 0; i < n; i++)
      printf "%s-%03d %s %.3f %.3f\n", $1, i, $2, $3 + i * ($4 - $3) / n, $3 + (i + 1) * ($4 - $3) / n
  }' "$whole/segments" | sort >"$out/segments"
  for name in utt2spk utt2recording; do
    awk 'NR == FNR { of[$1] = $2; next } { print $1, of[substr($1, 1, length($1) - 4)] }' "$whole/$name" \
      "$out/segments" >"$out/$name"
  done
  utt2spk_to_spk2utt "$out/utt2spk" >"$out/spk2utt"
}

stage_fbank() {
  local name
  for name in train $tests; do make_fbank.sh --nj "$nj" --cmd "$cmd" "$data/$name"; done
}

# measure <seed> <list> <options of measure-disentanglement...>
measure() {
  local seed=$1 list=$2 out=$exp/seed$1/$2
  shift 2
  measure-disentanglement --print-args=false --verbose=-1 --format=csv --segment-shift=8 "$@" "scp:$out/z1.scp" \
    "scp:$out/z2.scp" >"$out/measures.csv" 2>>"$exp/warnings.log"
  awk -F, -v start="FHVAE,$seed,$list" '$1 == "factor" && $4 == "gain" { print start "," $2 "," $3 "," $5 }' \
    "$out/measures.csv" >>"$exp/disentanglement.csv.partial"
}

# extract <seed> <list> <what>
extract() {
  quietly "$exp/log" extract_fhvae.sh --nj "$nj" --cmd "$cmd" --what "$3" --segment-shift 8 "$exp/seed$1" "$data/$2" \
    "$exp/seed$1/$2"
}

# verify <seed> <list>: error rates of mu2 and mu1, as they are and behind the LDA of train
verify() {
  local out=$exp/seed$1/$2 name start
  for name in mu2 mu1; do
    start=$out/${name/mu2/vectors}
    quietly "$exp/log" transform-vec "$exp/seed$1/$name.lda" "scp:$start.scp" "ark,scp:$start.lda.ark,$start.lda.scp"
    score "$1" "$2" "$name" "$start"
    score "$1" "$2" "$name LDA-$lda_dim" "$start.lda"
  done
}

# score <seed> <list> <system> <vectors>
score() {
  quietly "$exp/log" score-trials --backend=cosine "$data/$2/trials" "scp:$4.scp" "scp:$4.scp" "$4.scores"
  line "$3" "$1" "$2" "$4.scores" "$data/$2/trials"
}

tests="speechocean762 timit_sample ami_excerpts ami_pieces"
run_stage mix --title "noise and microphones" --options "$copies ${mixing[*]}" \
  --reads "$root/local/mini/mix_noise.py $rooms/noise/wav.scp $rooms/rir/wav.scp
    $source/speechocean762/train/wav.scp $source/speechocean762/test/wav.scp $source/timit_sample/all/wav.scp
    $source/ami_excerpts/all/segments" --makes "$data/train/wav.scp $data/ami_excerpts/utt2recording"
run_stage pieces --title "pieces of ami_excerpts" --after mix --makes "$data/ami_pieces/spk2utt"
run_stage fbank --title "fbank" --after "mix pieces" --reads "$root/conf/fbank.conf" \
  --makes "$data/train/feats.scp $data/speechocean762/feats.scp $data/timit_sample/feats.scp
    $data/ami_excerpts/feats.scp $data/ami_pieces/feats.scp"

echo "system,seed,list,factor,latent,gain" >"$exp/disentanglement.csv.partial"
echo "system,seed,list,eer,min_dcf" >"$exp/results.csv.partial"
for seed in $seeds; do
  model=$exp/seed$seed
  quietly "$exp/log" train_fhvae.sh --cmd "$cmd" --train-config "$config" --train-opts "--srand=$seed \
    --precision=$precision --num-threads=$num_threads --device=$device $train_opts" "$data/train" "$model"
  extract "$seed" train "mu2 mu1"
  for mu in mu2 mu1; do
    quietly "$exp/log" train-lda --dim="$lda_dim" "scp:$model/train/${mu/mu2/vectors}.scp" "ark:$data/train/utt2spk" \
      "$model/$mu.lda"
  done
  for name in $tests; do
    extract "$seed" "$name" "mu2 mu1 z1 z2"
    if [ -f "$data/$name/trials" ]; then verify "$seed" "$name"; fi
    case $name in
      ami_excerpts) ;;
      ami_pieces)
        measure "$seed" "$name" --utt2spk="$data/$name/utt2spk" --factors="recording=$data/$name/utt2recording" ;;
      *)
        measure "$seed" "$name" --utt2spk="$data/$name/utt2spk" --speaker-disjoint=noise,mic \
          --factors="noise=$data/$name/utt2noise,mic=$data/$name/utt2mic" ;;
    esac
  done
done
mv "$exp/disentanglement.csv.partial" "$exp/disentanglement.csv"
mv "$exp/results.csv.partial" "$exp/results.csv"
{
  "$root/local/mini/seed_table.py" --print-args=false --gains "$exp/disentanglement.csv"
  echo
  "$root/local/mini/seed_table.py" --print-args=false "$exp/results.csv"
} >"$exp/results.txt.partial"
mv "$exp/results.txt.partial" "$exp/results.txt"
cat "$exp/results.txt"
