#!/usr/bin/env bash
# A run that is stopped at any moment, in every way, is continued by the same command and ends with the same bytes as one that
# nobody disturbed; on another number of ranks or with another zero_stage with the same loss within 1e-5 (relative; fp32
# gradient sums in another order). Damaged, foreign and edited checkpoints and other configurations are refused by name.
set -eu
. "$(dirname "$0")/held.sh"
cd "$TMP"
fail() {
    echo "job_resume: $*"
    tail -n 30 log
    exit 1
}
awk 'BEGIN {srand(3); for (i = 0; i < 4800; i++) printf "\\%o\\000", (i * 7 + int(rand() * 9)) % 40}' >octal
printf "$(cat octal)" >ids.bin # 400 windows of 12 token ids
cp ids.bin many.bin
for _ in 1 2 3 4 5 6; do cat many.bin many.bin >twice.bin && mv twice.bin many.bin; done # 25,600 windows
cp -r "$FIXTURES/models/llama-gqa" model
cat >cfg.json <<JSON
{
  "model_path": "model", "output_path": "unset", "wandb_enabled": false, "device": "cpu",
  "calibration_dataset": "custom", "calibration_files": ["ids.bin"], "eval_files": ["ids.bin"], "train_files": ["ids.bin"],
  "eval_samples": 20, "calibration_samples": 20, "calibration_batch_size": 2, "calibration_sequence_length": 12,
  "quantizer": "absmean", "sparsity_threshold": 1.6, "optimizer": "mugrokfast", "weight_decay": 0, "global_batch_tokens": 240, "fine_tune_max_steps": 200,
  "fine_tune_epochs": 100, "fine_tune_threshold": 0, "fine_tune_lr": 5e-3, "warmup_steps": 1, "enable_grokfast": true,
  "threads_per_rank": 1, "log_every": 1, "eval_every": 7, "learn_scales": true
}
JSON
phase4() { # phase4 RANKS NAME [key=value ...]; the log is in the file log
    local ranks=$1 name=$2 command=("${front[@]}" "$PHASE4_MPI")
    shift 2
    [ "$ranks" = 1 ] || command=("$MPIRUN" -n "$ranks" "${command[@]}")
    exec "${command[@]}" cfg.json output_path="$name" "$@" >"log" 2>&1
}
front=() # what goes in front of the program
start() { # start RANKS NAME [key=value ...]: in the background, as $job
    rm -rf log
    phase4 "$@" &
    job=$!
}
# paced MS RANKS NAME [key=value ...]: the same, but the run sleeps behind each line of metrics.jsonl, so that it takes so long at least.
paced() {
    front=(env ASAN_OPTIONS=verify_asan_link_order=0 "LD_PRELOAD=$P4_FAULTS" P4_FAULT_UNDER=/metrics.jsonl "P4_PACE_MS=$1")
    start "${@:2}"
    front=()
}
# held COUNT KIND RANKS NAME [key=value ...]: the same; when this returns, the run waits behind the COUNT-th line of this kind, for a
# signal to rank 0 or for let_go.
held() {
    hold_at "$1" "\"kind\":\"$2\"" /metrics.jsonl signal
    front=("${hold[@]}")
    start "${@:3}"
    front=()
    is_held "$job" || fail "$4: the run ended before line $1 of kind $2"
}
rank_process() { # rank_process RANK: of the run that was started by mpirun
    local process
    for process in $(pgrep -P "$job"); do
        ! grep -zqs "^OMPI_COMM_WORLD_RANK=$1$" "/proc/$process/environ" || echo "$process"
    done
}
ended() { # ended STATUS WHAT: the run that was started ends like this
    local status=0
    wait "$job" || status=$?
    [ "$status" = "$1" ] || fail "$2: status $status, expected $1"
}
run() { start "$@" && ended 0 "$2"; }
said() { grep -qF -- "$1" log || fail "expected the line \"$1\""; }
steps() { # steps NAME: how many are logged
    grep -hs '"kind":"train"' "$1/metrics.jsonl" | wc -l
}
in_stage() { # in_stage TITLE: waits until the log speaks of this stage
    until grep -q "^\[.*\] $1" log 2>/dev/null; do
        kill -0 "$job" 2>/dev/null || fail "the run ended before stage $1"
        sleep 0.01
    done
}
provenance() { # provenance NAME MEMBERS: of results.json
    python3 -c "import json, sys; print(json.load(open(sys.argv[1]))['provenance']$2)" "$1/results.json"
}
some_step() { echo $((5 + RANDOM % 60)); }
# same NAME AS: the same tensors, the same curve, the same measurements and the same warnings, but for one of a damaged checkpoint and
# those that depend on the machine's load and environment (free memory, free disk, cores, OpenBLAS, UDP); no checkpoint is left. The file
# model.h5 also holds output_path, so that its size is another.
same() {
    local name machine='a checkpoint cannot be used|[^"]* are free now|output_path: the disk of|key \\"threads_per_rank\\"'
    machine+='|OPENBLAS_CORETYPE=|rank [0-9]+ on [^"]* does not answer UDP'
    "$TOOL_COMPARE" "$1" "$2" bits 1e-15 >compared || fail "$1: $(cat compared)"
    for name in "$1" "$2"; do
        sed 's/"tokens_per_s".*//' "$name/metrics.jsonl" >"$name.curve"
        sed -e '/"timing"/,$d' -e '/peak_memory/d' -e '/packed_file_mb/d' -e '/stored_files_ratio/d' -e '/"provenance":/,/^\t},$/d' \
            -e '/"seconds"/d' -e "s:$name/:OUT/:" -e '/"warning_count"/d' "$name/results.json" |
            sed -E "/\"warnings\":/s/\"($machine)([^\"\\\\]|\\\\.)*\"(, )?//g; /\"warnings\":/s/, \\]/]/" >"$name.figures"
    done
    cmp "$1.curve" "$2.curve" || fail "$1: metrics.jsonl differs"
    cmp "$1.figures" "$2.figures" || fail "$1: $(diff "$1.figures" "$2.figures")"
    [ ! -e "$1/checkpoints" ] || fail "$1: a run that succeeded left checkpoints"
}

