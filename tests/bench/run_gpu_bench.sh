#!/usr/bin/env bash
# All speed figures of one machine in one run, the most important first, and one table of at most 60 lines at the
# end: ours, what is to be reached, the peers that ran here, and the ops that are far from their ceiling.
#
#   run_gpu_bench.sh BUILD_DIR OUT_DIR [PART...]
#
# BUILD_DIR   a finished build; nothing is built here
# OUT_DIR     gets PART.log of each part and table.txt
# PART        only these; `run_gpu_bench.sh --list` names them
# Environment: P4_BENCH_SECONDS  for everything (540); a part that would start later is left out
#              P4_BENCH_LLAMA, P4_BENCH_GPT2   options added to the training runs, such as "--micro 4"
#              P4_BENCH_PEER     options added to peer_gpu.py, such as "--whole"
#              P4_BENCH_MODEL, P4_BENCH_TRAIN, P4_BENCH_EVAL   a small model and its text (one file each, no
#                                blanks in names): parts compress and peer_compress, the whole run end to end
#              P4_BENCH_COMPRESS options added to these, such as "--steps 2441 --batch-tokens 8192"
#              P4_BENCH_WORK     where the job's files go (OUT_DIR/work); they are removed at the end
#              P4_BENCH_SMALL=1  tiny sizes on the CPU, to see that everything works
#              PYTHON            an interpreter that has torch and transformers (python3)
#
# The plain and the distilled step and the whole run, with their peers, alone:
#   P4_BENCH_MODEL=... run_gpu_bench.sh BUILD_DIR OUT_DIR train_llama train_llama_distill peer_train_distill \
#       compress peer_compress
set -u
parts='ternarise train_llama train_llama_int8 train_llama_distill train_llama_distill_int8 train_gpt2 muon peer_ternarise peer_train_llama peer_train_gpt2
peer_muon peer_train_distill compress peer_compress scaling job ops_llama train_llama_exact train_llama_muon ops_gpt2 peer_more'
if [ "${1:-}" = --list ]; then
    echo $parts
    exit 0
elif [ $# -lt 2 ]; then
    sed -n '2,23s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
build=$1 out=$2
shift 2
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$out"
out=$(cd "$out" && pwd)
bench=$build/tests/phase4_bench work=${P4_BENCH_WORK:-$out/work}
started=$(date +%s) total_s=${P4_BENCH_SECONDS:-540}
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

device=cuda llama=llama1b gpt2=gpt2 shape_a=llama shape_b=gpt2 peer='' steps=10
small_compress='' llama_batch=8 llama_size='--length 2048' gpt2_size='--batch 32 --length 1024' matrix='' filter=''
gpus=$(nvidia-smi -L 2>/dev/null | grep -c '^GPU') || gpus=0
if [ -n "${P4_BENCH_SMALL:-}" ]; then
    device=cpu llama=demo gpt2=demo shape_a=demo shape_b=demo steps=2 gpus=2 peer='--device cpu --small --steps 2'
    llama_batch=2 llama_size='--length 64' gpt2_size='--batch 2 --length 64' matrix='--rows 1024 --cols 1024'
    filter='--filter norm'
    small_compress='--calibration-samples 8 --eval-samples 8 --length 64 --steps 4 --batch-tokens 128 --reconstruct-steps 2'
fi
llama_run="--device $device --model $llama $llama_size --steps $steps --optimizer adamw ${P4_BENCH_LLAMA:-}"
gpt2_run="--device $device --model $gpt2 $gpt2_size --steps $steps --optimizer adamw ${P4_BENCH_GPT2:-}"

# part NAME SECONDS COMMAND...: runs it if it was asked for, within its limit and what is left of the whole.
part() {
    local name=$1 limit=$2 left started_part
    shift 2
    case " $wanted " in *" $name "*) ;; *) return ;; esac
    started_part=$(date +%s)
    left=$((total_s - (started_part - started)))
    if [ "$left" -lt 5 ]; then
        echo "# left out: $name (no time)" | tee "$out/$name.log"
        return
    fi
    [ "$limit" -le "$left" ] || limit=$left
    timeout -k 5 "$limit" "$@" >"$out/$name.log" 2>"$out/$name.err"
    local status=$?
    echo "# $name: $(($(date +%s) - started_part)) s, status $status"
    if [ "$status" -ne 0 ]; then
        echo "# failed: $name, status $status: $(tail -n 1 "$out/$name.err" | cut -c1-160)" >>"$out/$name.log"
    fi
}
peer() {
    local name=$1 limit=$2
    shift 2
    part "$name" "$limit" "${PYTHON:-python3}" "$here/peer_gpu.py" $peer ${P4_BENCH_PEER:-} --limit "$limit" "$@"
}

wanted=${*:-$parts}
wanted=$(echo $wanted)
for name in $wanted; do
    case " $(echo $parts) " in
    *" $name "*) rm -f "$out/$name.log" "$out/$name.err" ;;
    *) echo "no part $name; there are:" $parts >&2 && exit 2 ;;
    esac
