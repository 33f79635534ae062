# shellcheck shell=bash disable=SC2154  # the options are those of recipe_options.sh
# From data directories to error rates, pictures and a page: the stages that all recipes of whole experiments share.
# To be sourced behind recipe_options.sh and parse_options.sh by a recipe that has set root:
#
#   . "$root/utils/recipe_lib.sh"
#   recipe_begin "Title" [<corpus folder>]      checks the options, sets dir and data, begins the stages
#   stage_data() { local/mycorpus/prepare_data.py "$corpus" "$data"; }
#   run_stage data --title "data directories" --options "$corpus_state" --makes "$data/trials"
#   recipe_systems                              all other stages
#
# stage_data makes $data/train and $data/test (wav.scp, utt2spk, spk2utt; segments, text; labels spk2gender, utt2noise,
# utt2mic, phones.ctm of which the latent space is asked), $data/trials, $data/enroll_map, and where the corpus has one,
# $data/dev, on which the FHVAE is validated. The recipe may set before recipe_systems:
#
#   labels=DIR          the data directory that has the labels of the test utterances ($data/test)
#   ctm_map=FILE        phone -> class (conf/timit_phones_3.map)
#   phone_map=FILE      phone -> phone, where those of phones.ctm are too fine (none)
#   hours=H             hours of speech, for the sizes that --dry-run expects
#   short_e2e, short_fhvae=OPTIONS   of the trainings; the options that the user gives win

. "$root/utils/recipe_latent.sh"

fail() {
  echo "$0: ERROR: $*" >&2
  exit 1
}

has_module() { python3 -c 'import importlib.util, sys; sys.exit(not importlib.util.find_spec(sys.argv[1]))' "$1"; }

# wants <system>: is it asked for and possible?
wants() {
  [[ " $systems " == *" $1 "* ]] || return 1
  [[ $1 != e2e && $1 != fhvae ]] || [ "$have_torch" = true ]
}

# Kaldi's pipes are lines of shell, where a blank ends a file name.
recipe_paths() {
  local path
  for path in "$@"; do
    [[ $path != *[[:space:]]* ]] || fail "'$path': paths with blanks do not work in pipes"
  done
}

