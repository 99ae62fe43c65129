/* What gradients take and cost, before they are computed.
 *
 * Kept activations are counted by the code that takes them, on an arena that only counts. Partial
 * sums follow from the numbers of leaves, as du_grad_add and du_grad_out ask for them. Scratch is
 * the largest of the phases of a pass, each beside the rows' gradients:
 *
 *     feed-forward   hidden rows and their gradients; of experts also rows of slots [T*K,D]
 *     attention      du_arch_train.scratch; per thread du_attn_train_bytes
 *     output         logits
 *
 * and beside them the panels of the phase's products (nn/gemm.c), frozen matrices that are unpacked
 * and the narrow rows of adapters (nn/train_mat.c). The phases stand in grad_layer.c,
 * moe_train.c, grad_out.c; each bound is of the size of what it bounds, not below it. */
#include <string.h>

#include "model/grad_int.h"
#include "model/lora.h"
#include "nn/basic.h"

enum {
    TILE = DU_GEMM_GRAD_TILE,
    SMALL = 1 << 19, /* lists of jobs, ends of leaves, rounding */
};

typedef struct {
    const du_ctx *ctx;
    const du_model *model;
    const du_hparams *hp;
    const du_gemm *g;
    du_gemm_kind kind;
    int64_t T, n_seq, seq_len, n_threads, n_leaves;
    int64_t n_cols;      /* of the widest matrix */
    int64_t n_processes; /* that experts are spread over */
    bool all;
} pass;

static size_t floats(int64_t n) {
    return (size_t)n * sizeof(float);
}

static size_t most(size_t a, size_t b) {
    return a > b ? a : b;
}

/* What calls with these matrices take for themselves. */
static size_t of_calls(const du_train_room *room) {
    return most(du_train_room_products(room), du_train_room_gradients(room));
}

static size_t of_call(const pass *p, const du_mat *w, int64_t T) {
    du_train_room room = {.gemm = p->g};
    du_train_room_add(&room, w, T);
    return of_calls(&room);
}

/* Per thread sums of leaves of a tile of a gradient, and its factors. */
static size_t tiles(const pass *p) {
    int64_t n_levels = 0, block = p->g->k_block;
    int64_t n_cols = p->n_cols < TILE ? du_gemm_round_up(p->n_cols, p->g->n_panel) : TILE;
    while (p->n_leaves >> n_levels > 0) {
        n_levels++;
    }
    size_t one = floats((n_levels + 1) * TILE * n_cols) + du_gemm_a_bytes(p->g, TILE, block) +
                 du_gemm_b_bytes(p->g, n_cols, block);
    return (size_t)p->n_threads * one;
}

static size_t ffn(const pass *p, const du_mat *gate, const du_mat *up, const du_mat *down) {
    size_t rows = floats(p->T * gate->rows * (p->all ? 1 : 2));
    du_train_room in = {.gemm = p->g};
    du_train_room_add(&in, gate, p->T);
    du_train_room_add(&in, up, p->T);
    return rows + most(of_calls(&in), of_call(p, down, p->T));
}

/* Products of gate and up, of down, and the gradients of all. */
static size_t expert_calls(const pass *p, const du_block *w) {
    int64_t E = p->hp->router.n_expert, n_slots = (p->T * p->hp->router.n_used + E - 1) / E;
    du_train_room in = {.gemm = p->g}, out = in;
    for (int64_t e = 0; e < E; e++) {
        if (w->expert_gate[e].data) {
            du_train_room_add(&in, &w->expert_gate[e], n_slots);
            du_train_room_add(&in, &w->expert_up[e], n_slots);
            du_train_room_add(&out, &w->expert_down[e], n_slots);
        }
    }
    size_t products = most(du_train_room_products(&in), du_train_room_products(&out));
    return most(products, du_train_room_gradients(&in) + du_train_room_gradients(&out));
}

