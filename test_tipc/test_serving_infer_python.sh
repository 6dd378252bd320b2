#!/usr/bin/env bash
# Start deploy/serving and ask it: bash test_tipc/test_serving_infer_python.sh CONFIG.txt serving_infer [GPU]
source "$(dirname "${BASH_SOURCE[0]}")/common_func.sh"
run_chain serving "$@"
