#!/usr/bin/env bash
# Convert for Paddle Lite and run deploy/lite, here and on a phone: bash test_tipc/test_lite_arm_cpu_cpp.sh CONFIG.txt lite_infer
source "$(dirname "${BASH_SOURCE[0]}")/common_func.sh"
run_chain lite "$@"
