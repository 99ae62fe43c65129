/* Strips in a file beside the model.
 *
 *     offset  bytes
 *     0       8     "DURESTRP"
 *     8       4     version of the layout, DU_STRIPS_VERSION (little-endian, as everything here)
 *     12      4     bytes of the header
 *     16      8     checksum of the header from here on
 *     24      24    what the model's files were: bytes, when written, checksum of contents
 *     48      8     number types with strips here: bit i is GGUF's type i
 *     56      8     number of matrices n
 *     64      32*n  per matrix its GGUF type, 0, rows and columns, and where its strips begin
 *
 * then zeros up to a multiple of 4096, and the strips.
 *
 * All matrices of a type are there or none, in the order of the model's weight table, each right
 * behind the one before. So two things say what a whole file looks like: the model, and the set of
 * types. The reader takes the set from the file, makes the header anew, and wants every byte of it
 * to be the same; no other number of the file is used. Codes and scales need no check: any bytes
 * are some weights. A file may have more types than this level of kernels wants.
 *
 * The stamp of the model (du_gguf_stamp) changes with every write to its files, so that a model
 * that was trained on and saved under the same name is not mistaken for the old one. */
#include "base/hash.h"
#include "base/reader.h"
#include "kern/strips.h"
#include "model/strips_int.h"

static const char magic[8] = "DURESTRP";
enum { HEADER_BYTES = 64, ENTRY_BYTES = 32, SUMMED_FROM = 24, DATA_ALIGN = 4096 };

du_err du_model_strips_path(char **out, const du_model *model, du_diag *diag) {
    const du_gguf *g = du_weights_gguf(model->files);
    du_gguf_stamp stamp;
    if (!g || !du_gguf_get_stamp(g, &stamp)) {
        return du_fail(diag, DU_ENOENT, "%s: lies in no file: there is no place beside it",
                       du_weights_path(model->files));
    }
    du_str path = {0};
    du_str_addf(&path, "%s.strips", du_gguf_path(g));
    *out = path.failed ? NULL : du_str_take(&path);
    du_str_done(&path);
    return *out ? DU_OK : du_fail_nomem(diag, "a path");
}

static uint64_t type_bit(du_dtype dtype) {
    return (uint64_t)1 << du_dtype_get(dtype)->gguf_id;
}

typedef struct {
    const du_kern *kern;
    uint64_t types;
} wanted_types;

static void want_type(void *user, du_mat *m) {
    wanted_types *wanted = user;
    if (wanted->kern->mm_strips[m->dtype]) {
        wanted->types |= type_bit(m->dtype);
    }
}

static uint64_t types_wanted(const du_model *model, const du_kern *kern) {
    wanted_types wanted = {.kern = kern};
    du_strips_visit(model, want_type, &wanted);
    return wanted.types;
}

/* What a file with the strips of some types looks like. */
typedef struct {
    uint64_t types, found; /* asked for, and of these what the model has */
    uint8_t *header;       /* [header_bytes], free with du_free */
    size_t header_bytes;
    size_t n_bytes; /* of the whole file; while it is laid out: up to the next matrix */
    size_t n_strip; /* of the largest strip */
    int64_t n;
} plan;

static void count_entry(void *user, du_mat *m) {
    plan *p = user;
    uint64_t type = p->types & type_bit(m->dtype);
    p->found |= type;
    p->n += type != 0;
}

static void put(uint8_t **at, const void *bytes, size_t n) {
    memcpy(*at, bytes, n);
    *at += n;
}

static void put_entry(void *user, du_mat *m) {
    plan *p = user;
    if (!(p->types & type_bit(m->dtype))) {
        return;
    }
    uint32_t type[2] = {(uint32_t)du_dtype_get(m->dtype)->gguf_id, 0};
    uint64_t numbers[3] = {(uint64_t)m->rows, (uint64_t)m->cols, p->n_bytes};
    size_t strip = du_strip_bytes(m->dtype, m->cols);
    uint8_t *at = p->header + HEADER_BYTES + (size_t)p->n * ENTRY_BYTES;
    put(&at, type, sizeof type);
    put(&at, numbers, sizeof numbers);
    p->n++;
    p->n_bytes += du_strips_bytes(m);
    p->n_strip = strip > p->n_strip ? strip : p->n_strip;
}