static size_t experts(const pass *p, const du_block *w) {
    const du_hparams *hp = p->hp;
    int64_t E = hp->router.n_expert, K = hp->router.n_used, F = hp->d_ff_expert, D = hp->d_model;
    size_t lists =
        (size_t)E * (sizeof(du_gemm_job) * 2 +
                     6 * (sizeof(du_gemm_grad) + DU_LEAF_LEVELS * sizeof(float *) + 512));
    lists += (size_t)E * (size_t)p->n_seq * sizeof(int64_t) * 13;
    size_t rows = floats(p->T * K * (D + F * (p->all ? 1 : 2)) + p->T * (3 * K + E));
    if (p->n_processes >
        1) { /* rows that come and go, x and dy; slots here, and on their way (spread_bwd) */
        rows += floats(p->T * K * 6 * D);
    }
    return lists + rows + expert_calls(p, w);
}

static bool is_of_attention(const du_weight_def *def) {
    return def->kind == DU_WEIGHT_MAT && def->hf && def->role >= DU_ROLE_ATTN_Q &&
           def->role <= DU_ROLE_ATTN_OUT;
}

/* Those that are multiplied with the same rows are in one call. */
static size_t attention_calls(const pass *p, int64_t layer) {
    const du_arch *arch = p->model->arch;
    size_t bytes = 0;
    for (int64_t i = 0; i < arch->n_weights; i++) {
        const du_weight_def *a = &arch->weights[i];
        du_train_room room = {.gemm = p->g};
        for (int64_t k = i; is_of_attention(a) && k < arch->n_weights; k++) {
            const du_weight_def *b = &arch->weights[k];
            bool same = k == i || (a->input && b->input && strcmp(a->input, b->input) == 0);
            const du_mat *w =
                same && is_of_attention(b) ? du_model_field(p->model, b, layer) : NULL;
            if (w && w->data) {
                du_train_room_add(&room, w, p->T);
            }
        }
        bytes = most(bytes, of_calls(&room));
    }
    return bytes;
}

static size_t attention(const pass *p, int64_t layer) {
    const du_hparams *hp = p->hp;
    du_attn_scratch s = p->model->arch->train->scratch(hp, p->all);
    du_attn_train heads = {.n_seq = p->n_seq,
                           .seq_len = p->seq_len,
                           .H = hp->n_head,
                           .G = hp->n_head_kv,
                           .dk = hp->k_dim,
                           .dv = hp->v_dim};
    size_t of_threads = (size_t)p->n_threads * du_attn_train_bytes(p->ctx, p->kind, &heads);
    return floats(p->T * s.row_values) + of_threads + attention_calls(p, layer);
}

static size_t head(const pass *p, size_t *logits) {
    du_grad_out_plan out = du_grad_plan_out(p->hp, p->seq_len);
    *logits = floats(out.rows * p->hp->n_vocab);
    return *logits + of_call(p, &p->model->top.output, out.rows);
}

/* What lies beside every phase: gradients of rows, rotations; order and sums of the embedding. */
static size_t beside(const pass *p, bool next) {
    const du_hparams *hp = p->hp;
    int64_t D = hp->d_model, T = p->T;
    int64_t rows = T * (2 * D + 2 * hp->rope_dim + 2) + (next ? T * (2 * D + 1) : 0);
    return floats(rows + 2 * (p->n_seq + p->seq_len) + 2 * hp->n_vocab) +
           (size_t)p->n_threads * floats((DU_LEAF_LEVELS + 2) * D) + tiles(p) + SMALL;
}

static size_t layer_bytes(const pass *p, int64_t i) {
    const du_block *w = du_model_block(p->model, i);
    size_t phase = attention(p, i);
    if (!du_hparams_has_experts(p->hp, i)) {
        return most(phase, ffn(p, &w->ffn_gate, &w->ffn_up, &w->ffn_down));
    }
    phase = most(phase, experts(p, w));
    return w->shared_gate.data
               ? most(phase, ffn(p, &w->shared_gate, &w->shared_up, &w->shared_down))
               : phase;
}

static size_t scratch_bytes(const pass *p, int64_t n_nextn, size_t *logits) {
    const du_hparams *hp = p->hp;
    size_t phase = head(p, logits);
    for (int64_t i = 0; i < hp->n_layer + n_nextn; i++) {
        phase = most(phase, layer_bytes(p, i));
    }
    if (n_nextn > 0) {
        const du_mat *proj = &du_model_block(p->model, hp->n_layer)->nextn_proj;
        phase = most(phase, floats(p->T * proj->cols) + of_call(p, proj, p->T));
    }
    return phase + beside(p, n_nextn > 0);
}