run 1 whole1
! grep -q 'time left from ' log || fail 'a run that continues nothing speaks of what is left'
# One warning, which every run below that is continued must have as well (same).
grep -q "the original's perplexity is .*no better than guessing" whole1/results.json || fail 'results.json does not have the warning'
run 2 whole2
[ "$(provenance whole2 '["continued"]')" = None ] || fail 'an undisturbed run speaks of a continued one'
[ "$(provenance whole2 '["hosts"][0]["ranks"]')" = 2 ] || fail 'a run of two ranks speaks of another number'
# 20 steps an epoch: an evaluation every 7 steps, at the end of each epoch, and before and after the training.
[ "$(grep -c '"kind":"evaluation","stage":"fine_tune"' whole1/metrics.jsonl)" = 37 ] || fail 'another number of evaluations than 28 + 10 - 1'
[ "$(sed -e '/"train"/d' -e '/"fine_tune"/d' -e 's/"kind":"\([a-z]*\)",/\1 /' -e 's/"stage":"\([a-z]*\)".*/\1/' -e 's/"first_block.*//' whole1/metrics.jsonl |
    tr -d '\n')" = '{evaluation pre{reconstruct {evaluation post{evaluation final' ] ||
    fail "the other lines are $(grep -v train whole1/metrics.jsonl)"
[ "$(steps whole1)" = 200 ] || fail "a run of 200 steps logs $(steps whole1)"

said 'to stop it with its state saved: touch whole2/stop '
# ---- killed behind reconstruction, as mpirun kills after Ctrl-C: what it made, usually most of the work, is in a checkpoint
held 1 'evaluation","stage":"post' 1 behind
kill -KILL "$job"
ended 137 behind
run 1 behind
said 'continues from behind/checkpoints/step-0'
! grep -q '^      block' log || fail 'reconstruction is repeated'
same behind whole1
# Not where the run saves none by itself.
held 1 'evaluation","stage":"post' 1 unsaved checkpoint_minutes=0
kill -KILL "$job"
ended 137 unsaved
run 1 unsaved checkpoint_minutes=0
grep -q '^      block' log || fail 'a checkpoint was saved that was not asked for'

