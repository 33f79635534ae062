#!/usr/bin/env bash
# Gathers the keys that the programs of a step dropped, and why, in one file, and fails when they are too many.
# Lines are `<key> <reason>`, one a key; the file is empty when nothing was dropped.

set -euo pipefail

max_percent=5    # more dropped keys than this fail
what=utterances  # what the keys are
help_message="Usage: $0 [options] <table-of-all-keys> <dropped-file> [<failed-list>...]
e.g.: $0 data/train/feats.scp exp/ubm/dropped exp/ubm/log/failed.*
  <table-of-all-keys> has the keys in its first column; <failed-list> files are written by --failed-list of a program;
  those that do not exist count as empty.
Options:
  --max-percent <n>   fail when more than this share of the keys was dropped (default: $max_percent)
  --what <word>       what the keys are, for messages (default: $what)"
. "$(dirname "${BASH_SOURCE[0]}")/../utils/parse_options.sh"
if [ $# -lt 2 ]; then
  echo "$help_message" >&2
  exit 1
fi
all=$1 dropped=$2
shift 2

lists=()
for list in "$@"; do
  if [ -f "$list" ]; then lists+=("$list"); fi
done
awk 'NR == FNR { known[$1]; next } $1 in known && !seen[$1]++' "$all" "${lists[@]:-/dev/null}" |
  LC_ALL=C sort >"$dropped.partial"
mv "$dropped.partial" "$dropped"

num_all=$(wc -l <"$all")
num_dropped=$(wc -l <"$dropped")
if [ "$num_dropped" -eq 0 ]; then exit 0; fi
echo "$0: $num_dropped of $num_all $what dropped, named with the reason in $dropped" >&2
if [ $((100 * num_dropped)) -gt $((max_percent * num_all)) ]; then
  echo "$0: ERROR: that is more than $max_percent %; the first: $(head -n 1 "$dropped")" >&2
  exit 1
fi
