#!/usr/bin/env bash
# Build and run deploy/cpp: bash test_tipc/test_inference_cpp.sh CONFIG.txt cpp_infer [GPU]
source "$(dirname "${BASH_SOURCE[0]}")/common_func.sh"
run_chain cpp "$@"
