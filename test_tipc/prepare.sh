#!/usr/bin/env bash
# Make the data and models of a mode: bash test_tipc/prepare.sh CONFIG.txt MODE [--data DIR | --url URL]
source "$(dirname "${BASH_SOURCE[0]}")/common_func.sh"
run_chain prepare "$@"
