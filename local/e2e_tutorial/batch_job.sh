#!/usr/bin/env bash
# Train one DPLDA on mini-batches: batch_job.sh <folder> <line of its list of jobs> <option and argument>...
# A line of <folder>/jobs is <kind of batches> <speakers of a batch> <seed>.

set -euo pipefail
if [ $# -lt 4 ]; then
  echo "Usage: $0 <folder> <line> <option and argument of train-dplda>...
e.g.: $0 exp/dplda 3 --start=identity ark:vectors ark:utt2spk" >&2
  exit 1
fi
folder=$1
read -r kind speakers seed < <(sed -n "$2p" "$1/jobs")
shift 2
name=$folder/$kind.$speakers.$seed
train-dplda --optimizer=adam --batch="$kind" --batch-speakers="$speakers" --srand="$seed" \
  --report-file="$name.tsv" "$@" "$name.dplda"
