/* tool_cases [--until-success] FILE: runs the program phase4_mpi once for each line of FILE, one after
 * another in the same processes, so that job tests with many small runs pay for the start of MPI and the
 * loading of libraries once. The runs are those of the program: its main is compiled in (phase4_main), told
 * what a line says.
 *
 * A line holds, separated by tabs:   DIRECTORY   the value of P4_INJECT_FAILURE or "-"   ARGUMENT...
 * DIRECTORY, an absolute path that exists, is the working directory of the run. Each rank writes what the run
 * prints to log.RANK there, and the status that main returned to status.RANK, which is missing if it did not.
 * --until-success: the first run that returns 0 on every rank is the last. */
#include <fcntl.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LINE_BYTES = 65536, MOST_ARGUMENTS = 64 };

int phase4_main(int argc, char **argv);

static void check(int ok, const char *what)
{
    if (!ok) {
        perror(what);
        MPI_Abort(MPI_COMM_WORLD, 1);
    }
}

static void name_file(char *name, size_t bytes, const char *kind, int rank)
{
    snprintf(name, bytes, "%s.%d", kind, rank);
}

/* stdout and stderr go to `to` from now on. */
static void redirect(int to)
{
    fflush(NULL);
    check(dup2(to, STDOUT_FILENO) >= 0 && dup2(to, STDERR_FILENO) >= 0, "redirecting the output");
}

static int run_here(int argc, char **argv, int rank)
{
    char name[32];
    int terminal = dup(STDERR_FILENO);
    name_file(name, sizeof name, "log", rank);
    int log = open(name, O_WRONLY | O_CREAT | O_APPEND, 0666);
    check(terminal >= 0 && log >= 0, name);
    redirect(log);
    int status = phase4_main(argc, argv);
    redirect(terminal);
    close(log);
    close(terminal);
    name_file(name, sizeof name, "status", rank);
    FILE *file = fopen(name, "w");
    check(file != NULL && fprintf(file, "%d\n", status) > 0 && fclose(file) == 0, name);
    return status;
}

static int run_line(char *line, int rank)
{
    char *argv[MOST_ARGUMENTS + 1] = {"phase4_mpi"}, *rest = line;
    const char *directory = strtok_r(line, "\t\n", &rest), *injection = strtok_r(NULL, "\t\n", &rest);
    int argc = 1;
    check(directory != NULL && injection != NULL && chdir(directory) == 0, line);
    for (char *argument = strtok_r(NULL, "\t\n", &rest); argument != NULL && argc < MOST_ARGUMENTS;
         argument = strtok_r(NULL, "\t\n", &rest)) {
        argv[argc++] = argument;
    }
    check(strcmp(injection, "-") == 0 ? unsetenv("P4_INJECT_FAILURE") == 0
                                      : setenv("P4_INJECT_FAILURE", injection, 1) == 0,
          "P4_INJECT_FAILURE");
    return run_here(argc, argv, rank);
}

int main(int argc, char **argv)
{
    static char line[LINE_BYTES];
    int rank, provided, until_success = argc == 3 && strcmp(argv[1], "--until-success") == 0;
    MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    FILE *file = argc == 2 + until_success ? fopen(argv[argc - 1], "r") : NULL;
    check(file != NULL, "usage: tool_cases [--until-success] FILE");
    int worst = 1;
    while (fgets(line, sizeof line, file) != NULL && !(until_success && worst == 0)) {
        int status = run_line(line, rank);
        MPI_Allreduce(&status, &worst, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
    }
    fclose(file);
    MPI_Finalize();
    return 0;
}
