#!/usr/bin/env bash
# Quantise after training and predict in int8: bash test_tipc/test_ptq_inference_python.sh CONFIG.txt MODE
source "$(dirname "${BASH_SOURCE[0]}")/common_func.sh"
run_chain ptq "$@"