# kept_seconds NAME STAGE: what the checkpoint of a run that was stopped in this stage says that it has taken.
kept_seconds() {
    python3 -c "
import glob, json, sys
newest = max(glob.glob(sys.argv[1] + '/checkpoints/step-*/manifest.json'), key=lambda path: int(path.split('step-')[-1].split('/')[0]))
print(json.load(open(newest))['timing'].get(sys.argv[2], 0))" "$1" "$2"
}
# keeps_seconds NAME STAGE SECONDS PROCESSES: the times of the run that went on contain these seconds, no more than the whole, and its
# table says how many processes they are of.
keeps_seconds() {
    python3 -c "
import json, sys
timing, saved = json.load(open(sys.argv[1] + '/results.json'))['timing'], float(sys.argv[3])
stages = sum(seconds for stage, seconds in timing.items() if stage != 'total')
sys.exit(not (0 < saved < timing[sys.argv[2]] and stages <= timing['total']))" "$1" "$2" "$3" ||
        fail "$1: the checkpoint has $3 s of $2, results.json $(grep -A12 '"timing"' "$1/results.json")"
    grep -qE "^  Time  .*, of $4 processes$" log || fail "$1: the table does not say of how many processes its times are"
}

# ---- every way to stop, at some step; what is said, and the status
stopped() { # stopped NAME REASON: the run that was started stops for this reason and says how to go on
    ended 75 "$1"
    said "stopped $2; the state of the run is in $1/checkpoints/step-"
    [ "$(grep -c '^phase4: ' log)" = 1 ] || fail "$1: more than one line says that it stopped"
    grep -q '"success":[[:space:]]*false' "$1/results.json" || fail "$1: a stopped run speaks of success"
}
for signal in TERM USR1 INT; do
    held "$(some_step)" train 1 one
    kill -"$signal" "$job"
    stopped one "by SIG$signal"
    said "stopping: SIG$signal: the state of the run is saved first"
    [ $signal = INT ] || ! grep -q 'Ctrl-C' log || fail "SIG$signal: the log speaks of Ctrl-C"
    saved_s=$(kept_seconds one fine_tune)
    run 1 one
    keeps_seconds one fine_tune "$saved_s" 2
    said 'continues after step'
    grep -qE '^ +time left from one/checkpoints/step-[0-9]+: (about .*|less than a second), with [0-9]+ of 200 training steps done$' log ||
        fail "$signal: the log does not say how long what is left takes"
    [ "$(provenance one '["continued"]["times"]')" = 1 ] || fail "$signal: results.json does not say that the run was continued"
    ! grep -qE '^\[.*\] (Evaluate the|Calibrate|Quantize|Reconstruct)' log || fail "$signal: a stage that was finished ran again"
    same one whole1
    rm -rf one
done
held "$(some_step)" train 2 two
kill -USR1 "$job" # mpirun hands it on
stopped two 'by SIGUSR1'
said 'stopping: SIGUSR1: the state of the run is saved first if all ranks are still there and mpirun does not end them before'
run 2 two
same two whole2
rm -rf two
held "$(some_step)" train 2 two
kill -TERM "$(rank_process 1)" # one rank alone
let_go
stopped two 'by a signal to another rank'
mv two other
held 1 train 2 two
touch two/stop
let_go
stopped two 'by the file two/stop'
! grep -q 'stopping: SIG' log || fail 'a run that a file stops speaks of a signal'
said 'once that file is removed, the same command continues it'
start 2 two
ended 2 'a stop file'
said 'two/stop: asks runs in this directory to stop'
rm two/stop
run 2 two
same two whole2
# A budget of time, longer every time; the first is over before anything is done, the second long before the 7 s that the lines of
# metrics.jsonl take, and one of the later ones is enough for a slow machine.
starts=0
while [ $starts -lt 40 ]; do
    paced 30 1 short max_minutes="$(awk -v n=$starts 'BEGIN {print n == 0 ? 1e-6 : 0.004 * 1.25 ^ (n - 1)}')"
    starts=$((starts + 1))
    status=0
    wait "$job" || status=$?
    [ "$status" != 0 ] || break
    [ "$status" = 75 ] || fail "max_minutes: status $status"
    said 'stopped because max_minutes have passed'
