#include "io/metrics/tensorboard.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tensorboard.pb-c.h>
#include <unistd.h>

#include "io/file/atomic_file.h"
#include "io/metrics/times.h"

enum { TAG_BYTES = 96, DATA_STRING = 7, CLASS_TENSOR = 2 };

struct p4_tensorboard {
    int fd;
    char *path;
    double started; /* Unix seconds */
    int64_t bytes;  /* of the file: complete records */
};

/* CRC-32C, as the framing masks it. */
static uint32_t masked_crc(const uint8_t *bytes, size_t count)
{
    uint32_t crc = 0xFFFFFFFFu;
    for (size_t i = 0; i < count; i++) {
        crc ^= bytes[i];
        for (int k = 0; k < 8; k++) {
            crc = (crc >> 1) ^ (0x82F63B78u & (0u - (crc & 1)));
        }
    }
    crc = ~crc;
    return ((crc >> 15) | (crc << 17)) + 0xA282EAD8u;
}

static void put_number(uint8_t *to, uint64_t number, int bytes)
{
    for (int i = 0; i < bytes; i++) {
        to[i] = (uint8_t)(number >> (8 * i));
    }
}

/* Length, its CRC, the event, its CRC: with one write, so that a reader never sees a part. */
static p4_rc put_event(p4_tensorboard *board, const P4Board__Event *event)
{
    enum { BEFORE = 12, BEHIND = 4 };
    size_t count = p4_board__event__get_packed_size(event), all = BEFORE + count + BEHIND;
    uint8_t *record = p4_alloc(all, 1);
    if (record == NULL) {
        return P4_E_SYSTEM;
    }
    put_number(record, count, 8);
    put_number(record + 8, masked_crc(record, 8), 4);
    p4_board__event__pack(event, record + BEFORE);
    put_number(record + BEFORE + count, masked_crc(record + BEFORE, count), 4);
    p4_rc rc = P4_OK;
    if (write(board->fd, record, all) == (ssize_t)all) {
        board->bytes += (int64_t)all;
    } else {
        rc = p4_fail_errno(board->path, "write");
        if (ftruncate(board->fd, (off_t)board->bytes) != 0) {
            INFO("%s: ends with a part of a record, which readers pass over", board->path);
        }
    }
    free(record);
    return rc;
}

static P4Board__Event event_at(const p4_tensorboard *board, double runtime_s, int64_t step)
{
    P4Board__Event event = P4_BOARD__EVENT__INIT;
    event.has_wall_time = true;
    event.wall_time = board->started + runtime_s;
    event.has_step = true;
    event.step = step;
    return event;
}

/* The configuration as a block of Markdown. */
static p4_rc put_configuration(p4_tensorboard *board, const char *config_json)
{
    char *text = p4_format("```json\n%s\n```", config_json);
    if (text == NULL) {
        return P4_E_SYSTEM;
    }
    P4Board__Dim dim = P4_BOARD__DIM__INIT, *dims[] = {&dim};
    P4Board__Shape shape = P4_BOARD__SHAPE__INIT;
    P4Board__Tensor tensor = P4_BOARD__TENSOR__INIT;
    P4Board__PluginData plugin = P4_BOARD__PLUGIN_DATA__INIT;
    P4Board__Metadata metadata = P4_BOARD__METADATA__INIT;
    P4Board__Value value = P4_BOARD__VALUE__INIT, *values[] = {&value};
    P4Board__Summary summary = P4_BOARD__SUMMARY__INIT;
    P4Board__Event event = event_at(board, 0, 0);
    ProtobufCBinaryData string = {.len = strlen(text), .data = (uint8_t *)text};
    dim.has_size = true;
    dim.size = 1;
    shape.n_dim = 1;
    shape.dim = dims;
    tensor.has_dtype = true;
    tensor.dtype = DATA_STRING;
    tensor.tensor_shape = &shape;
    tensor.n_string_val = 1;
    tensor.string_val = &string;
    plugin.plugin_name = (char[]){"text"};
    metadata.plugin_data = &plugin;
    metadata.has_data_class = true;
    metadata.data_class = CLASS_TENSOR;
    value.tag = (char[]){"configuration"};
    value.tensor = &tensor;
    value.metadata = &metadata;
    summary.n_value = 1;
    summary.value = values;
    event.summary = &summary;
    p4_rc rc = put_event(board, &event);
    free(text);
    return rc;
}

p4_rc p4_tensorboard_open(p4_tensorboard **opened, const p4_watched_run *run)
{
    p4_rc rc = P4_OK;
    char *folder = p4_format("%s/tensorboard", run->output_path);
    p4_tensorboard *board = *opened = p4_alloc(1, sizeof *board);
    TRY(folder != NULL && board != NULL ? P4_OK : P4_E_SYSTEM);
    board->fd = -1;
    board->started = p4_time_seconds(run->started);
    board->path = p4_format("%s/events.out.tfevents.%010.0f.%s.%ld.0", folder, board->started, run->host,
                            (long)getpid());
    TRY(board->path != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(p4_remove_tree(folder));
    TRY(p4_make_directories(folder));
    board->fd = open(board->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    TRY(board->fd >= 0 ? P4_OK : p4_fail_errno(board->path, "create the file"));
    P4Board__Event version = event_at(board, 0, 0);
    version.has_step = false;
    version.file_version = (char[]){"brain.Event:2"};
    TRY(put_event(board, &version));
    TRY(put_configuration(board, run->config_json));
done:
    free(folder);
    if (rc != P4_OK) {
        (void)p4_tensorboard_close(board);
        *opened = NULL;
    }
    return rc;
}

p4_rc p4_tensorboard_add(p4_tensorboard *board, const p4_measurement *m)
{
    char tags[P4_MEASUREMENT_METRICS][TAG_BYTES];
    P4Board__Value values[P4_MEASUREMENT_METRICS], *list[P4_MEASUREMENT_METRICS];
    P4Board__Summary summary = P4_BOARD__SUMMARY__INIT;
    P4Board__Event event = event_at(board, m->runtime_s, m->step);
    summary.value = list;
    for (size_t i = 0; i < m->count && i < P4_MEASUREMENT_METRICS; i++) {
        if (!isnan(m->metrics[i].value)) {
            P4Board__Value *value = list[summary.n_value] = &values[summary.n_value];
            p4_board__value__init(value);
            value->tag = tags[summary.n_value];
            snprintf(value->tag, TAG_BYTES, "%s/%s", m->group, m->metrics[i].key);
            value->has_simple_value = true;
            value->simple_value = (float)m->metrics[i].value;
            summary.n_value++;
        }
    }
    event.summary = &summary;
    return put_event(board, &event);
}

p4_rc p4_tensorboard_close(p4_tensorboard *board)
{
    p4_rc rc = P4_OK;
    if (board != NULL) {
        rc = board->fd < 0 || close(board->fd) == 0 ? P4_OK : p4_fail_errno(board->path, "write");
        free(board->path);
        free(board);
    }
    return rc;
}
