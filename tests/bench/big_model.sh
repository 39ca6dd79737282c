#!/usr/bin/env bash
# big_model.sh BUILD_DIR WORK_DIR: makes a model of two billion parameters (4 GB on disk) and quantizes it with evaluation,
# calibration and fine-tuning off; prints the time and the peak of anonymous memory, sampled every 50 ms.
set -eu
build=$1 work=$2
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$work"
[ -e "$work/model/model.safetensors.index.json" ] || "$build/tests/make_model" "$here/big_model.json" "$work/model"
cat >"$work/cfg.json" <<JSON
{"model_path": "$work/model", "output_path": "$work/out", "overwrite": true, "calibration_samples": 0, "eval_samples": 0,
 "enable_fine_tuning": false, "save_dequantized_fp16": true, "wandb_enabled": false}
JSON
started=$(date +%s.%N)
"$build/phase4_mpi" "$work/cfg.json" &
pid=$!
peak=0
while [ -r /proc/$pid/status ]; do
    now=$(awk '/^RssAnon/ {print $2}' /proc/$pid/status 2>/dev/null || true)
    [ -n "$now" ] || break
    [ "$now" -le "$peak" ] || peak=$now
    sleep 0.05
done
wait $pid
echo "peak anonymous memory: $((peak / 1024)) MiB; wall: $(echo "$(date +%s.%N) - $started" | bc) s"
