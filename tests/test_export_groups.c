/* Falcon in GGUF: rows that are stored by group, the names of two norms in parallel, and what llama.cpp would
 * compute in another way. */
#include <stdlib.h>

#include "check.h"
#include "io/export/gguf_tensors.h"
#include "io/hf/hf_model.h"

/* The halves of row r begin with r. */
static void expect_stored_rows(const p4_gguf_tensors *list, const p4_export_source *source, int64_t tensor,
                               const int64_t *rows, int64_t count)
{
    uint16_t got[64] = {0};
    p4_export_space space = {.stored = {0}};
    EXPECT(list->tensors[tensor].rows == count, "%lld rows", (long long)list->tensors[tensor].rows);
    for (int64_t r = 0; r < count; r++) {
        const void *made = got;
        EXPECT_OK(p4_gguf_fill(list, source, &space, (uint8_t *)got, &made, tensor, r, 1));
        EXPECT(*(const uint16_t *)made == rows[r], "row %lld is row %d, expected %lld", (long long)r,
               *(const uint16_t *)made, (long long)rows[r]);
    }
    p4_export_space_free(&space);
}

/* Queries, keys and values that are stored in 5 groups of 3 queries, a key and a value, of 2 rows each. Of
 * the two norms that of the MLP has the name which other models give to that of attention. */
static void test_groups(void)
{
    enum { HEADS = 15, GROUPS = 5, PER = HEADS / GROUPS, D = 2, ROWS = (HEADS + 2 * GROUPS) * D };
    p4_hf_model hf;
    const p4_gguf_arch *gguf;
    p4_gguf_tensors list;
    char *path = p4_format("%s/models/%s", P4_FIXTURES, "falcon-groups");
    EXPECT_OK(p4_hf_model_open(&hf, path));
    const p4_model *model = &hf.model; /* nothing is ternary: fp16 */
    const p4_arch *a = &model->arch;
    EXPECT(a->H == HEADS && a->Hkv == GROUPS && a->D == D && a->C <= 64, "another model");
    p4_weight *weights = calloc((size_t)model->params_count, sizeof *weights);
    uint16_t *halves = calloc((size_t)(ROWS * a->C), sizeof *halves);
    int64_t want[ROWS], n = 0, names = 0, qkv = p4_model_find(model, P4_ROLE_QKV, 1);
    EXPECT(weights != NULL && halves != NULL, "no memory");
    for (int64_t r = 0; r < ROWS; r++) {
        halves[r * a->C] = (uint16_t)r;
    }
    for (int64_t h = 0; h < (HEADS + 2 * GROUPS) * D; h++) {
        int64_t head = h / D, group = head < HEADS ? head / PER : (head - HEADS) % GROUPS;
        int64_t in_group = head < HEADS ? head % PER : PER + (head - HEADS) / GROUPS;
        want[n++] = (group * (PER + 2) + in_group) * D + h % D;
    }
    weights[qkv] = (p4_weight){.dtype = P4_F16, .rows = ROWS, .cols = a->C, .data = halves};
    EXPECT_OK(p4_gguf_arch_find(&gguf, a, "test"));
    EXPECT_OK(p4_gguf_list(&list, model, gguf, P4_GGUF_BLOCKS_BEST));
    const p4_export_source source = {.hf = &hf, .option = "", .weights = weights};
    for (int64_t i = 0; i < list.count; i++) {
        const char *name = list.tensors[i].name;
        int64_t param = list.parts[i].param;
        names +=
            strcmp(name, "blk.1.attn_norm.bias") == 0 && strstr(model->params[param].name, "ln_mlp.bias");
        names += strcmp(name, "blk.0.attn_norm_2.weight") == 0 &&
                 strstr(model->params[param].name, "ln_attn.weight");
        if (param == qkv) {
            EXPECT(strcmp(name, "blk.1.attn_qkv.weight") == 0, "%s", name);
            expect_stored_rows(&list, &source, i, want, ROWS);
            names++;
        }
    }
    EXPECT(names == 3, "%lld of 3 names", (long long)names);
    p4_gguf_list_free(&list);
    free(weights);
    free(halves);
    p4_hf_model_close(&hf);
    free(path);
}

/* llama.cpp computes Falcon's branches in parallel whatever the file says. */
static void test_serial(void)
{
    p4_hf_model hf;
    const p4_gguf_arch *gguf;
    char *path = p4_format("%s/models/%s", P4_FIXTURES, "falcon-serial");
    EXPECT_OK(p4_hf_model_open(&hf, path));
    p4_arch arch = hf.model.arch;
    arch.qkv_bias = arch.o_bias = arch.mlp_bias = false;
    EXPECT_REFUSED(p4_gguf_arch_find(&gguf, &arch, "test"), "computes attention and MLP in parallel");
    arch.parallel = arch.shared_norm = true;
    EXPECT_OK(p4_gguf_arch_find(&gguf, &arch, "test"));
    p4_hf_model_close(&hf);
    free(path);
}

int main(void)
{
    test_groups();
    test_serial();
    return TEST_END();
}
