/* Writing GGUF version 3: declare keys and tensors, then stream the tensors' bytes in order.
 *
 *     du_gguf_writer_new(&w, diag);
 *     du_gguf_put_str(w, "general.architecture", du_sv_of("llama"));
 *     du_gguf_put_tensor(w, "token_embd.weight", DU_F16, 2, dims);
 *     du_gguf_writer_begin(w, path, diag);
 *     du_gguf_write(w, bytes, n);            as often as needed; padding is put in between
 *     du_gguf_writer_commit(w, diag);
 *     du_gguf_writer_close(w);
 *
 * Only the declarations are held in memory. The final name appears with the commit. */
#ifndef DU_FORMATS_GGUF_WRITE_H
#define DU_FORMATS_GGUF_WRITE_H

#include "formats/gguf.h"

typedef struct du_gguf_writer du_gguf_writer;

/* Returns DU_OK, DU_ENOMEM. Free with du_gguf_writer_close. */
DU_NODISCARD
du_err du_gguf_writer_new(du_gguf_writer **out, du_diag *diag);

/* Keys, written in the order of their first put; a key put again takes the new value. Names, texts
 * and values are copied. Failures (memory, a limit of gguf.h, general.alignment, which is the
 * writer's own) are sticky and told by _begin. */
void du_gguf_put_u32(du_gguf_writer *w, const char *key, uint32_t value);
void du_gguf_put_i32(du_gguf_writer *w, const char *key, int32_t value);
void du_gguf_put_u64(du_gguf_writer *w, const char *key, uint64_t value);
void du_gguf_put_f32(du_gguf_writer *w, const char *key, float value);
void du_gguf_put_bool(du_gguf_writer *w, const char *key, bool value);
void du_gguf_put_str(du_gguf_writer *w, const char *key, du_sv value);
void du_gguf_put_strs(du_gguf_writer *w, const char *key, const du_sv *values, int64_t n);

/* One value or an array of any type of fixed size; values as C holds them (bool: one byte each). */
void du_gguf_put_value(du_gguf_writer *w, const char *key, du_gguf_type type, const void *value);
void du_gguf_put_array(du_gguf_writer *w, const char *key, du_gguf_type type, const void *values,
                       int64_t n);

/* A key as another file has it. Those that describe that file and not its model (general.alignment,
 * split.*) are left out. */
void du_gguf_put_kv(du_gguf_writer *w, const du_gguf_kv *kv);

/* Takes a key away again; nothing where it is absent. */
void du_gguf_drop(du_gguf_writer *w, const char *key);

/* Declares the next tensor. name at most 63 bytes; dims fastest first; dtype one that GGUF has,
 * dims[0] a multiple of its block. Failures are sticky, told by _begin. */
void du_gguf_put_tensor(du_gguf_writer *w, const char *name, du_dtype dtype, int32_t n_dims,
                        const int64_t *dims);

/* Bytes the file will have, with what is declared so far. */
int64_t du_gguf_writer_bytes(const du_gguf_writer *w);

/* Opens the temporary file beside path and writes everything before the tensors' data.
 * Returns DU_OK, DU_EINVAL (a declaration that is no GGUF: duplicate or overlong name, shape,
 * type), DU_EIO, DU_ENOMEM. */
DU_NODISCARD
du_err du_gguf_writer_begin(du_gguf_writer *w, const char *path, du_diag *diag);

/* The next n bytes of tensor data, in the order of declaration; may cross tensors. Failures are
 * sticky and told by _commit. */
void du_gguf_write(du_gguf_writer *w, const void *bytes, size_t n);
bool du_gguf_writer_failed(const du_gguf_writer *w); /* to stop long work early */

/* Returns DU_OK, DU_EINVAL (fewer or more bytes than declared), DU_EIO. */
DU_NODISCARD
du_err du_gguf_writer_commit(du_gguf_writer *w, du_diag *diag);
void du_gguf_writer_close(du_gguf_writer *w); /* takes NULL; without a commit nothing remains */

#endif