/* Levels at which a sum waits behind one of the counts step, 2 step, ... below n. */
static int64_t n_waiting(int64_t step, int64_t n) {
    int64_t n_levels = 0, n_counts = (n - 1) / step;
    for (int64_t bit = 1; bit < n; bit *= 2) {
        int64_t low = step % (2 * bit); /* its first multiple that is not below bit has the bit */
        n_levels += low > 0 && (bit + low - 1) / low <= n_counts;
    }
    return n_levels;
}

/* What is kept apart for the other ranks: take_terms in grad.c. */
static int64_t n_terms(const du_params *params) {
    return params->adapters ? 0 : params->model->hp.tied + (params->n_nextn > 0 ? 2 : 0);
}

/* Where experts are spread: their sums wait for the leaves of all processes; of all else, and what
 * is added to it, each process has its part of sums of ranks (du_ranks_add). */
static size_t spread_node_bytes(const pass *p, const du_params *params, int64_t n,
                                int64_t n_micro) {
    const du_mat *out = &params->model->top.output;
    int64_t of_experts = n_waiting(p->n_seq * n, p->n_seq * n * n_micro);
    int64_t of_ranks = n_waiting(n, n * n_micro);
    int64_t n_common = params->n_common + n_terms(params) * out->rows * out->cols;
    return floats(of_experts * (du_params_n_here(params) - params->n_common) +
                  of_ranks * ((n_common + n - 1) / n));
}

static size_t node_bytes(const pass *p, const du_params *params, const du_grad_params *how,
                         int64_t n_micro) {
    const du_mat *out = &params->model->top.output;
    du_grad_out_plan plan = du_grad_plan_out(p->hp, p->seq_len);
    int64_t n_heads = params->adapters ? 0 : 1 + params->n_nextn;
    int64_t n_leaves = how->spread ? p->n_seq : p->n_leaves; /* of sums that end with a call */
    int64_t of_micros = n_waiting(p->n_seq, n_leaves);
    int64_t of_out = n_waiting(plan.parts > 1 ? 1 : plan.n_seqs, n_leaves * plan.parts);
    int64_t of_next = n_heads > 1 && n_micro > 1 ? of_micros : 0;
    int64_t of_terms = (of_out * n_heads + of_next) * out->rows * out->cols;
    if (how->spread) {
        return floats(of_terms) + spread_node_bytes(p, params, how->spread->n, n_micro);
    }
    return floats(of_micros * params->n_values + of_terms);
}

static du_err kept_bytes(size_t *out, const du_params *params, const du_grad_params *how,
                         int64_t T) {
    du_grad g = {.params = params, .how = *how};
    g.n_layers = params->model->hp.n_layer + params->n_nextn;
    g.how.spread = NULL; /* as many slots come as go, about */
    g.layers = du_alloc_zero((size_t)g.n_layers, sizeof *g.layers);
    g.arena = du_arena_new_counting();
    bool good = g.layers && g.arena && du_grad_take_kept(&g, T);
    *out = good ? du_arena_bytes(g.arena) : 0;
    du_arena_free(g.arena);
    du_free(g.layers);
    return good ? DU_OK : DU_ENOMEM;
}

