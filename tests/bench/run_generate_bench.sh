#!/usr/bin/env bash
# phase4_generate against llama.cpp on the same weights, in turns: milliseconds a token of a prompt, and of one token at a time.
#
#   run_generate_bench.sh BUILD_DIR WORK_DIR PYTHON [MODEL] [ROUNDS] [TOKENS]
#
# PYTHON   an interpreter that has cyllama (peer_generate.py)
# MODEL    a name of tests/bench/models (llama1b); made once in WORK_DIR, with random weights and the demo's tokenizer, and written
#          as TQ2_0, with an fp16 head
# ROUNDS   5, of TOKENS (32) tokens behind about 16, and of a prompt of about 256, on 1 and on 2 threads of the cores 0 and 1.
#          Printed are least and median.
# Every process runs under `chrt -f 50`, so that others on the machine wait, where that is allowed.
set -eu
if [ $# -lt 3 ]; then
    sed -n '2,12s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
build=$1 work=$2 python=$3 model=${4:-llama1b} rounds=${5:-5} tokens=${6:-32}
here=$(cd "$(dirname "$0")" && pwd)
out=$work/$model-generate
unset OMP_WAIT_POLICY OMP_NUM_THREADS GOMP_SPINCOUNT
mkdir -p "$work"
if [ ! -e "$out/model.gguf" ]; then
    "$build/tests/make_model" "$here/models/$model.json" "$work/$model" >&2
    cp "$here"/../../jobs/demo/model/tokenizer*.json "$work/$model"
    cat >"$work/cfg.json" <<JSON
{"model_path": "$work/$model", "output_path": "$out", "overwrite": true, "device": "cpu", "quantizer": "absmean", "reconstruct": false,
 "calibration_samples": 0, "eval_samples": 0, "enable_fine_tuning": false, "wandb_enabled": false}
JSON
    "$build/phase4_mpi" "$work/cfg.json" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
    rm -r "${work:?}/$model" "$out"/dequantized_fp16/*.safetensors*
    "$build/phase4_export" -q "$out" --to gguf:tq2_0
fi
words() { awk -v n="$1" 'BEGIN {split("the cat dog ran home once upon a time there was little girl named", w, " "); srand(1)
    for (i = 0; i < n; i++) printf "%s ", w[1 + int(14 * rand())]}'; }
first=$(chrt -f 50 true 2>/dev/null && echo "chrt -f 50" || true)
cores() { if [ "$1" = 1 ]; then echo 1; else echo 0,1; fi; }
# ours THREADS WORDS TOKENS, peer THREADS PROMPT_TOKENS TOKENS: "PROMPT GENERATION"
ours() {
    $first taskset -c "$(cores "$1")" "$build/phase4_generate" "$out" "$(words "$2")" -n "$3" --greedy --json --threads "$1" |
        "$python" -c 'import json, sys
g = json.load(sys.stdin)["generation"]
print("%.3f %.3f" % (1e3 * g["prompt_s"] / g["prompt_tokens"], 1e3 / g["tokens_per_s"]))'
}
peer() { $first taskset -c "$(cores "$1")" "$python" "$here/peer_generate.py" "$out/model.gguf" "$@"; }

rm -f "$work"/times.*
for _ in $(seq "$rounds"); do
    for threads in 1 2; do
        ours $threads 14 "$tokens" | cut -d' ' -f2 >>"$work/times.generation.$threads.ours"
        peer $threads 16 "$tokens" | cut -d' ' -f2 >>"$work/times.generation.$threads.peer"
        ours $threads 230 2 | cut -d' ' -f1 >>"$work/times.prompt.$threads.ours"
        peer $threads 256 1 | cut -d' ' -f1 >>"$work/times.prompt.$threads.peer"
    done
done
# spread FILE: least and median
spread() { sort -n "$1" | awk '{v[NR] = $1} END {print v[1], v[int((NR + 1) / 2)]}'; }
echo "# ms a token, least and median of $rounds rounds; load $(cut -d' ' -f1-3 /proc/loadavg); speed: of phase4 over llama.cpp"
for what in generation prompt; do
    for threads in 1 2; do
        echo "$what $threads $(spread "$work/times.$what.$threads.ours") $(spread "$work/times.$what.$threads.peer")"
    done
done | awk '{printf "%-10s threads %d: phase4 %6.2f %6.2f  llama.cpp %6.2f %6.2f  speed %.2f %.2f\n", $1, $2, $3, $4, $5, $6, $5 / $3, $6 / $4}'
