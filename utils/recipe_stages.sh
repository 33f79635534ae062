# shellcheck shell=bash disable=SC2154  # the variables are those of recipe_lib.sh
# The stages of recipe_lib.sh from features to models: what each of them runs.

# same_lists <data directory> <its copy>: what was made in the copy is kept while they agree.
same_lists() {
  local name
  for name in wav.scp utt2spk segments; do
    if [ -f "$1/$name" ] || [ -f "$2/$name" ]; then cmp -s "$1/$name" "$2/$name" || return 1; fi
  done
}

# What would fail behind hours of training: trials of both kinds are needed, between models and test utterances.
check_trials() {
  awk -v map="$data/enroll_map" -v trials="$data/trials" '
    FILENAME == map { model[$1]; for (i = 2; i <= NF; i++) check($i); next }
    FILENAME != trials { test[$1]; next }
    NF != 3 || $3 !~ /^(non)?target$/ { wrong("expected `enroll-id test-id target|nontarget`") }
    !($1 in model) { wrong($1 " is not in " map) }
    { check($2); n[$3]++ }
    function check(id) { if (!(id in test)) wrong(id " is no utterance of the test") }
    function wrong(what) { if (!failed) print FILENAME ":" FNR ": " what >"/dev/stderr"; failed = 1; exit 1 }
    END { if (!failed && !(n["target"] && n["nontarget"])) {
        printf "%s: %d target and %d nontarget trials; both are needed: two test speakers, one with two utterances\n",
          trials, n["target"], n["nontarget"] >"/dev/stderr"
        exit 1 } }' "$data/test/utt2spk" "$data/enroll_map" "$data/trials"
}

# Utterances that stage_mfcc has dropped lack features; that none lacks audio it has checked itself.
validate_parts() {
  local part
  if [ ! -d "$data/dev" ]; then rm -rf "$data/dev_fbank"; fi # of an earlier run: the FHVAE would be validated on it
  for part in $parts; do
    validate_data_dir.sh --no-text --no-feats --partial "$data/$part"
    if ! same_lists "$data/$part" "$data/${part}_fbank"; then
      rm -rf "$data/${part}_fbank"
      copy_data_dir.sh "$data/$part" "$data/${part}_fbank"
      rm -f "$data/${part}_fbank"/{feats,vad,cmvn}.scp
    fi
  done
}

stage_mfcc() {
  check_trials
  for part in train test; do
    make_mfcc.sh --nj "$nj" --cmd "$cmd" --mfcc-config "$mfcc_config" "$data/$part"
  done
}

stage_fbank() {
  validate_parts
  for part in $parts; do
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

stage_ubm() {
  train_diag_ubm.sh --nj "$nj" --cmd "$cmd" --num-iters-init "$num_iters" --srand "$seed" "$data/train" \
    "$(ubm_size)" "$dir/ubm"
  if wants gmm; then
    adapt_gmm.sh --nj "$nj" --cmd "$cmd" "$data/test" "$data/enroll_map" "$dir/ubm" "$dir/gmm_map"
  fi
}

stage_pool() {
  for part in train test; do
    pool_feats.sh --nj "$nj" --cmd "$cmd" "$data/$part" "$dir/pooled_mfcc_$part"
    pool_feats.sh --nj "$nj" --cmd "$cmd" "$data/${part}_fbank" "$dir/pooled_fbank_$part"
  done
}

stage_ivector() {
  local diag=$dir/ubm n=$ivector_num_gauss dim=$ivector_dim cmd=$cmd gigabytes
  if [ "$n" -eq 0 ] || [ "$n" -eq "$(ubm_size)" ]; then
    n=$(ubm_size)
  else
    diag=$dir/ubm_ivector
    train_diag_ubm.sh --nj "$nj" --cmd "$cmd" --srand "$seed" "$data/train" "$n" "$diag"
  fi
  if [ "$dim" -eq 0 ]; then dim=$((n < 50 ? n : 50)); fi
  train_full_ubm.sh --nj "$nj" --cmd "$cmd" "$data/train" "$diag" "$dir/full_ubm"
  # The update, two processes in a pipe, takes seven times the matrices of the Gaussians (tests/bench/RESULTS.md).
  gigabytes=$(awk -v n="$n" -v d="$dim" 'BEGIN { printf "%d", 7 * 8 * n * d * (d + 1) / 2 / 1e9 + 1 }')
  if [ "$gigabytes" -gt 4 ]; then cmd+=" --mem ${gigabytes}G"; fi
  train_ivector_extractor.sh --nj "$nj" --cmd "$cmd" --ivector-dim "$dim" --num-iters 5 --srand "$seed" \
    "$data/train" "$dir/full_ubm" "$dir/extractor"
  for part in train test; do
    extract_ivectors.sh --nj "$nj" --cmd "$cmd" "$dir/extractor" "$data/$part" "$dir/ivectors_$part"
  done
}

# plda <vectors of the training part> <folder> [<option>...]
plda() {
  train_plda.sh --cmd "$cmd" --lda-dim "$lda_dim" --shrinkage "$lda_shrinkage" "${@:3}" "$data/train" "$1" "$2"
}

stage_plda() {
  local kind
  if wants pooled; then
    for kind in mfcc fbank; do plda "$dir/pooled_${kind}_train/vectors.scp" "$dir/plda_$kind"; done
  fi
  if wants ivector; then plda "$dir/ivectors_train/vectors.scp" "$dir/plda_ivectors"; fi
}

stage_e2e() {
  train_e2e.sh --nj "$nj" --cmd "$cmd" --train-cmd "$train_cmd" --gpu "$gpu" --train-config "$e2e_config" \
    --train-opts "--srand=$seed $short_e2e $e2e_opts" --restart true "$data/train_fbank" "$dir/e2e"
  extract_embeddings.sh --nj "$nj" --cmd "$cmd" --gpu "$gpu" "$dir/e2e" "$data/test_fbank" "$dir/e2e_test"
}

stage_fhvae() {
  local part dim validation=''
  if [ -d "$data/dev_fbank" ]; then validation="--dev-feats=scp:$data/dev_fbank/feats.scp"; fi
  train_fhvae.sh --cmd "$cmd" --train-cmd "$train_cmd" --gpu "$gpu" --train-config "$fhvae_config" \
    --train-opts "--srand=$seed $validation $short_fhvae $fhvae_opts" --restart true "$data/train_fbank" "$dir/fhvae"
  for part in train test; do
    extract_fhvae.sh --nj "$nj" --cmd "$cmd" --gpu "$gpu" --what "mu2 mu1" "$dir/fhvae" "$data/${part}_fbank" \
      "$dir/fhvae_$part"
  done
  plda "$dir/fhvae_train/vectors.scp" "$dir/plda_fhvae"
  plda "$dir/fhvae_train/mu1.scp" "$dir/plda_fhvae_mu1"
  for dim in $fhvae_lda_dims; do
    plda "$dir/fhvae_train/vectors.scp" "$dir/plda_fhvae_lda$dim" --lda-dim "$dim"
  done
}
