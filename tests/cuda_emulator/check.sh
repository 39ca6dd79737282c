#!/bin/bash
# Runs the tests that build.sh has built, or those that are named: in forward order, and with threads and blocks in
# reversed order (a race would change bits). Exit status 1 when one fails. EMU_PROCESSORS=4: a device with so few that
# persistent blocks compute several tiles each. SEED: of the tests' random inputs.
set -o pipefail
emu=$(cd "$(dirname "$0")" && pwd)
out=${EMU_OUT:-$emu/../../build/cuda_emulator}
failed=""
for t in ${*:-$(cd "$emu/.." && ls test_ops*.c test_attention_choice.c | sed 's/\.c$//')}; do
    for order in "" 1; do
        echo "== $t ${order:+reversed}"
        # The limit is for a hang: attention, the longest, takes about 4 minutes on a quiet machine.
        P4_NEED_GPU=1 P4_TEST_SEED=${SEED:-1} EMU_ORDER=$order timeout 3600 "$out/$t" 2>&1 | grep -v OPENBLAS | tail -n "${LINES_MAX:-8}" ||
            failed="$failed $t${order:+(reversed)}"
    done
done
[ -z "$failed" ] || { echo "failed:$failed"; exit 1; }
