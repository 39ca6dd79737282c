#!/usr/bin/env bash
# tests/update_docs.sh with a program that fails, prints nothing or is another: it is refused, and every page stays as it was.
set -euo pipefail
root=$(dirname "$(readlink -f "$0")")/..
mkdir -p "$TMP/tree/tests"
cp -r "$root/docs" "$root/README.md" "$TMP/tree"
cp "$root/tests/update_docs.sh" "$TMP/tree/tests"
cp -r "$TMP/tree" "$TMP/before"
printf '#!/bin/sh\n[ "$1" != --markdown ] && echo phase4_mpi\n' >"$TMP/late" # fails after it has printed some pages
chmod +x "$TMP/late"
for program in false true echo "$TMP/nowhere" "$TMP/late"; do
    ! bash "$TMP/tree/tests/update_docs.sh" "$program" >"$TMP/log" 2>&1 || { echo "$program: was taken"; exit 1; }
    [ -s "$TMP/log" ] || { echo "$program: no message"; exit 1; }
    diff -r "$TMP/before" "$TMP/tree" || { echo "$program: changed a page"; exit 1; }
done
