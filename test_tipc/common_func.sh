# Sourced by the scripts beside it, which begin in the repository's root from here on.
# run_chain NAME CONFIG.txt MODE [OPTION...]: test_tipc/chains/NAME.py, by the Python that TIPC_PYTHON names, else `python`.
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2

run_chain() {
    local python=${TIPC_PYTHON:-python}
    if ! command -v "$python" > /dev/null; then
        echo "error: no interpreter $python; activate the environment, or set TIPC_PYTHON to its Python" >&2
        return 2
    fi
    exec "$python" -m "test_tipc.chains.$1" "${@:2}"           # which a signal to the script reaches
}
