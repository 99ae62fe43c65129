/* A loss that jumps and stays: the end of a run that goes wrong. */
#ifndef DU_TRAIN_SPIKE_H
#define DU_TRAIN_SPIKE_H

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    double sum, weight; /* exponential mean of the losses that were no spikes: sum / weight */
    int64_t n_seen;     /* such losses */
    int64_t n_high;     /* losses in a row above the factor */
} du_spike;

/* Losses before any is judged. */
enum { DU_SPIKE_STEPS_MIN = 10 };

/* The mean so far. */
double du_spike_smooth(const du_spike *spike);

/* Takes the next step's loss. Returns whether n_steps losses in a row, this one the last, were
 * above factor times the smoothed loss; losses that are above it do not move the mean. factor 0:
 * never. */
bool du_spike_add(du_spike *spike, double loss, double factor, int64_t n_steps);

#endif
