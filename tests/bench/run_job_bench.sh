#!/usr/bin/env bash
# The whole job against the time of copying: load, quantize, write model.h5 and the FP16 model, with evaluation, calibration
# and fine-tuning off, the model in the page cache. Beside it, in turns: cp of the model's files, and dd of the outputs' bytes
# to the same file system, flushed as the job flushes them.
#
#   run_job_bench.sh BUILD_DIR WORK_DIR [MODEL] [DEVICE] [ROUNDS]
#
# MODEL    a name of tests/bench/models (llama1b; its random weights are made once, in WORK_DIR), or a model directory
# DEVICE   auto, cuda or cpu (auto);   ROUNDS   3, medians are printed
# WORK_DIR keeps the model; it needs room for the model twice and for the outputs twice.
set -eu
if [ $# -lt 2 ]; then
    sed -n '2,11s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
build=$1 work=$2 model=${3:-llama1b} device=${4:-auto} rounds=${5:-3}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$work"
case $model in
*/*) directory=$model ;;
*)
    directory=$work/$model
    [ -e "$directory/model.safetensors.index.json" ] ||
        "$build/tests/make_model" "$here/models/$model.json" "$directory" >&2
    ;;
esac
name=$(basename "$directory")
out=$work/out
cat >"$work/cfg.json" <<JSON
{"model_path": "$directory", "output_path": "$out", "overwrite": true, "device": "$device", "calibration_samples": 0,
 "eval_samples": 0, "enable_fine_tuning": false, "wandb_enabled": false}
JSON

now() { date +%s.%N; }
# median FILE: the middle of its numbers.
median() { sort -n "$1" | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'; }
# seconds FILE COMMAND...: appends the seconds that the command took.
seconds() {
    local file=$1 started
    shift
    started=$(now)
    "$@"
    echo "$(now) $started" | awk '{print $1 - $2}' >>"$file"
}
run_job() { "$build/phase4_mpi" "$work/cfg.json" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }; }
copy_model() { cp -r "$directory" "$work/copy"; }
write_outputs() {
    local file
    mkdir "$work/written"
    find "$out" -type f | while read -r file; do
        dd if="$file" of="$work/written/${file//\//_}" bs=16M conv=fsync status=none
    done
}
# Files that the last round left, and their dirty pages, are no part of what is timed.
clean() {
    rm -rf "$work/copy" "$work/written"
    sync -f "$work"
}

rm -f "$work"/seconds.*
cat "$directory"/*.safetensors >/dev/null # into the page cache
for _ in $(seq "$rounds"); do
    clean
    rm -rf "$out"
    sync -f "$work"
    seconds "$work/seconds.job" run_job
    clean
    seconds "$work/seconds.cp" copy_model
    clean
    seconds "$work/seconds.dd" write_outputs
done
clean
in_bytes=$(du -sb "$directory" | cut -f1) out_bytes=$(du -sb "$out" | cut -f1)
# Stages that took a hundredth of a second or more.
stages=$(sed -n '/"timing"/,/}/p' "$out/results.json" | tr -d '",:\t' | sed 's/\([a-z_]\)\([0-9]\)/\1 \2/' |
    awk '$2 >= 0.01 {printf " %s %.2f", $1, $2}')
awk -v name="$name" -v job="$(median "$work/seconds.job")" -v cp="$(median "$work/seconds.cp")" \
    -v dd="$(median "$work/seconds.dd")" -v input="$in_bytes" -v output="$out_bytes" -v rounds="$rounds" 'BEGIN {
    printf "%-34s | %.2f s | cp+dd %.2f | %.2f | cp %.2f s of %.2f GB, dd %.2f s of %.2f GB, %d rounds\n", "job " name,
           job, cp + dd, (cp + dd) / job, cp, input / 1e9, dd, output / 1e9, rounds}'
echo "# stages of the last round, s:$stages"
