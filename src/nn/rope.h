/* Rotary positions (Su et al. 2021, eq. 34) with the frequency rules that published models use. */
#ifndef DU_NN_ROPE_H
#define DU_NN_ROPE_H

#include "nn/ctx.h"

typedef enum {
    DU_ROPE_NORM, /* pairs (2i, 2i+1): DeepSeek's latent attention, GGUF files of `llama` */
    DU_ROPE_NEOX  /* pairs (i, i + n_pair): Hugging Face's llama, qwen2, qwen3 */
} du_rope_layout;

/* YaRN (Peng et al. 2023, section 3.2). factor 1: none. */
typedef struct {
    double factor;
    double n_ctx_original;
    double beta_fast, beta_slow; /* 32, 1 where a model says nothing */
} du_yarn;

/* The frequencies of n_dim / 2 pairs: freq[i] = theta^(-2i/n_dim), in double.
 * yarn_scale: freq[i] is divided by factor where the ramp between the pairs that turn beta_fast and
 * beta_slow times within n_ctx_original is 1, kept where it is 0, mixed between. */
void du_rope_freqs(double *freq, int64_t n_dim, double theta);
void du_rope_scale_linear(double *freq, int64_t n_dim, double factor);
void du_rope_scale_yarn(double *freq, int64_t n_dim, double theta, const du_yarn *yarn);

/* Llama 3.1's rule: wavelengths longer than n_ctx/low are divided by factor, shorter than
 * n_ctx/high kept, smoothly mixed between. */
void du_rope_scale_llama3(double *freq, int64_t n_dim, double factor, double low, double high,
                          double n_ctx_original);

/* YaRN's magnitude 0.1 * mscale * ln(factor) + 1, 1 for factor <= 1   (Peng et al. 2023, eq. 22) */
double du_yarn_magnitude(double factor, double mscale);

/* cos and sin [T, n_pair] of pos[t] * freq[i], times magnitude. The angle is the f32 product of f32
 * factors, as in the reference implementation, so that long contexts agree with it.
 * cos, sin f32 out; pos [T]; freq [n_pair] f32 */
void du_rope_table(float *cos_out, float *sin_out, const int64_t *pos, const float *freq,
                   float magnitude, int64_t T, int64_t n_pair);

/* Rotates n_head vectors in each of T rows: x + t*ldx + h*ld_head points at the 2*n_pair values.
 * cos, sin [T, n_pair] */
void du_rope_fwd(du_ctx *ctx, float *x, int64_t ldx, int64_t n_head, int64_t ld_head,
                 const float *cos, const float *sin, du_rope_layout layout, int64_t T,
                 int64_t n_pair);

#endif
