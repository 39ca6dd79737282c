#!/bin/sh
# Runs the emulated tests: forward order, and reversed order of threads and blocks (a race would change bits).
# EMU_PROCESSORS=4: a device with so few that persistent blocks make several tiles each.
out=${EMU_OUT:-$(cd "$(dirname "$0")/../.." && pwd)/build/cuda_emulator}
for t in ${*:-test_ops test_ops_linear test_ops_int8 test_ops_loss test_ops_optim test_ops_ways test_ops_attention}; do
    for order in "" 1; do
        echo "== $t ${order:+reversed}"
        P4_NEED_GPU=1 P4_TEST_SEED=${SEED:-1} EMU_ORDER=$order timeout 300 "$out/$t" 2>&1 | grep -v OPENBLAS | tail -${LINES_MAX:-8}
    done
done
