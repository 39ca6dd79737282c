#include "jobs/findings.h"

#include <stdio.h>
#include <string.h>

void p4_findings_add(p4_findings *f, p4_rc rc)
{
    const char *message = p4_last_error();
    size_t used = strlen(f->text);
    if (rc != P4_OK && strstr(f->text, message) == NULL) {
        snprintf(f->text + used, sizeof f->text - used, "%s%s", used > 0 ? "\n" : "", message);
        f->errors++;
        /* Bad input is what the user can change: it is the status where both kinds occur. */
        f->worst = f->worst == P4_OK || rc == P4_E_INPUT ? rc : f->worst;
    }
    p4_error_clear();
}
