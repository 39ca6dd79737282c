/* How much of the disk must be free so that the same command is completed (jobs/keep.h): checkpoints that are
 * there stay until newer ones are complete, and two are kept beside the outputs. */
#include "check.h"
#include "jobs/keep.h"

static void expect(p4_keep_room room, double want, const char *what)
{
    const double found = p4_keep_missing(&room);
    EXPECT(found == want, "%s: %g, expected %g", what, found, want);
}

int main(void)
{
    const p4_keep_room none = {.outputs = 10, .checkpoint = 40, .saves = P4_KEEP_SAVES_NONE};
    p4_keep_room r = none;
    expect(r, 10, "only the outputs are left");
    r.there = 80;
    expect(r, 10, "the checkpoints that are there stay where they are");
    r.free = 4;
    expect(r, 6, "some is free");
    r.scratch = 20;
    expect(r, 36, "temporary files with what their estimate may lack");

    r = none;
    r.saves = P4_KEEP_SAVES_ONE;
    expect(r, 50, "one checkpoint, which stays beside the outputs");

    r = none;
    r.saves = P4_KEEP_SAVES_MANY;
    expect(r, 120, "two, and a third while it is written");
    r.outputs = 60;
    expect(r, 140, "two, and the outputs");
    r.outputs = 10;
    r.there = 40;
    expect(r, 80, "two more than the one that is there");
    r.there = 80;
    expect(r, 40, "one more beside the two that are there");
    r.outputs = 50;
    expect(r, 50, "the outputs beside the two that are there");
    r.outputs = 10;
    r.there = 200; /* larger ones, as of a run that had trained further */
    expect(r, 40, "one more beside larger ones");
    return TEST_END();
}