# The same of a folder whose path stands in such lines: a * in it would name other folders, too.
recipe_plain_paths() {
  local path
  recipe_paths "$@"
  for path in "$@"; do
    case $path in
      *[][*?\(\)\<\>\|\;\&\$\`\"\'\\,]*)
        fail "'$path': characters of the shell, and commas, do not work in pipes: choose another folder" ;;
    esac
  done
}

recipe_check() {
  local option system
  cmd_defaults
  for option in nj stage stop_stage seed num_gauss num_iters ivector_num_gauss ivector_dim lda_dim; do
    [[ ${!option} =~ ^[0-9]+$ ]] || fail "--${option//_/-} ${!option}: expected a number"
  done
  [ "$nj" -gt 0 ] || fail "--nj 0: expected at least one job"
  for option in $fhvae_lda_dims; do
    [[ $option =~ ^[1-9][0-9]*$ ]] || fail "--fhvae-lda-dims: $option: expected numbers above zero"
  done
  [[ $systems == *[a-z]* ]] || fail "--systems names no system"
  for system in $systems; do
    [[ " gmm pooled ivector e2e fhvae " == *" $system "* ]] ||
      fail "--systems: $system: expected gmm, pooled, ivector, e2e or fhvae"
  done
  for option in mfcc_config fbank_config vad_config e2e_config fhvae_config; do
    if [ ! -f "${!option}" ] && [ -f "$root/${!option}" ]; then printf -v "$option" '%s' "$root/${!option}"; fi
    [ -f "${!option}" ] || fail "--${option//_/-} ${!option}: no such file"
    printf -v "$option" '%s' "$(realpath "${!option}")"
  done
}

# recipe_begin <title> [<folder of the data>]: the data are in $dir/data otherwise.
recipe_begin() {
  recipe_title=$1
  recipe_check
  [ -n "$dir" ] || fail "--dir is needed: where everything goes"
  dir=$(realpath -m -- "$dir")
  recipe_plain_paths "$root" "$dir"
  data=${2:-$dir/data}
  . "$root/path.sh"
  . "$root/utils/stages.sh"
  have_torch=true
  has_module torch || have_torch=false
  no_torch="it needs torch: pip install 'voxark[neural]'"
  labels=$data/test ctm_map=$root/conf/timit_phones_3.map phone_map='' hours=0 short_e2e='' short_fhvae=''
  if [ "$dry_run" = false ]; then mkdir -p "$dir" "$data"; fi
  stages_begin "$dir/.stages" "$stage" "$stop_stage" "$force" "$dir/results.txt" "$dir/report.html"
}

# For the recipe of a corpus, before recipe_begin: checks --corpus, and no argument is left; results go to exp/<preset>
# beside the recipe unless --dir says otherwise.
recipe_corpus() {
  if [ $# -ne 0 ]; then fail "unexpected argument '$1' (--help shows the options)"; fi
  [ -n "$corpus" ] || fail "--corpus is needed: the folder of the corpus as its publisher ships it (see --help)"
  [ -d "$corpus" ] || fail "--corpus $corpus: no such folder"
  recipe_paths "$corpus"
  corpus=$(realpath "$corpus")
  dir=${dir:-$here/exp/$preset}
  # shellcheck disable=SC2034 # for the recipe's stage_data
  read -r -a data_options <<<"${data_opts-}" # egs/own has none
}

# A hash of the names, sizes and times of the files of a folder, so that a repaired file counts as a new one. What this
# recipe writes, where --dir lies in the folder, does not count.
folder_state() {
  find -L "$1" -path "$dir" -prune -o -type f -printf '%P %s %T@\n' | sort | sha256sum | cut -d' ' -f1
}

# The same of the audio files that the data directories name, in pipes too.
audio_state() {
  local part
  for part in $parts; do
    if [ -f "$data/$part/wav.scp" ]; then
      { awk '{ for (i = 2; i <= NF; i++) if ($i ~ /^\//) print $i }' "$data/$part/wav.scp" |
        xargs -r -d '\n' stat -L -c '%s %y' -- 2>/dev/null; } || true
    fi
  done | sha256sum
}

# about <bytes an hour>: the size that is to be expected.
about() {
  local known=$hours
  if [ -s "$data/train/utt2num_frames" ]; then
    known=$(cat "$data"/{train,test}/utt2num_frames | awk '{ n += $2 } END { print n / 360000 }')
  fi
  awk -v h="$known" -v b="$1" 'BEGIN { if (h > 0) printf "%.3g MB", h * b / 1e6 }'
}

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
    printf 'seed %s\npreset %s\n' "$seed" "${preset:-none}"
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

# network_stage <name> <run_stage's options...>: with torch alone
network_stage() {
  local when=false why="not asked for"
  if wants "$1"; then
    when=true
  elif [[ " $systems " == *" $1 "* ]]; then
    why=$no_torch
    if [ "$dry_run" = false ]; then echo "$0: WARNING: $1 is left out: $no_torch" >&2; fi
  fi
  run_stage "${2:-$1}" --when "$when" --why "$why" "${@:3}"
}

# asked <system>...: "true" where one of them is in --systems
asked() {
  local system
  for system in "$@"; do
    if wants "$system"; then echo true; return; fi
  done
  echo false
}

recipe_systems() {
  parts="train test"
  if [ -d "$data/dev" ]; then parts="train dev test"; fi
  local sliding=$root/conf/sliding_cmvn.conf audio=''
  if [ "$stop_stage" -gt 1 ]; then audio=$(audio_state); fi
  run_stage mfcc --title "MFCC" --after data --options "$audio" --reads "$mfcc_config" --size "$(about 8e6)" \
    --makes "$data/train/feats.scp $data/test/feats.scp"
  run_stage fbank --title "fbank" --after data --options "$audio" --reads "$fbank_config" --size "$(about 30e6)" \
    --makes "$data/train_fbank/feats.scp $data/test_fbank/feats.scp"
  run_stage vad --title "voice activity, CMVN statistics" --after "mfcc fbank" --reads "$vad_config" \
    --size "$(about 1.5e6)" \
    --makes "$data/train/vad.scp $data/test/vad.scp $data/train/cmvn.scp $data/test_fbank/cmvn.scp"
  run_stage ubm --title "GMM-UBM, MAP" --after vad --options "$num_gauss $num_iters $seed $(asked gmm)" \
    --when "$(asked gmm ivector)" --reads "$sliding $data/enroll_map" \
    --makes "$dir/ubm/final.gmm $(wants gmm && echo "$dir/gmm_map/models.scp")"
  run_stage pool --title "pooled vectors" --after vad --when "$(asked pooled)" \
    --makes "$dir/pooled_mfcc_train/vectors.scp $dir/pooled_fbank_test/vectors.scp"
  run_stage ivector --title "i-vectors" --after ubm --options "$ivector_num_gauss $ivector_dim $seed" \
    --reads "$sliding" --when "$(asked ivector)" \
    --makes "$dir/ivectors_train/vectors.scp $dir/ivectors_test/vectors.scp"
  run_stage plda --title "LDA, PLDA" --after "pool ivector" \
    --options "$lda_dim $lda_shrinkage $(asked pooled) $(asked ivector)" --when "$(asked pooled ivector)" \
    --makes "$(wants ivector && echo "$dir"/plda_ivectors/{lda.mat,plda})
      $(wants pooled && echo "$dir"/plda_{mfcc,fbank}/{lda.mat,plda})"
  network_stage e2e e2e --title "end-to-end network" --after vad --options "$seed $short_e2e $e2e_opts $gpu" \
    --reads "$e2e_config $sliding" --makes "$dir/e2e/final.pt $dir/e2e_test/vectors.scp"
  network_stage fhvae fhvae --title "FHVAE" --after fbank --options "$seed $short_fhvae $fhvae_opts $gpu $lda_dim
    $lda_shrinkage $fhvae_lda_dims" --reads "$fhvae_config" --makes "$dir/fhvae/final.pt $dir/plda_fhvae/plda"
  network_stage fhvae latent --title "latent space" --after fhvae --reads "$ctm_map $phone_map
    $labels/utt2noise $labels/utt2mic $labels/utt2uniq $labels/phones.ctm" --makes "$dir/fhvae_segments/z1.scp $dir/fhvae_converted/utt2utt
    $(has_module sklearn && echo "$dir/fhvae_segments/disentanglement.txt")
    $(has_module matplotlib && echo "$dir"/fhvae_figures/{recombination,training}.svg)"
  run_stage score --title "scores" --after "ubm plda e2e fhvae" --options "$systems $have_torch" \
    --reads "$data/trials $data/enroll_map" --makes "$(each_system scores_file)"
  run_stage results --title "table" --after "score latent" --makes "$dir/results.txt"
  run_stage page --title "page" --after results \
    --makes "$(has_module plotly && has_module jinja2 && echo "$dir/report.html")"
  if [ "$dry_run" = false ] && [ "$stop_stage" -ge 13 ]; then # the table; the page may be left out
    printf '\n%s\n' "$(cat "$dir/results.txt")"
    if [ -s "$dir/report.html" ]; then printf 'Page:    %s\n' "$dir/report.html"; fi
  fi
}

scores_file() { echo "$dir/scores_$1/scores $dir/scores_$1/eer"; }
