/* Saving and restoring a session.
 *
 *     offset  bytes
 *     0       8     "DUREKV01"
 *     8       8     number of tokens n, u64 (little-endian, as everything here)
 *     16      8     hash of the model's shape and the cache's layout (FNV-1a)
 *     24      8     hash of all that follows
 *     32      4*n   token ids, i32
 *     then          pages in order, whole: ceil(n / DU_KV_PAGE) of them; rows of the last one that
 *                   belong to no token are zero, since they may hold what another session left
 *
 * A page's bytes mean something only for the same model and cache type, which the first hash pins;
 * the second finds damage. */
#include "base/file.h"
#include "base/hash.h"
#include "base/reader.h"
#include "infer/infer_int.h"
#include "infer/session.h"

static const char magic[8] = "DUREKV01";
enum { HEADER_BYTES = 32 };

static uint64_t fnv1a(uint64_t h, const void *bytes, size_t n) {
    const uint8_t *p = bytes;
    for (size_t i = 0; i < n; i++) {
        h = (h ^ p[i]) * 0x100000001b3u;
    }
    return h;
}

static uint64_t shape_hash(const du_infer *inf) {
    const du_hparams *hp = &inf->model->hp;
    const du_kv_layout *kv = &inf->kv;
    const int64_t shape[] = {hp->n_layer, hp->n_vocab,   hp->d_model,
                             hp->n_head,  hp->n_head_kv, hp->kv_rank,
                             hp->d_ff,    kv->dtype,     kv->n_head,
                             kv->k_dim,   kv->v_dim,     kv->n_layer,
                             kv->latent,  DU_KV_PAGE,    du_weights_file_bytes(inf->model->files)};
    uint64_t h = fnv1a(0xcbf29ce484222325u, inf->model->arch->name, strlen(inf->model->arch->name));
    return fnv1a(h, shape, sizeof shape);
}

/* Clears the rows of a page from position `used` on. */
static void clear_rows(const du_kv_layout *kv, uint8_t *page, int64_t used) {
    size_t at = (size_t)used, n = DU_KV_PAGE - at;
    for (int64_t layer = 0; layer < kv->n_layer; layer++) {
        for (int64_t g = 0; g < kv->n_head; g++) {
            memset(du_kv_k(kv, page, layer, g) + at * kv->k_row_bytes, 0, n * kv->k_row_bytes);
            memset(du_kv_v(kv, page, layer, g) + at * kv->v_row_bytes, 0, n * kv->v_row_bytes);
        }
    }
}

/* Writes tokens and pages; last is the copy of the last page. */
static du_err write_file(const du_session *s, const uint8_t *last, const char *path,
                         du_diag *diag) {
    size_t page_bytes = s->inf->kv.page_bytes, n_tokens = (size_t)s->n * sizeof *s->tokens;
    int64_t n_pages = du_pages_for(s->n);
    uint64_t head[3] = {(uint64_t)s->n, shape_hash(s->inf), fnv1a(0, s->tokens, n_tokens)};
    for (int64_t i = 0; i < n_pages; i++) {
        head[2] = du_checksum(head[2], i + 1 < n_pages ? s->seq.pages[i] : last, page_bytes);
    }
    du_writer *w;
    du_err err = du_writer_open(&w, path, diag);
    if (err != DU_OK) {
        return err;
    }
    du_write(w, magic, sizeof magic);
    du_write(w, head, sizeof head);
    du_write(w, s->tokens, n_tokens);
    for (int64_t i = 0; i < n_pages && !du_writer_failed(w); i++) {
        du_write(w, i + 1 < n_pages ? s->seq.pages[i] : last, page_bytes);
    }
    err = du_writer_commit(w, diag);
    du_writer_close(w);
    return err;
}

du_err du_session_save(const du_session *s, const char *path, du_diag *diag) {
    const du_kv_layout *kv = &s->inf->kv;
    uint8_t *last = du_alloc(kv->page_bytes);
    if (!last) {
        return du_fail_nomem(diag, path);
    }
    int64_t n_full = s->n / DU_KV_PAGE;
    if (du_pages_for(s->n) > n_full) {
        memcpy(last, s->seq.pages[n_full], kv->page_bytes);
        clear_rows(kv, last, s->n % DU_KV_PAGE);
    } else if (n_full > 0) {
        memcpy(last, s->seq.pages[n_full - 1], kv->page_bytes);
    }
    du_err err = write_file(s, last, path, diag);
    du_free(last);
    return err;
}

/* Checks everything but the contents of the pages' numbers. */
static du_err check(const du_session *s, const char *path, const du_map *map, uint64_t *n_out,
                    du_diag *diag) {
    du_reader r = du_reader_of(map->data, map->len);
    const uint8_t *start = du_read_bytes(&r, sizeof magic);
    uint64_t n = du_read_u64(&r), shape = du_read_u64(&r), hash = du_read_u64(&r);
    if (!start || memcmp(start, magic, sizeof magic) != 0 || r.bad) {
        return du_fail(diag, DU_EFORMAT, "%s: not a saved session", path);
    }
    if (shape != shape_hash(s->inf)) {
        return du_fail(diag, DU_EFORMAT,
                       "%s: saved with another model or --cache-type: start without it", path);
    }
    if (n > (uint64_t)s->inf->n_ctx) {
        return du_fail(diag, DU_ELIMIT, "%s: holds %llu tokens, the context is %lld (-c)", path,
                       (unsigned long long)n, (long long)s->inf->n_ctx);
    }
    size_t page_bytes = s->inf->kv.page_bytes, n_pages = (size_t)du_pages_for((int64_t)n);
    const uint8_t *tokens = du_read_bytes(&r, (size_t)n * sizeof(int32_t));
    const uint8_t *pages = du_read_bytes(&r, n_pages * page_bytes);
    if (r.bad || du_reader_left(&r) != 0 ||
        hash != du_checksum(fnv1a(0, tokens, (size_t)n * sizeof(int32_t)), pages,
                            n_pages * page_bytes)) {
        return du_fail(diag, DU_EFORMAT, "%s: the saved session is damaged", path);
    }
    for (uint64_t i = 0; i < n; i++) {
        int32_t id;
        memcpy(&id, tokens + i * sizeof id, sizeof id);
        if (id < 0 || id >= s->inf->model->hp.n_vocab) {
            return du_fail(diag, DU_EFORMAT, "%s: the saved session is damaged", path);
        }
    }
    *n_out = n;
    return DU_OK;
}

du_err du_session_restore(du_session *s, const char *path, du_diag *diag) {
    du_map map;
    du_err err = du_map_open(&map, path, diag);
    if (err != DU_OK) {
        return err;
    }
    uint64_t n = 0;
    err = check(s, path, &map, &n, diag);
    if (err == DU_OK) {
        du_session_truncate(s, 0);
        err = du_session_reserve(s, (int64_t)n, diag);
    }
    if (err == DU_OK) {
        const uint8_t *at = map.data + HEADER_BYTES;
        memcpy(s->tokens, at, (size_t)n * sizeof *s->tokens);
        at += (size_t)n * sizeof *s->tokens;
        for (int64_t i = 0; i < du_pages_for((int64_t)n); i++) {
            memcpy(s->seq.pages[i], at, s->inf->kv.page_bytes);
            at += s->inf->kv.page_bytes;
        }
        s->n = (int64_t)n;
    }
    du_map_close(&map);
    return err;
}
