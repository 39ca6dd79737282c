/* What is left of a planned run that continues from a checkpoint (jobs/forecast.h). */
#include "check.h"
#include "jobs/forecast.h"
#include "src/plan.h"

int main(void)
{
    double planned_s[P4_MAX_STAGES] = {0};
    double done[P4_MAX_STAGES] = {0};
    double all = 0;
    for (int i = 0; i < P4_PLAN_STAGES; i++) {
        planned_s[i] = 1 << i;
        all += planned_s[i];
    }
    EXPECT_NEAR(p4_forecast_left(planned_s, done), all, 0);
    /* What no checkpoint has is done again: loading here. */
    double left = all;
    for (int i = P4_PLAN_EVALUATE_PRE; i < P4_PLAN_FINE_TUNE; i++) {
        done[i] = 0.5; /* of a reconstruction: blocks */
        EXPECT_NEAR(p4_forecast_left(planned_s, done), left - 0.5 * planned_s[i], 1e-9);
        done[i] = 1;
        left -= planned_s[i];
    }
    EXPECT_NEAR(p4_forecast_left(planned_s, done), left, 0);
    done[P4_PLAN_FINE_TUNE] = 0.25;
    EXPECT_NEAR(p4_forecast_left(planned_s, done), left - 0.25 * planned_s[P4_PLAN_FINE_TUNE], 1e-9);
    done[P4_PLAN_FINE_TUNE] = 1;
    left -= planned_s[P4_PLAN_FINE_TUNE];
    EXPECT_NEAR(p4_forecast_left(planned_s, done), left, 0);
    return TEST_END();
}
