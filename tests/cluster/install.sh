#!/usr/bin/env bash
# Installs what tests/cluster needs, Slurm and GridEngine with their daemons, from Debian's packages: as root, once.
# No service is started: the tests start daemons of their own. What is there already is left as it is.

set -euo pipefail

declare -A program_of=([munge]=munged [slurm-wlm]=slurmctld [gridengine-master]=sge_qmaster
                       [gridengine-exec]=sge_execd [gridengine-client]=qsub)
packages=()
for package in munge slurm-wlm gridengine-master gridengine-exec gridengine-client; do
  PATH=$PATH:/usr/sbin:/sbin command -v "${program_of[$package]}" > /dev/null || packages+=("$package")
done
[ ${#packages[@]} -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
  echo "install.sh: ${packages[*]} not installed, and that takes root on Debian or Ubuntu;" \
    "tests/cluster skips what it lacks" >&2
  exit 1
fi

# Debian starts a service as it installs it, save where policy-rc.d says no (101).
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' > "$policy"
  chmod 755 "$policy"
  trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -qq -y --no-install-recommends "${packages[@]}" > /dev/null