du_err du_grad_measure(du_grad_memory *out, const du_ctx *ctx, const du_params *params,
                       const du_grad_params *how, int64_t n_seq, int64_t seq_len, int64_t n_micro,
                       du_diag *diag) {
    du_gemm_kind kind = du_kern_gemm_kind(ctx->kern, how->bf16);
    int64_t limit = (int64_t)1 << 40;
    if (n_seq > limit / seq_len || n_seq > limit / n_micro ||
        n_seq * seq_len > limit / params->model->hp.n_layer) {
        return du_fail(diag, DU_ELIMIT, "batch_seqs = %lld, seq_len = %lld: too many tokens",
                       (long long)n_seq, (long long)seq_len);
    }
    pass p = {.ctx = ctx,
              .model = params->model,
              .hp = &params->model->hp,
              .g = &ctx->kern->gemm[kind],
              .kind = kind,
              .T = n_seq * seq_len,
              .n_seq = n_seq,
              .seq_len = seq_len,
              .n_threads = du_pool_n_threads(ctx->pool),
              .n_leaves = n_seq * n_micro,
              .n_processes = how->spread ? how->spread->n : 1,
              .all = how->keep == DU_KEEP_ALL};
    for (int64_t i = 0; i < params->n; i++) {
        p.n_cols = params->at[i].cols > p.n_cols ? params->at[i].cols : p.n_cols;
    }
    *out = (du_grad_memory){.values = floats(du_params_n_here(params))};
    out->scratch = scratch_bytes(&p, params->n_nextn, &out->logits);
    const du_mat *output = &params->model->top.output;
    out->terms = how->apart ? floats(n_terms(params) * output->rows * output->cols) : 0;
    out->nodes = out->terms + node_bytes(&p, params, how, n_micro);
    du_err err = kept_bytes(&out->kept, params, how, p.T);
    return err ? du_fail_nomem(diag, "the plan") : DU_OK;
}

/* How often a token is multiplied with one of the table's matrices. */
static double uses_of(const du_hparams *hp, const du_weight_def *def) {
    return def->kind == DU_WEIGHT_VEC   ? 0
           : def->role == DU_ROLE_EMBED ? hp->tied
           : def->kind == DU_WEIGHT_EXPERTS
               ? (double)hp->router.n_used / (double)hp->router.n_expert
               : 1;
}

/* Multiply-adds per token. */
typedef struct {
    const du_hparams *hp;
    double trained, frozen; /* matrices */
    double adapters;        /* their two, of these those that products use */
    double used_adapters;
} macs;

static bool add_frozen(void *user, const du_weight_def *def, int64_t layer, du_mat *w) {
    (void)layer;
    macs *m = user;
    const du_adapter *d = w->adapter;
    double uses = uses_of(m->hp, def);
    double narrow = d ? uses * (double)d->rank * (double)(w->rows + w->cols) : 0;
    m->frozen += uses * (double)w->rows * (double)w->cols;
    m->adapters += narrow;
    m->used_adapters += d && d->sum ? 0 : narrow;
    return true;
}

static macs count_macs(const du_params *params) {
    macs m = {.hp = &params->model->hp};
    if (params->adapters) {
        (void)du_lora_each_matrix(params, add_frozen, &m);
    }
    for (int64_t i = 0; i < params->n && !params->adapters; i++) {
        const du_param *t = &params->at[i];
        m.trained += uses_of(m.hp, t->def) * (double)t->rows * (double)t->cols;
    }
    double again = (double)params->n_nextn * (double)m.hp->n_vocab * (double)m.hp->d_model;
    *(params->adapters ? &m.frozen : &m.trained) += again; /* the output matrix */
    return m;
}

du_grad_flops du_grad_count(const du_params *params, du_grad_keep keep, int64_t seq_len) {
    const du_model *model = params->model;
    const du_hparams *hp = &model->hp;
    int64_t n_layers = hp->n_layer + params->n_nextn;
    double seen = (double)(seq_len + 1) / 2, H = (double)hp->n_head;
    double output = (double)hp->n_vocab * (double)hp->d_model;
    macs m = count_macs(params);
    double products = m.trained + m.frozen + m.used_adapters; /* forward, and as many back */
    double gradients = m.trained + 2 * m.adapters;
    double dk = (double)hp->k_dim, dv = (double)hp->v_dim, L = (double)n_layers;
    double attn = L * H * seen * (dk + dv), attn_bwd = L * H * seen * (3 * dk + 2 * dv);
    double again = 0;
    if (keep == DU_KEEP_INPUTS) {
        again = products + attn - output * (1 + (double)params->n_nextn);
    } else if (keep == DU_KEEP_SOME) {
        again = L * (double)model->arch->train->scratch(hp, false).again;
    }
    return (du_grad_flops){2 * (products + attn), 2 * (products + gradients + attn_bwd), 2 * again};
}
