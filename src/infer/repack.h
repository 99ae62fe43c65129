/* Which layout of the weights a runner reads: where repacked ones lie, and whether there is memory
 * for them. What they are is kern/strips.h; room and files are model/strips.h. */
#ifndef DU_INFER_REPACK_H
#define DU_INFER_REPACK_H

#include "model/strips.h"

/* In which layout block-quantised weights are read. */
typedef enum {
    DU_REPACK_AUTO, /* as this machine likes it best, written in memory by the first steps, if
                       memory is ample */
    DU_REPACK_OFF,  /* as they lie in the file */
    DU_REPACK_CACHE /* as this machine likes it best, in a file beside the model (model/strips.h),
                       which is written where there is no valid one; where it cannot be, as auto */
} du_repack;

/* What happens to that file. */
typedef struct {
    void (*note)(void *user, const char *text); /* a line for people; NULL: nobody reads it */
    du_strips_progress_fn *progress;            /* of writing it, to the last byte; may be NULL */
    void *user;
} du_repack_watch;

/* Is memory ample enough for repacked weights? They and the cache take at most three quarters of
 * what is free, as what they are made from stays there, as the file's pages, until the system wants
 * the room. available <= 0: unknown. */
bool du_repack_fits(size_t strips_bytes, int64_t cache_bytes, int64_t available);

typedef struct {
    const du_kern *kern;
    du_repack how;
    du_repack_watch watch;
    du_pool *pool;       /* to write the file with; may be NULL */
    int64_t cache_bytes; /* of memory that the key/value cache will take at least */
    int64_t available;   /* bytes of memory that are free; <= 0: unknown */
} du_repack_wish;

typedef struct {
    bool strips;   /* products may use strips */
    int64_t taken; /* bytes of memory that steps will fill with weights */
} du_repack_choice;

/* Gives the weights the layout that is wished for. Where that cannot be, a note says so, and they
 * are used as they lie. */
du_repack_choice du_repack_choose(const du_model *model, const du_repack_wish *wish);

#endif
