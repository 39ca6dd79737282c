/* The coordinator of a batch, with ranks that are played: what it does when they answer. The messages to and
 * from them are functions of this file, so that nothing depends on how long anything takes. */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "jobs/batch/coordinate.h"
#include "jobs/batch/messages.h"

enum { RANKS = 2, MODELS = 6 };

/* Which models were started, in their order, and which of them the ranks work on. */
static struct {
    int ready, count;
    int32_t started[MODELS];
    int32_t of_rank[RANKS];   /* -1: none */
    const int32_t *end_first; /* models in the order in which they end, if they run */
} played = {.of_rank = {-1, -1}};

p4_rc p4_control_post(p4_control *control, int rank, const void *data, int64_t bytes)
{
    const p4_order *order = data;
    (void)control;
    EXPECT(bytes >= (int64_t)sizeof *order && rank < RANKS, "an order of %lld bytes", (long long)bytes);
    if (order->kind == P4_ORDER_CHECK) {
        EXPECT(played.of_rank[rank] == -1 && played.count < MODELS, "rank %d is not idle", rank);
        played.of_rank[rank] = order->model;
        played.started[played.count++] = order->model;
    }
    return P4_OK;
}

/* The ranks are ready; then, of the models that run, that which stands first in the script ends. */
p4_rc p4_control_collect(p4_control *control, double seconds, int *rank, void **data, int64_t *bytes)
{
    p4_answer *answer = p4_alloc(1, sizeof *answer);
    (void)control;
    (void)seconds;
    EXPECT(answer != NULL, "no memory");
    *answer = (p4_answer){.kind = P4_ANSWER_READY, .leads = true};
    *rank = played.ready++;
    for (int i = 0; i < MODELS && *rank >= RANKS; i++) {
        int32_t model = played.end_first[i];
        int at = played.of_rank[0] == model ? 0 : 1;
        if (played.of_rank[at] == model) {
            *answer = (p4_answer){.kind = P4_ANSWER_ENDED, .model = model, .leads = true};
            *rank = at;
            played.of_rank[at] = -1;
        }
    }
    *data = answer;
    *bytes = sizeof *answer;
    return P4_OK;
}

static const double planned_s[MODELS] = {3000, 4000, 3000, 2000, 2000, 2000};

/* The second model ends at once instead of after 4,000 s, beside the first, which takes 3,000. The next in
 * the order that was chosen before is of 3,000 s, with which the batch would end after 7,000 s: 3,000 + 2,000
 * + 2,000. With those of 2,000 s before it both ranks end after 6,000. */
static void order_is_chosen_again_when_a_model_ends(void)
{
    static const int32_t ends[MODELS] = {1, 3, 4, 0, 5, 2};
    p4_batch_options options = {.quiet = true, .check_only = true};
    p4_queue_entry given[MODELS];
    p4_batch_model models[MODELS], *running[RANKS];
    int64_t order[MODELS];
    p4_batch_rank rank[RANKS];
    p4_batch_node node[RANKS] = {{0}};
    p4_batch batch = {.options = &options,
                      .count = MODELS,
                      .counts = {[P4_STATE_WAITING] = MODELS},
                      .models = models,
                      .order = order,
                      .running = running,
                      .works = true,
                      .ranks = RANKS,
                      .rank = rank,
                      .node = node};
    char directory[] = "not there", text[] = "{}", source[] = "queue.json";
    batch.directory = batch.own_directory = directory;
    for (int i = 0; i < MODELS; i++) {
        given[i] = (p4_queue_entry){.name = source, .text = text, .source = source, .ranks = 1};
        models[i] = (p4_batch_model){
            .given = &given[i], .plan = {.known = true, .least = 1, .widths = 1, .seconds = {planned_s[i]}}};
        models[i].record.name = source;
        models[i].record.output_path = source;
        order[i] = i;
    }
    played.end_first = ends;
    p4_coordinator coordinator = {.batch = &batch};
    (void)p4_batch_coordinate(&coordinator);
    EXPECT(batch.failure == P4_OK && batch.counts[P4_STATE_DONE] == MODELS && played.count == MODELS,
           "%d models were started", played.count);
    EXPECT(played.started[0] == 0 && played.started[1] == 1, "the first two are not those of the order");
    EXPECT(planned_s[played.started[2]] == 2000, "model %d of %g s was started when one had ended",
           played.started[2], planned_s[played.started[2]]);
    for (int i = 0; i < MODELS; i++) {
        free(models[i].at);
        free(models[i].record.error);
    }
}

int main(void)
{
    order_is_chosen_again_when_a_model_ends();
    return TEST_END();
}