done
[ $starts -gt 2 ] || fail "max_minutes did not stop the run"
same short whole1
# A second interrupt does not wait until the run comes to a place where it can stop. Two signals that nobody has taken yet are one.
hold_at 5 '"kind":"train"' /metrics.jsonl
front=("${hold[@]}")
start 1 slow
front=()
is_held "$job" || fail 'the run that was to be interrupted has ended'
kill -INT "$job"
while grep -qE '^(SigPnd|ShdPnd):.*[2367abef]$' "/proc/$job/status"; do sleep 0.01; done
kill -INT "$job"
ended 130 'a second SIGINT'
# Killed with -9, by checkpoints on the way.
for every in 7 1; do
    held $((30 + RANDOM % 50)) train 2 killed checkpoint_every=$every # two steps' checkpoints, and one that is begun at most
    ranks=$(pgrep -P "$job")
    kill -9 "$job" $ranks
    wait "$job" || true
    # Three, when it died between publishing one and removing the oldest.
    ls killed/checkpoints | grep -c '^step-[0-9]*$' | grep -q '^[23]$' || fail "not two checkpoints: $(ls killed/checkpoints)"
    run 2 killed checkpoint_every=$every
    said 'continues after step'
    same killed whole2
    rm -rf killed
done

# ---- stages other than training
start 2 early eval_samples=25600 'eval_files=["many.bin"]'
in_stage 'Evaluate the original'
began=$SECONDS
kill -USR1 "$job"
stopped early 'by SIGUSR1'
[ $((SECONDS - began)) -le 120 ] || fail "it took $((SECONDS - began)) s to stop an evaluation"
hold_at 1 '] Evaluate the quantized model' "$PWD/log" signal
front=("${hold[@]}")
start 1 early eval_samples=25600 'eval_files=["many.bin"]' checkpoint_minutes=1e-6
front=()
is_held "$job" || fail 'the run ended before it evaluated the quantized model'
kill -TERM "$job"
stopped early 'by SIGTERM'
run 1 early eval_samples=25600 'eval_files=["many.bin"]' max_minutes=0 fine_tune_max_steps=1
! grep -qE '^\[.*\] (Evaluate the original|Calibrate|Quantize)' log || fail "stages that were finished ran again"
grep -q '^\[.*\] Evaluate the quantized model' log || fail "the evaluation that was stopped did not run again"

# Asked to stop while the confidence intervals are resampled. These evaluations have one micro-batch, behind which the pipeline does not
# act on a request any more: a signal that came before it is noticed in the resampling. The run keeps nothing of that evaluation.
single='calibration_batch_size=20 fine_tune_max_steps=12 checkpoint_every=5'
evaluations() { # evaluations NAME: how many are in metrics.jsonl, beside those during the training
    grep -hs '"kind":"evaluation","stage":"\(pre\|post\|final\)"' "$1/metrics.jsonl" | wc -l
}
run 1 resampled $single
[ "$(evaluations resampled)" = 3 ] || fail "$(evaluations resampled) evaluations, expected 3"
done_before=0
for title in 'Evaluate the original' 'Evaluate the quantized model' 'Evaluate what will be written'; do
    hold_at 1 "] $title" "$PWD/log" signal
    front=("${hold[@]}")
    start 1 asked $single
    front=()
    is_held "$job" || fail "the run ended before the stage \"$title\""
    kill -TERM "$job"
    ended 75 "$title"
    said 'stopped by SIGTERM'
    [ "$(grep '^\[' log | tail -n 1 | sed 's/.*] //')" = "$title" ] || fail "it was not stopped in the stage \"$title\""
    [ "$(evaluations asked)" = $done_before ] || fail "$title: $(evaluations asked) evaluations, expected $done_before"
    done_before=$((done_before + 1))
done
run 1 asked $single
same asked resampled
rm -rf asked

