#!/usr/bin/env bash
# Speaker verification from wav.scp to error rates, on a corpus of synthetic speech made on the spot or on your data.

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
root=$(cd "$here/../.." && pwd -P)

size=small
seed=0
train=
test=
trials=
enroll_map=
dir=
stage=1
stop_stage=100
force=false
nj=2
cmd=run.py
mfcc_config=$root/conf/mfcc.conf
fbank_config=$root/conf/fbank.conf
vad_config=$root/conf/vad.conf
num_gauss=0
num_iters=20
ivector_num_gauss=0
ivector_dim=0
lda_dim=0
lda_shrinkage=0.1
e2e_config=$here/e2e.conf
e2e_opts=
fhvae_config=$here/fhvae.conf
fhvae_opts=
help_message="Usage: $0 [options]
       $0 [options] --train DIR --test DIR --trials FILE --dir DIR
e.g.: $0 --size tiny
      $0 --train ../shared/data/speechocean762/train --test ../shared/data/speechocean762/test \\
        --trials ../shared/data/speechocean762/test/trials --dir exp/speechocean762

Stages: 1 data, 2 MFCC, 3 fbank, 4 voice activity and CMVN, 5 GMM-UBM and MAP, 6 pooled vectors, 7 i-vectors,
  8 LDA and PLDA, 9 end-to-end network, 10 FHVAE, 11 scores, 12 table of results.
  A stage that has finished with the same inputs and options is skipped.

