#include "train/metrics.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"

static const char file_name[] = "metrics.jsonl";

bool du_metrics_exist(const char *dir) {
    char *path = du_path_join(dir, file_name);
    struct stat st;
    bool exist = path && stat(path, &st) == 0 && st.st_size > 0;
    du_free(path);
    return exist;
}

/* The step of a line; 0: it is none of ours. */
static int64_t step_of(du_sv line) {
    json_t *json = NULL;
    if (du_json_parse(&json, line.s, line.len, file_name, NULL) != DU_OK) {
        return 0;
    }
    int64_t step = json_integer_value(json_object_get(json, "step"));
    json_decref(json);
    return step;
}

/* Bytes of the lines that ascend to at most that step. */
static int64_t bytes_until(const du_map *map, int64_t step) {
    du_sv rest = {(const char *)map->data, map->len};
    int64_t last = 0, n_bytes = 0;
    for (;;) {
        int64_t end = du_sv_find(rest, du_sv_of("\n"), 0);
        int64_t at = end < 0 ? 0 : step_of((du_sv){rest.s, (size_t)end});
        if (at <= last || at > step) {
            return n_bytes;
        }
        last = at;
        n_bytes += end + 1;
        rest = (du_sv){rest.s + end + 1, rest.len - (size_t)end - 1};
    }
}

du_err du_metrics_open(du_metrics_file *out, const char *dir, int64_t step, du_diag *diag) {
    *out = (du_metrics_file){.fd = -1, .path = du_path_join(dir, file_name)};
    if (!out->path) {
        return du_fail_nomem(diag, file_name);
    }
    out->fd = open(out->path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    if (out->fd < 0) {
        return du_fail_errno(diag, out->path, "open it", errno);
    }
    du_map map;
    du_err err = du_map_open(&map, out->path, diag);
    if (err == DU_OK) {
        out->n_bytes = bytes_until(&map, step);
        du_map_close(&map);
        if (ftruncate(out->fd, out->n_bytes) != 0) {
            err = du_fail_errno(diag, out->path, "cut it", errno);
        }
    }
    return err;
}

static void add_i64(du_str *s, const char *key, int64_t v) {
    du_str_addf(s, "%s\"%s\":%lld", s->len > 1 ? "," : "", key, (long long)v);
}

static void add_f64(du_str *s, const char *key, double v) {
    if (isfinite(v)) {
        du_str_addf(s, ",\"%s\":", key);
        du_str_add_f64(s, v);
    }
}

static void add_line(du_str *s, const du_metrics *m) {
    du_str_add_c(s, '{');
    add_i64(s, "step", m->step);
    add_f64(s, "loss", m->loss);
    add_f64(s, "grad_norm", m->grad_norm);
    add_f64(s, "lr", m->lr);
    add_i64(s, "tokens", m->tokens);
    add_f64(s, "tok_s", m->tok_s);
    if (m->products > 0) {
        add_f64(s, "products", m->products);
    }
    if (m->peak > 0) {
        add_f64(s, "peak", m->peak);
    }
    add_f64(s, "balance", m->balance);
    add_f64(s, "mtp_loss", m->mtp);
    add_f64(s, "overload", m->overload);
    add_f64(s, "validation", m->validation);
    du_str_add_s(s, "}\n");
}

/* The bytes behind the whole lines; what a failure leaves of them is cut off. */
static bool write_all(du_metrics_file *file, const char *bytes, size_t n) {
    int64_t at = file->n_bytes;
    while (n > 0) {
        ssize_t put = pwrite(file->fd, bytes, n, at);
        if (put < 0 && errno == EINTR) {
            continue;
        }
        if (put <= 0) {
            int code = put < 0 ? errno : ENOSPC;
            (void)!ftruncate(file->fd, file->n_bytes);
            errno = code;
            return false;
        }
        bytes += put;
        n -= (size_t)put;
        at += put;
    }
    file->n_bytes = at;
    return true;
}

du_err du_metrics_add(du_metrics_file *file, const du_metrics *m, du_diag *diag) {
    du_str_reset(&file->line);
    add_line(&file->line, m);
    if (file->line.failed) {
        return du_fail_nomem(diag, file_name);
    }
    return write_all(file, file->line.data, file->line.len)
               ? DU_OK
               : du_fail_errno(diag, file->path, "write it", errno);
}

du_err du_metrics_sync(du_metrics_file *file, du_diag *diag) {
    return fsync(file->fd) == 0 || errno == EINVAL
               ? DU_OK
               : du_fail_errno(diag, file->path, "sync it", errno);
}

void du_metrics_close(du_metrics_file *file) {
    if (file->fd >= 0) {
        close(file->fd);
    }
    du_free(file->path);
    du_str_done(&file->line);
    *file = (du_metrics_file){.fd = -1};
}
