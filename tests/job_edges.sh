#!/usr/bin/env bash
# Corners of a run, on the small fixtures: what is written is what was measured, whatever is ternary and however tensors lie in
# their files; held-out windows; ranks without layers; warnings; runs that are killed; settings that cannot work are refused.
set -eu
. "$(dirname "$0")/job.sh"
cd "$TMP"
printf "$(awk 'BEGIN {srand(3); for (i = 0; i < 4800; i++) printf "\\%o\\000", (i * 7 + int(rand() * 9)) % 40}')" >ids.bin
head -c 1200 ids.bin >few.bin # 50 windows of 12 token ids
for _ in 1 2 3 4 5 6 7 8 9 10 11 12; do cat ids.bin ids.bin >twice.bin && mv twice.bin ids.bin; done # 400 windows, 4096 times
cat >cfg.json <<JSON
{
  "model_path": "unset", "output_path": "unset", "wandb_enabled": false, "calibration_dataset": "custom",
  "calibration_files": ["$TMP/few.bin"], "eval_files": ["$TMP/few.bin"], "train_files": ["$TMP/few.bin"],
  "eval_samples": 7, "calibration_samples": 9, "calibration_batch_size": 2, "calibration_sequence_length": 12,
  "quantizer": "absmean", "sparsity_threshold": 1.6, "global_batch_tokens": 60, "fine_tune_max_steps": 4,
  "fine_tune_epochs": 1, "fine_tune_threshold": 0, "fine_tune_lr": 5e-3, "warmup_steps": 1, "threads_per_rank": 1
}
JSON
llama=$FIXTURES/models/llama-gqa # 2 layers

run() { # run OUTPUT MODEL RANKS [key=value ...]
    local output=$1 model=$2 ranks=$3
    shift 3
    "$MPIRUN" -n "$ranks" "$PHASE4_MPI" "$TMP/cfg.json" model_path="$model" output_path="$output" "$@" >log 2>&1 ||
        complain "$output: failed"
}
refused() { # refused WORDS [key=value ...]
    local words=$1 status=0
    shift
    "$PHASE4_MPI" --quiet "$TMP/cfg.json" model_path="$llama" output_path=refused "$@" >log 2>&1 || status=$?
    [ $status = 2 ] && grep -qF -- "$words" log || complain "$*: status $status, expected 2 and \"$words\""
    [ ! -e refused/model.h5 ] || complain "$*: a refused run left a model.h5"
}
says() { grep -qF -- "$1" log || complain "expected the line \"$1\""; }

# The dequantised directory, read again, has the loss that the run ended with. The round trips share three starts: the runs
# that train models, the runs on three ranks, and those that read again what they wrote.
trips=0
trained() { # trained NAME: the fixture NAME, trained on its text, in trained/NAME/a/dequantized_fp16
    plan training "$TMP/trained/$1/run" - --quiet "$TMP/cfg.json" model_path="$FIXTURES/models/$1" output_path="$TMP/trained/$1/a" \
        quantizer=none optimizer=adamw fine_tune_max_steps=60 fine_tune_epochs=100
}
round_trip() { # round_trip MODEL [key=value ...]
    local model=$1 trip
    shift
    trips=$((trips + 1))
    trip=$TMP/trips/$trips
    plan first "$trip/first" - --quiet "$TMP/cfg.json" model_path="$model" output_path="$trip/a" "$@"
    plan again "$trip/again" - --quiet "$TMP/cfg.json" model_path="$trip/a/dequantized_fp16" output_path="$trip/b" \
        quantizer=none enable_fine_tuning=false
}
succeeded() { # succeeded RANKS DIRECTORY: a run of a plan
    (cd "$2" && { outcome "$1" || complain "$2: failed"; })
}
round_trips() {
    local i name
    run_planned 1 "$TMP/training"
    run_planned 3 "$TMP/first"
    run_planned 1 "$TMP/again"
    for name in "${models[@]}"; do
        succeeded 1 "$TMP/trained/$name/run"
    done
    for ((i = 1; i <= trips; i++)); do
        succeeded 3 "$TMP/trips/$i/first"
        succeeded 1 "$TMP/trips/$i/again"
        "$TOOL_COMPARE" "$TMP/trips/$i/b" "$TMP/trips/$i/a" final 2e-6
        if sed -n "${i}p" "$TMP/first" | grep -q "$TMP/trained/"; then
            grep -q '"steps":[[:space:]]*4,' "$TMP/trips/$i/a/results.json" || complain "trip $i: a trained model was not fine-tuned"
        fi
    done
}

