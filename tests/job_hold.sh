#!/usr/bin/env bash
# One output directory, one run: of several that start at once one works and the others are refused by name; a killed or failed
# run leaves nothing that its successor needs `overwrite` for; what is not a run's own is never replaced without it.
set -eu
. "$(dirname "$0")/held.sh"
cd "$TMP"
awk 'BEGIN {srand(3); for (i = 0; i < 600; i++) printf "\\%o\\000", (i * 7 + int(rand() * 9)) % 40}' >octal
printf "$(cat octal)" >few.bin # 50 windows of 12 token ids
cat >cfg.json <<JSON
{
  "model_path": "$FIXTURES/models/llama-gqa", "output_path": "out", "wandb_enabled": false, "device": "cpu",
  "calibration_dataset": "custom", "calibration_files": ["few.bin"], "eval_files": ["few.bin"], "train_files": ["few.bin"],
  "eval_samples": 7, "calibration_samples": 9, "calibration_batch_size": 2, "calibration_sequence_length": 12,
  "fine_tune_max_steps": 2, "fine_tune_threshold": 0, "warmup_steps": 1, "threads_per_rank": 1
}
JSON
endless='eval_samples=0 fine_tune_epochs=100000 fine_tune_max_steps=1000000'
fail() {
    echo "$1"
    cat log
    exit 1
}
refused() { # refused WORDS [key=value ...]
    local words=$1 status=0
    shift
    "$PHASE4_MPI" --quiet cfg.json "$@" >log 2>&1 || status=$?
    [ $status = 2 ] && [ "$(grep -c 'phase4: error' log)" = 1 ] && grep -qF -- "$words" log || fail "status $status, expected 2 and \"$words\""
}

# Four at once, into a directory that is not there yet.
for run in 1 2 3 4; do
    # shellcheck disable=SC2086
    (status=0; "$PHASE4_MPI" --quiet cfg.json $endless >log.$run 2>&1 || status=$?; echo $status >status.$run) &
done
ended() { cat status.* 2>/dev/null | wc -l; }
until grep -qs '"kind":"train"' out/metrics.jsonl; do
    [ "$(ended)" -lt 4 ] || { cat log.* >log; fail 'no run was let in'; }
    sleep 0.1
done
for _ in $(seq 1 4000); do # only if two were let in does it take so long
    [ "$(ended)" -lt 3 ] || break
    sleep 0.1
done
cat log.* >log
[ "$(cat status.* | sort | uniq -c | tr -s ' ')" = ' 3 2' ] || fail "statuses $(cat status.* | tr '\n' ' '): expected three times 2"
[ "$(grep -c "another run is using this output directory: host $(hostname), process " log)" = 3 ] || fail 'who holds the directory?'
holder=$(grep -o 'process [0-9]*' log | sort -u)
[ "$(wc -l <<<"$holder")" = 1 ] || fail "more than one holder: $holder"
SLURM_JOB_ID=1 refused "another run is using this output directory" overwrite=true
"$MPIRUN" -n 2 "$PHASE4_MPI" --quiet cfg.json >log 2>&1 && fail 'two ranks were let in'
grep -qF "$holder" log || fail 'two ranks'

# Killed: the next run takes the directory at once, without `overwrite`, even one of another configuration, and clears away what the dead one had begun.
kill -9 "${holder#process }"
wait
mkdir out/dequantized_fp16.tmp
echo half >out/model.h5.tmp
"$PHASE4_MPI" --quiet cfg.json resume=never >log 2>&1 || fail 'a killed run blocks the next one'
[ ! -e out/dequantized_fp16.tmp ] && [ ! -e out/.phase4_hold ] && [ ! -e out/.phase4_run ] || fail "left: $(ls -A out)"
refused 'out: is complete already with this configuration; set overwrite to true to compute it again'
refused 'out: holds the results of another run (it differs in quantizer, seed); set overwrite to true or choose another output_path' \
    seed=77 quantizer=exact-diagonal

# Failed in the last stage, with the model written: the retry needs no `overwrite`.
mkdir -p late/dequantized_fp16
echo mine >late/dequantized_fp16/notes.md
refused 'notes.md' output_path=late overwrite=true
rm -r late/dequantized_fp16
"$PHASE4_MPI" --quiet cfg.json output_path=late >log 2>&1 || fail "the retry of a failed run is refused"

