/* What lies around documents: gzip, zstd, xz and tar, whole, damaged and cut off; and what is no text
 * (io/text/dataset.h). */
#include "dataset_world.h"

static const char two_lines[] = "{\"text\":\"one\"}\n{\"text\":\"two\"}\n";

/* `count` bytes of JSONL (heap) that do not compress away, 997 bytes of text a line. */
static char *make_lines(size_t line_count, size_t *count)
{
    char *lines = malloc(line_count * 1024);
    uint64_t state = 1;
    *count = 0;
    for (size_t line = 0; line < line_count; line++) {
        *count += (size_t)sprintf(lines + *count, "{\"text\":\"");
        for (int i = 0; i < 997; i++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            lines[(*count)++] = (char)('a' + (state >> 33) % 26);
        }
        *count += (size_t)sprintf(lines + *count, "\"}\n");
    }
    return lines;
}

static char *joined(const char *a, size_t a_bytes, const char *b, size_t b_bytes)
{
    char *both = malloc(a_bytes + b_bytes);
    memcpy(both, a, a_bytes);
    memcpy(both + a_bytes, b, b_bytes);
    return both;
}

/* The packed file reads as the plain one does; cut off anywhere it is refused and named. */
static void expect_same_and_cut(const char *name, const char *packed, size_t packed_bytes, const char *plain,
                                size_t plain_bytes, const char *refusal)
{
    char *expected = read_all(put("plain.jsonl", plain, plain_bytes));
    expect_documents(put(name, packed, packed_bytes), expected);
    for (size_t cut = 1; cut <= 8; cut++) {
        size_t left = packed_bytes - (cut == 8 ? packed_bytes / 2 : cut);
        expect_refused(put(name, packed, left), refusal);
    }
    free(expected);
}

static void gzip_members_follow_one_another(void)
{
    size_t first_bytes, second_bytes, lines_bytes;
    char *lines = make_lines(1500, &lines_bytes);
    char *first = gzipped(lines, lines_bytes, &first_bytes);
    char *second = gzipped(two_lines, strlen(two_lines), &second_bytes);
    char *packed = joined(first, first_bytes, second, second_bytes);
    char *plain = joined(lines, lines_bytes, two_lines, strlen(two_lines));
    size_t packed_bytes = first_bytes + second_bytes, plain_bytes = lines_bytes + strlen(two_lines);
    expect_same_and_cut("a.jsonl.gz", packed, packed_bytes, plain, plain_bytes, "the gzip data ends early");
    expect_documents(put("named_otherwise.json", second, second_bytes), "one|two|");

    char *padded = joined(second, second_bytes, "\0\0\0\0", 4);
    expect_documents(put("padded.json.gz", padded, second_bytes + 4), "one|two|");
    memcpy(padded + second_bytes, "\0rest", 4);
    expect_refused(put("rest.json.gz", padded, second_bytes + 4), "after a gzip member comes 0x72");
    second[second_bytes - 6] ^= 1; /* in the checksum */
    expect_refused(put("sum.json.gz", second, second_bytes), "damaged gzip data");
    packed[first_bytes / 2] ^= 0x40;
    expect_refused(put("bit.json.gz", packed, packed_bytes), "a");
    free(padded);
    free(plain);
    free(packed);
    free(second);
    free(first);
    free(lines);
}

static void zstd_frames_follow_one_another(void)
{
    size_t first_bytes, second_bytes, lines_bytes;
    char *lines = make_lines(1500, &lines_bytes);
    char *first = zstded(lines, lines_bytes, &first_bytes);
    char *second = zstded(two_lines, strlen(two_lines), &second_bytes);
    char *packed = joined(first, first_bytes, second, second_bytes);
    char *plain = joined(lines, lines_bytes, two_lines, strlen(two_lines));
    size_t packed_bytes = first_bytes + second_bytes, plain_bytes = lines_bytes + strlen(two_lines);
    expect_same_and_cut("a.jsonl.zst", packed, packed_bytes, plain, plain_bytes, "the zstd data ends early");

    static const char skippable[] = "\x51\x2a\x4d\x18\x03\0\0\0abc";
    char *marked = joined(skippable, 11, second, second_bytes);
    expect_documents(put("marked.zst", marked, second_bytes + 11), "one|two|");
    char *dirty = joined(second, second_bytes, "rest", 4);
    expect_refused(put("rest.zst", dirty, second_bytes + 4), "damaged zstd data");
    free(dirty);
    free(marked);
    free(plain);
    free(packed);
    free(second);
    free(first);
    free(lines);
}