done
set -f # options are split at blanks, nothing is expanded
part ternarise 60 "$bench" ternarise --device $device $matrix
part train_llama 90 "$bench" train $llama_run --batch $llama_batch --quantizer absmean
part train_llama_int8 90 "$bench" train $llama_run --batch $llama_batch --quantizer absmean \
    --activation-bits 8
part train_llama_distill 90 "$bench" train $llama_run --batch $llama_batch --quantizer absmean \
    --teacher resident
part train_llama_distill_int8 90 "$bench" train $llama_run --batch $llama_batch --quantizer absmean \
    --teacher resident --activation-bits 8
part train_gpt2 60 "$bench" train $gpt2_run --quantizer none
part muon 60 "$bench" muon --device $device --model $llama
peer peer_ternarise 60 copy gemm ternarise
peer peer_train_llama 150 train_llama
peer peer_train_gpt2 90 train_gpt2
peer peer_muon 60 muon
peer peer_train_distill 260 train_llama_distill train_llama_distill_int8 train_llama_distill_masters \
    train_llama_distill_int8_masters train_llama_ternary
# compress PART LIMIT OPTIONS...: run_compress_bench.py, if a model is given
compress() {
    local name=$1 limit=$2
    shift 2
    if [ -n "${P4_BENCH_MODEL:-}" ]; then
        part "$name" "$limit" "${PYTHON:-python3}" "$here/run_compress_bench.py" --build "$build" --work "$work" \
            --device $device --model "$P4_BENCH_MODEL" --train "$P4_BENCH_TRAIN" --eval "$P4_BENCH_EVAL" \
            $small_compress ${P4_BENCH_COMPRESS:-} "$@"
    fi
}
compress compress 120 --rounds 2 --who phase4
compress peer_compress 300 --who graph compiled-graph
scaling() { # the step of twice the batch on two GPUs, both gradient paths
    local zero
    for zero in 0 2; do
        mpirun --oversubscribe --bind-to none -n 2 "$1" train $2 --batch $((2 * $3)) --quantizer absmean \
            --zero-stage $zero || return
    done
}
export -f scaling
if [ "$gpus" -ge 2 ]; then
    part scaling 150 bash -c 'set -f; scaling "$@"' scaling "$bench" "$llama_run" "$llama_batch"
fi
part job 150 bash "$here/run_job_bench.sh" "$build" "$work" "$llama" "$device" 3
part ops_llama 60 "$bench" ops --device $device --shape $shape_a $filter
part train_llama_exact 90 "$bench" train $llama_run --batch $llama_batch --quantizer exact
part train_llama_muon 90 "$bench" train $llama_run --batch $llama_batch --quantizer exact \
    --optimizer mugrokfast
part ops_gpt2 60 "$bench" ops --device $device --shape $shape_b $filter
peer peer_more 150 train_llama_plain train_torchao ternarise_exact
set +f
rm -rf "$work"

# --- the table: what phase4_bench calls it | to reach | what the peers call it ---
model_name=$(basename "${P4_BENCH_MODEL:-model}")
cat >"$out/rows" <<ROWS
copy||copy
gemm bf16||gemm bf16
ternarise absmean|3600|ternarise absmean
ternarise exact|1000|ternarise exact
train $llama absmean adamw|85000|train llama1b ternary int8
train $llama absmean adamw memory|18|train llama1b ternary int8 memory
train $llama absmean adamw model flop||
train $llama absmean adamw int8|95000|train llama1b ternary int8
train $llama absmean adamw int8 memory|18|train llama1b ternary int8 memory
train $llama absmean adamw distill|59500|train llama1b ternary distill
train $llama absmean adamw distill memory||train llama1b ternary distill memory
train $llama absmean adamw int8 distill||train llama1b ternary distill int8
train $llama absmean adamw int8 distill memory||train llama1b ternary distill int8 memory
train $llama exact adamw||train llama1b ternary int8
train $llama exact mugrokfast||train llama1b ternary int8
train $gpt2 none adamw|560000|train gpt2 plain
train $gpt2 none adamw memory||train gpt2 plain memory
train $gpt2 none adamw model flop||
muon $llama|65|muon llama1b
train $llama absmean adamw x2 zero0|scaling|
train $llama absmean adamw x2 zero2|scaling|
compress $model_name|5x|compress $model_name
compress $model_name perplexity||compress $model_name perplexity
job $llama|job|
ROWS
[ -z "${P4_BENCH_SMALL:-}" ] || sed -i 's/|[0-9]*x\{0,1\}|/||/' "$out/rows" # goals are for the full sizes
logs=$(ls "$out"/*.log 2>/dev/null)
[ -n "$logs" ] || exit 1
awk -v alone="train $llama absmean adamw" -f "$here/gpu_table.awk" "$out/rows" $logs | tee "$out/table.txt"
