#include "train/events.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <time.h>
#include <unistd.h>

#include "base/dir.h"
#include "base/file.h"
#include "base/mem.h"

/* Fields of Event, SessionLog, Summary and Summary.Value, and the types of protocol buffers. */
enum { EVENT_TIME = 1, EVENT_STEP = 2, EVENT_VERSION = 3, EVENT_SUMMARY = 5, EVENT_SESSION = 7 };
enum { SESSION_STATUS = 1, SESSION_START = 1, SUMMARY_VALUE = 1, VALUE_TAG = 1, VALUE_SIMPLE = 2 };
enum { VARINT = 0, BITS_64 = 1, BYTES = 2, BITS_32 = 5 };

static const char prefix[] = "events.out.tfevents.";

uint32_t du_events_crc(const void *bytes, size_t n) {
    const uint32_t polynomial = 0x82f63b78; /* 0x1edc6f41, lowest bit first */
    const uint8_t *at = bytes;
    uint32_t crc = ~(uint32_t)0;
    for (size_t i = 0; i < n; i++) {
        crc ^= at[i];
        for (int bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (crc & 1 ? polynomial : 0);
        }
    }
    return ~crc;
}

static uint32_t checksum(const void *bytes, size_t n) {
    uint32_t crc = du_events_crc(bytes, n);
    return (crc >> 15 | crc << 17) + 0xa282ead8;
}

void du_events_record(du_str *out, const void *data, size_t n) {
    uint64_t length = n;
    uint32_t of_length = checksum(&length, sizeof length), of_data = checksum(data, n);
    du_str_add(out, &length, sizeof length);
    du_str_add(out, &of_length, sizeof of_length);
    du_str_add(out, data, n);
    du_str_add(out, &of_data, sizeof of_data);
}

static void add_varint(du_str *s, uint64_t v) {
    for (; v >= 128; v >>= 7) {
        du_str_add_c(s, (char)((v & 127) | 128));
    }
    du_str_add_c(s, (char)v);
}

static void add_key(du_str *s, int field, int type) {
    add_varint(s, (uint64_t)(field << 3 | type));
}

static void add_bytes(du_str *s, int field, const void *bytes, size_t n) {
    add_key(s, field, BYTES);
    add_varint(s, n);
    du_str_add(s, bytes, n);
}

/* Time and step, with which each event begins. */
static void begin_event(du_str *s, int64_t step) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    double seconds = (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
    du_str_reset(s);
    add_key(s, EVENT_TIME, BITS_64);
    du_str_add(s, &seconds, sizeof seconds);
    add_key(s, EVENT_STEP, VARINT);
    add_varint(s, (uint64_t)step);
}

static du_err write_event(du_events *e, du_diag *diag) {
    du_str_reset(&e->record);
    du_events_record(&e->record, du_str_get(&e->event), e->event.len);
    if (e->event.failed || e->record.failed) {
        return du_fail_nomem(diag, e->path);
    }
    int code = du_fd_write_at(e->fd, e->record.data, e->record.len, e->n_bytes);
    if (code != 0) {
        (void)!ftruncate(e->fd, e->n_bytes); /* what a failure leaves of the record */
        return du_fail_errno(diag, e->path, "write it", code);
    }
    e->n_bytes += (int64_t)e->record.len;
    return DU_OK;
}

du_err du_events_open(du_events *out, const char *dir, int64_t step, du_diag *diag) {
    static const char version[] = "brain.Event:2";
    static const uint8_t start[] = {SESSION_STATUS << 3 | VARINT, SESSION_START};
    du_str name = {0};
    du_str_addf(&name, "%s%010lld.%lld.dure", prefix, (long long)time(NULL), (long long)step);
    *out = (du_events){.fd = -1};
    out->path = name.failed ? NULL : du_path_join(dir, du_str_get(&name));
    du_str_done(&name);
    if (!out->path) {
        return du_fail_nomem(diag, "an event file");
    }
    out->fd = open(out->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (out->fd < 0) {
        return du_fail_errno(diag, out->path, "open it", errno);
    }
    begin_event(&out->event, step);
    add_bytes(&out->event, EVENT_VERSION, version, sizeof version - 1);
    du_err err = write_event(out, diag);
    begin_event(&out->event, step + 1);
    add_bytes(&out->event, EVENT_SESSION, start, sizeof start);
    return err ? err : write_event(out, diag);
}

/* A number under a name; NAN: none. */
static void add_scalar(du_str *summary, const char *tag, double v) {
    size_t n = strlen(tag);
    float value = (float)v;
    if (!isfinite(v)) {
        return;
    }
    add_key(summary, SUMMARY_VALUE, BYTES);
    add_varint(summary, 2 + n + 1 + sizeof value); /* tags are shorter than 128 bytes */
    add_bytes(summary, VALUE_TAG, tag, n);
    add_key(summary, VALUE_SIMPLE, BITS_32);
    du_str_add(summary, &value, sizeof value);
}

du_err du_events_add(du_events *e, const du_metrics *m, du_diag *diag) {
    du_str summary = {0};
#define ADD(name, tag, n_points) add_scalar(&summary, tag, m->name);
    DU_METRICS_LIST(ADD)
#undef ADD
    begin_event(&e->event, m->step);
    add_bytes(&e->event, EVENT_SUMMARY, du_str_get(&summary), summary.len);
    e->event.failed = e->event.failed || summary.failed;
    du_str_done(&summary);
    return write_event(e, diag);
}

void du_events_close(du_events *e) {
    if (e->fd >= 0) {
        close(e->fd);
    }
    du_free(e->path);
    du_str_done(&e->event);
    du_str_done(&e->record);
    *e = (du_events){.fd = -1};
}

du_err du_events_remove(const char *dir, du_diag *diag) {
    du_names names = {0};
    du_err err = du_dir_names(&names, dir, diag);
    for (size_t i = 0; i < names.n && err == DU_OK; i++) {
        du_sv name = du_sv_of(names.items[i]);
        if (du_sv_starts(name, prefix) && du_sv_ends(name, ".dure")) {
            char *path = du_path_join(dir, names.items[i]);
            err = path ? du_dir_remove(path, diag) : du_fail_nomem(diag, dir);
            du_free(path);
        }
    }
    du_names_done(&names);
    return err;
}
