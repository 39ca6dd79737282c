/* Work that is repeated (ops->repeat): what a device keeps of it gives the bits of the same ops called one by
 * one, with whatever the arrays hold by then; work that cannot be kept is done all the same. */
#include "ops_cases.h"

enum { TIMES = 4, IN = 48, OUT = 32, N = 40, MATRICES = 2, V = 23 };

/* The arrays of a small step. Inputs: x, dy, ids, numbers. Results: w, m, v, buf, table, sum. */
typedef struct board {
    rig *r;
    void *x, *y, *dy;
    float *w, *m, *v, *buf, *grad, *bias, *table, *work;
    double *sum;
    int32_t *ids;
    p4_step_numbers *numbers;
    bool orthogonalises; /* with Muon, on its two queues */
    bool reads;          /* a copy to the host in the middle */
    double h_sum;
    int calls;
    int callouts; /* so far; they come in turn, with the values 0, 1, 2, 0 ... */
} board;

enum { CALLOUTS = 3 };

static void note_callout(void *user, int64_t value)
{
    board *b = user;
    EXPECT(value == b->callouts % CALLOUTS, "callout %d has the value %lld", b->callouts, (long long)value);
    b->callouts++;
}

static const int64_t matrix = IN * OUT, all = IN * OUT * MATRICES;

static board make_board(rig *r, const float *w, const float *bias)
{
    float *zeros = rig_host(r, all * 4);
    double zero = 0.0;
    return (board){.r = r,
                   .x = rig_put_act(r, NULL, N * IN),
                   .y = rig_put_act(r, NULL, N * OUT),
                   .dy = rig_put_act(r, NULL, N * OUT),
                   .w = rig_put_f32(r, w, all),
                   .m = rig_put_f32(r, zeros, all),
                   .v = rig_put_f32(r, zeros, all),
                   .buf = rig_put_f32(r, zeros, all),
                   .grad = rig_put_f32(r, NULL, all),
                   .bias = rig_put_f32(r, bias, OUT),
                   .table = rig_put_f32(r, zeros, V * IN),
                   .work = rig_put_f32(r, NULL, r->ops->muon_work_count(r->device, MATRICES, OUT, IN)),
                   .sum = rig_put(r, &zero, sizeof zero),
                   .ids = rig_put(r, NULL, N * 4),
                   .numbers = rig_put(r, NULL, sizeof(p4_step_numbers))};
}

/* Products, a sort, copies, Muon, AdamW: what a training step is made of. */
static void step_work(void *user)
{
    board *b = user;
    const p4_ops *ops = b->r->ops;
    p4_device *device = b->r->device;
    p4_muon_item items[MATRICES];
    p4_adamw_item item = {.w = b->w, .m = b->m, .v = b->v, .g = b->grad, .count = all, .decay = 0.1f};
    void *weight = b->work; /* free until Muon */
    b->calls++;
    rig_f32_to_act(b->r, weight, b->w, matrix);
    ops->linear_forward(device, b->y, b->x, weight, b->bias, N, IN, OUT);
    ops->callout(device, note_callout, b, 0);
    ops->add(device, b->dy, b->dy, b->y, 1.0f, N * OUT);
    ops->zero(device, b->grad, all * 4);
    for (int i = 0; i < MATRICES; i++) {
        ops->linear_backward_weight(device, &(p4_linear_backward_weight_args){.N = N,
                                                                              .in = IN,
                                                                              .out = OUT,
                                                                              .dy = b->dy,
                                                                              .ld_dy = OUT,
                                                                              .x = b->x,
                                                                              .dw = b->grad + i * matrix,
                                                                              .accumulate = i > 0});
        items[i] =
            (p4_muon_item){.w = b->w + i * matrix, .buf = b->buf + i * matrix, .g = b->grad + i * matrix};
    }
    ops->embed_backward(device,
                        &(p4_embed_backward_args){
                            .B = 1, .T = N, .C = IN, .V = V, .ids = b->ids, .dx = b->x, .dtoken = b->table});
    ops->add_sum(device, b->sum, b->table, V * IN);
    if (b->reads) {
        ops->to_host(device, &b->h_sum, b->sum, sizeof b->h_sum);
    }
    if (b->orthogonalises) {
        ops->muon(device, &(p4_muon_args){.h_items = items,
                                          .items = MATRICES,
                                          .rows = OUT,
                                          .cols = IN,
                                          .momentum = 0.95f,
                                          .decay = 0.1f,
                                          .work = b->work,
                                          .numbers = b->numbers});
    }
    ops->adamw(device, &item, 1, 0.9f, 0.95f, 1e-8f, false, b->numbers);
    ops->callout(device, note_callout, b, 1);
    ops->copy(device, b->grad, b->w, matrix * 4);
    ops->callout(device, note_callout, b, 2); /* nothing is queued behind it */
    for (int i = 0; i < MATRICES; i++) {      /* items are the op's only until it returns */
        items[i] = (p4_muon_item){0};
    }
}

/* New inputs, the same on both boards. */
static void put_inputs(board *first, board *second, int step)
{
    rig *r = first->r;
    float *x = rig_random_act(r, N * IN, 1.0), *dy = rig_random_act(r, N * OUT, 1.0);
    int32_t *ids = rig_ids(r, N, 0, V - 1);
    p4_step_numbers numbers = {.lr = 0.01f * (float)(step + 1),
                               .g_scale = 1.0f / (float)(step + 1),
                               .m_correction = 2.0f + (float)step,
                               .v_correction = 3.0f - 0.25f * (float)step};
    for (int i = 0; i < 2; i++) {
        board *b = i == 0 ? first : second;
        rig_f32_to_act(r, b->x, rig_put_f32(r, x, N * IN), N * IN);
        rig_f32_to_act(r, b->dy, rig_put_f32(r, dy, N * OUT), N * OUT);
        r->ops->to_device(r->device, b->ids, ids, N * 4);
        r->ops->to_device(r->device, b->numbers, &numbers, sizeof numbers);
    }
}

