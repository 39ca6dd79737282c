#!/usr/bin/env bash
# Exported models in the programs that they are for: llama.cpp, transformers with compressed-tensors, mlx-lm.
# The demo model is compressed and run; each family and kind of tokenizer that GGUF takes is a small model of random weights.
# llama.cpp is built from its source package, which takes about ten minutes on two cores.
set -eu
here=$(dirname "$(readlink -f "$0")")
. "$here/../job.sh"
. "$here/packages.sh"
export OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1
client_packages exports torch transformers accelerate sentencepiece protobuf compressed-tensors llama-cpp-python mlx-cpu mlx mlx-lm
cd "$TMP"
compress() { # compress OUT MODEL key=value...
    local out=$1 model=$2
    shift 2
    cat >cfg.json <<JSON
{"model_path": "$model", "output_path": "$out", "wandb_enabled": false, "calibration_samples": 0, "eval_samples": 0,
 "enable_fine_tuning": false, "reconstruct": false, "calibration_sequence_length": 8, "checkpoint_minutes": 0}
JSON
    "$PHASE4_MPI" cfg.json "$@" >log 2>&1
}
"$PHASE4_DEMO" demo --stories 200 >/dev/null
cat demo/*valid*.jsonl | "$PYTHON" -c 'import json, sys; print("\n".join(json.loads(line)["text"] for line in sys.stdin))' >text

# A real model, trained, in each kind of block, and in every directory.
model=$here/../../jobs/demo/model
for type in q2_0 tq2_0 tq1_0; do
    compress "demo-$type" "$model" quantizer=exact "exports=[\"gguf:$type\"]" || complain "demo $type"
done
"$PYTHON" "$here/gguf_llama.py" demo-q2_0 demo-tq2_0 demo-tq1_0 --text text --tokens 2048
compress directories "$model" quantizer=exact 'exports=["compressed_tensors", "mlx"]' || complain 'the directories'
"$PYTHON" "$here/directories.py" directories compressed_tensors mlx

# Other scales: of groups, which GGUF, compressed-tensors and MLX have, and of tensors, which bitnet has alone.
# These models are only rounded: on few tokens the int8 activations of llama.cpp move their high perplexity by up to 1 %.
compress groups "$model" quantizer=exact scale_granularity=group64 'exports=["gguf", "compressed_tensors", "mlx"]' || complain 'groups'
"$PYTHON" "$here/gguf_llama.py" groups --text text --tokens 1024 --loss-bound 0.01
"$PYTHON" "$here/directories.py" groups compressed_tensors mlx
compress tensors "$model" quantizer=exact scale_granularity=tensor 'exports=["gguf", "bitnet"]' || complain 'tensors'
"$PYTHON" "$here/gguf_llama.py" tensors --text text --tokens 1024 --loss-bound 0.01
"$PYTHON" "$here/directories.py" tensors bitnet

# Mixtures of experts, which MLX and GGUF keep as one tensor for all experts of a layer.
"$PYTHON" "$here/models.py" "$FIXTURES" models
for name in qwen3_moe mixtral olmoe; do
    compress "experts-$name" "models/blocks-$name" init=random 'exports=["mlx"]' || complain "mlx: $name"
    "$PYTHON" "$here/directories.py" "experts-$name" mlx
done
# Scaled rotary positions, and windows: without them the logits would differ by more than the bound.
for path in models/positions-*; do
    name=$(basename "$path")
    compress "mlx-$name" "$path" init=random quantizer=exact 'exports=["mlx"]' || complain "mlx: $name"
    "$PYTHON" "$here/directories.py" "mlx-$name" mlx --bound 0.03
done

# What GGUF refuses is refused before the run; all others are compared.
written=()
for path in models/*; do
    name=$(basename "$path") init=checkpoint
    case $name in positions-*) continue ;; esac
    [ -e "$path/model.safetensors" ] || [ -e "$path/model.safetensors.index.json" ] || init=random
    if compress "out/$name" "$path" init=$init 'exports=["gguf"]'; then
        written+=("out/$name")
    else
        grep -o 'exports: gguf: .*' log || complain "$name"
    fi
done
for type in tq1_0 tq2_0; do # rows of 256 in the MLP
    compress "out/blocks-$type" models/tokenizer-gpt2 init=random "exports=[\"gguf:$type\"]" || complain "$type"
    written+=("out/blocks-$type")
done
compress out/blocks-experts models/blocks-mixtral init=random 'exports=["gguf:tq1_0"]' || complain 'tq1_0 of experts'
written+=(out/blocks-experts)
[ ${#written[@]} -ge 35 ] || complain "only ${#written[@]} models were written"
"$PYTHON" "$here/gguf_llama.py" "${written[@]}" --text text --tokens 512 --greedy 8