/* A frame of `zstd --long=31` by hand (RFC 8878): magic, no options, window 2^31, one raw last block. The
 * library's own limit is 2^27. */
static void zstd_window_may_be_2_gib(void)
{
    char frame[64] = "\x28\xb5\x2f\xfd\x00";
    size_t count = strlen(two_lines);
    frame[5] = (char)((31 - 10) << 3);
    frame[6] = (char)(count << 3 | 1);
    frame[7] = (char)(count >> 5);
    memcpy(frame + 9, two_lines, count);
    expect_documents(put("long.jsonl.zst", frame, 9 + count), "one|two|");
}

static void layers_lie_in_layers(void)
{
    size_t inner_bytes, outer_bytes;
    char *inner = zstded(two_lines, strlen(two_lines), &inner_bytes);
    char *outer = gzipped(inner, inner_bytes, &outer_bytes);
    expect_documents(put("a.jsonl.zst.gz", outer, outer_bytes), "one|two|");
    for (int i = 0; i < 8; i++) {
        char *more = gzipped(outer, outer_bytes, &outer_bytes);
        free(outer);
        outer = more;
    }
    expect_refused(put("many.gz", outer, outer_bytes), "compressed too many times over");
    free(outer);
    free(inner);
}

static void xz_and_bzip2_are_read(void)
{
    size_t lines_bytes, packed_bytes;
    char *lines = make_lines(300, &lines_bytes);
    char *packed = archived(&(member){"a", lines, lines_bytes}, 1, false, XZ, &packed_bytes);
    expect_same_and_cut("a.jsonl.xz", packed, packed_bytes, lines, lines_bytes,
                        "damaged or truncated archive");
    free(packed);
    packed = archived(&(member){"a", lines, lines_bytes}, 1, false, BZIP2, &packed_bytes);
    expect_same_and_cut("a.jsonl.bz2", packed, packed_bytes, lines, lines_bytes,
                        "damaged or truncated archive");
    expect_documents(put("beef.txt", "BZh91 is text", 13), "BZh91 is text|");
    free(packed);
    packed = archived(&(member){"a", "{text}", 6}, 1, false, XZ, &packed_bytes);
    expect_documents(put("a.txt.xz", packed, packed_bytes), "{text}|"); /* the name inside decides */
    free(packed);
    free(lines);
}