The synthetic corpus (speech by espeak-ng; conditions drawn at random, labels in Kaldi's files) goes to
egs/mini/data/SIZE, results to egs/mini/exp/SIZE, or all into --dir.
  --size tiny|small|large   number of speakers (default: $size)
  --seed N                  of the corpus and of the models (default: $seed)
Your own data: Kaldi data directories with wav.scp and utt2spk (and segments). Relative paths in wav.scp are looked for
in the current folder, in the data directory and beside it.
  --train DIR --test DIR    whose speakers should differ
  --trials FILE             lines \`enroll-id test-id target|nontarget\`; ids are utterances of --test
  --enroll-map FILE         lines \`enroll-id utterance...\`: models of several utterances
                            (default: enroll.spk2utt in --test, where it exists)
  --dir DIR                 where everything goes
Options of both:
  --stage N, --stop-stage N first and last stage (default: all)
  --force true              run stages that have finished, too
  --nj N                    jobs at a time (default: $nj)
  --cmd LAUNCHER            how to run jobs (default: $cmd; Kaldi's run.pl, slurm.pl, queue.pl work too)
  --mfcc-config, --fbank-config, --vad-config FILE   (default: conf/mfcc.conf, conf/fbank.conf, conf/vad.conf)
  --num-gauss N             Gaussians of the UBM (default: a power of two, 64 at most, by the size of the training set)
  --num-iters N             EM iterations of the UBM (default: $num_iters)
  --ivector-num-gauss N     Gaussians of the i-vectors' UBM with full covariances (default: as --num-gauss)
  --ivector-dim N           dimension of the i-vectors (default: the number of those Gaussians, 50 at most)
  --lda-dim N               (default: half the number of training speakers, 40 at most)
  --lda-shrinkage A         shrink the within-speaker covariance towards a multiple of the identity, 0 to 1
                            (default: $lda_shrinkage; LDA needs it with fewer utterances than dimensions)
  --e2e-config FILE         options of train-e2e-verif (default: egs/mini/e2e.conf)
  --e2e-opts OPTIONS        more of them, which win: such as --precision=bf16 where the processor has units for it
  --fhvae-config FILE       options of train-fhvae (default: egs/mini/fhvae.conf)
  --fhvae-opts OPTIONS      more of them, which win"
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

own_data=false
if [ -n "$train$test$trials$enroll_map" ]; then
  own_data=true
  if [ -z "$train" ] || [ -z "$test" ] || [ -z "$trials" ] || [ -z "$dir" ]; then
    fail "your own data need all of --train, --test, --trials and --dir"
  fi
fi
case $size in
  tiny | small | large) ;;
  *) fail "--size $size: expected tiny, small or large" ;;
esac
for option in nj stage stop_stage num_gauss num_iters ivector_num_gauss ivector_dim lda_dim; do
  [[ ${!option} =~ ^[0-9]+$ ]] || fail "--${option//_/-} ${!option}: expected a number"
done
[ "$nj" -gt 0 ] || fail "--nj 0: expected at least one job"
# Kaldi's pipes are lines of shell, where a blank ends a file name.
for path in "$root" "$dir" "$train" "$test" "$trials" "$enroll_map"; do
  [[ $path != *[[:space:]]* ]] || fail "'$path': paths with blanks do not work in pipes"
done
if [ -n "$dir" ]; then
  mkdir -p "$dir"
  dir=$(cd "$dir" && pwd -P)
  data=$dir/data
else
  name=$size
  if [ "$seed" != 0 ]; then name=${size}_seed$seed; fi
  dir=$here/exp/$name data=$here/data/$name
fi

. "$root/path.sh"
. "$root/utils/stages.sh"
# The other systems do without torch.
have_torch=true no_torch="it needs torch: pip install 'voxark[neural]'"
python3 -c 'import importlib.util, sys; sys.exit(not importlib.util.find_spec("torch"))' || have_torch=false
mkdir -p "$dir" "$data"

stage_data() {
  local map=()
  if [ "$own_data" = false ]; then
    "$root/local/mini/make_corpus.py" --print-args=false --size="$size" --seed="$seed" --nj="$nj" "$data/corpus"
    train=$data/corpus/train test=$data/corpus/test trials=$data/corpus/test/trials
  elif [ -n "$enroll_map" ]; then
    map=(--enroll-map="$enroll_map")
  fi
  "$root/local/mini/import_data.py" --print-args=false ${map[@]+"${map[@]}"} "$train" "$test" "$trials" "$data"
  for part in train test; do
    validate_data_dir.sh --no-text --no-feats "$data/$part"
    rm -rf "$data/${part}_fbank"
    copy_data_dir.sh "$data/$part" "$data/${part}_fbank"
  done
}

stage_mfcc() {
  for part in train test; do
    make_mfcc.sh --nj "$nj" --cmd "$cmd" --mfcc-config "$mfcc_config" "$data/$part"
  done
}

stage_fbank() {
  for part in train test; do
    make_fbank.sh --nj "$nj" --cmd "$cmd" --fbank-config "$fbank_config" "$data/${part}_fbank"
  done
}

stage_vad() {
  for part in train test; do
    compute_vad.sh --nj "$nj" --cmd "$cmd" --vad-config "$vad_config" "$data/$part"
    cp "$data/$part/vad.scp" "$data/${part}_fbank/vad.scp"
    compute_cmvn_stats.sh --nj "$nj" --cmd "$cmd" "$data/$part"
    compute_cmvn_stats.sh --nj "$nj" --cmd "$cmd" "$data/${part}_fbank"
  done
}

# --num-gauss, or a power of two, so that there are at least 1,000 frames a Gaussian.
ubm_size() {
  local frames n=4
  if [ "$num_gauss" -ne 0 ]; then
    echo "$num_gauss"
    return
  fi
  frames=$(awk '{ n += $2 } END { print n }' "$data/train/utt2num_frames")
  while [ "$n" -lt 64 ] && [ $((2000 * n)) -le "$frames" ]; do n=$((2 * n)); done
  echo "$n"
}

stage_gmm() {
  train_diag_ubm.sh --nj "$nj" --cmd "$cmd" --num-iters-init "$num_iters" --srand "$seed" "$data/train" \
    "$(ubm_size)" "$dir/ubm"
  adapt_gmm.sh --nj "$nj" --cmd "$cmd" "$data/test" "$data/enroll_map" "$dir/ubm" "$dir/gmm_map"
}

stage_pool() {
  for part in train test; do
    pool_feats.sh --nj "$nj" --cmd "$cmd" "$data/$part" "$dir/pooled_mfcc_$part"
    pool_feats.sh --nj "$nj" --cmd "$cmd" "$data/${part}_fbank" "$dir/pooled_fbank_$part"
  done
}

stage_ivector() {
  local diag=$dir/ubm n=$ivector_num_gauss dim=$ivector_dim
  if [ "$n" -eq 0 ]; then
    n=$(ubm_size)
  else
    diag=$dir/ubm_ivector
    train_diag_ubm.sh --nj "$nj" --cmd "$cmd" --srand "$seed" "$data/train" "$n" "$diag"
  fi
  if [ "$dim" -eq 0 ]; then dim=$((n < 50 ? n : 50)); fi
  train_full_ubm.sh --nj "$nj" --cmd "$cmd" "$data/train" "$diag" "$dir/full_ubm"
  train_ivector_extractor.sh --nj "$nj" --cmd "$cmd" --ivector-dim "$dim" --num-iters 5 --srand "$seed" \
    "$data/train" "$dir/full_ubm" "$dir/extractor"
  for part in train test; do
    extract_ivectors.sh --nj "$nj" --cmd "$cmd" "$dir/extractor" "$data/$part" "$dir/ivectors_$part"
  done
}

stage_plda() {
  for kind in pooled_mfcc pooled_fbank ivectors; do
    train_plda.sh --cmd "$cmd" --lda-dim "$lda_dim" --shrinkage "$lda_shrinkage" \
      "$data/train" "$dir/${kind}_train/vectors.scp" "$dir/plda_${kind#pooled_}"
  done
}

stage_e2e() {
  local short=
  if [ "$own_data" = false ] && [ "$size" = tiny ]; then short="--num-epochs=3"; fi
  if [ "$have_torch" = false ]; then
    rm -rf "$dir/e2e" "$dir/e2e_test"
    echo "$0: WARNING: the end-to-end network is left out: $no_torch" >&2
    return
  fi
  train_e2e.sh --nj "$nj" --cmd "$cmd" --train-config "$e2e_config" --train-opts "--srand=$seed $short $e2e_opts" \
    --restart true "$data/train_fbank" "$dir/e2e"
  extract_embeddings.sh --nj "$nj" --cmd "$cmd" "$dir/e2e" "$data/test_fbank" "$dir/e2e_test"
}

stage_fhvae() {
  local short='' part
  if [ "$own_data" = false ] && [ "$size" = tiny ]; then short="--hidden-dim=128 --num-steps=500 --steps-per-epoch=100"; fi
  if [ "$have_torch" = false ]; then
    rm -rf "$dir/fhvae" "$dir"/fhvae_{train,test,segments} "$dir/plda_fhvae"
    echo "$0: WARNING: the FHVAE is left out: $no_torch" >&2
    return
  fi
  train_fhvae.sh --cmd "$cmd" --train-config "$fhvae_config" --train-opts "--srand=$seed $short $fhvae_opts" \
    --restart true "$data/train_fbank" "$dir/fhvae"
  for part in train test; do
    extract_fhvae.sh --nj "$nj" --cmd "$cmd" "$dir/fhvae" "$data/${part}_fbank" "$dir/fhvae_$part"
  done
  train_plda.sh --cmd "$cmd" --lda-dim "$lda_dim" --shrinkage "$lda_shrinkage" "$data/train" \
    "$dir/fhvae_train/vectors.scp" "$dir/plda_fhvae"
  extract_fhvae.sh --nj "$nj" --cmd "$cmd" --what "z1 z2 z1_var z2_var mu1 mu2" --segment-shift 10 "$dir/fhvae" \
    "$data/test_fbank" "$dir/fhvae_segments"
  show_disentanglement
}

# What z1 and z2 know of the labels that the test data have: a table, and a picture of their t-SNE.
show_disentanglement() {
  local out=$dir/fhvae_segments labels=$data/corpus/test factors='' ctm=() name tables=("$data/test/utt2spk")
  if [ "$own_data" = true ]; then labels=$test; fi
  for name in noise mic; do
    if [ -s "$labels/utt2$name" ]; then
      factors+=${factors:+,}$name=$labels/utt2$name
      tables+=("$name=$labels/utt2$name")
    fi
  done
  if [ -s "$labels/phones.ctm" ]; then
    ctm=(--ctm="phone=$labels/phones.ctm,phone class=$labels/phones.ctm" --ctm-map="phone class=$root/local/mini/phones_3.map")
    tables+=("phone class=$labels/phones.ctm")
  fi
  rm -f "$out"/{disentanglement.txt,tsne.svg}
  if ! python3 -c 'import importlib.util, sys; sys.exit(not importlib.util.find_spec("sklearn"))'; then
    echo "$0: WARNING: z1 and z2 are not compared: that needs scikit-learn: pip install 'voxark[probe]'" >&2
    return
  fi
  measure-disentanglement --utt2spk="$data/test/utt2spk" --factors="$factors" ${ctm[@]+"${ctm[@]}"} --segment-shift=10 \
    --z1-var="scp:$out/z1_var.scp" --z2-var="scp:$out/z2_var.scp" "scp:$out/z1.scp" "scp:$out/z2.scp" \
    >"$out/disentanglement.txt" 2>"$out/log/measure.log" || { tail -n 2 "$out/log/measure.log" >&2; return 1; }
  if python3 -c 'import importlib.util, sys; sys.exit(not importlib.util.find_spec("matplotlib"))'; then
    plot-fhvae --max-points=1000 --segment-shift=10 --ctm-map="$root/local/mini/phones_3.map" tsne "$out/tsne.svg" \
      "scp:$out/z1.scp" "scp:$out/z2.scp" "${tables[@]}" 2>"$out/log/plot.log" || { tail -n 2 "$out/log/plot.log" >&2; return 1; }
  fi
}

# score <name> <trained models> <test> [<option>...]
score() {
  local name=$1 models=$2 tested=$3
  shift 3
  score.sh --nj "$nj" --cmd "$cmd" "$@" "$data/trials" "$dir/$models" "$tested" "$dir/scores_$name"
}

stage_score() {
  local mfcc=$dir/pooled_mfcc_test/vectors.scp fbank=$dir/pooled_fbank_test/vectors.scp
  score gmm_map gmm_map "$data/test" --backend gmm
  score mfcc_cosine plda_mfcc "$mfcc" --backend cosine --lda false --enroll-map "$data/enroll_map"
  score mfcc_lda_cosine plda_mfcc "$mfcc" --backend cosine --enroll-map "$data/enroll_map"
  score mfcc_lda_plda plda_mfcc "$mfcc" --backend plda --enroll-map "$data/enroll_map"
  score fbank_lda_plda plda_fbank "$fbank" --backend plda --enroll-map "$data/enroll_map"
  score ivectors_lda_plda plda_ivectors "$dir/ivectors_test/vectors.scp" --backend plda --enroll-map "$data/enroll_map"
  if [ "$have_torch" = true ]; then
    score e2e e2e "$dir/e2e_test/vectors.scp" --backend e2e --enroll-map "$data/enroll_map"
    score fhvae_cosine plda_fhvae "$dir/fhvae_test/vectors.scp" --backend cosine --lda false --enroll-map "$data/enroll_map"
    score fhvae_lda_plda plda_fhvae "$dir/fhvae_test/vectors.scp" --backend plda --enroll-map "$data/enroll_map"
  else
    rm -rf "$dir"/scores_{e2e,fhvae_cosine,fhvae_lda_plda}
  fi
}

# row <title> <name of scores>
row() {
  awk -v title="$1" '$1 == "EER" { sub(/;$/, "", $NF); match($0, /minDCF\([^)]*\) [0-9.]+/)
    split(substr($0, RSTART, RLENGTH), cost, " "); printf "%-34s %7s %14s\n", title, $2, cost[2] }' "$dir/scores_$2/eer"
}

# Says which systems could not score all trials.
note_missing() {
  local file total
  total=$(wc -l <"$data/trials")
  for file in "$dir"/scores_*/scores; do
    awk -v total="$total" -v dropped="${file%/scores}/dropped" \
      'END { if (NR < total) printf "%d trials without a score: %s\n", total - NR, dropped }' "$file"
  done
}

stage_results() {
  local name
  {
    printf 'Training: %d speakers, %d utterances. Test: %d speakers, %d models, %d trials of which %d target.\n\n' \
      "$(wc -l <"$data/train/spk2utt")" "$(wc -l <"$data/train/utt2spk")" "$(wc -l <"$data/test/spk2utt")" \
      "$(wc -l <"$data/enroll_map")" "$(wc -l <"$data/trials")" "$(awk '$3 == "target"' "$data/trials" | wc -l)"
    printf '%-34s %7s %14s\n' System 'EER %' 'minDCF(0.01)'
    row "GMM-UBM, MAP" gmm_map
    row "pooled MFCC, cosine" mfcc_cosine
    row "pooled MFCC, LDA, cosine" mfcc_lda_cosine
    row "pooled MFCC, LDA, PLDA" mfcc_lda_plda
    row "pooled fbank, LDA, PLDA" fbank_lda_plda
    row "i-vectors, LDA, PLDA" ivectors_lda_plda
    if [ "$have_torch" = true ]; then
      row "x-vector, end to end" e2e
      row "s-vectors (FHVAE), cosine" fhvae_cosine
      row "s-vectors (FHVAE), LDA, PLDA" fhvae_lda_plda
    else
      echo "x-vector, end to end; s-vectors: left out: $no_torch"
    fi
    note_missing
    if [ -s "$dir/fhvae_segments/disentanglement.txt" ]; then
      printf '\nWhat z1 and z2 of the FHVAE know, by linear probes:\n'
      sed -n '/^factor/,/^MI:/p' "$dir/fhvae_segments/disentanglement.txt"
    fi
    printf '\nData:    %s\nModels:  %s\nScores:  %s\nTable:   %s\n' "$data/{train,test,train_fbank,test_fbank}" \
      "$dir/{ubm,gmm_map,extractor,plda_{mfcc,fbank,ivectors},e2e,fhvae}" "$dir/scores_*/scores" "$dir/results.txt"
    if [ -s "$dir/fhvae_segments/tsne.svg" ]; then printf 'Picture: %s\n' "$dir/fhvae_segments/tsne.svg"; fi
  } >"$dir/results.txt.partial"
  mv "$dir/results.txt.partial" "$dir/results.txt"
}

# A hash of the sizes and times of the audio files, so that a repaired file counts as a new one.
audio_state() {
  local part
  for part in train test; do
    if [ -f "$data/$part/wav.scp" ]; then
      { grep -v '|$' "$data/$part/wav.scp" | cut -d' ' -f2- | xargs -r -d '\n' stat -c '%s %y' -- 2>/dev/null; } || true
    fi
  done | sha256sum
}

stages_begin "$dir/.stages" "$stage" "$stop_stage" "$force" "$dir/results.txt"
if [ "$own_data" = true ]; then
  run_stage data --title "data directories" --options "$train $test $trials $enroll_map" --makes "$data/trials" \
    --reads "$trials $enroll_map $train/wav.scp $train/utt2spk $train/segments $test/wav.scp $test/utt2spk
             $test/segments $test/enroll.spk2utt"
else
  run_stage data --title "synthetic corpus ($size)" --options "$size $seed" \
    --reads "$(echo "$root"/local/mini/*)" --makes "$data/corpus/corpus.json $data/trials"
fi
audio=$(audio_state)
run_stage mfcc --title "MFCC" --after data --options "$audio" --reads "$mfcc_config" --makes "$data/train/feats.scp $data/test/feats.scp"
run_stage fbank --title "fbank" --after data --options "$audio" --reads "$fbank_config" \
  --makes "$data/train_fbank/feats.scp $data/test_fbank/feats.scp"
run_stage vad --title "voice activity, CMVN statistics" --after "mfcc fbank" --reads "$vad_config" \
  --makes "$data/train/vad.scp $data/test/vad.scp $data/train/cmvn.scp $data/test_fbank/cmvn.scp"
run_stage gmm --title "GMM-UBM, MAP" --after vad --options "$num_gauss $num_iters $seed" \
  --reads "$root/conf/sliding_cmvn.conf" --makes "$dir/ubm/final.gmm $dir/gmm_map/models.scp"
run_stage pool --title "pooled vectors" --after vad \
  --makes "$dir/pooled_mfcc_train/vectors.scp $dir/pooled_fbank_test/vectors.scp"
run_stage ivector --title "i-vectors" --after gmm --options "$ivector_num_gauss $ivector_dim $seed" \
  --reads "$root/conf/sliding_cmvn.conf" --makes "$dir/ivectors_train/vectors.scp $dir/ivectors_test/vectors.scp"
run_stage plda --title "LDA, PLDA" --after "pool ivector" --options "$lda_dim $lda_shrinkage" \
  --makes "$dir/plda_mfcc/plda $dir/plda_fbank/plda $dir/plda_ivectors/plda"
run_stage e2e --title "end-to-end network" --after vad \
  --options "$seed $size $e2e_opts $have_torch" --reads "$e2e_config $root/conf/sliding_cmvn.conf" \
  --makes "${have_torch/#true/$dir/e2e/final.pt $dir/e2e_test/vectors.scp}"
run_stage fhvae --title "FHVAE" --after "fbank plda" --options "$seed $size $fhvae_opts $have_torch" \
  --reads "$fhvae_config $root/local/mini/phones_3.map" --makes "${have_torch/#true/$dir/fhvae/final.pt $dir/plda_fhvae/plda}"
run_stage score --title "scores" --after "gmm plda e2e fhvae" \
  --makes "$dir/scores_gmm_map/eer $dir/scores_fbank_lda_plda/eer $dir/scores_ivectors_lda_plda/eer"
run_stage results --title "table" --after score --makes "$dir/results.txt"
if [ "$stop_stage" -ge "$_stage_number" ]; then
  echo
  cat "$dir/results.txt"
fi
