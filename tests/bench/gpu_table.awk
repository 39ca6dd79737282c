# The table of run_gpu_bench.sh. First file: rows "our name | to reach | the peers' name"; then the parts' logs.
# `alone`: our name of the run on one GPU that weak scaling is measured against.

function trim(text)
{
    gsub(/^ +| +$/, "", text)
    return text
}
# Above 1 where ours is better.
function ratio(ours, figure, unit)
{
    return unit ~ /^(ms|s|GiB|ppl)$/ ? figure / ours : ours / figure
}
function reached(ok)
{
    return ok ? "reached" : "MISSED"
}
# How much better ours is than the best of the peers; 0: no peer ran.
function best_ratio(name, ours, unit,    list, part, count, k, one, least)
{
    count = split(peers[name], list, ";")
    for (k = 1; k <= count; k++) {
        split(list[k], part, "=")
        one = ratio(ours, part[2], unit)
        least = k == 1 || one < least ? one : least
    }
    return least + 0
}
function goal_text(row, goal, ours, unit, peer,    part, value)
{
    if (goal ~ /^[0-9.]+x$/) { # times the best peer
        value = best_ratio(peer, ours, unit)
        return value > 0 ? sprintf("%.2fx of %s %s", value, goal, reached(value >= goal + 0)) : ""
    }
    if (goal == "scaling") {
        value = alone in figure ? ours / (2 * figure[alone]) : 0
        return value > 0 ? sprintf("%.3f of 0.970 %s", value, reached(value >= 0.97)) : ""
    }
    if (goal == "job") {
        split(beside[row], part, " ")
        return sprintf("%.2fx of 1.30x %s", ours / part[2], reached(ours / part[2] <= 1.3))
    }
    return goal == "" ? "" : goal " " reached(ratio(ours, goal, unit) >= 1)
}
function peers_text(name, ours, unit,    list, part, count, k, text)
{
    count = split(peers[name], list, ";")
    for (k = 1; k <= count; k++) {
        split(list[k], part, "=")
        text = text sprintf("%s %s (%.2f)  ", part[1], part[2], ratio(ours, part[2], unit))
    }
    return text
}
function show_row(row, goal, peer)
{
    if (!(row in figure)) {
        if (goal != "" && goal != "scaling") {
            printf "%-40s %10s\n", row, "not run"
        }
        return
    }
    printf "%-40s %10s %-9s %-24s %s%s\n", row, figure[row], unit_of[row],
           goal_text(row, goal, figure[row], unit_of[row], peer), peers_text(peer, figure[row], unit_of[row]),
           beside[row] ~ /^-/ ? "" : beside[row]
}
# The worst first.
function show_slow_ops(most,    i, j, kept, part)
{
    for (i = 2; i <= slow_count; i++) {
        for (j = i; j > 1 && slow[j] + 0 < slow[j - 1] + 0; j--) {
            kept = slow[j]
            slow[j] = slow[j - 1]
            slow[j - 1] = kept
        }
    }
    for (i = 1; i <= slow_count && i <= most; i++) {
        split(slow[i], part, "|")
        printf "  %5s %s\n", part[1], part[2]
    }
}

BEGIN { FS = "|" }
FILENAME ~ /\/rows$/ {
    rows[++row_count] = trim($1)
    goals[row_count] = trim($2)
    peer_names[row_count] = trim($3)
    next
}
/^# failed|^# left out/ { troubles[++trouble_count] = substr($0, 1, 160) }
/^#/ { next }
/^peer / {
    split(trim($3), part, " ")
    who = substr(trim($1), 6)
    key = trim($2)
    peers[key] = peers[key] (peers[key] == "" ? "" : ";") who "=" part[1]
    next
}
/^ops / && NF >= 5 {
    ops_count++
    if ($4 + 0 > 0 && $4 + 0 < 0.8) {
        slow[++slow_count] = sprintf("%s|%-34s %16s  %s  %s", trim($4), trim($1), trim($2), trim($3), trim($5))
    }
    next
}
NF >= 5 {
    name = trim($1)
    if (name in figure && name ~ /^(copy|gemm)/) { # every part measures them: the first counts
        next
    }
    split(trim($2), part, " ")
    figure[name] = part[1]
    unit_of[name] = part[2]
    beside[name] = trim($3) " " trim($4)
}
END {
    printf "%-40s %10s %-9s %-24s %s\n", "work", "ours", "", "to reach", "beside it (ratio above 1: ours is better)"
    for (i = 1; i <= row_count; i++) {
        show_row(rows[i], goals[i], peer_names[i])
    }
    if (ops_count > 0) {
        printf "ops: %d measured, %d below 0.8 of their ceiling, the worst of them:\n", ops_count, slow_count
        show_slow_ops(24)
    }
    for (i = 1; i <= trouble_count && i <= 12; i++) {
        print troubles[i]
    }
}
