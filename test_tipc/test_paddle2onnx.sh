#!/usr/bin/env bash
# Export to ONNX and run deploy/onnx: bash test_tipc/test_paddle2onnx.sh CONFIG.txt paddle2onnx_infer
source "$(dirname "${BASH_SOURCE[0]}")/common_func.sh"
run_chain paddle2onnx "$@"
