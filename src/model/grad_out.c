/* The output matrix in training, a few hundred rows at a time. */
#include "model/grad_int.h"

enum {
    OUT_VALUES = 2 << 20, /* logits that exist at once, about */
    OUT_ROWS_MIN = 128,
    OUT_ROWS_MAX = 1024,
};

du_grad_out_plan du_grad_plan_out(const du_hparams *hp, int64_t seq_len) {
    int64_t n = OUT_VALUES / hp->n_vocab;
    n = n < OUT_ROWS_MIN ? OUT_ROWS_MIN : n > OUT_ROWS_MAX ? OUT_ROWS_MAX : n;
    du_grad_out_plan p = {.parts = 1, .n_seqs = 1};
    while (seq_len > p.parts * n) {
        p.parts *= 2;
    }
    while (p.parts == 1 && 2 * p.n_seqs * seq_len <= n) {
        p.n_seqs *= 2;
    }
    p.rows = p.n_seqs * ((seq_len + p.parts - 1) / p.parts);
    return p;
}

typedef struct {
    const du_grad_run *run;
    const float *norm; /* [T,D] */
    du_objective *objective;
    int64_t i;
} head;

/* Logits of rows [row0, row0 + n), the objective, and what follows from its gradient: dy, and the
 * output matrix's. `end` are the rows' leaves. */
static du_err out_rows(const head *h, float *logits, int64_t row0, int64_t n, du_leaves leaves,
                       const int64_t *end) {
    const du_grad_run *r = h->run;
    const du_model *model = r->pass.model;
    const du_mat *w = &model->top.output;
    du_ctx *ctx = r->pass.ctx;
    int64_t V = w->rows, D = w->cols;
    const float *x = h->norm + row0 * D;
    du_linear_out out = {logits, V, w, NULL};
    du_err err = du_linear_train_fwd(ctx, &r->train, &out, 1, x, D, n);
    err = err ? err : h->objective->rows(h->objective, ctx, logits, row0, n, V);
    if (err != DU_OK || !r->backward) {
        return err;
    }
    float *grad = du_sums_grad(&r->train.sums, w->data);
    float **nodes = r->grad->out_nodes[h->i];
    du_sums sums = {leaves, w->data, grad, grad ? V * D : 0, nodes, false};
    if (h->i > 0) {
        sums = du_grad_term_sums(r->grad, DU_TERM_NEXT_OUT, w, grad, leaves, nodes);
    }
    du_train train = {r->train.kind, sums, end};
    err = leaves.last || !grad ? DU_OK : du_sums_take_nodes(nodes, V * D, leaves.first + leaves.n);
    du_linear_grad dout = {logits, V, w, NULL};
    return err ? err
               : du_linear_train_bwd(ctx, &train, &dout, 1, r->dy + row0 * D, D, false, x, D, n);
}

du_err du_grad_out(const du_grad_run *r, const float *norm, du_objective *objective,
                   int64_t i_head) {
    head h = {r, norm, objective, i_head};
    const du_grad_rows *rows = r->pass.rows;
    const du_leaves *leaves = &r->train.sums.leaves;
    du_grad_out_plan p = du_grad_plan_out(&r->pass.model->hp, rows->seq_len);
    int64_t S = rows->seq_len, part = p.rows / p.n_seqs;
    du_arena_mark mark = du_arena_get_mark(r->pass.ctx->scratch);
    float *logits = DU_SCRATCH(r->pass.ctx, float, p.rows * r->pass.model->hp.n_vocab);
    int64_t *end = DU_SCRATCH(r->pass.ctx, int64_t, p.n_seqs);
    du_err err = logits && end ? DU_OK : DU_ENOMEM;
    for (int64_t s = 0; s < rows->n_seq && err == DU_OK; s += p.n_seqs) {
        int64_t n_seqs = s + p.n_seqs < rows->n_seq ? p.n_seqs : rows->n_seq - s;
        for (int64_t i = 0; i < p.parts && err == DU_OK; i++) {
            int64_t row0 = i * part < S ? i * part : S, row1 = row0 + part < S ? row0 + part : S;
            int64_t n = n_seqs == 1 ? row1 - row0 : n_seqs * S;
            for (int64_t k = 0; k < n_seqs; k++) {
                end[k] = n_seqs == 1 ? n : (k + 1) * S;
            }
            bool last = leaves->last && s + n_seqs == rows->n_seq && i + 1 == p.parts;
            du_leaves of_out = {(leaves->first + s) * p.parts + i, n_seqs, last};
            err = out_rows(&h, logits, s * S + row0, n, of_out, end);
        }
    }
    du_arena_release(r->pass.ctx->scratch, mark);
    return err;
}
