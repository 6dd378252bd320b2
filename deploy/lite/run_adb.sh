#!/usr/bin/env bash
# Run image_classification on the phone that adb sees: run_adb.sh MODEL IMAGES [option of image_classification ...]
#
# MODEL: a folder with inference.nb. IMAGES: a file or a folder. BUILD: what make built (build). ADB: adb itself, with its options.
# Predictions are printed, and written to predictions.json here. The exit status is the program's.
set -euo pipefail

[[ $# -ge 2 ]] || { sed -n 's/^# //p' "$0" | head -1 >&2; exit 2; }
model=$1 images=$2
shift 2
build=${BUILD:-$(dirname "$0")/build}
read -ra adb <<< "${ADB:-adb}"
remote=/data/local/tmp/nextvit
for path in "$build/image_classification" "$model/inference.nb" "$model/inference.yml" "$images"; do
    [[ -e $path ]] || { echo "error: $path: no such file" >&2; exit 1; }
done

"${adb[@]}" shell "rm -rf $remote && mkdir -p $remote"
"${adb[@]}" push "$build/image_classification" "$build"/*.so "$remote/"
"${adb[@]}" push "$model" "$remote/model"
"${adb[@]}" push "$images" "$remote/$(basename "$images")"
options=$(printf ' %q' --images "$(basename "$images")" "$@")
status=0
"${adb[@]}" shell "cd $remote && LD_LIBRARY_PATH=. ./image_classification --model model --json predictions.json$options" || status=$?
"${adb[@]}" pull "$remote/predictions.json" . || true
exit "$status"
