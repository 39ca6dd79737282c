#!/usr/bin/env bash
# phase4_generate: a packed model writes what its dequantized form writes, whatever the number of threads; prompts from every
# source; the end of a text; side by side with the original; what is refused.
set -eu
. "$(dirname "$0")/job.sh"
cd "$TMP"
original=$(dirname "$(readlink -f "$0")")/../jobs/demo/model
demo 40
cat >run.json <<JSON
{"model_path": "$original", "output_path": "out", "wandb_enabled": false, "calibration_dataset": "custom",
 "calibration_files": ["demo/stories-train.jsonl"], "eval_files": ["demo/stories-valid.jsonl"], "calibration_sequence_length": 64,
 "eval_samples": 2, "calibration_samples": 32, "enable_fine_tuning": false, "threads_per_rank": 1}
JSON
"$PHASE4_MPI" run.json >log 2>&1 || complain 'the run'
prompt='One day, Mia went to the'

# Sample texts begin with a word, also where windows of evaluation begin inside of one.
python3 - <<'END'
import json
text = "".join(json.loads(line)["text"] for line in open("demo/stories-train.jsonl"))
json.dump({"text": text}, open("long.jsonl", "w"))
END
"$PHASE4_MPI" run.json output_path=samples 'eval_files=["long.jsonl"]' eval_samples=24 sample_texts=24 reconstruct=false \
    calibration_samples=0 >log 2>&1 || complain 'the run for sample texts'
python3 - <<'END' || complain 'a sample text begins inside of a word'
import json
text = json.load(open("long.jsonl"))["text"]
prompts = [s["prompt"] for s in json.load(open("samples/samples.json"))["samples"]]
inside = [p for p in prompts if text.find(p) > 0 and not (text[text.find(p) - 1].isspace() or p[0].isspace())]
print(len(prompts), "samples,", len(inside), "inside of a word", inside[:2])
assert len(prompts) == 24 and all(p in text for p in prompts) and not inside
END

# written FILE ARGUMENT...: runs the program, whose output goes to FILE.
written() {
    local file=$1 status=0
    shift
    "$PHASE4_GENERATE" "$@" >"$file" 2>log || status=$?
    [ $status = 0 ] || complain "$*: status $status"
    iconv -f UTF-8 -t UTF-8 "$file" >/dev/null || complain "$*: the text is not UTF-8"
}
# refused WORDS ARGUMENT...: status 2, and one line with WORDS.
refused() {
    local words=$1 status=0
    shift
    "$PHASE4_GENERATE" "$@" >log 2>&1 </dev/null || status=$?
    [ $status = 2 ] || complain "$*: status $status, expected 2"
    [ "$(wc -l <log)" = 1 ] && grep -qF -- "$words" log || complain "$*: expected one line with \"$words\""
}

# From codes and from fp16 the same values, so the same text. Rounded activations do not depend on threads.
exact=(--greedy --cache f32 --activation-bits 0 -n 16)
written packed out "$prompt" "${exact[@]}"
written dense out/dequantized_fp16 "$prompt" "${exact[@]}"
written file out/model.h5 "$prompt" "${exact[@]}" --threads 2
cmp packed dense && cmp packed file || complain 'codes and fp16 gave different texts'
[ "$(wc -c <packed)" -gt 20 ] || complain 'there is no text'
grep -q 'of weights read per token' log || complain 'the speed is not said'
written letter out a --greedy -n 1
grep -qE 'prompt of 1 token in .*; 1 token[ ;]' log || complain 'one token is not called so'
written one out "$prompt" --greedy -n 40 --threads 1
written two out "$prompt" --greedy -n 40 --threads 2
cmp one two || complain 'threads changed the text'
written a out "$prompt" --seed 5 -n 30
written b out "$prompt" --seed 5 -n 30
written c out "$prompt" --seed 6 -n 30 --temperature 1.5 --top-k 0 --top-p 1
cmp a b && ! cmp -s a c || complain 'a seed gives one text, another seed another'

