# shellcheck shell=bash
# Stages of a recipe that are skipped when they have been finished with the same inputs and options. To be sourced.
#
#   stages_begin exp/mydata/.stages "$stage" "$stop_stage" "$force" exp/mydata/results.txt
#   stage_features() { make_mfcc.sh --nj "$nj" data/train; }
#   run_stage features --title "MFCC" --after "corpus" --options "$mfcc_opts" \
#     --reads "conf/mfcc.conf data/train/wav.scp" --makes data/train/feats.scp --size "1.2 GB"
#
# run_stage NAME runs the function stage_NAME. Its fingerprint is the SHA-256 of the function's text, of --options,
# of the contents of the files of --reads, and of the fingerprints of the stages of --after. It is written when the
# stage has succeeded, and the stage is skipped while it is the same and the files of --makes are there. Lists are
# separated by white space. A stage that was killed has no fingerprint and runs again. Numbers count from 1. What a
# stage prints on standard output goes to NAME.log beside the fingerprint. As soon as a stage runs, the results that
# later stages of an earlier run made are removed, so that they do not pass for those of a run that fails.
# `--when false --why TEXT` leaves a stage out, which keeps its number and what it made earlier.
#
# The file journal beside the fingerprints has a line for each stage that has finished, in their order, separated by
# tabs: number, name, title, seconds, when it ended.
#
# A recipe with a variable dry_run=true says of each stage what it reads and makes, how large that is (or will be:
# --size), and whether it would run; nothing is made.

declare -gA _stage_fingerprint=()
_stage_number=0

# hold_folder <folder> [<lock file>]: no other run may work in the folder until this script has ended. Two runs would
# take each other's files away; a killed run's last steps get ten seconds to end.
hold_folder() {
  local lock
  exec {lock}>"${2:-$1/.lock}"
  if command -v flock >/dev/null && ! flock -w 10 "$lock"; then
    echo "$0: ERROR: another run (or what a killed one left running) works in $1; wait for its end" >&2
    exit 1
  fi
}

# stages_begin <folder of the fingerprints> <first stage> <last stage> <true: run finished stages again> [<results>...]
stages_begin() {
  _stage_dir=$1 _stage_first=$2 _stage_last=$3 _stage_force=$4
  _stage_results=("${@:5}")
  _stage_dry=${dry_run:-false}
  _stage_would_run=' ' _stage_made=
  if [ "$_stage_dry" = true ]; then return; fi
  mkdir -p "$_stage_dir"
  hold_folder "$(dirname "$_stage_dir")" "$_stage_dir/lock"
  trap _stage_say_what_failed EXIT
}

_stage_running=
_stage_say_what_failed() {
  local status=$?
  if [ "$status" -ne 0 ] && [ -n "$_stage_running" ]; then
    echo "$0: ERROR: stage $_stage_running failed; after a repair the same command goes on" \
      "(the folders' dropped.* say why utterances are missing)" >&2
  fi
}

_stage_compute_fingerprint() {
  local file earlier
  {
    declare -f "stage_$_name"
    printf '%s\n' "$_options"
    for earlier in $_after; do printf '%s\n' "${_stage_fingerprint[$earlier]}"; done
    for file in $_reads; do
      # Files that an earlier stage makes may be missing as yet; then this stage has not run either.
      if [ -f "$file" ]; then sha256sum <"$file"; else echo missing; fi
    done
  } | sha256sum | cut -d' ' -f1
}

_stage_is_finished() {
  local file
  [ "$(cat "$_stage_dir/$_name" 2>/dev/null)" = "$1" ] || return 1
  for file in $_makes; do
    [ -e "$file" ] || return 1
  done
}

# The stage's line of the journal is replaced; lines stay in the order of the stages.
_stage_note() {
  local journal=$_stage_dir/journal
  {
    if [ -f "$journal" ]; then awk -F'\t' -v name="$_name" '$2 != name' "$journal"; fi
    printf '%d\t%s\t%s\t%d\t%s\n' "$_stage_number" "$_name" "$_title" "$1" "$(date -Iseconds)"
  } | sort -n >"$journal.partial"
  mv "$journal.partial" "$journal"
}

# Prints files with their sizes, those of tables with the archives that they point to.
_stage_sizes() {
  local file size archives
  for file in "$@"; do
    if [ ! -e "$file" ]; then
      printf '      %s (not there yet)\n' "$file"
      continue
    fi
    size=$(du -shL "$file" 2>/dev/null | cut -f1)
    if [[ $file == *.scp ]]; then
      archives=$(sed -n 's/^[^ ]* \([^|]*\):[0-9]*$/\1/p' "$file" | sort -u | xargs -r -d '\n' du -chL 2>/dev/null |
        tail -n 1 | cut -f1) || true
      if [ -n "$archives" ]; then size+=", its archives $archives"; fi
    fi
    printf '      %s (%s)\n' "$file" "$size"
  done
}

