#!/usr/bin/env bash
# Measure images per second and memory of training: bash test_tipc/benchmark_train.sh CONFIG.txt benchmark_train [dynamic_bs8_fp32_DP_N1C1]
source "$(dirname "${BASH_SOURCE[0]}")/common_func.sh"
run_chain benchmark "$@"
