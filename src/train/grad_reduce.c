#include "train/grad_reduce.h"

void du_grad_reduce_done(du_grad_reduce *r) {
    if (!r->grad) {
        return;
    }
    du_grad_parts parts = du_grad_get_parts(r->grad);
    for (int64_t l = 0; l < DU_LEAF_LEVELS; l++) {
        du_mem_unreserve(r->wait[l], (size_t)r->n_values * sizeof(float));
        for (int64_t i = 0; i < parts.n_terms; i++) {
            du_mem_unreserve(r->term_wait[i][l], (size_t)parts.terms[i].n * sizeof(float));
        }
    }
    *r = (du_grad_reduce){0};
}

/* The span of a term that lies in a span of all gradients, by numbers of the term. */
static du_span in_term(const du_grad_term *term, du_span of) {
    return du_span_common((du_span){of.first - term->offset, of.end - term->offset},
                          (du_span){0, term->n});
}

/* Room for what waits behind so many nodes. */
static du_err take_waiting(du_grad_reduce *r, const du_grad_parts *parts, int64_t n_nodes) {
    du_err err = du_sums_take_nodes(r->wait, r->n_values, n_nodes);
    for (int64_t i = 0; i < parts->n_terms && err == DU_OK; i++) {
        err = du_sums_take_nodes(r->term_wait[i], parts->terms[i].n, n_nodes);
    }
    return err;
}

static du_err add(du_ctx *ctx, du_grad_reduce *r, du_leaves nodes, du_diag *diag) {
    int64_t n = du_ranks_n(r->ranks), rank = du_ranks_rank(r->ranks);
    du_grad_parts parts = du_grad_get_parts(r->grad);
    du_span *of_term = DU_SCRATCH(ctx, du_span, n);
    du_err err = of_term ? DU_OK : DU_ENOMEM;
    if (err == DU_OK && !nodes.last) {
        err = take_waiting(r, &parts, nodes.first + nodes.n);
    }
    err = du_ranks_agree(r->ranks, err ? du_fail_nomem(diag, "sums of ranks") : DU_OK, diag);
    err = err ? err : du_ranks_add(r->ranks, ctx, parts.values, r->owners, nodes, r->wait, diag);
    for (int64_t i = 0; i < parts.n_terms && err == DU_OK; i++) {
        const du_grad_term *term = &parts.terms[i];
        for (int64_t k = 0; k < n; k++) {
            of_term[k] = in_term(term, r->owners[k]);
        }
        du_span own = of_term[rank];
        err = du_ranks_add(r->ranks, ctx, term->values, of_term, nodes, r->term_wait[i], diag);
        if (err == DU_OK && nodes.last && own.first < own.end) {
            ctx->kern->add(parts.values + term->offset + own.first, term->values + own.first,
                           own.end - own.first);
        }
    }
    return err;
}

du_err du_grad_reduce_add(du_ctx *ctx, du_grad_reduce *r, du_leaves nodes, du_diag *diag) {
    if (!r->ranks) {
        return DU_OK;
    }
    du_arena_mark mark = du_arena_get_mark(ctx->scratch);
    du_err err = add(ctx, r, nodes, diag);
    du_arena_release(ctx->scratch, mark);
    return err;
}
