# shellcheck shell=bash
# Fetching large files over HTTP, for the download scripts of corpora. To be sourced before their options are parsed.

retries=10     # after a transfer has broken off
retry_delay=10 # seconds

say() { printf '%s: %s\n' "${0##*/}" "$1" >&2; }

fail() {
  say "ERROR $1"
  exit 1
}

# True if there is no sense in asking again: $1 is curl's exit status, $2 the HTTP status.
is_final() {
  case $1 in
    1 | 3 | 23 | 60 | 77) return 0 ;; # protocol, address, disk, certificates
    22) [[ $2 == 4?? && $2 != 408 && $2 != 429 ]] ;;
    *) return 1 ;;
  esac
}

# fetch URL FILE: fetch to FILE.partial, going on where an earlier attempt has stopped. That all bytes have arrived is
# the server's word; the caller checks what the file holds, and renames it.
fetch() {
  local url=$1 partial=$2.partial attempt status code bar=--silent
  if [[ -t 2 ]]; then bar=--progress-bar; fi
  for ((attempt = 0; attempt <= retries; attempt++)); do
    if [[ -s $partial ]]; then say "$url: going on behind $(stat -c %s "$partial") bytes"; fi
    status=0
    code=$(curl --fail --location "$bar" --show-error --connect-timeout 30 --speed-limit 1000 --speed-time 60 \
      --continue-at - --output "$partial" --write-out '%{http_code}' -- "$url") || status=$?
    if [[ $status == 0 || $code == 416 ]]; then return 0; fi # 416: nothing is left to fetch
    if [[ $status == 33 ]]; then # the server does not know how to go on
      say "$url: the server cannot resume; from the beginning"
      rm -f "$partial"
      continue
    fi
    if is_final "$status" "$code"; then break; fi
    say "$url: interrupted (curl's status $status)"
    if ((attempt < retries)); then sleep "$retry_delay"; fi
  done
  fail "$url: cannot be fetched (curl's status $status, HTTP status $code); the same command goes on where it stopped"
}

# put_aside FILE WHY: a fetched file that is wrong is kept under another name, so that the next run starts anew.
put_aside() {
  mv -f -- "$1.partial" "$1.bad"
  fail "$1: $2; it was put aside as $1.bad. Run the command again, or try another mirror with --url"
}

# need PROGRAM ...
need() {
  local program
  for program in "$@"; do
    command -v "$program" >/dev/null || fail "the program '$program' is needed; install it"
  done
}
