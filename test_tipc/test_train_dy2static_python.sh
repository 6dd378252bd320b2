#!/usr/bin/env bash
# Train as Python and as a static graph, and compare the losses: bash test_tipc/test_train_dy2static_python.sh CONFIG.txt MODE
source "$(dirname "${BASH_SOURCE[0]}")/common_func.sh"
run_chain dy2static "$@"
