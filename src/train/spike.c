#include "train/spike.h"

static const double decay = 0.98; /* of the mean, per step */

double du_spike_smooth(const du_spike *s) {
    return s->weight > 0 ? s->sum / s->weight : 0;
}

bool du_spike_add(du_spike *s, double loss, double factor, int64_t n_steps) {
    bool high = factor > 0 && s->n_seen >= DU_SPIKE_STEPS_MIN && loss > factor * du_spike_smooth(s);
    s->n_high = high ? s->n_high + 1 : 0;
    if (!high) {
        s->sum = decay * s->sum + (1 - decay) * loss;
        s->weight = decay * s->weight + (1 - decay);
        s->n_seen++;
    }
    return s->n_high >= n_steps && high;
}
