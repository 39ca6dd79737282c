#!/usr/bin/env python3
"""Makes the seeds of fuzz_jsonl and fuzz_token_file: python3 tests/fuzz/make_dataset_corpus.py
Needs only Python's own modules; the two zstd frames are written out by hand."""
import bz2
import gzip
import io
import lzma
import pathlib
import struct
import tarfile

corpus = pathlib.Path(__file__).parent / "corpus"
JSONL, TEXT, RAW, BARE, TAR = (bytes([i]) for i in range(5))  # the first byte: names in fuzz_jsonl.c


def put(subject, name, data):
    (corpus / subject).mkdir(parents=True, exist_ok=True)
    (corpus / subject / name).write_bytes(data)


def pack_tar(members, compression=""):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:" + compression, format=tarfile.PAX_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue().rstrip(b"\0") + bytes(1024) if not compression else out.getvalue()


def zstd_frame(data, window_log=20):
    block = struct.pack("<I", len(data) << 3 | 1)[:3]
    return b"\x28\xb5\x2f\xfd\x00" + bytes([(window_log - 10) << 3]) + block + data


lines = (b'{"text":"one"}\r\n\n{"url":"u","n":[1,-2.5e3,{"a":null,"b":[true,false]}],"text":"t\\u00e9\\ud83d\\ude00'
         b'\\n\\"\\\\"}\n{"content":"c"}\n{"raw_content":"r","x":NaN}\n{"document":"d"}')
wiki = b" \n = One = \n \n text \n \n = = Part = = \n \n more \n \n = Two = \n \n end \n"
put("jsonl", "lines", JSONL + b"\xef\xbb\xbf" + lines)
put("jsonl", "half_pairs", JSONL + b'{"text":"\\ud800x\\udc00\\ud83d"}')
put("jsonl", "deep", JSONL + b'{"a":' + b"[" * 600)
put("jsonl", "truncated", JSONL + lines[:70])
put("jsonl", "text", TEXT + b"plain text\nof two lines\n")
put("jsonl", "wiki", RAW + wiki)
put("jsonl", "by_content", BARE + lines)
put("jsonl", "parquet", BARE + b"PAR1....PAR1")
put("jsonl", "bzip2", BARE + bz2.compress(b"text"))
put("jsonl", "gzip", JSONL + gzip.compress(lines, mtime=0) + gzip.compress(b'{"text":"two"}', mtime=0) + b"\0\0")
put("jsonl", "zstd", JSONL + zstd_frame(lines) + b"\x50\x2a\x4d\x18\x01\0\0\0x" + zstd_frame(b'\n{"text":"two"}'))
put("jsonl", "zstd_window", JSONL + zstd_frame(lines, 31))
put("jsonl", "xz", JSONL + lzma.compress(lines))
inner = lzma.compress(pack_tar([("0000001-a.txt", b"first"), ("0000002-b.txt", b"second")]))
put("jsonl", "tar_xz_tar", TAR + pack_tar([("openwebtext/urlsf_subset00-1_data.xz", inner), ("README", b"no"),
                                           ("l.jsonl.gz", gzip.compress(lines, mtime=0))]))
put("jsonl", "tar_gz", TAR + gzip.compress(pack_tar([("x/a.txt", b"a"), ("\u00e9/b.raw", wiki)]), mtime=0))


def llmc(magic, version, ids, kind, count=None):
    return struct.pack("<256i", magic, version, len(ids) if count is None else count, *[0] * 253) + struct.pack(
        f"<{len(ids)}{kind}", *ids)


put("token_file", "gpt2", b"\0" + llmc(20240520, 1, [50256, 1, 2, 3, 4, 5, 1], "H"))
put("token_file", "llama3", b"\1" + llmc(20240801, 7, [128000, 1, 2, 3, 4, 5], "I"))
put("token_file", "llama3_limited", b"\5" + llmc(20240801, 7, [128000, 1, 2, 3, 4, 5], "I"))
put("token_file", "choices", b"\0" + llmc(20240522, 1, [65535, 4], "H"))
put("token_file", "id_beyond", b"\0" + llmc(20240520, 1, [1, 2, 50257], "H"))
put("token_file", "count_beyond", b"\1" + llmc(20240801, 7, [1, 2, 3], "I", count=-1))
put("token_file", "short_header", b"\0" + llmc(20240520, 1, [], "H")[:40])
put("token_file", "raw", b"\0" + struct.pack("<7H", 50256, 1, 2, 3, 4, 5, 6))
put("token_file", "raw_limited", b"\4" + struct.pack("<9H", *range(9)))
put("token_file", "odd", b"\0abc")