# The same prompt from a file and from standard input.
printf %s "$prompt" >prompt
written from_file out --file prompt "${exact[@]}"
written from_input out "${exact[@]}" <prompt
cmp packed from_file && cmp packed from_input || complain 'the source of the prompt changed the text'

# JSON: the text of the ids, beside the original; then a token of the text ends it, as generation_config.json says.
written said.json out "$prompt" "${exact[@]}" --json --compare "$original"
written columns out "$prompt" "${exact[@]}" --compare "$original" -q
cp -r out/dequantized_fp16 ends
python3 - "$prompt" <<'END'
import json, sys
said = json.load(open("said.json"))
text = open("packed").read()
assert said["prompt"] == sys.argv[1]
one, other = said["generation"], said["original"]
assert one["text"] + "\n" == text, (one["text"], text)
assert one["model"] == "out" and one["stopped_by"] == "tokens" and len(one["ids"]) == 16
assert one["weight_bytes_per_token"] < other["weight_bytes_per_token"] and other["text"] != one["text"]
assert one["prompt_tokens"] == other["prompt_tokens"] > 3
lines = open("columns").read().splitlines()
assert all(" | " in line or "-+-" in line for line in lines) and len(lines) >= 3, lines
left = " ".join(line.split(" | ")[0].strip() for line in lines[2:])
right = " ".join(line.split(" | ")[1].strip() for line in lines[2:])
words = lambda t: "".join(t.split())
assert words(left) == words(other["text"]) and words(right) == words(one["text"]), (left, right)
stop = one["ids"][9]
json.dump({"eos_token_id": [0, stop]}, open("ends/generation_config.json", "w"))
json.dump({"ids": one["ids"][:one["ids"].index(stop)]}, open("want.json", "w"))
END
written ended.json ends "$prompt" "${exact[@]}" --json
python3 - <<'END'
import json
ended, want = json.load(open("ended.json"))["generation"], json.load(open("want.json"))
assert ended["ids"] == want["ids"] and ended["stopped_by"] == "end of text", (ended, want)
END

# A chat template: the prompt becomes a message.
cp -r out/dequantized_fp16 chat
echo "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}" >chat/chat_template.jinja
written chat.json chat "$prompt" "${exact[@]}" --json --chat
python3 - <<'END'
import json
assert json.load(open("chat.json"))["generation"]["prompt_tokens"] > json.load(open("said.json"))["generation"]["prompt_tokens"] + 10
END

refused 'nothing: is not there; expected the output directory of a run, its model.h5, a model directory or a GGUF file' nothing "$prompt"
mkdir gone
cp out/results.json out/report.html gone
refused 'gone/model.h5: is not there: gone is not the output directory of a run that wrote a packed model' gone "$prompt"
mkdir neither
refused 'expected a Hugging Face model directory' neither "$prompt"
refused 'expected a model and a prompt' out a b
refused 'expected a number from 1 to 16777216' out "$prompt" --tokens 0
refused 'expected a number from 0 to 1' out "$prompt" --top-p 2
refused 'expected 0, 8 or 16' out "$prompt" --activation-bits 4
refused 'expected f16 or f32' out "$prompt" --cache q8
refused 'expected cpu or cuda' out "$prompt" --device tpu
refused 'expected a whole number' out "$prompt" --tokens 1.5
refused 'positions' out "$prompt" --tokens 100000
refused 'error: option "--chat": the model in out/dequantized_fp16 has no chat template' out "$prompt" --chat
! grep -q 'key\|conversation' log || complain 'the message speaks of what this program has not'
refused 'expected one of them' out "$prompt" --file prompt
refused 'the nearest known option is "--greedy"' out "$prompt" --gredy
head -c 3000 out/model.h5 >torn.h5
refused 'torn.h5' torn.h5 "$prompt"
"$PHASE4_GENERATE" --help >log && grep -q -- --activation-bits log || complain '--help'
