#!/usr/bin/env bash
# with_tmp.sh COMMAND...: runs a test with TMP naming a fresh folder that is gone afterwards.
#
# Scripts job_NAME.sh are run by it and find in the environment:
#   PHASE4_MPI   the program          MPIRUN     mpirun ("$MPIRUN" -n 2 "$PHASE4_MPI" cfg.json)
#   FIXTURES     tests/fixtures       TMP        an empty folder
#   PHASE4_DEMO  the demo's generator TOOL_COMPARE  tests/tool_compare.c
#   MPI_COLL     tests/mpi_coll.c     TOOL_GROUPS tests/tool_groups.c
# Exit status 0: passed; 77: cannot run here (print why); anything else: failed.
set -u
TMP=$(mktemp -d "${TMPDIR:-/tmp}/phase4-test.XXXXXX") || exit 1
export TMP
trap 'rm -rf "$TMP"' EXIT
trap 'exit 130' INT TERM
"$@"