# Reconstruction is stopped as well: before its first set of blocks is done it starts anew from the checkpoint that is saved
# before it, and what it trained is handed on.
reconstructs='reconstruct=true reconstruct_steps=60 quantizer=gptq fine_tune_max_steps=20'
run 2 rebuilt $reconstructs
paced 1000 2 broken $reconstructs
in_stage 'Reconstruct'
sleep 0.1
kill -USR1 "$job"
ended 75 'a reconstruction'
run 2 broken $reconstructs checkpoint_every=1
! grep -q '^\[.*\] Quantize' log || fail "a finished stage ran again"
same broken rebuilt

# A set of blocks that is done is not trained again, whether the run is stopped or killed behind it; nor on other ranks.
for keys in 'quantizer=gptq fine_tune_max_steps=20' 'enable_fine_tuning=false'; do
    keys="$keys reconstruct=true reconstruct_window=1 reconstruct_steps=500 reconstruct_lr=1e-4 exact_sums=true"
    rm -rf rebuilt broken
    run 1 rebuilt $keys
    held 1 reconstruct 2 broken $keys
    kill -USR1 "$job"
    ended 75 'a reconstruction of which a set of blocks is done'
    # What the process took for these blocks is in the times, and they are not in what is left.
    saved_s=$(kept_seconds broken reconstruct)
    run 3 broken $keys
    said 'continues after block 1 of 2'
    grep -qE '^ +time left from broken/checkpoints/step-0: (about .*|less than a second), with 1 of 2 blocks reconstructed$' log ||
        fail 'the log does not say which blocks are left'
    keeps_seconds broken reconstruct "$saved_s" 2
    [ "$(grep -c '^      block' log)" = 1 ] || fail 'another number of sets of blocks than 1 was trained again'
    same broken rebuilt
    rm -rf broken
    held 2 reconstruct 2 broken $keys checkpoint_minutes=1e-6 # the second set is trained, the first in a checkpoint
    ranks=$(pgrep -P "$job")
    kill -9 "$job" $ranks
    wait "$job" || true
    run 1 broken $keys
    said 'continues after block 1 of 2'
    same broken rebuilt
done

# ---- other ranks, another zero_stage: `other` was stopped on two ranks
for change in '1 recompute=blocks' '3 zero_stage=1' '2 zero_stage=0'; do
    rm -rf moved
    cp -r other moved
    run "${change%% *}" moved "${change#* }"
    said 'written by 2 ranks'
    "$TOOL_COMPARE" whole2 moved losses 1e-5 >compared || fail "$change: $(cat compared)"
done

