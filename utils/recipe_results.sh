# shellcheck shell=bash disable=SC2154  # the variables are those of recipe_lib.sh
# The last stages of recipe_lib.sh: which systems there are, their scores, the table, the page.

# each_system <command...>: calls it with name, title, folder of models, what is tested and the options of score.sh
each_system() {
  local enroll=(--enroll-map "$data/enroll_map") mfcc=$dir/pooled_mfcc_test/vectors.scp
  if wants gmm; then "$@" gmm_map "GMM-UBM, MAP" gmm_map "$data/test" --backend gmm; fi
  if wants pooled; then
    "$@" mfcc_cosine "pooled MFCC, cosine" plda_mfcc "$mfcc" --backend cosine --lda false "${enroll[@]}"
    "$@" mfcc_lda_cosine "pooled MFCC, LDA, cosine" plda_mfcc "$mfcc" --backend cosine "${enroll[@]}"
    "$@" mfcc_lda_plda "pooled MFCC, LDA, PLDA" plda_mfcc "$mfcc" --backend plda "${enroll[@]}"
    "$@" fbank_lda_plda "pooled fbank, LDA, PLDA" plda_fbank "$dir/pooled_fbank_test/vectors.scp" --backend plda \
      "${enroll[@]}"
  fi
  if wants ivector; then
    "$@" ivectors_lda_plda "i-vectors, LDA, PLDA" plda_ivectors "$dir/ivectors_test/vectors.scp" --backend plda \
      "${enroll[@]}"
  fi
  if wants e2e; then
    "$@" e2e "x-vector, end to end" e2e "$dir/e2e_test/vectors.scp" --backend e2e "${enroll[@]}"
  fi
  if wants fhvae; then each_fhvae "$@"; fi
}

each_fhvae() {
  local enroll=(--enroll-map "$data/enroll_map") mu2=$dir/fhvae_test/vectors.scp dim
  "$@" fhvae_cosine "s-vectors (FHVAE), cosine" plda_fhvae "$mu2" --backend cosine --lda false "${enroll[@]}"
  for dim in $fhvae_lda_dims; do
    "$@" "fhvae_lda${dim}_cosine" "s-vectors (FHVAE), LDA-$dim, cosine" "plda_fhvae_lda$dim" "$mu2" \
      --backend cosine "${enroll[@]}"
  done
  "$@" fhvae_lda_plda "s-vectors (FHVAE), LDA, PLDA" plda_fhvae "$mu2" --backend plda "${enroll[@]}"
  "$@" fhvae_mu1_cosine "mean of z1 (FHVAE), cosine" plda_fhvae_mu1 "$dir/fhvae_test/mu1.scp" --backend cosine \
    --lda false "${enroll[@]}"
}

# score <name> <title> <models> <test> <option>...
score() {
  score.sh --nj "$nj" --cmd "$cmd" "${@:5}" "$data/trials" "$dir/$3" "$4" "$dir/scores_$1"
}

stage_score() {
  local folder
  for folder in "$dir"/scores_*; do # of systems that are not asked for any more
    if ! each_system echo | grep -q "^${folder##*/scores_} "; then rm -rf "$folder"; fi
  done
  each_system score
}

# row <name> <title> ...
row() {
  awk -v title="$2" '$1 == "EER" { sub(/;$/, "", $NF); match($0, /minDCF\([^)]*\) [0-9.]+/)
    split(substr($0, RSTART, RLENGTH), cost, " "); printf "%-34s %7s %14s\n", title, $2, cost[2] }' "$dir/scores_$1/eer"
}

# Says where speakers of the test were trained on: error rates look too good then.
note_shared_speakers() {
  awk 'NR == FNR { train[$1]; next } $1 in train { n++; if (n == 1) first = $1 }
    END { if (n) printf "%d of %d test speakers are in the training part, too, the first is %s: %s\n", n, FNR, first,
        "error rates look better than they are" }' "$data/train/spk2utt" "$data/test/spk2utt"
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

system_line() { echo "$1 $2"; }

# What make-report wants to know of the experiment.
describe_experiment() {
  each_system system_line >"$dir/systems"
  {
    printf 'title %s\ncommand %s\ncorpus %s\n' "$recipe_title" "$recipe_command" "${corpus:-$data/corpus}"
    printf 'data %s\ntrials %s\nlabels %s\n' "$data" "$data/trials" "$labels"
    printf 'seed %s\n' "$seed"
    if [ -n "${preset:-}" ]; then echo "preset $preset"; fi
    python3 -m voxark.versions
    printf 'started %s\n' "$(awk -F'\t' 'NR == 1 { print $5 }' "$dir/.stages/journal")"
  } >"$dir/experiment.partial"
  mv "$dir/experiment.partial" "$dir/experiment"
}

# The models that there are, as bash would write them.
models() {
  local name found=''
  for name in ubm gmm_map extractor plda_{mfcc,fbank,ivectors} e2e fhvae; do
    if [ -d "$dir/$name" ]; then found+=${found:+,}$name; fi
  done
  echo "$dir/{$found}"
}

stage_results() {
  describe_experiment
  {
    printf 'Training: %d speakers, %d utterances. Test: %d speakers, %d models, %d trials of which %d target.\n\n' \
      "$(wc -l <"$data/train/spk2utt")" "$(wc -l <"$data/train/utt2spk")" "$(wc -l <"$data/test/spk2utt")" \
      "$(wc -l <"$data/enroll_map")" "$(wc -l <"$data/trials")" "$(awk '$3 == "target"' "$data/trials" | wc -l)"
    printf '%-34s %7s %14s\n' System 'EER %' 'minDCF(0.01)'
    each_system row
    if [ "$have_torch" = false ] && [[ $systems == *e2e* || $systems == *fhvae* ]]; then
      echo "x-vector, end to end; s-vectors: left out: $no_torch"
    fi
    note_shared_speakers
    note_missing
    if wants fhvae && [ -s "$dir/fhvae_segments/disentanglement.txt" ]; then
      printf '\nWhat z1 and z2 of the FHVAE know, by linear probes:\n'
      sed -n '/^factor/,/^MI:/p' "$dir/fhvae_segments/disentanglement.txt"
    fi
    printf '\nData:    %s\nModels:  %s\nScores:  %s\nTable:   %s\n' "$data/{train,test,train_fbank,test_fbank}" \
      "$(models)" "$dir/scores_*/scores" "$dir/results.txt"
  } >"$dir/results.txt.partial"
  mv "$dir/results.txt.partial" "$dir/results.txt"
}

stage_page() {
  if has_module plotly && has_module jinja2; then
    make-report "$dir" 2>"$dir/.stages/make_report.log" || { tail -n 2 "$dir/.stages/make_report.log" >&2; return 1; }
  else
    echo "$0: WARNING: no page: it needs plotly and Jinja2: pip install 'voxark[report]'" >&2
  fi
}
