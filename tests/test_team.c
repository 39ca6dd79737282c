/* How many threads of the CPU device work on so many pieces: all or one, so that libgomp keeps its threads.
 */
#include "check.h"
#include "kernels/cpu/cpu.h"

int main(void)
{
    for (int threads = 1; threads <= 70; threads++) {
        const p4_device device = {.threads = threads};
        for (int64_t pieces = 0; pieces <= 3 * threads; pieces++) {
            int team = p4_cpu_team(&device, pieces);
            EXPECT(team == 1 || team == threads, "%d of %d threads for %lld pieces", team, threads,
                   (long long)pieces);
            EXPECT(pieces < threads || team == threads, "%lld pieces for one of %d threads",
                   (long long)pieces, threads);
            EXPECT(pieces > 1 || team == 1, "%d threads for a single piece", team);
        }
    }
    return TEST_END();
}
