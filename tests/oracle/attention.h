/* Attention of training in double, written from its formulas (nn/attn_train.h): all arrays lie
 * without gaps, q and out [T, H, .], k and v [T, G, .], lse [T, H]. */
#ifndef DU_TESTS_ORACLE_ATTENTION_H
#define DU_TESTS_ORACLE_ATTENTION_H

#include <math.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    int64_t n_seq, seq_len, H, G, dk, dv;
    const int32_t *first; /* [T] or NULL */
    double scale;
} oracle_attn;

static inline double oracle_dot(const double *x, const double *y, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += x[i] * y[i];
    }
    return sum;
}

/* The weights of row t of sequence b, head h: p [seq_len], zeros where it sees nothing. Returns the
 * log of the sum. */
static inline double oracle_attn_weights(const oracle_attn *a, double *p, int64_t b, int64_t t,
                                         int64_t h, const double *q, const double *k) {
    int64_t row0 = b * a->seq_len, g = h / (a->H / a->G), first = a->first ? a->first[row0 + t] : 0;
    double max = -INFINITY, sum = 0;
    memset(p, 0, (size_t)a->seq_len * sizeof *p);
    for (int64_t j = first; j <= t; j++) {
        p[j] = a->scale * oracle_dot(q + ((row0 + t) * a->H + h) * a->dk,
                                     k + ((row0 + j) * a->G + g) * a->dk, a->dk);
        max = fmax(max, p[j]);
    }
    for (int64_t j = first; j <= t; j++) {
        sum += exp(p[j] - max);
    }
    for (int64_t j = first; j <= t; j++) {
        p[j] = exp(p[j] - max) / sum;
    }
    return max + log(sum);
}

/* p [seq_len]: room */
static inline void oracle_attn_fwd(const oracle_attn *a, double *out, double *lse, const double *q,
                                   const double *k, const double *v, double *p) {
    memset(out, 0, (size_t)(a->n_seq * a->seq_len * a->H * a->dv) * sizeof *out);
    for (int64_t i = 0; i < a->n_seq * a->seq_len * a->H; i++) {
        int64_t row = i / a->H, b = row / a->seq_len, h = i % a->H, g = h / (a->H / a->G);
        lse[i] = oracle_attn_weights(a, p, b, row % a->seq_len, h, q, k);
        for (int64_t j = 0; j < a->seq_len; j++) {
            for (int64_t c = 0; c < a->dv; c++) {
                out[i * a->dv + c] += p[j] * v[((b * a->seq_len + j) * a->G + g) * a->dv + c];
            }
        }
    }
}

/* p [seq_len]: room */
static inline void oracle_attn_bwd(const oracle_attn *a, double *dq, double *dk, double *dv,
                                   const double *dout, const double *q, const double *k,
                                   const double *v, double *p) {
    int64_t T = a->n_seq * a->seq_len;
    memset(dq, 0, (size_t)(T * a->H * a->dk) * sizeof *dq);
    memset(dk, 0, (size_t)(T * a->G * a->dk) * sizeof *dk);
    memset(dv, 0, (size_t)(T * a->G * a->dv) * sizeof *dv);
    for (int64_t i = 0; i < T * a->H; i++) {
        int64_t row = i / a->H, b = row / a->seq_len, h = i % a->H, g = h / (a->H / a->G);
        const double *dy = dout + i * a->dv;
        double mean = 0;
        oracle_attn_weights(a, p, b, row % a->seq_len, h, q, k);
        for (int64_t j = 0; j < a->seq_len; j++) {
            mean += p[j] * oracle_dot(dy, v + ((b * a->seq_len + j) * a->G + g) * a->dv, a->dv);
        }
        for (int64_t j = 0; j < a->seq_len; j++) {
            int64_t key = (b * a->seq_len + j) * a->G + g;
            double dp = oracle_dot(dy, v + key * a->dv, a->dv);
            double ds = a->scale * p[j] * (dp - mean);
            for (int64_t c = 0; c < a->dv; c++) {
                dv[key * a->dv + c] += p[j] * dy[c];
            }
            for (int64_t c = 0; c < a->dk; c++) {
                dq[i * a->dk + c] += ds * k[key * a->dk + c];
                dk[key * a->dk + c] += ds * q[i * a->dk + c];
            }
        }
    }
}

#endif
