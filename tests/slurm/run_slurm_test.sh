#!/usr/bin/env bash
# run_slurm_test.sh: phase4_mpi on a real Slurm cluster of four nodes that this script starts and stops (mini_slurm.sh).
#
#   1 srun -N4 phase4_mpi train.json             the plain line: trains a small model from random weights
#   2 sbatch -N4 slurm/phase4.sbatch cfg.json     the script that users take, on that model: quantizes, fine-tunes
#   3 srun -N4 phase4_mpi cfg.json                the same once more: the same tensors, bit for bit
#   4 a configuration with a misspelt key         exit status 2, its message once, no rank left
#   5 kill -9 of one rank                         the step ends at once, no rank left
#   6 a verdict that fails under --strict          status 3, and srun adds nothing to the log
#   7 one batch job: warned by USR1, preempted by another partition's job, a node of it lost, cancelled and submitted again
#                                                  each time it continues; at the end the tensors of an undisturbed run
#
# Environment: PHASE4_MPI the program, FIXTURES tests/fixtures, TMP an empty folder. Exit status 77 (skipped): not root,
# or no namespaces here. Every wait has a limit, which only a hang reaches; whatever happens, the cluster is stopped.
set -u
export LC_ALL=C
here=$(dirname "$(readlink -f "$0")")
batch_script=$here/../../slurm/phase4.sbatch
model=$FIXTURES/models/llama-gqa # 2 layers, 53 tokens, 40 positions
PROGRAMS=("$PHASE4_MPI")
. "$here/cluster.sh"

# ---- the text: token t follows 3 t + 7 (now and then a little more) two places before it; raw uint16, as nanoGPT has it
chmod 755 "$TMP"
cd "$TMP" || exit 1
python3 - tokens.bin <<'END' || fail "python3 could not write a token file"
import array, random, sys
random.seed(1)
ids = array.array("H", (0, 1))
for _ in range(40000):
    ids.append((3 * ids[-2] + 7 + (random.randrange(3) if random.random() < 0.3 else 0)) % 53)
ids.tofile(open(sys.argv[1], "wb"))
END
write_cfg() { # write_cfg NAME MODEL MORE_KEYS
    cat >"$TMP/$1.json" <<END
{
  "model_path": "$2",
  "output_path": "$TMP/$1",
  "device": "cpu",
  "threads_per_rank": 1,
  "calibration_dataset": "custom",
  "calibration_files": ["$TMP/tokens.bin"],
  "calibration_samples": 8,
  "calibration_batch_size": 8,
  "calibration_sequence_length": 32,
  "eval_files": ["$TMP/tokens.bin"],
  "eval_samples": 32,
  "train_files": ["$TMP/tokens.bin"],
  "global_batch_tokens": 1024,
  "fine_tune_lr": 0.01,
  "warmup_steps": 10,
  "wandb_enabled": false,
  $3
}
END
}
# Did this run succeed on four ranks, and did it do what its name says? results.json and what was printed say so.
check_run() { # check_run NAME LOG CONDITION (Python, over pre, post, tuned, metrics)
    python3 - "$TMP/$1/results.json" "$3" <<'END' || fail "$1: $(tail -n 30 "$2")"
import json, sys
results = json.load(open(sys.argv[1]))
assert results["success"] is True, results.get("error")
found = dict(pre=results["pre_compression"]["perplexity"], post=results["post_compression"]["perplexity"],
             tuned=results["fine_tuning"]["final_perplexity"], metrics=results["metrics"])
assert eval(sys.argv[2], found.copy()), (sys.argv[2], found)
END
    grep -qE '(^|[^0-9])4 ranks' "$2" || fail "$1: the program does not speak of 4 ranks: $(head -n 20 "$2")"
    [ -s "$TMP/$1/model.h5" ] || fail "$1: no model.h5"
}
# As phase4.sbatch starts the program.
guarded_srun() { client 300 srun -N4 --time=3 --kill-on-bad-exit=1 --wait=30 "$PHASE4_MPI" "$@"; }

# ---- 1 plain srun: a small model is trained
note "srun -N4 phase4_mpi train.json"
write_cfg train "$model" \
    '"init": "random", "quantizer": "none", "fine_tune_epochs": 10, "fine_tune_max_steps": 300'
client 120 srun -N4 --time=3 "$PHASE4_MPI" train.json >train.log 2>&1 ||
    fail "srun -N4 ended with status $?: $(tail -n 20 train.log)"
check_run train train.log 'pre > 40 and tuned < 5'

