/* Relative paths of a configuration as absolute ones (io/json/config.h): what they mean does not change, and
 * fields are equal, byte for byte, if they mean the same. */
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "io/file/atomic_file.h"
#include "io/json/config.h"

static char folder[] = "/tmp/p4_paths_XXXXXX";

static void expect(const char *given, const char *want)
{
    p4_config *c = p4_alloc(1, sizeof *c), *d = p4_alloc(1, sizeof *d);
    p4_config_recipe(c, P4_RECIPE_QUALITY);
    *d = *c;
    snprintf(c->model_path, sizeof c->model_path, "%s", given);
    snprintf(d->model_path, sizeof d->model_path, "%s", want);
    EXPECT_OK(p4_config_anchor(c));
    EXPECT_OK(p4_config_anchor(d));
    EXPECT(strcmp(c->model_path, want) == 0, "\"%s\" became \"%s\", expected \"%s\"", given, c->model_path,
           want);
    EXPECT(memcmp(c, d, sizeof *c) == 0, "\"%s\" and \"%s\" differ behind their ends", given, want);
    EXPECT(strcmp(c->resume, "auto") == 0, "resume became %s", c->resume);
    free(c);
    free(d);
}

static void paths(void)
{
    char here[64], up[64];
    snprintf(here, sizeof here, "%s/a/b", folder);
    EXPECT(chdir(here) == 0, "cannot enter %s", here);
    static const char *const same[][2] = {{"x", "/x"},   {"./x", "/x"},   {".//./x/", "/x/"},
                                          {".", ""},     {"./", ""},      {"x/../y", "/x/../y"},
                                          {".x", "/.x"}, {"..x", "/..x"}, {"*.txt", "/*.txt"}};
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++) {
        snprintf(up, sizeof up, "%s%s", here, same[i][1]);
        expect(same[i][0], up);
    }
    snprintf(up, sizeof up, "%s/a/x", folder);
    expect("../x", up);
    expect("./../x", up);
    snprintf(up, sizeof up, "%s/x", folder);
    expect("../../x", up);
    expect(".././../x", up);
    expect("../../../../../../x", "/x");
    expect("../../../..", "/");
    expect("/x/../y", "/x/../y");
    expect("", "");
    EXPECT(chdir("/") == 0, "cannot enter /");
    expect("x", "/x");
    expect("../x", "/x");
    expect(".", "/");
}

/* A list has room for its names alone: it stays as it is, which is said, and the other keys change. */
static void no_room(void)
{
    char name[128], *json = NULL;
    p4_config *c = p4_alloc(1, sizeof *c);
    p4_config_recipe(c, P4_RECIPE_QUALITY);
    EXPECT(chdir(folder) == 0, "cannot enter %s", folder);
    while (p4_list_append(&c->eval_files, "text")) {
    }
    EXPECT(p4_sets_add(&c->eval_sets, "one") && p4_sets_append(&c->eval_sets, "text"), "a set");
    const p4_list before = c->eval_files;
    snprintf(c->model_path, sizeof c->model_path, "model");
    EXPECT_REFUSED(p4_config_anchor(c), "key \"eval_files\": what it holds is too long as absolute paths");
    EXPECT(memcmp(&before, &c->eval_files, sizeof before) == 0, "a list that does not fit was changed");
    snprintf(name, sizeof name, "%s/model", folder);
    EXPECT(strcmp(c->model_path, name) == 0, "model_path is %s", c->model_path);
    snprintf(name, sizeof name, "%s/text", folder);
    EXPECT(strcmp(p4_sets_next(&c->eval_sets, 0, NULL), name) == 0, "the set holds %s",
           p4_sets_next(&c->eval_sets, 0, NULL));
    EXPECT_OK(p4_config_print_anchored(c, &json));
    free(json);
    free(c);
}

int main(void)
{
    char inner[64];
    EXPECT(mkdtemp(folder) != NULL, "no folder");
    snprintf(inner, sizeof inner, "%s/a/b", folder);
    EXPECT_OK(p4_make_directories(inner));
    paths();
    no_room();
    EXPECT_OK(p4_remove_tree(folder));
    return TEST_END();
}