# An original that predicts its text worse than guessing does is worth a warning; one of random weights is not.
guessing() {
    run guess "$llama" 2 enable_fine_tuning=false
    says 'no better than guessing among its'
    grep -qE '^  Verdict .*; but the original is no better than guessing, so this says little$' log || complain 'the verdict does not say so'
    grep -qE '^  Warnings +[1-9][0-9]*, in the log and in results.json$' log || complain 'the end does not count the warnings'
    python3 - <<'END' || complain 'results.json does not have the warning'
import json
r = json.load(open("guess/results.json"))
assert any(w.startswith("the original's perplexity is ") for w in r["warnings"]), r["warnings"] # the machine may add its own
assert any(w.startswith("without effect while ") for w in r["warnings"]), r["warnings"]
assert r["warning_count"] == len(r["warnings"])
assert r["original_guesses"] is True
END
    grep -q '<li>.*no better than guessing among its' guess/report.html || complain 'the report does not show the warning'
    grep -q 'But the original is no better than guessing' guess/report.html && ! grep -q 'class="verdict pass"' guess/report.html ||
        complain 'the verdict of the report does not say so'
    "$PHASE4_EVALUATE" guess >log 2>&1 || complain 'phase4_evaluate on a model that guesses'
    grep -qE '^  Verdict .*; but the original is no better than guessing, so this says little$' log ||
        complain 'the verdict of phase4_evaluate does not say so'
    grep -qE '^ +windows of [0-9]+ tokens: [0-9]+ to evaluate$' log || complain 'phase4_evaluate speaks of what it does not do'
    run chance "$llama" 1 enable_fine_tuning=false init=random
    if grep -q 'guessing' log; then
        complain 'random weights are warned of'
    fi
    grep -q '"original_guesses":[[:space:]]*false' chance/results.json || complain 'random weights are judged as a trained model'
}

# Evaluation without files takes what calibration leaves, and neither gets more than was asked for.
held_out() {
    run held "$llama" 2 eval_files=[] enable_fine_tuning=false
    says '9 to calibrate, 7 to evaluate'
    run short "$llama" 2 eval_files=[] enable_fine_tuning=false calibration_samples=1000
    says '43 to calibrate, 7 to evaluate'
    run alone "$llama" 1 eval_files=[] enable_fine_tuning=false calibration_samples=0 eval_samples=50
    says 'tokens: 50 to evaluate'
    ! grep -q '0 to calibrate' log || complain 'what the run does not do is listed'
}

# Two layers on four ranks: two ranks wait while the others pass all windows through their layers, which takes longer than
# collective_timeout_s. That bounds the wait for one message, here some milliseconds; a slow disk is not part of the test, so
# nothing is exported. The number of windows is doubled until the pass does take longer.
idle_ranks() {
    local windows=25600
    while :; do
        run idle "$llama" 4 overwrite=true eval_files="[\"$TMP/ids.bin\"]" eval_samples=$windows collective_timeout_s=4 \
            calibration_samples=0 quantizer=none enable_fine_tuning=false save_quantized=false save_dequantized_fp16=false
        ! python3 -c 'import json, sys; sys.exit(json.load(open("idle/results.json"))["timing"]["evaluate_pre"] < 4.8)' || break
        windows=$((2 * windows))
        [ $windows -le 1638400 ] || complain 'no evaluation took 4.8 s'
    done
    echo "$windows windows took longer than collective_timeout_s"
}