# ---- 2 the batch script: it is quantized and fine-tuned
note "sbatch -N4 phase4.sbatch cfg.json"
ternary='"fine_tune_max_steps": 8'
write_cfg batch "$TMP/train/dequantized_fp16" "$ternary"
job=$(PHASE4_MPI=$PHASE4_MPI client 30 sbatch --parsable -N4 --time=3 --signal=USR1@10 "$batch_script" batch.json) ||
    fail "sbatch refused the job"
job_state() { client 20 scontrol show job "$job" -o | sed -n 's/.*JobState=\([A-Z_]*\).*/\1/p'; }
job_ended() { case $(job_state) in PENDING | RUNNING | CONFIGURING | COMPLETING) return 1 ;; esac; }
until_true 120 job_ended || fail "the job did not end: $(client 20 squeue; cat "phase4-$job.log")"
shown=$(client 20 scontrol show job "$job" -o)
[ "$(job_state)" = COMPLETED ] || fail "the job ended as $(job_state): $(cat "phase4-$job.log")"
[[ $shown == *"NumNodes=4 "* && $shown == *"ExitCode=0:0"* ]] || fail "not four nodes and status 0: $shown"
check_run batch "phase4-$job.log" 'pre < 5 and post > 2 * pre and tuned < post and metrics["layers_quantized"] == 14'

# ---- 3 plain srun: the same tensors
note "srun -N4 phase4_mpi cfg.json"
write_cfg plain "$TMP/train/dequantized_fp16" "$ternary"
client 120 srun -N4 --time=3 "$PHASE4_MPI" plain.json >plain.log 2>&1 ||
    fail "srun -N4 ended with status $?: $(tail -n 20 plain.log)"
check_run plain plain.log 'tuned < post'
for run in batch plain; do
    h5dump -y -g /tensors "$run/model.h5" | tail -n +2 >"$run.tensors" # but for the line that names the file
    grep -q packed "$run.tensors" || fail "h5dump found no packed tensors in $run/model.h5"
done
cmp -s batch.tensors plain.tensors || fail "sbatch and srun made different tensors"

# Ranks that cannot find each other (a cluster whose MpiDefault is none, or PMI-2 alone) are told how.
for mpi in none pmi2; do
    note "srun --mpi=$mpi"
    client 60 srun -N2 --mpi=$mpi --time=1 "$PHASE4_MPI" plain.json overwrite=true >alone.log 2>&1 && fail "--mpi=$mpi: two runs of one rank"
    [ "$(grep -c 'phase4: error: srun started 2 processes.*srun --mpi=pmix' alone.log)" = 1 ] || fail "--mpi=$mpi: $(cat alone.log)"
done

# ---- 4 bad input
note "a misspelt key"
write_cfg bad "$model" '"calibration_sampels": 8'
for _ in 1 2 3; do
    guarded_srun bad.json >bad.log 2>&1
    status=$?
    [ "$status" = 2 ] || fail "bad input: exit status $status, expected 2: $(cat bad.log)"
    [ "$(grep -c calibration_sampels bad.log)" = 1 ] || fail "bad input: the key is not named once: $(cat bad.log)"
done
no_rank_left || fail "bad input: ranks are left"
[ ! -e bad ] || fail "bad input: an output directory was made"

# ---- 5 a rank dies while all train
note "kill -9 of rank 2"
write_cfg killed "$model" '"init": "random", "quantizer": "none", "fine_tune_epochs": 10000, "log_every": 1'
guarded_srun killed.json >killed.log 2>&1 &
step=$!
training() { grep -qs '"kind":"train"' killed/metrics.jsonl && [ "$(ranks | wc -l)" = 4 ]; }
until_true 120 training || fail "the run to be killed does not train: $(ranks; tail -n 20 killed.log)"
kill -9 "$(ranks | awk '$2 == 2 {print $1}')" || fail "rank 2 could not be killed"
started=$SECONDS
wait "$step"
status=$?
[ "$status" != 0 ] || fail "a run whose rank was killed ended with status 0"
# Two seconds are usual; a step that nothing ends runs into its --time.
[ "$((SECONDS - started))" -lt 100 ] || fail "the step took $((SECONDS - started)) s to end after its rank was killed"
grep -q 'task 2: Killed' killed.log || fail "srun does not say that task 2 was killed: $(tail killed.log)"
no_rank_left || fail "a rank was killed, others are left"
[ ! -e killed/model.h5 ] || fail "the killed run left a model.h5"