# Lost while it did not respond: the run writes nothing more and ends, and says who holds the directory now. It is suspended at a
# step, where nothing is being saved, or in the thread that publishes a checkpoint, of which there is one already.
# The part of a checkpoint may still get its name, in a directory that is not yet one.
at_step='95 "kind":"train" /metrics.jsonl' in_publication='2  /manifest.json'
publishes() { ls lost/checkpoints/step-*.tmp/manifest.json >found 2>&1; }
published() { find lost -not -path '*/step-*.tmp*' 2>/dev/null | sort; }
lost() { # lost WORDS MOMENT COMMAND...: the command takes the hold from a run that is suspended
    local words=$1 job status=0 before
    IFS=' ' read -r count text file <<<"$2"
    [ -n "$file" ] || file=$text text=
    shift 2
    rm -rf lost
    hold_at "$count" "$text" "$file"
    # shellcheck disable=SC2086
    "${hold[@]}" "$PHASE4_MPI" --quiet cfg.json $endless output_path=lost log_every=1 checkpoint_every=50 >log 2>&1 &
    job=$!
    is_held $job || fail 'the run that was to be suspended has ended'
    while [ -n "$text" ] && publishes; do sleep 0.02; done
    kill -STOP $job
    until ! grep -hvs '^[^)]*) T' /proc/$job/task/*/stat >running; do sleep 0.01; done # a thread in the kernel stops when it comes back
    "$@"
    before=$(published)
    let_go
    kill -CONT $job
    wait $job || status=$?
    [ $status = 4 ] && [ "$(grep -c 'phase4: error' log)" = 1 ] && grep -qF -- "lost: this run no longer holds its output directory: $words" log ||
        fail "status $status, expected 4 and \"$words\""
    [ "$before" = "$(published)" ] || fail "it went on writing: $(diff <(echo "$before") <(published))"
}
hand_over() {
    echo '{"host": "n7", "process": 17, "job": "4711", "since": "2026-01-31 12:00:00 +0100"}' >hold
    mv hold lost/.phase4_hold
}
for moment in "$at_step" "$in_publication"; do
    lost 'while it did not respond, another run took it over: host n7, process 17, job 4711' "$moment" hand_over
    lost '.phase4_hold in it was removed' "$moment" rm lost/.phase4_hold
    lost '.phase4_hold in it was removed' "$moment" rm -r lost
done

# What is not a run's own.
mkdir mine
echo mine >log.of.mine
ln -s ../log.of.mine mine/metrics.jsonl
refused 'mine: holds the results of another run (metrics.jsonl)' output_path=mine
"$PHASE4_MPI" --quiet cfg.json output_path=mine overwrite=true >log 2>&1 || fail 'a link is not replaced'
[ "$(cat log.of.mine)" = mine ] && [ ! -L mine/metrics.jsonl ] || fail 'metrics were written through a link'
mkdir mine/dequantized_fp16.old mine/dequantized_fp16.tmp
echo mine >mine/dequantized_fp16.old/notes.md
refused 'mine/dequantized_fp16.tmp: is in the way' output_path=mine overwrite=true
rmdir mine/dequantized_fp16.tmp
"$PHASE4_MPI" --quiet cfg.json output_path=mine overwrite=true >log 2>&1 || fail 'a folder .old is in the way'
[ -e mine/dequantized_fp16.old/notes.md ] || fail 'a folder .old is gone'
[ -e mine/dequantized_fp16/model.safetensors ] || fail 'no model'

# A directory of its own for each task of a job array.
SLURM_JOB_ID=17 SLURM_ARRAY_TASK_ID=4 "$PHASE4_MPI" --quiet cfg.json enable_fine_tuning=false 'output_path=runs/{model}/{jobid}_{taskid}' \
    >log 2>&1 || fail 'names in output_path'
grep -q '"output_path":[[:space:]]*"'"$PWD"'/runs/llama-gqa/17_4"' runs/llama-gqa/17_4/phase4_config.json || fail "runs: $(ls -R runs)"
refused 'found "{job}", expected {model}, {date}, {jobid} or {taskid}' 'output_path=runs/{job}'
echo 'one run at a time'
