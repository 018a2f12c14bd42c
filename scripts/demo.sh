#!/usr/bin/env bash
# The main job, with the commands a user types. Data is kept between runs; each makes a new sweep.
set -euo pipefail

home=${SEGAN_RAY_HOME:-segan-ray-home}
demo=$home/demo
stamp=$(date +%Y%m%d-%H%M%S)
sweep=demo-$stamp
mkdir -p "$demo"

run() {
  printf '\n$ segan-ray %s\n' "$*"
  segan-ray "$@"
}

run phantom "$demo/data" --cases 40 --spacing 2
run inspect "$demo/data"
run prepare "$demo/data" "$demo/store"

# The reference: MONAI's U-Net with as many epochs, steps and slices as a trial of the sweep.
run train "$demo/store" --name "unet-$stamp" --config scripts/demo-unet.yaml

run tune "$demo/store" --space search_spaces/demo.yaml --name "$sweep"
run trials "$sweep"
run promote "$sweep"
# U-Net's thresholds are fitted to its maps like the champion's; another demo's U-Net is replaced.
run promote "unet-$stamp" --alias unet --force
run evaluate champion "$demo/store" --output "$demo/evaluation.json" \
  --reference threshold --reference unet=models:/segan@unet
run report "$sweep" "$demo/report.html"

cat <<END

Try next:
  segan-ray ui                                            compare the runs in the MLflow UI
  segan-ray tune $demo/store --space search_spaces/critic.yaml --trials 4
  segan-ray prepare /path/to/BRATS my-store               then tune on your own data
END