# Settings that have no effect are named in a warning, once each; others are not.
without_effect() {
    run vain "$llama" 2 enable_fine_tuning=false quantizer=exact 'preserve_layers=["*k_proj*","*no_such*"]'
    says 'key "preserve_layers": "*no_such*" matches none'
    says 'key "sparsity_threshold": 1.6 has no effect'
    [ "$(grep -c 'warning: key' log)" = 2 ] || complain 'expected two warnings'
    "$PHASE4_MPI" --check "$TMP/cfg.json" model_path="$llama" output_path=vainer enable_fine_tuning=false fine_tune_lr=1e-3 \
        optimizer=adamw grokfast_lambda=3 >log 2>&1 || complain 'keys of fine-tuning without it are refused'
    says 'warning: without effect while enable_fine_tuning is false: train_files, fine_tune_epochs, fine_tune_max_steps, fine_tune_lr, warmup_steps, optimizer, fine_tune_threshold'
    says 'warning: without effect while enable_fine_tuning is false: grokfast_lambda'
    "$PHASE4_MPI" --check "$TMP/cfg.json" model_path="$llama" output_path=vainer grokfast_lambda=3 >log 2>&1 || complain 'grokfast_lambda'
    says 'warning: without effect while enable_grokfast is false: grokfast_lambda'
    "$PHASE4_MPI" --check "$TMP/cfg.json" model_path="$llama" output_path=vainer enable_grokfast=true grokfast_lambda=3 >log 2>&1 ||
        complain 'Grokfast'
    ! grep -q 'without effect while' log || complain 'Grokfast reads its keys'
    # The configuration that a run records gives every key, and makes the run again without warnings of its own.
    local keys
    for keys in 'enable_fine_tuning=true distill=0' 'enable_fine_tuning=false' 'recipe=seed' 'quantizer=exact reconstruct=false'; do
        # shellcheck disable=SC2086
        run recorded "$llama" 1 overwrite=true calibration_samples=1000 $keys
        grep '^warning: ' log | sort >first
        "$PHASE4_MPI" recorded/phase4_config.json output_path=again overwrite=true >log 2>&1 || complain "the recorded configuration: $keys"
        [ -z "$(grep '^warning: ' log | sort | comm -13 first -)" ] || complain "the recorded configuration warns of its own: $keys"
    done
}

# A run that is killed leaves no results.json that speaks of an earlier run's success; the earlier run's model stays, and later
# runs do not overwrite it.
killed() {
    local status=0 started=$SECONDS
    run killed "$llama" 1 enable_fine_tuning=false
    grep -q '"success":[[:space:]]*true' killed/results.json || complain 'a run that ended says otherwise'
    "$PHASE4_MPI" "$TMP/cfg.json" model_path="$llama" output_path=killed overwrite=true eval_samples=0 fine_tune_epochs=100000 \
        fine_tune_max_steps=1000000 >log 2>&1 &
    until grep -qs '"kind":"train"' killed/metrics.jsonl; do
        [ $((SECONDS - started)) -lt "$HANG_S" ] || { kill -9 $!; complain "does not train within $HANG_S s"; }
        sleep 0.1
    done
    kill -9 $!
    wait $! 2>/dev/null || true
    grep -q '"success":[[:space:]]*false' killed/results.json && grep -q 'has not ended.*; the stage it came to: Fine-tune"' killed/results.json ||
        complain "results.json of a run that was killed: $(cat killed/results.json)"
    [ -e killed/model.h5 ] || complain "the earlier run's model is gone"
    "$PHASE4_MPI" "$TMP/cfg.json" model_path="$llama" output_path=killed >log 2>&1 || status=$?
    [ $status = 2 ] && grep -qF 'holds the results of another run (' log ||
        complain "status $status: an earlier model was not protected"
}

models=(gpt2-plain gpt2-untied llama-gqa llama-bias llama-bf16)
for name in "${models[@]}"; do
    round_trip "$FIXTURES/models/$name"
    round_trip "$FIXTURES/models/$name" preserve_embedding_precision=false preserve_output_precision=false
    round_trip "$FIXTURES/models/$name" 'preserve_layers=["*k_proj*","*.up_proj*","*attn.c_proj*"]' zero_stage=0
    # Quantizing random weights may lower the perplexity, and then nothing is fine-tuned. It raises that of a trained model.
    trained "$name"
    round_trip "$TMP/trained/$name/a/dequantized_fp16" preserve_embedding_precision=false preserve_output_precision=false
done
spawn round_trips
spawn idle_ranks
spawn killed
spawn guessing
spawn held_out
spawn without_effect
spawn refused 'k_proj' activation_bits=8 'preserve_layers=["*k_proj*"]'
spawn refused 'whose scale fp16 cannot hold' eval_samples=0 optimizer=adamw fine_tune_lr=10 weight_decay=10 \
    warmup_steps=0 lr_final_fraction=1 preserve_embedding_precision=false preserve_output_precision=false
spawn refused 'expected at least 10000000000' eval_samples=0 fine_tune_max_steps=1000000000000 global_batch_tokens=120000000000
join
