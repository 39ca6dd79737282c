/* What a queue says of its models, and by what a model is known again. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "io/batch/models.h"
#include "io/file/atomic_file.h"

#define HOLDS(ok) EXPECT(ok, "expected to hold")

static void write_file(const char *folder, const char *name, const char *text)
{
    char *path = p4_format("%s/%s", folder, name);
    EXPECT_OK(p4_atomic_write_all(path, text, strlen(text)));
    free(path);
}

/* A link to nothing is no file of the model; what cannot be examined must not make it pass for another. */
static void files_that_cannot_be_examined(void)
{
    char folder[] = "/tmp/p4_queue_XXXXXX", fingerprint[P4_FINGERPRINT_BYTES],
         with_link[P4_FINGERPRINT_BYTES], name[64];
    uint64_t shape, shape_with_link;
    HOLDS(mkdtemp(folder) != NULL);
    write_file(folder, "config.json", "{}");
    EXPECT_OK(p4_model_fingerprint(fingerprint, folder));
    EXPECT_OK(p4_model_shape(&shape, folder));
    snprintf(name, sizeof name, "%s/model.safetensors", folder);
    HOLDS(symlink("nothing", name) == 0);
    EXPECT_OK(p4_model_fingerprint(with_link, folder));
    EXPECT_OK(p4_model_shape(&shape_with_link, folder));
    HOLDS(strcmp(fingerprint, with_link) == 0 && shape == shape_with_link);
    HOLDS(unlink(name) == 0 && symlink("model.safetensors", name) == 0); /* to itself: ELOOP */
    EXPECT_REFUSED(p4_model_fingerprint(fingerprint, folder), "model.safetensors: cannot examine: ");
    EXPECT_REFUSED(p4_model_shape(&shape, folder), "model.safetensors: cannot examine: ");
    EXPECT_OK(p4_remove_tree(folder));
}

int main(void)
{
    files_that_cannot_be_examined();
    return TEST_END();
}
