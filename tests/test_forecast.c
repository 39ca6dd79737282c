/* What is left of a planned run that continues from a checkpoint (jobs/forecast.h). */
#include "check.h"
#include "jobs/forecast.h"
#include "src/plan.h"

int main(void)
{
    double planned_s[P4_MAX_STAGES] = {0};
    bool done[P4_MAX_STAGES] = {false};
    double all = 0;
    for (int i = 0; i < P4_PLAN_STAGES; i++) {
        planned_s[i] = 1 << i;
        all += planned_s[i];
    }
    EXPECT_NEAR(p4_forecast_left(planned_s, done, 0), all, 0);
    /* What no checkpoint has is done again: loading here. */
    double left = all;
    for (int i = P4_PLAN_EVALUATE_PRE; i < P4_PLAN_FINE_TUNE; i++) {
        done[i] = true;
        left -= planned_s[i];
    }
    EXPECT_NEAR(p4_forecast_left(planned_s, done, 0), left, 0);
    EXPECT_NEAR(p4_forecast_left(planned_s, done, 0.25), left - 0.25 * planned_s[P4_PLAN_FINE_TUNE], 1e-9);
    done[P4_PLAN_FINE_TUNE] = true;
    left -= planned_s[P4_PLAN_FINE_TUNE];
    EXPECT_NEAR(p4_forecast_left(planned_s, done, 1), left, 0);
    return TEST_END();
}
