#!/usr/bin/env python3
"""Makes the seeds of fuzz_tokenizer and fuzz_tokenizer_model: python3 tests/fuzz/make_tokenizer_corpus.py
Tokenizers of a few tokens with every part that is supported, each with a text behind a NUL; SentencePiece
models of a few pieces, each behind the byte that picks the class. Needs Python only."""
import json
import pathlib
import struct

corpus = pathlib.Path(__file__).parent / "corpus"


def added(number, content, **flags):
    keys = ("single_word", "lstrip", "rstrip", "normalized", "special")
    return {"id": number, "content": content, **{key: flags.get(key, False) for key in keys}}


def split(pattern, behavior, invert=False, kind="Regex"):
    return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert}


def byte_level(prefix, regex):
    return {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": regex}


def template(*names):
    single = [
        {"SpecialToken": {"id": name, "type_id": 0}} if name else {"Sequence": {"id": "A", "type_id": 0}}
        for name in names
    ]
    special = {name: {"id": name, "ids": [1], "tokens": [name]} for name in names if name}
    return {"type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": special}


def put(name, text, tokens, merges, flags=None, **parts):
    model = {
        "type": "BPE", **(flags or {}), "vocab": {token: i
                                                  for i, token in enumerate(tokens)}, "merges": merges
    }
    data = json.dumps({"version": "1.0", **parts, "model": model},
                      ensure_ascii=False,
                      separators=(",", ":"))
    (corpus / "tokenizer").mkdir(parents=True, exist_ok=True)
    (corpus / "tokenizer" / name).write_bytes(data.encode() + b"\0" + text)


def replace(old, new):
    return {"type": "Replace", "pattern": {"String": old}, "content": new}


letters = ["a", "b", "c", "Ġ", "Ċ", "1", ".", "Ã", "©"]
put("byte_level",
    "abc ab\n\n 1.\u00e9 a".encode(),
    letters + ["ab", "abc", "Ġa", "Ã©"], ["a b", "ab c", "Ġ a", "Ã ©"], {"ignore_merges": True},
    normalizer={"type": "NFC"},
    decoder=byte_level(True, True),
    pre_tokenizer={
        "type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True},
                                              byte_level(True, True)]
    })
put("splits",
    b"ab-c--ab  1.1\r\n",
    letters + ["ab", "-", "--"], [["a", "b"], ["-", "-"]],
    pre_tokenizer={
        "type": "Sequence", "pretokenizers": [
            split(r"\s*[\r\n]+|\s+(?!\S)|\s+", "Removed"),
            split("-", "MergedWithNext", kind="String"),
            split(r"\p{N}{1,3}", "Contiguous"),
            split(r"[^\s\p{L}]+", "MergedWithPrevious", True),
            byte_level(False, False)
        ]
    },
    post_processor={"type": "Sequence", "processors": [byte_level(True, True),
                                                       template(None)]})
marked = ["<unk>", "<s>", "</s>", "▁", "a", "b", "c", "<0xC3>", "<0xA9>", "<0xE2>", "▁▁", "▁a", "ab", "c▁"]
put("marked",
    "a  ab <s>c \u00e9\u20ac".encode() + b"\xff",
    marked, ["▁ ▁", "▁ a", "a b"], {"unk_token": "<unk>", "byte_fallback": True, "fuse_unk": True},
    added_tokens=[added(1, "<s>", special=True)],
    normalizer={
        "type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
                                            replace(" ", "▁")]
    },
    post_processor=template("<s>", None, "<s>"),
    decoder={
        "type": "Sequence", "decoders": [
            replace("▁", " "), {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 1}
        ]
    })
meta = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
put("metaspace",
    "a ab c x\u0301\u00e9 [x]  [yz] a".encode(),
    marked, ["c ▁", "a b"], {"unk_token": "<unk>"},
    pre_tokenizer=meta,
    decoder={**meta, "prepend_scheme": "always", "split": True},
    added_tokens=[
        added(20, "[x]", lstrip=True, rstrip=True),
        added(21, "[y", normalized=True),
        added(22, "[yz]", normalized=True),
        added(4, "a", single_word=True)
    ])
put("broken_text",
    b"a\xff\xc3 \xe2\x96 b\xf0\x9f\x99",
    letters + ["ab"], ["a b"],
    pre_tokenizer=byte_level(False, True))

words = [
    "version", "added_tokens", "id", "content", "single_word", "lstrip", "rstrip", "normalized", "special",
    "normalizer", "type", "NFC", "Prepend", "prepend", "Replace", "pattern", "String", "Regex", "Sequence",
    "normalizers", "pre_tokenizer", "pretokenizers", "ByteLevel", "add_prefix_space", "trim_offsets",
    "use_regex", "Split", "behavior", "invert", "Isolated", "Removed", "Contiguous", "MergedWithPrevious",
    "MergedWithNext", "Digits", "individual_digits", "Metaspace", "replacement", "prepend_scheme", "always",
    "first", "never", "split", "post_processor", "processors", "TemplateProcessing", "single",
    "SpecialToken", "special_tokens", "ids", "decoder", "decoders", "ByteFallback", "Fuse", "Strip",
    "start", "stop", "model", "BPE", "vocab", "merges", "unk_token", "byte_fallback", "fuse_unk",
    "ignore_merges", "dropout"
]
lines = ["# Keys and words of tokenizer.json, and pieces of split patterns."
         ] + [f'"\\"{word}\\""' for word in words]
lines += [
    f'"{text}"' for text in (r"\\\\p{L}+", r"\\\\s+(?!\\\\S)", "(?i:", "{1,3}", r"[^\\\\r\\\\n",
                             r"\xe2\x96\x81", "true", "false", "null")
]
(corpus / "tokenizer.dict").write_text("\n".join(lines) + "\n")


def message(*fields):
    """A protocol buffer of (number, value): an int, a float, text or another message; all shorter than 128."""
    out = b""
    for number, value in fields:
        kind = 0 if isinstance(value, int) else 5 if isinstance(value, float) else 2
        key = number << 3 | kind
        out += bytes([key] if key < 128 else [key & 127 | 128, key >> 7])
        value = value.encode() if isinstance(value, str) else value
        out += bytes([value]) if kind == 0 else struct.pack("<f", value) if kind == 5 else bytes([len(value)]) + value
    return out


def put_model(name, first, kind, pieces, normalizer, **trainer):
    parts = [(1, message((1, text), (2, score), (3, sort))) for text, score, sort in pieces]
    settings = message((3, kind), *((int(number[1:]), value) for number, value in trainer.items()))
    data = bytes([first]) + message(*parts, (2, settings), (3, message(*normalizer)))
    (corpus / "tokenizer_model").mkdir(parents=True, exist_ok=True)
    (corpus / "tokenizer_model" / name).write_bytes(data)


control = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3)]
pieces = [("\u2581", -1.0, 1), ("a", -2.0, 1), ("b", -3.0, 1), ("ab", -4.0, 1), ("\u2581ab", -5.0, 1)]
own = ((3, 1), (4, 1), (5, 1))
put_model("bpe", 0, 2, control + pieces + [("lamp", 0.0, 4)], own)
put_model("bpe_class", 1, 2, control + [("<0x0A>", 0.0, 6)] + pieces, own, f35=1)
put_model("unigram", 0, 1, control + pieces, own, f40=0)
table = struct.pack("<I", 8) + struct.pack("<II", 1 << 10, 1 << 31) + b"x\0"
put_model("charsmap", 0, 1, control + pieces, ((2, table), (3, 0), (4, 0), (5, 0)))
