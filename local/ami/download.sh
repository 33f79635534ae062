#!/usr/bin/env bash
# Fetch recordings and annotations of the AMI corpus from its publisher, check them and unpack them.

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
. "$here/../fetch_lib.sh"

url=https://groups.inf.ed.ac.uk/ami
release=ami_public_manual_1.6.2
mics="ihm sdm"
annotations=true
help_message="Usage: $0 [options] <dir> [<meeting> ...]
e.g.: $0 /corpora/ami                               # the 170 meetings of the three sets, about 60 GB
      $0 --mics sdm /corpora/ami ES2004a ES2004b

Makes <dir>/amicorpus/<meeting>/audio/*.wav and <dir>/$release. A transfer that was interrupted goes on
where it stopped, also in a later run; files that are there are not fetched again. The publisher gives no checksums:
recordings are compared with the length in their own header, the annotations with the sums inside the zip file.
  --mics \"NAME ...\"         ihm (headset of each talker), sdm (array 1, microphone 1), mix (sum of the headsets)
                            (default: $mics)
  --annotations false       leave the annotations out
  --url URL                 a mirror, which has AMICorpusMirror and AMICorpusAnnotations (default:
                            $url)
  --retries N, --retry-delay SECONDS   after a transfer has broken off (default: $retries, $retry_delay)
See also: local/ami/prepare_data.py, egs/ami/README.md"
. "$here/../../utils/parse_options.sh"
if [ $# -lt 1 ]; then
  echo "$help_message" >&2
  exit 1
fi
dir=$1
shift
need curl od unzip
for mic in $mics; do
  [[ $mic == ihm || $mic == sdm || $mic == mix ]] || fail "--mics: '$mic' is none of ihm, sdm and mix"
done
if [ $# -eq 0 ]; then
  mapfile -t meetings < <(awk '!/^#/ && $2 != "none" { print $1 }' "$here/meetings.txt")
else
  meetings=("$@")
fi

# streams_of MEETING: the names of its recordings.
streams_of() {
  awk -v name="$1" -v mics=" $mics " '
    $1 == name {
      if (index(mics, " ihm ")) for (number = 0; number < $3; number++) print "Headset-" number
      if (index(mics, " sdm ") && $4 == "yes") print "Array1-01"
      if (index(mics, " mix ")) print "Mix-Headset"
    }' "$here/meetings.txt"
}

# Is the wav file $1 as long as its header says?
is_whole_wav() {
  local magic size
  magic=$(head -c 12 -- "$1" | tr '\0' ' ')
  size=$(od -A n -t u4 --endian=little -j 4 -N 4 -- "$1" | tr -d ' ')
  [[ $magic == RIFF????WAVE && $(stat -c %s -- "$1") -ge $((size + 8)) ]]
}

for meeting in "${meetings[@]}"; do
  grep -q "^$meeting " "$here/meetings.txt" || fail "'$meeting' is no meeting of AMI; see local/ami/meetings.txt"
done
for meeting in "${meetings[@]}"; do
  folder=$dir/amicorpus/$meeting/audio
  mkdir -p -- "$folder"
  for stream in $(streams_of "$meeting"); do
    file=$folder/$meeting.$stream.wav
    if [[ -f $file ]]; then continue; fi
    fetch "$url/AMICorpusMirror/amicorpus/$meeting/audio/$meeting.$stream.wav" "$file"
    is_whole_wav "$file.partial" || put_aside "$file" "is no wav file, or shorter than its header says"
    mv -- "$file.partial" "$file"
  done
  say "$meeting: done"
done
if [[ $annotations == true && ! -d $dir/$release ]]; then
  archive=$dir/$release.zip
  if [[ ! -f $archive ]]; then
    fetch "$url/AMICorpusAnnotations/$release.zip" "$archive"
    unzip -tqq "$archive.partial" >&2 || put_aside "$archive" "is no whole zip file"
    mv -- "$archive.partial" "$archive"
  fi
  rm -rf -- "$dir/.extract"
  mkdir -- "$dir/.extract"
  unzip -q "$archive" -d "$dir/.extract" || fail "$archive: cannot be unpacked (disk full?)"
  mv -T -- "$dir/.extract" "$dir/$release"
  rm -f -- "$archive"
  say "$release: done"
fi
