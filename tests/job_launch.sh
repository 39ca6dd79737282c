#!/usr/bin/env bash
# How processes are started: what Slurm says in the environment, and one rank where little of a system is there. The variables
# are what srun sets; tests/slurm runs a real one.
set -u
cd "$TMP"
failures=0
head -c 1200 /dev/zero >few.bin
cat >cfg.json <<JSON
{
  "model_path": "$FIXTURES/models/llama-gqa", "output_path": "out", "overwrite": true, "wandb_enabled": false, "device": "cpu",
  "calibration_dataset": "custom", "calibration_files": ["few.bin"], "eval_files": ["few.bin"], "calibration_samples": 2,
  "eval_samples": 2, "calibration_sequence_length": 12, "enable_fine_tuning": false, "threads_per_rank": 1
}
JSON
job='SLURM_JOB_ID=9 SLURM_JOBID=9 SLURM_NODELIST=n1 SLURM_JOB_NODELIST=n1'
step2='SLURM_STEP_ID=0 SLURM_STEPID=0 SLURM_STEP_NUM_TASKS=2 SLURM_NTASKS=2'
# started WHAT STATUS WORDS COMMAND...: the command ends so, with one line that holds WORDS ("": without a word of an error).
started() {
    local what=$1 status=$2 words=$3 got=0
    shift 3
    timeout 600 "$@" >log 2>&1 || got=$? # a hang
    for _ in $(seq 300); do # a line may come from a process that outlives the one that MPI ended
        [ -n "$words" ] && ! grep -qF -- "$words" log || break
        sleep 0.2
    done
    if [ $got != "$status" ] || { [ -n "$words" ] && [ "$(grep -cF -- "$words" log)" != 1 ]; } ||
        { [ -z "$words" ] && grep -q 'phase4: error' log; }; then
        echo "$what: status $got, expected $status and \"$words\"; got:"
        cat log
        failures=$((failures + 1))
    fi
}
run=("$PHASE4_MPI" --quiet cfg.json)
# shellcheck disable=SC2086
{
    started 'one of two tasks, --mpi=none' 2 'phase4: error: srun started 2 processes' env $job $step2 SLURM_PROCID=0 "${run[@]}"
    grep -qF -- 'srun --mpi=pmix' log || failures=$((failures + 1))
    started 'the other one is silent' 2 '' env $job $step2 SLURM_PROCID=1 "${run[@]}"
    # This Open MPI ends the process itself.
    started 'one of two tasks, pmi2' 1 'phase4: error: srun started 2 processes' env $job $step2 SLURM_PROCID=0 PMI_RANK=0 PMI_SIZE=2 PMI_FD=99 "${run[@]}"
    started 'another launcher' 2 'the launcher started 3 processes' env PMI_RANK=0 PMI_SIZE=3 "${run[@]}"
    started 'a step of one task' 0 '' env $job SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=1 SLURM_NTASKS=1 SLURM_PROCID=0 "${run[@]}"
    started 'the script of a batch job' 0 '' env $job SLURM_NTASKS=2 SLURM_PROCID=0 "${run[@]}"
    started 'mpirun in a step' 0 '' env SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=3 "$MPIRUN" -n 2 "${run[@]}"
    started 'help in a step' 0 'Usage: phase4_mpi' env $job $step2 SLURM_PROCID=0 "$PHASE4_MPI" --help
    started 'help is given once' 0 '' env $job $step2 SLURM_PROCID=1 "$PHASE4_MPI" --help
}
[ ! -s log ] || { echo 'the second task prints the help as well'; failures=$((failures + 1)); }
grep -q -- '--mpi=pmix' <("$PHASE4_MPI" --help) || { echo '--help names no --mpi=pmix'; failures=$((failures + 1)); }

# No ssh, no rsh.
mkdir bin
for program in bash orted; do ln -s "$(command -v $program)" bin/; done
started 'no ssh on the PATH' 0 '' env PATH="$PWD/bin" "${run[@]}"
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
    mkdir open
    chmod 777 . open
    started 'a user without a name or a home' 0 '' setpriv --reuid 54321 --regid 54321 --clear-groups \
        env -u HOME OMPI_MCA_orte_tmpdir_base="$PWD/open" "$PHASE4_MPI" --quiet cfg.json output_path=open/out
fi
echo "$failures failures"
[ $failures = 0 ]