static du_err plan_init(plan *p, const du_model *model, uint64_t types, du_diag *diag) {
    const du_gguf *g = du_weights_gguf(model->files);
    du_gguf_stamp stamp;
    *p = (plan){.types = types};
    if (!g || !du_gguf_get_stamp(g, &stamp)) {
        return du_fail(diag, DU_ENOENT, "%s is no GGUF file", du_weights_path(model->files));
    }
    du_strips_visit(model, count_entry, p);
    p->header_bytes = HEADER_BYTES + (size_t)p->n * ENTRY_BYTES;
    p->n_bytes = (p->header_bytes + DATA_ALIGN - 1) / DATA_ALIGN * DATA_ALIGN;
    p->header = du_alloc(p->header_bytes);
    if (!p->header) {
        return du_fail_nomem(diag, "a list of matrices");
    }
    uint32_t sizes[2] = {DU_STRIPS_VERSION, (uint32_t)p->header_bytes};
    uint64_t numbers[5] = {stamp.n_bytes, stamp.changed, stamp.contents, p->found, (uint64_t)p->n};
    p->n = 0;
    du_strips_visit(model, put_entry, p);
    uint8_t *at = p->header;
    put(&at, magic, sizeof magic);
    put(&at, sizes, sizeof sizes);
    at += sizeof(uint64_t);
    put(&at, numbers, sizeof numbers);
    uint64_t sum = du_checksum(0, p->header + SUMMED_FROM, p->header_bytes - SUMMED_FROM);
    memcpy(p->header + SUMMED_FROM - sizeof sum, &sum, sizeof sum);
    return DU_OK;
}

/* What can be said of a file before its model is looked at; *types out. */
static du_err check_self(uint64_t *types, const du_map *map, du_diag *diag) {
    du_reader r = du_reader_of(map->data, map->len);
    size_t n = map->len < sizeof magic ? map->len : sizeof magic;
    if (n > 0 && memcmp(map->data, magic, n) != 0) {
        return du_fail(diag, DU_EEXIST, "it does not hold repacked weights");
    }
    (void)du_read_bytes(&r, sizeof magic);
    uint32_t version = du_read_u32(&r), header_bytes = du_read_u32(&r);
    uint64_t sum = du_read_u64(&r);
    if (!r.bad && version != DU_STRIPS_VERSION) {
        return du_fail(diag, DU_EFORMAT, "it has version %u, this program writes %d", version,
                       DU_STRIPS_VERSION);
    }
    if (r.bad || map->len < HEADER_BYTES || header_bytes > map->len) {
        return du_fail(diag, DU_EFORMAT, "it is cut off");
    }
    if (header_bytes < HEADER_BYTES ||
        du_checksum(0, map->data + SUMMED_FROM, header_bytes - SUMMED_FROM) != sum) {
        return du_fail(diag, DU_EFORMAT, "its header is damaged");
    }
    r.pos = SUMMED_FROM + sizeof(du_gguf_stamp);
    *types = du_read_u64(&r);
    return DU_OK;
}

/* Compares a file, which is whole as far as it can tell itself, with what is expected. */
static du_err check_model(const du_map *map, const plan *want, du_diag *diag) {
    uint64_t got[3], now[3]; /* n_bytes, changed, contents */
    memcpy(got, map->data + SUMMED_FROM, sizeof got);
    memcpy(now, want->header + SUMMED_FROM, sizeof now);
    if (got[0] != now[0] || got[2] != now[2]) {
        return du_fail(diag, DU_EFORMAT, "it was made from another model");
    }
    if (got[1] != now[1]) {
        return du_fail(diag, DU_EFORMAT, "the model's file was written since");
    }
    if (map->len < want->header_bytes || memcmp(map->data, want->header, want->header_bytes) != 0) {
        return du_fail(diag, DU_EFORMAT, "its list is not that of the model's matrices");
    }
    if (map->len != want->n_bytes) {
        return du_fail(diag, DU_EFORMAT, "it has %zu bytes, not %zu", map->len, want->n_bytes);
    }
    return DU_OK;
}

typedef struct {
    uint64_t types;
    const uint8_t *at;
} placing;

static void place_mapped(void *user, du_mat *m) {
    placing *p = user;
    if (p->types & type_bit(m->dtype)) {
        m->strips->data = (uint8_t *)(uintptr_t)p->at; /* written strips are only read */
        m->strips->state = DU_STRIPS_READY;
        p->at += du_strips_bytes(m);
    }
}

/* Under the lock. Takes over the map when it succeeds. */
static du_err use_map(const du_model *model, const du_kern *kern, const du_map *map,
                      du_diag *diag) {
    uint64_t types = 0;
    plan want = {0};
    du_err err = check_self(&types, map, diag);
    err = err ? err : plan_init(&want, model, types, diag);
    err = err ? err : check_model(map, &want, diag);
    if (err == DU_OK && (types_wanted(model, kern) & ~types) != 0) {
        err = du_fail(diag, DU_EFORMAT, "it lacks weights that the level %s wants repacked",
                      du_isa_name(kern->isa));
    }
    if (err == DU_OK) {
        size_t data_at = (want.header_bytes + DATA_ALIGN - 1) / DATA_ALIGN * DATA_ALIGN;
        placing p = {types, map->data + data_at};
        du_strips_visit(model, place_mapped, &p);
        model->strips->map = *map;
    }
    du_free(want.header);
    return err;
}