/* OpenWebText: tar of xz of tar of one text a document; and what else is in such archives is left aside. */
static void tars_are_read(void)
{
    size_t inner_bytes, second_bytes, outer_bytes, gz_bytes;
    const member texts[] = {
        {"0000001-abc.txt", "first", 5}, {"._0000001-abc.txt", "\0\0", 2}, {"0000002-def.txt", "", 0}};
    const member more[] = {{"folder/x.txt", "third\n", 6}};
    char *inner = archived(texts, 3, true, XZ, &inner_bytes);
    char *second = archived(more, 1, true, XZ, &second_bytes);
    const member outside[] = {{"openwebtext/urlsf_subset00-1_data.xz", inner, inner_bytes},
                              {"openwebtext/README.txt", "read me", 7},
                              {"openwebtext/dataset_info.json", "{}", 2},
                              {"openwebtext/picture.png", "\0", 1},
                              {"openwebtext/urlsf_subset00-2_data.xz", second, second_bytes},
                              {"openwebtext/lines.jsonl", two_lines, strlen(two_lines)}};
    char *outer = archived(outside, 6, true, PLAIN, &outer_bytes);
    expect_documents(put("urlsf_subset00.tar", outer, outer_bytes), "first||third\n|one|two|");
    char *gz = gzipped(outer, outer_bytes, &gz_bytes);
    expect_documents(put("urlsf.tar.gz", gz, gz_bytes), "first||third\n|one|two|");
    gz[gz_bytes - 6] ^= 1; /* in the checksum, behind the last member */
    expect_refused(put("sum.tar.gz", gz, gz_bytes), "sum.tar.gz: damaged gzip data");
    free(gz);
    expect_refused(put("cut.tar", outer, 700), "archive");
    outer[512 + 20] ^= 1; /* in the first member, whose data begin at 512 */
    expect_refused(put("bit.tar", outer, outer_bytes), "urlsf_subset00-1_data.xz");
    free(outer);
    outer = archived(outside + 1, 3, true, PLAIN, &outer_bytes);
    expect_refused(put("nothing.tar", outer, outer_bytes),
                   "the archive holds no .txt, .jsonl or .xz file (3 other files)");
    free(outer);

    const member lines = {"bad.jsonl", "{\"text\":\"a\"}\n{", 14};
    outer = archived(&lines, 1, true, PLAIN, &outer_bytes);
    expect_refused(put("bad.tar", outer, outer_bytes), "bad.tar: member bad.jsonl line 2 column 1");
    for (int i = 0; i < 4; i++) {
        const member nested = {"inner.tar", outer, outer_bytes};
        size_t nested_bytes;
        char *around = archived(&nested, 1, true, PLAIN, &nested_bytes);
        free(outer);
        outer = around;
        outer_bytes = nested_bytes;
    }
    expect_refused(put("deep.tar", outer, outer_bytes), "more than 4 archives inside one another");
    free(outer);
    free(inner);
    free(second);
}

static void what_is_no_text_is_refused(void)
{
    const char *parquet = put("part.0/data.parquet", "PAR1....PAR1", 12);
    expect_refused(parquet, "Dataset.from_parquet('");
    EXPECT(read_all(parquet) == NULL && strstr(p4_last_error(), "/part.0/data.jsonl')") != NULL, "%s",
           p4_last_error());
    expect_refused(put("no_ending", "PAR1....PAR1", 12), "Parquet files are not read");
    expect_refused(put("data-00000-of-00001.arrow", "\xff\xff\xff\xff\x10\0\0\0", 8), "Dataset.from_file('");
    const char *csv = put("part.0/data.csv", "id,text\n1,One.\n", 15);
    expect_refused(csv, "CSV files are not read; convert it once to JSONL (pip install datasets):");
    EXPECT(read_all(csv) == NULL && strstr(p4_last_error(), "/data.csv').to_json('") != NULL &&
               strstr(p4_last_error(), "/part.0/data.jsonl')") != NULL,
           "%s", p4_last_error());
    expect_refused(put("wikitext/train.parquet", "PAR1....PAR1", 12), "train.raw', 'w').writelines(");
    expect_refused(put("a.zip", "PK\x03\x04....", 8), "is a zip archive; expected UTF-8 text or JSONL");
    expect_refused(put("utf16.txt",
                       "\xff\xfe"
                       "a\0",
                       4),
                   "UTF-16");
    expect_refused(put("tokens.txt", "\x88\xd8\x34\x01\x01\0\0\0", 8), "whose name must end in .bin");
    expect_refused(put("zero.jsonl", "{\"text\":\"a\"}\0", 13), "holds zero bytes");
    expect_refused(at("missing.txt"), "No such file");
    put_text("folder/a.txt", "a");
    expect_refused(at("folder"), "not a regular file");
    mkfifo(at("pipe.txt"), 0600);
    expect_refused(at("pipe.txt"), "not a regular file");
}

int main(void)
{
    world_begin();
    gzip_members_follow_one_another();
    zstd_frames_follow_one_another();
    zstd_window_may_be_2_gib();
    layers_lie_in_layers();
    xz_and_bzip2_are_read();
    tars_are_read();
    what_is_no_text_is_refused();
    world_end();
    return TEST_END();
}
