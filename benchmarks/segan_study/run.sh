#!/usr/bin/env bash
# The whole study of docs/segan.md: hours on two cores. Each comparison goes on where it was cut off.
#   benchmarks/segan_study/run.sh WORK_FOLDER [NAME...]
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
work=$1
shift
mkdir -p "$here/results"
export SEGAN_RAY_HOME=$work/home

# The manifest of the last store is the last file that it writes.
[ -f "$work/wrong-32/store/manifest.json" ] || python "$here/stores.py" "$work"

compare() { # NAME STORE ARMS EQUAL
  segan-ray compare "$work/$2" --arms "$here/$3.yaml" --name "$1" --equal "$4" --seeds 5 \
    --resume --output "$here/results/$1.json"
}

wanted() { [ ${#names[@]} -eq 0 ] || [[ " ${names[*]} " == *" $1 "* ]]; }

names=("$@")
wanted four-arms-epochs && compare four-arms-epochs store four_arms epochs
wanted four-arms-seconds && compare four-arms-seconds store four_arms seconds
for size in 4 8 16 32; do
  for kind in clean wrong; do
    wanted "$kind-$size" && compare "$kind-$size" "$kind-$size/store" critic_pays epochs
  done
done
wanted choices && compare choices store choices epochs
python "$here/curves.py" "$SEGAN_RAY_HOME" "$here/results"