du_err du_model_strips_map(const du_model *model, const du_kern *kern, const char *path,
                           du_diag *diag) {
    struct du_model_strips *s = model->strips;
    du_map map = {0};
    du_err err = DU_OK;
    pthread_mutex_lock(&s->lock);
    if (!du_strips_placed(s)) {
        err = du_map_open(&map, path, diag);
        if (err == DU_OK) {
            err = use_map(model, kern, &map, diag);
            du_diag_context(diag, "%s", path);
        }
    }
    pthread_mutex_unlock(&s->lock);
    if (err != DU_OK) {
        du_map_close(&map);
    }
    return err;
}

/* Strips are written in memory, a batch of rows of any matrices at a time, and go from there to the
 * file in order. */
enum { BATCH_BYTES = 32 << 20, UNIT_BYTES = 256 << 10, BATCH_UNITS = 1024 };

typedef struct {
    const du_model *model;
    const du_kern *kern;
    du_pool *pool;
    du_writer *w;
    const plan *plan;
    du_strips_progress_fn *progress;
    void *user;
    uint8_t *buffer;
    size_t size, used; /* bytes of the buffer */
    struct {
        du_mat rows; /* of some matrix, with strips in the buffer */
        du_strips strips;
    } units[BATCH_UNITS];
    int64_t n;
} batch;

static void write_unit(void *arg, int64_t i_task, int64_t i_thread) {
    (void)i_thread;
    batch *b = arg;
    b->kern->strips_write(&b->units[i_task].rows, 0, b->units[i_task].rows.rows);
}

static void batch_flush(batch *b) {
    memset(b->buffer, 0, b->used); /* what is between scales and codes */
    du_pool_run(b->pool, write_unit, b, b->n);
    du_write(b->w, b->buffer, b->used);
    for (int64_t i = 0; i < b->n; i++) {
        const du_mat *m = &b->units[i].rows;
        du_weights_unload(b->model->files, m->data, (size_t)m->rows * m->row_bytes);
    }
    b->n = 0;
    b->used = 0;
    if (b->progress) {
        b->progress(b->user, du_writer_pos(b->w), (int64_t)b->plan->n_bytes);
    }
}

static void batch_add(void *user, du_mat *m) {
    batch *b = user;
    if (!(b->plan->types & type_bit(m->dtype))) {
        return;
    }
    size_t strip = du_strip_bytes(m->dtype, m->cols);
    int64_t step =
        strip < UNIT_BYTES ? (int64_t)(UNIT_BYTES / strip) * DU_STRIP_ROWS : (int64_t)DU_STRIP_ROWS;
    for (int64_t row0 = 0; row0 < m->rows && !du_writer_failed(b->w); row0 += step) {
        du_mat rows = du_mat_slice(m, row0, row0 + step < m->rows ? step : m->rows - row0);
        size_t n_bytes = du_strips_bytes(&rows);
        if (b->n == BATCH_UNITS || n_bytes > b->size - b->used) {
            batch_flush(b);
        }
        b->units[b->n].rows = rows;
        b->units[b->n].rows.strips = &b->units[b->n].strips;
        b->units[b->n].strips.data = b->buffer + b->used;
        b->used += n_bytes;
        b->n++;
    }
}

static du_err write_file(batch *b, const char *path, du_diag *diag) {
    const plan *p = b->plan;
    du_err err = du_writer_open(&b->w, path, diag);
    if (err != DU_OK) {
        return err;
    }
    du_writer_allow_as(b->w, du_gguf_path(du_weights_gguf(b->model->files)));
    du_writer_reserve(b->w, (int64_t)p->n_bytes);
    du_write(b->w, p->header, p->header_bytes);
    du_write_zeros(b->w, -p->header_bytes % DATA_ALIGN);
    du_strips_visit(b->model, batch_add, b);
    batch_flush(b);
    err = du_writer_commit(b->w, diag);
    du_writer_close(b->w);
    return err;
}

du_err du_model_strips_save(const du_model *model, const du_kern *kern, const char *path,
                            du_pool *pool, du_strips_progress_fn *progress, void *user,
                            du_diag *diag) {
    plan p;
    batch *b = NULL;
    du_err err = plan_init(&p, model, types_wanted(model, kern), diag);
    if (err == DU_OK) {
        b = du_alloc_zero(1, sizeof *b);
        err = b ? DU_OK : du_fail_nomem(diag, "the repacked weights");
    }
    if (err == DU_OK) {
        b->model = model;
        b->kern = kern;
        b->pool = pool;
        b->plan = &p;
        b->progress = progress;
        b->user = user;
        b->size = p.n_strip > BATCH_BYTES ? p.n_strip : BATCH_BYTES;
        b->buffer = du_alloc_aligned(b->size);
        err = b->buffer ? write_file(b, path, diag) : du_fail_nomem(diag, "the repacked weights");
    }
    if (b) {
        du_free(b->buffer);
    }
    du_free(b);
    du_free(p.header);
    return err;
}