# Says what the stage would do. One that comes after a stage that would run would run itself.
_stage_describe() {
  local state="would run" earlier
  if [ "$_stage_number" -gt "$_stage_last" ]; then
    state="not asked for"
  elif [ "$_stage_number" -lt "$_stage_first" ]; then
    state="not asked for"
    _stage_is_finished "$1" || state+=", but it has not finished with these inputs and options: start from it"
  elif [ "$_stage_force" != true ] && _stage_is_finished "$1"; then
    state="finished before"
    for earlier in $_after; do
      if [[ $_stage_would_run == *" $earlier "* ]]; then state="would run"; fi
    done
  fi
  if [ "$state" = "would run" ]; then _stage_would_run+="$_name "; fi
  printf 'stage %d: %s: %s\n' "$_stage_number" "$_title" "$state"
  if [ -n "${_after// /}" ]; then printf '    after %s\n' "$_after"; fi
  if [ -n "${_reads//[[:space:]]/}" ]; then
    echo "    reads"
    # shellcheck disable=SC2086 # lists of files
    _stage_sizes $_reads
  fi
  if [ -n "${_makes//[[:space:]]/}" ]; then
    echo "    makes${_size:+ (about $_size in all)}"
    # shellcheck disable=SC2086
    _stage_sizes $_makes
  fi
}

# Results of an earlier run are removed, but for those that a stage before this one has made, or found up to date.
_stage_remove_results() {
  local file
  for file in ${_stage_results[@]+"${_stage_results[@]}"}; do
    if [[ " ${_stage_made//[[:space:]]/ } " != *" $file "* ]]; then rm -f -- "$file"; fi
  done
}

run_stage() {
  local _name=$1 _title=$1 _after='' _options='' _reads='' _makes='' _size='' _when=true _why='not asked for'
  local fingerprint start=$SECONDS
  shift
  while [ $# -gt 0 ]; do
    case $1 in
      --title) _title=$2 ;;
      --after) _after=$2 ;;
      --options) _options=$2 ;;
      --reads) _reads=$2 ;;
      --makes) _makes=$2 ;;
      --size) _size=$2 ;;
      --when) _when=$2 ;;
      --why) _why=$2 ;;
      *) echo "run_stage $_name: unknown option $1" >&2; return 1 ;;
    esac
    shift 2
  done
  _stage_number=$((_stage_number + 1))
  if [ "$_when" != true ]; then
    _stage_fingerprint[$_name]="left out"
    if [ "$_stage_number" -ge "$_stage_first" ] && [ "$_stage_number" -le "$_stage_last" ]; then
      echo "stage $_stage_number: $_title: left out: $_why"
    fi
    return 0
  fi
  fingerprint=$(_stage_compute_fingerprint)
  _stage_fingerprint[$_name]=$fingerprint
  if [ "$_stage_dry" = true ]; then
    _stage_describe "$fingerprint"
    return 0
  fi
  if [ "$_stage_number" -gt "$_stage_last" ]; then return 0; fi
  if [ "$_stage_number" -lt "$_stage_first" ]; then
    if _stage_is_finished "$fingerprint"; then
      _stage_made+="$_makes "
      return 0
    fi
    echo "$0: ERROR: stage $_stage_number ($_title) has not finished with these inputs and options;" \
      "start from it: --stage $_stage_number" >&2
    return 1
  fi
  if [ "$_stage_force" != true ] && _stage_is_finished "$fingerprint"; then
    echo "stage $_stage_number: $_title: finished before, skipped"
    _stage_made+="$_makes "
    return 0
  fi
  echo "stage $_stage_number: $_title"
  rm -f -- "$_stage_dir/$_name"
  _stage_remove_results
  _stage_running="$_stage_number ($_title)"
  "stage_$_name" >"$_stage_dir/$_name.log"
  _stage_running=
  _stage_made+="$_makes "
  printf '%s\n' "$fingerprint" >"$_stage_dir/$_name.partial"
  mv "$_stage_dir/$_name.partial" "$_stage_dir/$_name"
  _stage_note $((SECONDS - start))
  echo "stage $_stage_number: $_title: done in $((SECONDS - start)) s"
}

# True behind the last stage, if all have been run or skipped: the results can be shown.
stages_complete() {
  [ "$_stage_dry" = false ] && [ "$_stage_last" -ge "$_stage_number" ]
}
