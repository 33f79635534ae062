#!/usr/bin/env bash
# Fetch parts of LibriSpeech from its publisher, check them and unpack them.

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
. "$here/../fetch_lib.sh"

url=https://www.openslr.org/resources/12
md5sums=$here/md5sums.txt
keep_archives=false
help_message="Usage: $0 [options] <dir> [<part> ...]
e.g.: $0 /corpora                                   # train-clean-100 and the four development and test parts
      $0 /corpora train-clean-360 train-other-500

Makes <dir>/LibriSpeech/<part>. A transfer that was interrupted goes on where it stopped, also in a later run; archives
are compared with the publisher's checksums; a part that is there is not fetched again. Sizes of the archives in GB:
train-clean-100 6.3, train-clean-360 23, train-other-500 30, the others 0.3 each.
  --url URL                 a mirror, which has <part>.tar.gz (default: $url)
  --md5sums FILE            lines \`checksum file\` (default: those of the publisher)
  --keep-archives true      keep the .tar.gz files
  --retries N, --retry-delay SECONDS   after a transfer has broken off (default: $retries, $retry_delay)
See also: local/librispeech/prepare_data.py, egs/librispeech/README.md"
. "$here/../../utils/parse_options.sh"
if [ $# -lt 1 ]; then
  echo "$help_message" >&2
  exit 1
fi
dir=$1
shift
if [ $# -eq 0 ]; then set -- train-clean-100 dev-clean dev-other test-clean test-other; fi
need curl md5sum tar

# sum_of PART: the published checksum of its archive.
sum_of() {
  [[ -f $md5sums ]] || fail "$md5sums: no such file"
  awk -v name="$1.tar.gz" '$2 == name || $2 == "*" name { print $1; exit }' "$md5sums"
}

# unpack PART ARCHIVE: beside, then rename, so that a part that is there is whole.
unpack() {
  local part=$1 archive=$2 folder=$dir/.extract.$1 file
  rm -rf -- "$folder"
  mkdir -p -- "$folder" "$dir/LibriSpeech"
  tar -xzf "$archive" -C "$folder" --no-same-owner ||
    fail "$archive: cannot be unpacked (disk full?); if the file is damaged, delete it and run the command again"
  [[ -d $folder/LibriSpeech/$part ]] || fail "$archive: holds no LibriSpeech/$part"
  for file in "$folder"/LibriSpeech/*.TXT; do
    if [[ -f $file ]]; then mv -f -- "$file" "$dir/LibriSpeech/"; fi
  done
  mv -T -- "$folder/LibriSpeech/$part" "$dir/LibriSpeech/$part"
  rm -rf -- "$folder"
}

for part in "$@"; do
  [[ -n $(sum_of "$part") ]] || fail "'$part' is no part of LibriSpeech; the parts are$(
    awk '{ sub(/\.tar\.gz$/, "", $2); printf " %s", $2 }' "$md5sums")"
done
mkdir -p -- "$dir"
for part in "$@"; do
  archive=$dir/$part.tar.gz
  if [[ -d $dir/LibriSpeech/$part ]]; then
    say "$part: is there already"
    continue
  fi
  if [[ ! -f $archive ]]; then
    fetch "$url/$part.tar.gz" "$archive"
    found=$(md5sum <"$archive.partial")
    found=${found%% *}
    wanted=$(sum_of "$part")
    [[ $found == "$wanted" ]] || put_aside "$archive" "has the checksum $found, published is $wanted"
    mv -- "$archive.partial" "$archive"
  fi
  unpack "$part" "$archive"
  if [[ $keep_archives == false ]]; then rm -f -- "$archive"; fi
  say "$part: done"
done
