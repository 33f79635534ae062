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

. "$root/utils/recipe_stages.sh"
. "$root/utils/recipe_latent.sh"
. "$root/utils/recipe_results.sh"

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

# The same of a folder whose path stands in such lines: a * in it would name other folders, too, and launchers replace
# the word JOB.
recipe_plain_paths() {
  local path job='(^|[^A-Za-z0-9_])JOB([^A-Za-z0-9_]|$)'
  recipe_paths "$@"
  for path in "$@"; do
    [[ ! $path =~ $job ]] || fail "'$path': the word JOB stands for a number in jobs: choose another folder"
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
  [ -d "$corpus" ] || [ "$dry_run" = true ] || fail "--corpus $corpus: no such folder"
  recipe_paths "$corpus"
  corpus=$(realpath -m "$corpus")
  dir=${dir:-$here/exp/$preset}
  # shellcheck disable=SC2034 # for the recipe's stage_data
  read -r -a data_options <<<"${data_opts-}" # egs/own has none
}

# A hash of the names, sizes and times of the files of a folder, so that a repaired file counts as a new one. What this
# recipe writes, where --dir lies in the folder, does not count.
folder_state() {
  [ -d "$1" ] || return 0 # --dry-run may ask before the corpus is there
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
