#include "train/batch_split.h"

#include "base/mem.h"
#include "train/schedule.h"

void du_batch_split_done(du_batch_split *s) {
    du_free(s->spans);
    *s = (du_batch_split){0};
}

/* How many leaves are computed together among ranks: the largest power of two that is not more than
 * batch_seqs and divides where parts begin and end, in the step and in the data. */
static int64_t leaves_together(int64_t batch_seqs, int64_t before, int64_t n, int64_t per_rank) {
    int64_t together = per_rank;
    while (together > batch_seqs || n % together != 0 || before % together != 0) {
        together /= 2;
    }
    return together;
}

/* The leaves of rank r; of round i where experts are spread. */
static du_span span_of(const du_batch_split *s, int64_t i, int64_t r) {
    int64_t first = (i * du_ranks_n(s->ranks) + r) * s->per_rank, end = first + s->per_rank;
    return (du_span){first < s->n ? first : s->n, end < s->n ? end : s->n};
}

void du_batch_split_set(du_batch_split *s, int64_t before, int64_t n) {
    int64_t n_ranks = du_ranks_n(s->ranks), rank = du_ranks_rank(s->ranks), per_rank = 1;
    while (per_rank * n_ranks < n) {
        per_rank *= 2;
    }
    s->before = before;
    s->n = n;
    s->n_seq = s->ranks ? leaves_together(s->batch_seqs, before, n, per_rank) : s->batch_seqs;
    s->per_rank = s->spread ? s->n_seq : per_rank;
    du_span own = span_of(s, 0, rank);
    s->first = own.first;
    s->end = s->spread ? n : own.end;
    s->step = s->spread ? s->n_seq * n_ranks : s->n_seq;
    s->n_rounds = ((s->spread ? n : own.end - own.first) + s->step - 1) / s->step;
}

du_leaves du_batch_split_round(const du_batch_split *s, int64_t i) {
    int64_t n = s->spread ? s->end : s->end - s->first, first = i * s->step;
    int64_t end = first + s->step < n ? first + s->step : n;
    return (du_leaves){first, end - first, end == n};
}

du_leaves du_batch_split_nodes(const du_batch_split *s, int64_t i) {
    if (!s->spread) {
        return (du_leaves){0, (s->n + s->per_rank - 1) / s->per_rank, true};
    }
    du_leaves round = du_batch_split_round(s, i);
    return (du_leaves){round.first / s->n_seq, round.n / s->n_seq, round.last};
}

const du_span *du_batch_split_spans(const du_batch_split *s, int64_t i) {
    for (int64_t r = 0; r < du_ranks_n(s->ranks); r++) {
        s->spans[r] = span_of(s, i, r);
    }
    return s->spans;
}

static void take_most(du_batch_split *s, int64_t before, int64_t n) {
    du_batch_split_set(s, before, n);
    du_span first = span_of(s, 0, 0); /* no rank has more */
    int64_t n_rounds = s->spread ? s->n_rounds : (first.end - first.first) / s->n_seq;
    s->n_seq_max = s->n_seq > s->n_seq_max ? s->n_seq : s->n_seq_max;
    s->n_rounds_max = n_rounds > s->n_rounds_max ? n_rounds : s->n_rounds_max;
}

/* Steps behind those that grow are alike: what precedes them differs by whole ones. */
static void find_most(du_batch_split *s, const du_train_config *config) {
    int64_t before = 0;
    for (int64_t i = 1; i <= config->schedule.batch_steps + 1; i++) {
        int64_t n = du_schedule_micros(config, i) * config->batch_seqs;
        take_most(s, before, n);
        before += n;
    }
    take_most(s, 0, s->n_max); /* a step without schedules */
}

du_err du_batch_split_init(du_batch_split *s, const du_train_config *config, du_ranks *ranks,
                           du_diag *diag) {
    *s = (du_batch_split){.ranks = ranks,
                          .spread = config->ranks.experts == DU_EXPERTS_SPREAD && ranks,
                          .batch_seqs = config->batch_seqs,
                          .n_max = config->accumulate * config->batch_seqs};
    s->spans = du_alloc_array((size_t)du_ranks_n(ranks), sizeof *s->spans);
    if (!s->spans) {
        return du_fail_nomem(diag, "the trainer");
    }
    find_most(s, config);
    du_batch_split_set(s, 0, s->n_max);
    return DU_OK;
}
