#include "io/text/dataset_parts.h"

#include <string.h>
#include <strings.h>

static bool ends_with(const char *name, size_t length, const char *suffix)
{
    size_t part = strlen(suffix);
    return length >= part && strncasecmp(name + length - part, suffix, part) == 0;
}

/* The length of `name` without the endings of compression. */
static size_t plain_length(const char *name)
{
    static const char *const endings[] = {".gz", ".zst", ".zstd", ".xz", ".bz2"};
    size_t length = strlen(name);
    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++) {
        if (ends_with(name, length, endings[i])) {
            length -= strlen(endings[i]);
            i = (size_t)-1; /* from the first ending again: "a.txt.gz.xz" */
        }
    }
    return length;
}

/* Behind the last folder, and inside the innermost archive ("a.tar: member b.txt"). */
static const char *base_name(const char *path)
{
    static const char inside[] = ": member ";
    const char *base = path;
    for (const char *next; (next = strstr(base, inside)) != NULL;) {
        base = next + strlen(inside);
    }
    const char *slash = strrchr(base, '/');
    return slash != NULL ? slash + 1 : base;
}

p4_data_kind p4_data_kind_of(const char *path)
{
    static const struct {
        const char *suffix;
        p4_data_kind kind;
    } suffixes[] = {
        {".txt", P4_DATA_TEXT},        {".text", P4_DATA_TEXT},     {".jsonl", P4_DATA_JSONL},
        {".json", P4_DATA_JSONL},      {".ndjson", P4_DATA_JSONL},  {".raw", P4_DATA_ARTICLES},
        {".tokens", P4_DATA_ARTICLES}, {".bin", P4_DATA_TOKENS},    {".tar", P4_DATA_ARCHIVE},
        {".tgz", P4_DATA_ARCHIVE},     {".parquet", P4_DATA_TABLE}, {".arrow", P4_DATA_TABLE},
        {".csv", P4_DATA_TABLE},
    };
    size_t length = plain_length(path);
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
        if (ends_with(path, length, suffixes[i].suffix)) {
            return suffixes[i].kind;
        }
    }
    return P4_DATA_OTHER;
}

bool p4_data_is_wanted(const char *path)
{
    const char *base = base_name(path);
    size_t length = strlen(base);
    if (base[0] == '.' || strncasecmp(base, "readme", 6) == 0 || strncasecmp(base, "license", 7) == 0 ||
        ends_with(base, length, ".json")) {
        return false;
    }
    switch (p4_data_kind_of(base)) {
    case P4_DATA_TEXT:
    case P4_DATA_JSONL:
    case P4_DATA_ARTICLES:
    case P4_DATA_ARCHIVE:
        return true;
    case P4_DATA_OTHER: /* OpenWebText's urlsf_subset00-1_data.xz */
        return ends_with(base, length, ".xz") && memchr(base, '.', length - 3) == NULL;
    case P4_DATA_TOKENS:
    case P4_DATA_TABLE:
        break;
    }
    return false;
}

p4_rc p4_data_refuse_table(const char *path)
{
    static const struct {
        const char *suffix, *name, *reader;
    } forms[] = {{".arrow", "Arrow", "file"}, {".csv", "CSV", "csv"}, {".parquet", "Parquet", "parquet"}};
    const size_t last = sizeof forms / sizeof forms[0] - 1; /* who calls knew another name's by its content */
    size_t i = 0, length = plain_length(path);
    while (i < last && !ends_with(path, length, forms[i].suffix)) {
        i++;
    }
    const char *name = forms[i].name, *reader = forms[i].reader;
    bool named = ends_with(path, length, forms[i].suffix);
    int stem = (int)(named ? length - strlen(forms[i].suffix) : strlen(path));
    if (strstr(path, "wikitext") != NULL) { /* a row is a line there, not a document */
        return FAIL(
            "%s: %s files are not read; convert it once to WikiText's own form (pip install datasets):  "
            "python3 -c \"import datasets; "
            "open('%.*s.raw', 'w').writelines(datasets.Dataset.from_%s('%s')['text'])\"",
            path, name, stem, path, reader, path);
    }
    return FAIL("%s: %s files are not read; convert it once to JSONL (pip install datasets):  python3 -c "
                "\"import datasets; datasets.Dataset.from_%s('%s').to_json('%.*s.jsonl')\"",
                path, name, reader, path, stem, path);
}
