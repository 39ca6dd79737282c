#!/usr/bin/env python3
"""Prints every circle between files of a build, and every symbol that a room needs of a room it may not use.

usage: tests/circles.py BUILD_DIR

Reads the objects of the room libraries (p4_leaf, p4_core, ...) with nm: file A needs file B when A uses a global symbol
that B defines. Files that need each other, directly or through others, are a circle. Which rooms a file may use is
what tests/direction.sh says of headers: A may need B where it may include a header that lies in B's folder. The two
lists of backends (kernels/ops.c, dist/coll.c) name the tables of their columns without a header.
Exit status: 0 none, 1 some, 2 no objects.
"""
import collections
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
STANDALONE = "p4_demo"  # programs' own data, not a room
BACKEND_LISTS = ("kernels/ops.c", "dist/coll.c")
GENERATED = "generated"  # by protoc-c, of a file's own; direction.sh says whose headers they are
# Symbol types that own a definition. Weak ones (templates, inline functions) exist in every file that uses them.
OWNED = set("TDBRGSCAi")


def find_objects(build):
    """{source file: object} of the room libraries."""
    objects = {}
    with open(os.path.join(build, "build.ninja"), encoding="utf-8") as file:
        built = file.read()
    for folder, _, files in os.walk(os.path.join(build, "CMakeFiles")):
        parts = os.path.relpath(folder, os.path.join(build, "CMakeFiles")).split(os.sep)
        if not parts[0].startswith("p4_") or parts[0].startswith(STANDALONE):
            continue
        for name in files:
            source = "/".join(parts[1:] + [name[:-2]])
            path = os.path.join(folder, name)
            if name.endswith(".o") and f"build {os.path.relpath(path, build)}:" in built: # not left over from before
                objects[source] = path
    return objects


def read_symbols(objects):
    """({symbol: file that defines it}, {file: symbols it needs})"""
    owner, needs = {}, {}
    for source, path in objects.items():
        needs[source] = set()
        listing = subprocess.run(["nm", "-g", "-P", path], check=True, capture_output=True, text=True).stdout
        for line in listing.splitlines():
            name, kind = line.split()[:2]
            if kind == "U":
                needs[source].add(name)
            elif kind in OWNED:
                owner[name] = source
    return owner, needs


def edges_of(owner, needs):
    """{A: {B: symbols}}: A needs these symbols of B."""
    edges = {source: collections.defaultdict(list) for source in needs}
    for source, symbols in needs.items():
        for symbol in sorted(symbols):
            if owner.get(symbol, source) != source:
                edges[source][owner[symbol]].append(symbol)
    return edges


def find_circles(edges):
    """Groups of files that all reach each other (Tarjan's strongly connected components of more than one file)."""
    index, low, stack, on_stack, circles = {}, {}, [], set(), []

    def visit(a):
        index[a] = low[a] = len(index)
        stack.append(a)
        on_stack.add(a)
        for b in edges[a]:
            if b not in index:
                visit(b)
                low[a] = min(low[a], low[b])
            elif b in on_stack:
                low[a] = min(low[a], index[b])
        if low[a] == index[a]:
            group = stack[stack.index(a):]
            del stack[stack.index(a):]
            on_stack.difference_update(group)
            if len(group) > 1:
                circles.append(sorted(group))

    sys.setrecursionlimit(10000)
    for a in edges:
        if a not in index:
            visit(a)
    return sorted(circles)


def forbidden(edges):
    """Pairs (A, B) where A needs B and tests/direction.sh lets A include no header of B's folder."""
    headers = collections.defaultdict(list)
    for top in ("src", "kernels", "dist", "io", "jobs"):
        for folder, _, files in os.walk(os.path.join(ROOT, top)):
            name = os.path.relpath(folder, ROOT)
            headers[name] = [f"{name}/{f}" for f in files if f.endswith((".h", ".cuh"))]
    asked = {(a, os.path.dirname(b)) for a in edges for b in edges[a]
             if os.path.dirname(a) != os.path.dirname(b) and a not in BACKEND_LISTS
             and os.path.dirname(b) != GENERATED}
    questions = [f"{a} {folder} {header}" for a, folder in sorted(asked) for header in headers[folder]]
    script = r"""
        eval "$(sed -n '/^allowed() {/,/^}/p; /^fits() {/,/^}/p' "$1")"
        set -f
        while read -r file folder header; do
            fits "$header" $(allowed "$file") && printf '%s %s\n' "$file" "$folder"
        done
        true"""
    answer = subprocess.run(["bash", "-c", script, "bash", os.path.join(ROOT, "tests/direction.sh")], check=True,
                            input="".join(q + "\n" for q in questions), capture_output=True, text=True).stdout
    may = {tuple(line.split()) for line in answer.splitlines()}
    return sorted((a, b) for a in edges for b in edges[a]
                  if (a, os.path.dirname(b)) in asked and (a, os.path.dirname(b)) not in may)


def plain(symbols):
    """Names as they stand in the source."""
    text = subprocess.run(["c++filt"], input="\n".join(symbols), capture_output=True, text=True, check=True).stdout
    return ", ".join(text.split("\n")[:len(symbols)])


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__.split("\n\n")[1])
    objects = find_objects(sys.argv[1])
    if not objects:
        print(f"{sys.argv[1]}: no objects of room libraries; build first")
        return 2
    edges = edges_of(*read_symbols(objects))
    circles, bad = find_circles(edges), forbidden(edges)
    for circle in circles:
        print(f"a circle of {len(circle)} files:")
        for a in circle:
            for b in sorted(set(edges[a]) & set(circle)):
                print(f"    {a} needs {b}: {plain(edges[a][b])}")
    for a, b in bad:
        print(f"{a} may not use {os.path.dirname(b)}/, but needs {b}: {plain(edges[a][b])}")
    print(f"{len(objects)} objects, {len(circles)} circles, {len(bad)} files needed across rooms that may not be")
    return 1 if circles or bad else 0


if __name__ == "__main__":
    sys.exit(main())
