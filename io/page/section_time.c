/* The time line: the stages one after another, and what each rank did in them. */
#include <math.h>
#include <string.h>

#include "io/page/html.h"
#include "io/page/sections.h"
#include "src/plan.h"

enum { RANKS_SHOWN = 64 };

/* Stages by their seconds, over all processes of the run; the bars follow one another. */
static void put_stages(FILE *to, const cJSON *timing)
{
    const cJSON *stage;
    double sum = 0, before = 0;
    if (!cJSON_IsObject(timing)) {
        return;
    }
    cJSON_ArrayForEach(stage, timing)
    {
        sum += strcmp(stage->string, "total") != 0 && cJSON_IsNumber(stage) ? stage->valuedouble : 0;
    }
    p4_html_table(to, "Stages", "Stage|#Time|<span class=\"hide\">When</span>");
    cJSON_ArrayForEach(stage, timing)
    {
        if (strcmp(stage->string, "total") == 0 || !cJSON_IsNumber(stage) || sum <= 0) {
            continue;
        }
        fputs("<tr><th scope=\"row\">", to);
        p4_html_text(to, p4_plan_stage_title(stage->string));
        fputs("</th><td class=\"n\">", to);
        p4_html_duration(to, stage->valuedouble);
        fprintf(to,
                "</td><td class=\"bars\"><i class=\"new\" style=\"margin-left:%.2f%%;width:%.2f%%\"></i></td>"
                "</tr>\n",
                fmin(99.6, 100 * before / sum),
                fmin(100 - 100 * before / sum, 100 * stage->valuedouble / sum));
        before += stage->valuedouble;
    }
    p4_html_end_table(to);
}

static const char *host_of(const cJSON *provenance, double rank)
{
    const cJSON *place;
    cJSON_ArrayForEach(place, p4_page_item(provenance, "hosts"))
    {
        double first = p4_page_real(place, "first_rank");
        if (rank >= first && rank < first + p4_page_real(place, "ranks")) {
            return p4_page_string(place, "host");
        }
    }
    return "";
}

static void put_rank(FILE *to, const cJSON *rank, const cJSON *provenance)
{
    const cJSON *stage;
    double seconds = 0, cpu = 0, waited = 0;
    cJSON_ArrayForEach(stage, p4_page_item(rank, "stages"))
    {
        seconds += p4_page_real(stage, "seconds");
        cpu += p4_page_real(stage, "cpu_s");
        waited += p4_page_real(stage, "waited_s");
    }
    fputs("<tr><th scope=\"row\" class=\"n\">", to);
    p4_html_count(to, p4_page_real(rank, "rank"));
    fputs("</th><td>", to);
    p4_html_foreign(to, host_of(provenance, p4_page_real(rank, "rank")));
    fputs("</td><td class=\"n\">", to);
    p4_html_duration(to, cpu);
    fputs("</td><td class=\"n\">", to);
    p4_html_duration(to, waited);
    fputs("</td><td class=\"n\">", to);
    p4_html_bytes(to, 1048576.0 * p4_page_real(rank, "peak_memory_mb"));
    double busy = seconds > 0 ? fmax(0, 1 - waited / seconds) : 0;
    fprintf(to,
            "</td><td class=\"bars line\"><i class=\"new\" style=\"width:%.1f%%\"></i><i class=\"idle\" "
            "style=\"width:%.1f%%\"></i></td></tr>\n",
            100 * busy, 100 - 100 * busy);
}

static void put_ranks(FILE *to, const p4_page_run *run)
{
    const cJSON *rank, *ranks = p4_page_item(run->details, "ranks"),
                       *provenance = p4_page_item(run->results, "provenance");
    int count = cJSON_GetArraySize(ranks), shown = 0;
    if (count == 0) {
        return;
    }
    fputs("<h3>Ranks</h3>\n<p>A rank waits for the others where all must agree to go on, and where it needs "
          "their data. The bar divides the elapsed time into that and the rest, in which the rank computes, "
          "uses a GPU or files, or the machine is busy with other programs: so the rest can be longer than "
          "the processor time. ",
          to);
    if (p4_page_real(run->results, "provenance.continued.times") > 0) {
        fputs("The run was continued: the figures are of the time since it was started last.", to);
    }
    fputs("</p>\n", to);
    p4_html_table(to, "Work and waiting of the ranks",
                  "#Rank|Host|#CPU time|#Waited|#Peak memory|<span class=\"key\"><i class=\"box "
                  "new\"></i>not waiting</span> <span class=\"key\"><i class=\"box "
                  "idle\"></i>waiting</span>");
    cJSON_ArrayForEach(rank, ranks)
    {
        if (shown++ < RANKS_SHOWN) {
            put_rank(to, rank, provenance);
        }
    }
    p4_html_end_table(to);
    if (count > RANKS_SHOWN) {
        fprintf(to, "<p class=\"note\">The first %d of %d ranks; details.json has all.</p>\n", RANKS_SHOWN,
                count);
    }
}

void p4_section_time(FILE *to, const p4_page_run *run)
{
    const cJSON *timing = p4_page_item(run->results, "timing");
    if (!(p4_page_real(timing, "total") > 0)) {
        return;
    }
    p4_html_section(to, "time", "Time line");
    fputs("<p>The run took ", to);
    p4_html_duration(to, p4_page_real(timing, "total"));
    fputs(".</p>\n", to);
    put_stages(to, timing);
    put_ranks(to, run);
    p4_html_end_section(to);
}
