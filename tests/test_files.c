/* Sizes of files and of directories: what cannot be examined is an error, not a file of 0 bytes. */
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "io/file/atomic_file.h"
#include "io/file/files.h"
#include "src/phase4/types.h"

static char folder[P4_PATH_BYTES];

static void write_file(const char *name, const char *text)
{
    char path[P4_PATH_BYTES + 64];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    EXPECT(file != NULL && fputs(text, file) >= 0 && fclose(file) == 0, "%s: %s", path, strerror(errno));
}

static void test_bytes(void)
{
    char file[P4_PATH_BYTES + 64], link[P4_PATH_BYTES + 64], missing[P4_PATH_BYTES + 64];
    double bytes;
    snprintf(file, sizeof file, "%s/a", folder);
    snprintf(link, sizeof link, "%s/link", folder);
    snprintf(missing, sizeof missing, "%s/missing", folder);
    EXPECT_OK(p4_path_bytes(&bytes, folder));
    EXPECT(bytes == 0, "%g bytes", bytes);
    write_file("a", "12345");
    write_file("b", "1234567");
    EXPECT_OK(p4_path_bytes(&bytes, file));
    EXPECT(bytes == 5, "%g bytes", bytes);
    EXPECT_OK(p4_path_bytes(&bytes, folder));
    EXPECT(bytes == 12, "%g bytes", bytes);

    EXPECT_REFUSED(p4_path_bytes(&bytes, missing), "missing: cannot examine");
    EXPECT(symlink("missing", link) == 0, "symlink: %s", strerror(errno));
    EXPECT_REFUSED(p4_path_bytes(&bytes, folder), "link: cannot examine");
}

int main(void)
{
    snprintf(folder, sizeof folder, "%s/phase4_files_XXXXXX",
             getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp");
    EXPECT(mkdtemp(folder) != NULL, "mkdtemp: %s", strerror(errno));
    test_bytes();
    EXPECT_OK(p4_remove_tree(folder));
    return TEST_END();
}
