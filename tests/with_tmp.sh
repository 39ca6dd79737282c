#!/usr/bin/env bash
# with_tmp.sh COMMAND...: runs a test with TMP naming an empty directory, which is removed afterwards. Open MPI keeps its files
# there as well: in a directory that several mpirun share, one that ends removes what another is about to use.
#
# The environment of the scripts job_NAME.sh (job.sh holds what they share):
#   PHASE4_INSPECT, PHASE4_EVALUATE, PHASE4_GENERATE, PHASE4_EXPORT  the programs of these names
#   PHASE4_MPI   the program                 MPIRUN        mpirun ("$MPIRUN" -n 2 "$PHASE4_MPI" cfg.json)
#   PHASE4_BATCH the program for many models
#   FIXTURES     tests/fixtures              TMP           an empty directory
#   PHASE4_DEMO  the generator of the demo   TOOL_COMPARE  tests/tool_compare.c
#   MPI_COLL     tests/mpi_coll.c            TOOL_GROUPS   tests/tool_groups.c
#   TOOL_CASES   tests/tool_cases.c         TOOL_WRITE    tests/tool_write.c
#   TOOL_ENDING  tests/tool_ending.c
#   P4_FAULTS    tests/fault_injector.c, for LD_PRELOAD
#   PHASE4_REPORT  jobs/phase4_report.c
# Exit status 0: passed; 77: cannot run here (it prints why); anything else: failed.
set -u
TMP=$(mktemp -d "${TMPDIR:-/tmp}/phase4-test.XXXXXX") || exit 1
export TMP OMPI_MCA_orte_tmpdir_base=$TMP/mpi
trap 'rm -rf "$TMP"' EXIT
trap 'exit 130' INT TERM
"$@"