static void expect_same(board *first, board *second)
{
    rig *r = first->r;
    const void *const a[] = {first->w, first->m, first->v, first->buf, first->grad, first->table, first->sum};
    const void *const b[] = {second->w,    second->m,     second->v,  second->buf,
                             second->grad, second->table, second->sum};
    const int64_t bytes[] = {all * 4, all * 4, all * 4, all * 4, all * 4, V * IN * 4, sizeof(double)};
    for (size_t i = 0; i < sizeof bytes / sizeof bytes[0]; i++) {
        EXPECT(memcmp(rig_get(r, a[i], bytes[i]), rig_get(r, b[i], bytes[i]), (size_t)bytes[i]) == 0,
               "array %zu", i);
    }
    EXPECT(first->h_sum == second->h_sum, "%g, not %g", first->h_sum, second->h_sum);
    EXPECT(fabs(*rig_get_f32(r, first->w, 1)) < 1e6f, "weights that grow");
    EXPECT_OK(r->ops->sync(r->device));
}

/* How often a device that keeps work calls it in TIMES times: done, recorded; a device that does not, or may
 * not: each time. */
static int calls_expected(const rig *r, bool reads)
{
    const char *asked = getenv("P4_GRAPH");
    bool keeps = !r->ops->host_memory && !(asked && strcmp(asked, "off") == 0);
    return !keeps ? TIMES : reads ? TIMES + 1 : 2; /* reads: and one recording that fails */
}

static void check_work(rig *r, bool reads)
{
    float *w = rig_random(r, all, 0.5), *bias = rig_random_act(r, OUT, 0.5);
    board kept = make_board(r, w, bias), direct = make_board(r, w, bias);
    p4_recording *recording = NULL;
    kept.reads = direct.reads = reads;
    kept.orthogonalises = direct.orthogonalises = !reads;
    for (int step = 0; step < TIMES; step++) {
        put_inputs(&kept, &direct, step);
        r->ops->repeat(r->device, &recording, step_work, &kept);
        step_work(&direct);
        expect_same(&kept, &direct);
        EXPECT(kept.callouts == (step + 1) * CALLOUTS, "%d callouts in %d steps", kept.callouts, step + 1);
    }
    EXPECT(kept.calls == calls_expected(r, reads), "the work was called %d times", kept.calls);
    r->ops->forget(r->device, &recording);
    EXPECT(recording == NULL, "a record that was forgotten");
    rig_clear(r);
}

static void check_repeat(rig *r)
{
    check_work(r, false);
}

static void check_refused(rig *r)
{
    check_work(r, true);
}

/* Two works in turn, on the same memory; one is forgotten and recorded again. */
static void check_two(rig *r)
{
    float *w = rig_random(r, all, 0.5), *bias = rig_random_act(r, OUT, 0.5);
    board kept = make_board(r, w, bias), direct = make_board(r, w, bias);
    board other = kept, direct_other = direct; /* the same arrays but one */
    p4_recording *one = NULL, *two = NULL;
    other.dy = kept.y;
    direct_other.dy = direct.y;
    for (int step = 0; step < 2 * TIMES; step++) {
        put_inputs(&kept, &direct, step % TIMES);
        r->ops->repeat(r->device, &one, step_work, &kept);
        r->ops->repeat(r->device, &two, step_work, &other);
        step_work(&direct);
        step_work(&direct_other);
        expect_same(&kept, &direct);
        if (step == TIMES) {
            r->ops->forget(r->device, &one);
        }
    }
    r->ops->forget(r->device, &one);
    r->ops->forget(r->device, &two);
    rig_clear(r);
}

/* More callouts than a recording has room for: the work is done anew every time. */
enum { MANY = 100 };

static void many_work(void *user)
{
    board *b = user;
    b->calls++;
    for (int i = 0; i < MANY; i++) {
        b->r->ops->add_sum(b->r->device, b->sum, b->bias, OUT);
        b->r->ops->callout(b->r->device, note_callout, b, i % CALLOUTS);
    }
}

static void check_many(rig *r)
{
    float *w = rig_random(r, all, 0.5), *bias = rig_random_act(r, OUT, 0.5);
    board kept = make_board(r, w, bias), direct = make_board(r, w, bias);
    p4_recording *recording = NULL;
    for (int step = 0; step < TIMES; step++) {
        kept.callouts = direct.callouts = 0;
        r->ops->repeat(r->device, &recording, many_work, &kept);
        many_work(&direct);
        EXPECT(kept.callouts == MANY, "%d callouts", kept.callouts);
        EXPECT(*(double *)rig_get(r, kept.sum, 8) == *(double *)rig_get(r, direct.sum, 8), "step %d", step);
    }
    EXPECT(kept.calls == calls_expected(r, true), "the work was called %d times", kept.calls);
    r->ops->forget(r->device, &recording);
    rig_clear(r);
}

int main(void)
{
    static const ops_case cases[] = {{"repeated work", check_repeat},
                                     {"work that reads on the way", check_refused},
                                     {"two works", check_two},
                                     {"too many callouts", check_many}};
    return run_cases(cases, sizeof cases / sizeof cases[0]);
}