# ---- damage. `torn` was killed and has two checkpoints; three, when it died before it removed the oldest.
held 35 train 1 torn checkpoint_every=10
kill -9 "$job"
wait "$job" 2>/dev/null || true
complete=$(ls torn/checkpoints | grep -x 'step-[0-9]*' | sort -t- -k2n)
newest=torn/checkpoints/$(tail -n 1 <<<"$complete")
older=torn/checkpoints/$(tail -n 2 <<<"$complete" | head -n 1)
[ "$newest" != "$older" ] || fail "torn: one checkpoint only"
step=${newest##*/}
flip() { # flip FILE: another bit in the middle of its numbers; between them HDF5 leaves bytes that nobody reads
    python3 - "$1" <<'END'
import re, sys
with open(sys.argv[1], "r+b") as file:
    data = file.read()
    numbers = [match.start() for match in re.finditer(rb"[^\0]{128}", data)]
    at = numbers[len(numbers) // 2] + 64
    file.seek(at)
    file.write(bytes([data[at] ^ 1]))
END
}
damage() { # damage WHAT WORDS COMMAND...: the newest of a copy is refused with these words, the one before it used
    local what=$1 words=$2
    shift 2
    rm -rf bad
    cp -r torn bad
    (cd "bad/checkpoints/$step" && "$@")
    run 1 bad checkpoint_every=10 fine_tune_max_steps=40
    said 'a checkpoint cannot be used, the one before it is tried'
    said "bad/checkpoints/$step/"
    said "$words"
    said "continues from bad/checkpoints/${older##*/}"
}
damage 'a changed byte' 'part-0.h5: cannot read' flip part-0.h5
cp -r torn bad2
flip "bad2/checkpoints/$step/part-0.h5"
run 1 bad2
same bad2 whole1
damage 'a part cut short' 'expected' truncate -s -100 part-0.h5
damage 'a part that is gone' 'part-0.h5' rm part-0.h5
damage 'a manifest that is gone' 'manifest.json' rm manifest.json
damage 'a manifest cut short' 'manifest.json' truncate -s 300 manifest.json
damage 'a foreign manifest' 'its format is "another-checkpoint"' sed -i 's/phase4-checkpoint/another-checkpoint/' manifest.json
damage 'a later version' 'format version 9' sed -i 's/"format_version":[[:space:]]*[0-9]/"format_version": 9/' manifest.json
# Checkpoints of the version before are read.
rm -rf bad
cp -r torn bad
sed -i 's/"format_version":[[:space:]]*[0-9]/"format_version": 2/' bad/checkpoints/*/manifest.json
run 1 bad checkpoint_every=10 fine_tune_max_steps=40
said "continues from bad/checkpoints/$step"
refused() { # refused WORDS NAME [key=value ...]: status 2 and these words; the checkpoints stay as they were
    local words=$1 name=$2
    shift 2
    (cd "$name" && find checkpoints -type f -exec cksum {} + | sort) >before
    start 1 "$name" "$@"
    ended 2 "$words"
    said "$words"
    if grep -q 'continues from' log; then
        fail "a run that was refused says that it continues"
    fi
    (cd "$name" && find checkpoints -type f -exec cksum {} + | sort) >after
    cmp before after || fail "a run that was refused changed the checkpoints"
}
rm -rf bad
cp -r torn bad
for each in $complete; do flip "bad/checkpoints/$each/part-0.h5"; done
refused 'no checkpoint can be used' bad

# ---- another configuration, model, text
refused 'key "fine_tune_lr": found 0.001, the checkpoint has 0.005' torn fine_tune_lr=1e-3
refused 'key "seed": found 7, the checkpoint has 42' torn seed=7 optimizer=adamw
said 'key "optimizer": found "adamw", the checkpoint has "mugrokfast"'
refused 'key "learn_scales": found false, the checkpoint has true' torn learn_scales=false
refused 'key "preserve_layers": found ["*.0.*"], the checkpoint has []' torn 'preserve_layers=["*.0.*"]'
cp many.bin text.bin
refused 'the training text: found crc32:' torn 'train_files=["text.bin"]'
cp -r model model2
flip model2/model.safetensors
refused 'model.safetensors: found crc32:' torn model_path=model2
# What may change: another place, other outputs, fewer steps.
rm -rf bad
cp -r torn bad
cp ids.bin moved.bin
run 1 bad 'train_files=["moved.bin"]' save_quantized=false log_every=5 fine_tune_max_steps=150 num_workers=1 packing=2bit
said 'continues after step'
grep -q '"steps":[[:space:]]*150' bad/results.json || fail "fine_tune_max_steps did not change"

# Another length of the training on a text of which a sample is tokenized, with the rate chosen by the length.
held 12 train 1 length 'train_files=["many.bin"]' fine_tune_max_steps=300 fine_tune_lr=auto checkpoint_every=5
kill -9 "$job"
wait "$job" || true
rate=$(grep -o 'fine_tune_lr is [0-9.e-]*' log)
run 1 length 'train_files=["many.bin"]' fine_tune_max_steps=30 fine_tune_lr=auto
said 'the training text is unchanged: of 6000 windows at most'
said "$rate, as the training began"
grep -q '"steps":[[:space:]]*30,' length/results.json || fail 'a training that was made shorter'
rm -rf length

# ---- resume: a path, and never
run 1 elsewhere resume="$older"
said "continues from $older"
same elsewhere whole1
rm -rf elsewhere
run 1 elsewhere resume=torn
said "continues from $newest"
rm -rf elsewhere
start 1 elsewhere resume=no_such_place
ended 2 'resume=no_such_place'
said 'key "resume": no_such_place: is no checkpoint, and holds none'
run 1 torn resume=never
! grep -q 'continues' log || fail "resume never continues"
same torn whole1
