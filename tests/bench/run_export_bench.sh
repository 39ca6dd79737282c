#!/usr/bin/env bash
# phase4_export to GGUF against the time of copying the file that it writes, in turns: cp, which returns when the bytes are in
# the page cache, and dd conv=fsync, which waits for the disk as the export does. All files are in the page cache.
#
#   run_export_bench.sh BUILD_DIR WORK_DIR [MODEL] [ROUNDS]
#
# MODEL    a name of tests/bench/models (llama1b); it is made once, in WORK_DIR, with random weights
# ROUNDS   5. Printed are medians of the wall time and of the time of the CPUs.
# WORK_DIR on the file system that is measured. It needs room for the packed model and twice for the GGUF file, and at the first
#          call for the model as well.
set -eu
if [ $# -lt 2 ]; then
    sed -n '2,11s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
build=$1 work=$2 model=${3:-llama1b} rounds=${4:-5}
here=$(cd "$(dirname "$0")" && pwd)
out=$work/$model-out
mkdir -p "$work"
if [ ! -e "$out/model.h5" ]; then
    "$build/tests/make_model" "$here/models/$model.json" "$work/$model" >&2
    cat >"$work/cfg.json" <<JSON
{"model_path": "$work/$model", "output_path": "$out", "overwrite": true, "device": "cpu", "quantizer": "absmean",
 "calibration_samples": 0, "eval_samples": 0, "enable_fine_tuning": false, "wandb_enabled": false}
JSON
    "$build/phase4_mpi" "$work/cfg.json" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
    rm -r "${work:?}/$model" "$out"/dequantized_fp16/*.safetensors*
fi

# timed NAME COMMAND...: appends wall seconds and CPU seconds.
timed() {
    local name=$1 TIMEFORMAT='%R %U %S'
    shift
    { time "$@" >&2; } 2>&1 | awk 'NF == 3 {print $1, $2 + $3; next} {print > "/dev/stderr"}' >>"$work/times.$name"
}
# median NAME COLUMN
median() { sort -n -k "$2,$2" "$work/times.$1" | awk -v c="$2" '{v[NR] = $c} END {print v[int((NR + 1) / 2)]}'; }
# Neither files that the last round left nor their dirty pages are timed.
clean() {
    rm -f "$work/copy" "$@"
    sync -f "$work"
}

rm -f "$work"/times.*
cat "$out/model.h5" >/dev/null
for _ in $(seq "$rounds"); do
    clean "$out/model.gguf"
    timed export "$build/phase4_export" -q "$out" --to gguf
    clean
    timed cp cp "$out/model.gguf" "$work/copy"
    clean
    timed dd dd if="$out/model.gguf" of="$work/copy" bs=1M conv=fsync status=none
done
clean
for name in export cp dd; do
    awk -v name=$name -v wall="$(median $name 1)" -v cpu="$(median $name 2)" -v to="$(median export 1)" \
        'BEGIN {printf "%-7s %.2f s, CPU %.2f s%s\n", name, wall, cpu, name == "export" ? "" : sprintf("; export / %s %.2f", name, to / wall)}'
done
echo "# $(stat -c %s "$out/model.gguf") bytes, $(stat -f -c %T "$work"), $rounds rounds"
