#!/usr/bin/env python3
"""Compares the tokenizer with the reference library (pip: transformers 5) on texts and on random strings.

    compare_tokenizers.py ENCODE_FRAMES MODEL_DIRECTORY... [--texts FILE...] [--random COUNT] [--seed N]

ENCODE_FRAMES is the program built from tests/encode_frames.c. What it makes of a directory is compared with what
AutoTokenizer makes of it (also pip: sentencepiece, protobuf where there is a tokenizer.model), or, of a directory
of nothing but a tokenizer.json, with the library tokenizers. A text file is taken whole; a .jsonl or .jsonl.gz is
one document a line, field "text". Prints one line a directory, the first differences, and how many directories
are exact, differ, or are refused; exit status 1 if one differs.
"""
import argparse
import gzip
import json
import os
import random
import struct
import subprocess
import sys
import unicodedata

from tokenizers import Tokenizer
from tokenizers.normalizers import NFC

PARTS = [
    " ", "  ", "   ", "\n", "\r\n", "\r", "\t", "\v", "\f", "\x00", "\x7f", "\x85", "\xa0", "\xad",
    "\u1680", "\u180e", "\u2003", "\u2028", "\u2029", "\u200b", "\u200d", "\u202f", "\u205f", "\u3000",
    "\ufeff", "▁", "▁▁", "'", "’", "'s", "'S", "'ſ", "'t", "'re", "'VE", "'m", "'ll", "'LL", "'d", "n't",
    "0", "12", "345", "67890", "٣", "४", "Ⅷ", "½", "²", "૧", "𝟙", "a", "B", "the", "hello", "World",
    "straße", "ſ", "K", "Å", "Ω", "é", "e\u0301", "q\u0307\u0323", "\u0301", "\u0338", "=\u0338", "ﬁ", "Ǆ",
    "ǅ", "ʰ", "中文", "日本語", "かな", "か\u3099", "한국어", "\u1112\u1161\u11ab", "각", "ᄀ", "עברית", "مرحبا", "ไทย",
    "नमस्ते", "\u09c7\u09be", "🙂", "👩\u200d👩\u200d👧", "🇩🇪", "\U0001f3fb", "\U00010330", "\U000e0001",
    "\U0010ffff", "\ue000", "!", "?!", "...", "--", "_", "__init__", "(x)", "{", "}", "[", "]", "<", ">",
    "</", "&", "#", "$", "€", "+", "=", "/", "\\", "@", "~", "`", "|", "<|endoftext|>", "<s>", "</s>",
    "<unk>", "<0x0A>", "Ġ", "Ċ", "ⓐ", "ͅ", "ª", "ǰ", "ẞ", "\u0344", "\u212b", "\u2126", "\u1e9b\u0323",
]


def is_known(c):
    """Left out are characters that the libraries below know in different Unicode versions: unassigned ones (PCRE2
    10.42 knows Unicode 14, as Python 3.11 does), and marks that the reference's NFC, of Unicode 9, cannot order."""
    if unicodedata.category(c) in ("Cs", "Cn"):
        return False
    return unicodedata.combining(c) <= 1 or NFC().normalize_str(c + "\u0334").startswith("\u0334")


def random_text(rng, extra, any_character=True):
    kind = rng.random()
    if kind < 0.1 and any_character:
        limits = [rng.choice([0x80, 0x3000, 0x110000]) for _ in range(rng.randrange(30))]
        picked = [rng.randrange(limit) for limit in limits]
        return "".join(chr(c) for c in picked if is_known(chr(c)))
    if kind < 0.15:  # one long run
        return rng.choice(PARTS + extra) * rng.randrange(1, 300 if any_character else 40)
    return "".join(
        rng.choice(extra) if extra and rng.random() < 0.2 else rng.choice(PARTS)
        for _ in range(rng.randrange(1, 40)))


def read_texts(path):
    opener = gzip.open if path.endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8", newline="") as file:
        if ".json" in os.path.basename(path):
            return [json.loads(line)["text"] for line in file if line.strip()]
        return [file.read()]


class Refused(Exception):
    """phase4 does not take the tokenizer; the message says why."""


def open_reference(directory):
    """-> the tokenizer of the library tokenizers."""
    if os.listdir(directory) == ["tokenizer.json"]:
        return Tokenizer.from_file(os.path.join(directory, "tokenizer.json"))
    from transformers import AutoTokenizer  # takes seconds to load
    return AutoTokenizer.from_pretrained(directory, local_files_only=True).backend_tokenizer


def ours(program, directory, texts):
    frames = b"".join(struct.pack("<I", len(t)) + t for t in (text.encode() for text in texts))
    done = subprocess.run([program, directory], input=frames, capture_output=True)
    if done.returncode != 0:
        raise Refused(done.stderr.decode().strip().splitlines()[-1])
    for line in done.stdout.decode().splitlines():
        plain, special, decoded = line.split("\t")
        plain, special = ([int(i) for i in ids.split()] for ids in (plain, special))
        yield plain, special, bytes.fromhex(decoded).decode()


def compare(program, directory, texts, rng, count):
    reference = open_reference(directory)
    reference.no_truncation()
    reference.no_padding()
    added = [token.content for token in reference.get_added_tokens_decoder().values()]
    texts = texts + [random_text(rng, added) for _ in range(count)]
    different = 0
    try:
        results = list(ours(program, directory, texts))
    except Refused as refusal:
        print(f"{directory}: refused: {refusal}")
        return None
    for text, (plain, special, decoded) in zip(texts, results, strict=True):
        want = reference.encode(text, add_special_tokens=False).ids
        want_special = reference.encode(text).ids
        want_text = reference.decode(want, skip_special_tokens=False).split("\0")[0]  # ours is a C string
        if (plain, special, decoded) != (want, want_special, want_text):
            different += 1
            if different <= 3:
                at = next((i for i, (a, b) in enumerate(zip(plain, want)) if a != b),
                          min(len(plain), len(want)))
                print(
                    f"  {text[:200]!r}: first difference at id {at}: {plain[at:at + 8]} against "
                    f"{want[at:at + 8]}; special {special == want_special}; decoded {decoded[:80]!r} against "
                    f"{want_text[:80]!r}")
    size = sum(len(text.encode()) for text in texts)
    print(f"{directory}: {len(texts)} texts, {size} bytes, {different} different")
    return different


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("directories", nargs="+")
    parser.add_argument("--texts", nargs="*", default=[])
    parser.add_argument("--random", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    texts = [text for path in options.texts for text in read_texts(path)]
    results = [
        compare(options.program, directory, texts, random.Random(options.seed), options.random)
        for directory in options.directories
    ]
    refused = results.count(None)
    exact = results.count(0)
    differing = len(results) - refused - exact
    print(f"{exact} exact, {differing} differing, {refused} refused")
    sys.exit(differing > 0)


if __name__ == "__main__":
    main()
