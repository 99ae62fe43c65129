#include "nn/rope.h"

#include <math.h>

#define PI 3.14159265358979323846

void du_rope_freqs(double *freq, int64_t n_dim, double theta) {
    for (int64_t i = 0; i < n_dim / 2; i++) {
        freq[i] = pow(theta, -2.0 * (double)i / (double)n_dim);
    }
}

void du_rope_scale_linear(double *freq, int64_t n_dim, double factor) {
    for (int64_t i = 0; i < n_dim / 2; i++) {
        freq[i] /= factor;
    }
}

/* The pair that turns `beta` times within the original context. */
static double yarn_pair(int64_t n_dim, double theta, double n_ctx, double beta) {
    return (double)n_dim * log(n_ctx / (beta * 2 * PI)) / (2 * log(theta));
}

void du_rope_scale_yarn(double *freq, int64_t n_dim, double theta, const du_yarn *yarn) {
    double low = floor(yarn_pair(n_dim, theta, yarn->n_ctx_original, yarn->beta_fast));
    double high = ceil(yarn_pair(n_dim, theta, yarn->n_ctx_original, yarn->beta_slow));
    low = fmax(low, 0);
    high = fmin(high, (double)n_dim - 1);
    if (low == high) {
        high += 0.001; /* as the reference does, to have a ramp at all */
    }
    for (int64_t i = 0; i < n_dim / 2; i++) {
        double ramp = fmin(fmax(((double)i - low) / (high - low), 0), 1);
        freq[i] = freq[i] / yarn->factor * ramp + freq[i] * (1 - ramp);
    }
}

void du_rope_scale_llama3(double *freq, int64_t n_dim, double factor, double low, double high,
                          double n_ctx_original) {
    for (int64_t i = 0; i < n_dim / 2; i++) {
        double wavelength = 2 * PI / freq[i];
        double keep = (n_ctx_original / wavelength - low) / (high - low);
        keep = fmin(fmax(keep, 0), 1);
        freq[i] = freq[i] / factor * (1 - keep) + freq[i] * keep;
    }
}

double du_yarn_magnitude(double factor, double mscale) {
    return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1;
}

void du_rope_table(float *cos_out, float *sin_out, const int64_t *pos, const float *freq,
                   float magnitude, int64_t T, int64_t n_pair) {
    for (int64_t t = 0; t < T; t++) {
        for (int64_t i = 0; i < n_pair; i++) {
            float angle = (float)pos[t] * freq[i];
            cos_out[t * n_pair + i] = (float)cos((double)angle) * magnitude;
            sin_out[t * n_pair + i] = (float)sin((double)angle) * magnitude;
        }
    }
}

typedef struct {
    const du_kern *kern;
    float *x;
    const float *cos, *sin;
    int64_t ldx, n_head, ld_head, n_pair;
    du_rope_layout layout;
} rope_job;

static void rope_row(void *arg, int64_t t, int64_t i_thread) {
    (void)i_thread;
    const rope_job *job = arg;
    const float *c = job->cos + t * job->n_pair, *s = job->sin + t * job->n_pair;
    for (int64_t h = 0; h < job->n_head; h++) {
        float *x = job->x + t * job->ldx + h * job->ld_head;
        if (job->layout == DU_ROPE_NORM) {
            job->kern->rope_norm(x, c, s, job->n_pair);
        } else {
            job->kern->rope_neox(x, c, s, job->n_pair);
        }
    }
}

void du_rope_fwd(du_ctx *ctx, float *x, int64_t ldx, int64_t n_head, int64_t ld_head,
                 const float *cos, const float *sin, du_rope_layout layout, int64_t T,
                 int64_t n_pair) {
    rope_job job = {ctx->kern, x, cos, sin, ldx, n_head, ld_head, n_pair, layout};
    du_pool_run(T > 4 ? ctx->pool : NULL, rope_row, &job, T);
}
