/* phase4_batch - many models in one job: arguments -> the batch (jobs/batch/) -> exit status. */
#include <stdlib.h>

#include "dist/launcher.h"
#include "jobs/batch/launch.h"
#include "jobs/process.h"
#include "src/phase4.h"

static int act(const p4_batch_cli *cli)
{
    bool speaks = p4_launched_rank() <= 0; /* one of many */
    switch (cli->action) {
    case P4_BATCH_HELP:
        if (speaks) {
            p4_program_print_help(stdout, &p4_batch_program);
        }
        return EXIT_SUCCESS;
    case P4_BATCH_VERSION:
        if (speaks) {
            printf("phase4_batch %s\n", p4_version());
        }
        return EXIT_SUCCESS;
    case P4_BATCH_PLAN:
    case P4_BATCH_RESULTS:
    case P4_BATCH_LIST:
        return p4_batch_answer(cli);
    case P4_BATCH_RUN:
    case P4_BATCH_CHECK:
        break;
    }
    return p4_batch_launch(cli);
}

int main(int argc, char **argv)
{
    static p4_batch_cli cli;
    p4_process_let_threads_sleep(argv);
    p4_process_start();
    p4_rc parsed = p4_batch_cli_parse(&cli, argc, argv);
    int status = (int)P4_E_INPUT;
    if (parsed == P4_OK) {
        status = act(&cli);
    } else if (p4_launched_rank() <= 0) {
        p4_error_print();
    }
    return p4_process_end(status);
}
