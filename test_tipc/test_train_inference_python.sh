#!/usr/bin/env bash
# Train, evaluate, export and predict: bash test_tipc/test_train_inference_python.sh CONFIG.txt MODE [GPU of whole_infer]
source "$(dirname "${BASH_SOURCE[0]}")/common_func.sh"
run_chain train "$@"
