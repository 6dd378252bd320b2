#!/usr/bin/env bash
# Convert an exported model for Paddle Lite: convert.sh MODEL OUTPUT [arm|arm-fp16|arm-int8|opencl|x86]
#
# MODEL: what `tools/export_model.py --format pdmodel` wrote. OUTPUT: a new folder, with inference.nb and its description.
# Needs python3 and Paddle Lite's converter, `paddle_lite_opt` or what PADDLE_LITE_OPT names (see README.md).
set -euo pipefail

fail() {
    echo "error: $*" >&2
    exit 1
}

[[ $# == 2 || $# == 3 ]] || { sed -n 's/^# //p' "$0" | head -1 >&2; exit 2; }
model=$1 output=$2 target=${3:-arm}
case $target in
    arm)      options=(--valid_targets=arm) ;;
    arm-fp16) options=(--valid_targets=arm --enable_fp16=true) ;;
    arm-int8) options=(--valid_targets=arm --quant_model=true --quant_type=QUANT_INT8) ;;
    opencl)   options=(--valid_targets=opencl,arm) ;;
    x86)      options=(--valid_targets=x86) ;;
    *)        fail "unknown target '$target'; expected arm, arm-fp16, arm-int8, opencl or x86" ;;
esac
name=${PADDLE_LITE_OPT:-paddle_lite_opt}
opt=$(command -v "$name") ||
    fail "no $name: python3.7 -m venv lite && lite/bin/pip install paddlelite==2.12 numpy, then PADDLE_LITE_OPT=lite/bin/paddle_lite_opt"
for file in inference.pdmodel inference.pdiparams export.json; do
    [[ -f $model/$file ]] || fail "$model/$file: no such file; export with --format pdmodel"
done
[[ ! -e $output ]] || fail "$output: exists; give a new folder"
mkdir -p "$(dirname "$output")"
work=$(mktemp -d "$(dirname "$output")/.convert.XXXXXX") && chmod 755 "$work"
trap 'rm -rf "$work"' EXIT

# In a process of its own: where it does not know a program, the converter ends by a signal.
status=0
{
    "$opt" --model_file="$model/inference.pdmodel" --param_file="$model/inference.pdiparams" --optimize_out="$work/inference" \
        --optimize_out_type=naive_buffer "${options[@]}" > "$work/log" 2>&1 || status=$?
} 2> /dev/null
[[ $status == 0 ]] || fail "paddle_lite_opt ended with status $status: $(tail -1 "$work/log")"
[[ -s $work/inference.nb ]] || fail "paddle_lite_opt wrote no file: $(tail -1 "$work/log")"
rm "$work/log"

# The description, with the new file's hash instead of the old files'. JSON is YAML too.
python3 - "$model/export.json" "$work" "$target" <<'PYTHON'
import hashlib
import json
import pathlib
import sys

source, work, target = sys.argv[1:]
description = json.loads(pathlib.Path(source).read_text(encoding="utf-8"))
program = (pathlib.Path(work) / "inference.nb").read_bytes()
description["Files"] = {"inference.nb": {"sha256": hashlib.sha256(program).hexdigest(), "bytes": len(program)}}
description.setdefault("Export", {}).update(target=f"lite ({target})")
for name in ("export.json", "inference.yml"):
    (pathlib.Path(work) / name).write_text(json.dumps(description, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
PYTHON
mv "$work" "$output"
trap - EXIT
version=$(head -c 18 "$output/inference.nb" | tail -c +3 | tr '\0' '\n' | sed -n 1p)
echo "$output: $(du -h --apparent-size "$output/inference.nb" | cut -f1), for Paddle Lite $version"