# ---- 6 a verdict that fails: the log ends with the program's lines
note "sbatch, a failed verdict"
batch() { # batch ARGUMENTS OF sbatch...
    PHASE4_MPI=$PHASE4_MPI PHASE4_WARNING_S=600 client 30 sbatch --parsable -N4 --time=5 --signal=USR1@10 "$@"
}
job_field() { client 20 scontrol show job "$job" -o | sed -n "s/.* $1=\([^ ]*\).*/\1/p"; }
write_cfg failed "$TMP/train/dequantized_fp16" '"max_accuracy_drop": 0, "enable_fine_tuning": false, "reconstruct": false'
job=$(batch "$batch_script" failed.json --strict) || fail "sbatch refused the job"
until_true 120 job_ended || fail "the job did not end: $(client 20 squeue; cat "phase4-$job.log")"
[ "$(job_field ExitCode)" = 3:0 ] || fail "a failed verdict: exit code $(job_field ExitCode), expected 3:0: $(cat "phase4-$job.log")"
grep -q 'Verdict  *FAILED' "phase4-$job.log" || fail "no verdict: $(cat "phase4-$job.log")"
! grep -q '^srun:\|^slurmstepd' "phase4-$job.log" || fail "srun speaks after a failed verdict: $(cat "phase4-$job.log")"

# ---- 7 stopped in every way, continued
note "USR1, preemption, a lost node, scancel"
long='"fine_tune_epochs": 40, "fine_tune_max_steps": 800, "log_every": 1, "checkpoint_every": 10'
write_cfg stopped "$TMP/train/dequantized_fp16" "$long"
write_cfg whole "$TMP/train/dequantized_fp16" "$long"
client 300 srun -N4 --time=5 "$PHASE4_MPI" whole.json >whole.log 2>&1 ||
    fail "srun -N4 ended with status $?: $(tail -n 20 whole.log)"
job=$(batch "$batch_script" stopped.json) || fail "sbatch refused the job"
steps() { grep -sc '"kind":"train"' stopped/metrics.jsonl || true; }
trains() { [ "$(grep -c '^\[7/10\]' "phase4-$job.log" 2>/dev/null)" = "$turn" ] && [ "$(steps)" -gt "$reached" ]; }
# in_turn N: the job trains for the Nth time, and further than before
reached=10
in_turn() {
    turn=$1
    until_true 300 trains || fail "turn $turn does not train: $(client 20 squeue; client 20 sinfo -N; cat "phase4-$job.log")"
    reached=$(($(steps) + 20))
}
restarts() { [ "$(job_field Restarts)" = "$1" ]; }
in_turn 1
client 20 scancel --signal=USR1 "$job"
until_true 120 restarts 1 || fail "the job was not requeued: $(cat "phase4-$job.log")"
grep -q 'stopped by SIGUSR1; the state of the run is in' "phase4-$job.log" || fail "nobody says that it stopped: $(cat "phase4-$job.log")"
grep -q 'requeued, turn 2 follows' "phase4-$job.log" || fail "the script does not say that it requeues: $(cat "phase4-$job.log")"
in_turn 2
client 60 srun -p urgent -N4 --time=1 true || fail "the urgent job failed"
until_true 120 restarts 2 || fail "the job was not preempted: $(cat "phase4-$job.log")"
in_turn 3
slurm 20 lose 3
until_true 180 restarts 3 || fail "the job was not requeued after its node was lost: $(client 20 squeue; cat "phase4-$job.log")"
slurm 300 start 4 || fail "the lost node did not come back"
in_turn 4
client 20 scancel "$job"
until_true 120 job_ended || fail "scancel did not end the job: $(client 20 squeue)"
[ "$(job_state)" = CANCELLED ] || fail "the job ended as $(job_state), expected CANCELLED"
[ "$(grep -c 'stopped by SIGTERM; the state of the run is in' "phase4-$job.log")" -ge 1 ] || fail "nobody says that it stopped: $(cat "phase4-$job.log")"
no_rank_left || fail "scancel left ranks"
job=$(batch "$batch_script" stopped.json) || fail "sbatch refused the job"
until_true 300 job_ended || fail "the job did not end: $(client 20 squeue; cat "phase4-$job.log")"
[ "$(job_state)" = COMPLETED ] || fail "the job ended as $(job_state): $(cat "phase4-$job.log")"
grep -q 'continues after step' "phase4-$job.log" || fail "the job started anew: $(cat "phase4-$job.log")"
for run in stopped whole; do
    h5dump -y -g /tensors "$run/model.h5" | tail -n +2 >"$run.tensors"
    sed 's/"tokens_per_s".*//' "$run/metrics.jsonl" >"$run.curve"
done
cmp -s stopped.tensors whole.tensors || fail "a job that was stopped and continued made different tensors"
cmp stopped.curve whole.curve || fail "a job that was stopped and continued has another curve"

note "7 checks passed"
