/* files.h - reading whole text files, copying files, listing directories. Messages name the path and the
 * system's reason. All Local. */
#ifndef P4_FILES_H
#define P4_FILES_H

#include "src/leaf/base.h"

/* Reads a whole text file of at most limit_bytes into a NUL-terminated heap string; a NUL inside is refused.
 * The caller frees *text. */
p4_rc p4_file_read(char **text, size_t *bytes, const char *path, size_t limit_bytes);
/* Opens a regular file for reading. Anything else is refused: a directory, or a pipe, which would block; and
 * so is a pointer that git-lfs left in place of a file. */
p4_rc p4_file_open(int *fd, uint64_t *bytes, const char *path);
/* The copy appears only when complete (atomic_file.h). */
p4_rc p4_file_copy(const char *to, const char *from);
bool p4_file_exists(const char *path); /* a regular file, symbolic links followed */
bool p4_directory_exists(const char *path);
/* The same as p4_file_exists, where a file that is there must not be taken for absent: P4_E_INPUT if that
 * cannot be found out, and the message says why. */
p4_rc p4_file_find(bool *there, const char *path);
/* The length of what is there; P4_E_INPUT: it cannot be examined, and the message says why. */
p4_rc p4_file_bytes(int64_t *bytes, const char *path);
/* Bytes of a file, or of the files that are directly in a directory. */
p4_rc p4_path_bytes(double *bytes, const char *path);

/* Names in a directory, sorted, without . and ..; an array of heap strings, freed by p4_names_free. */
p4_rc p4_dir_list(char ***names, int64_t *count, const char *path);
void p4_names_free(char **names, int64_t count);

#endif
