/* generate_program.c - the command line of phase4_generate as a table. */
#include "jobs/generate.h"

static const p4_option options[] = {
    {"--tokens", "-n", "N", "Generate at most N tokens; default 128."},
    {"--file", "-f", "FILE", "Read the prompt from FILE."},
    {"--chat", NULL, NULL, "The prompt is a user's message: render it by the model's chat template."},
    {"--greedy", NULL, NULL, "Take the most probable token each time."},
    {"--temperature", NULL, "X", "Divide the logits by X before sampling; default 0.8, 0 is --greedy."},
    {"--top-p", NULL, "X", "Sample from the fewest tokens that hold X of the probability; default 0.95."},
    {"--top-k", NULL, "N", "Sample from the N most probable tokens; default 40, 0: all."},
    {"--seed", NULL, "N", "Seed of the sampling; default 42."},
    {"--compare", NULL, "DIR",
     "Continue the prompt with the model in DIR as well and print both side by side."},
    {"--activation-bits", NULL, "N",
     "8: round the inputs of ternary matrices to int8 per token; 16 or 0: do not. Default 8."},
    {"--cache", NULL, "TYPE", "Type of the cached keys and values: f16 or f32; default f16."},
    {"--device", NULL, "NAME", "cpu or cuda; default cpu."},
    {"--threads", NULL, "N",
     "Threads; default: one for each core, and fewer for a small model, which more would not help."},
    {"--json", NULL, NULL, "Print JSON when the text is complete."},
    {"--quiet", "-q", NULL, "Print the text alone."},
    {NULL},
};

static const p4_exit_status statuses[] = {
    {"0", "the text was generated"},
    {"1", "system failure: memory, a device, or standard output that cannot be written"},
    {"2", "bad input: the command line, the model, its tokenizer or the prompt"},
    {NULL},
};

const p4_program p4_generate_program = {
    .name = "phase4_generate",
    .usage = "[options] DIR|model.h5|FILE.gguf [PROMPT]",
    .purpose = "continue a text with a compressed or an original model",
    .description =
        "Continues PROMPT, the text of --file, or standard input. DIR is the output directory of a run of\n"
        "phase4_mpi or any Hugging Face model directory of a supported family; GGUF files are read with "
        "ternary\n"
        "and float tensors of the architectures llama, qwen2 and qwen3. A packed model is computed\n"
        "from its 2-bit codes. The text is printed as it is generated, and its speed and the bytes of\n"
        "weights read per token go to standard error. It ends at a token that config.json or\n"
        "generation_config.json lists as eos_token_id. The program is one process and needs no MPI.\n",
    .options = options,
    .statuses = statuses,
};
