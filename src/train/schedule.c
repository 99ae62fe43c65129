#include "train/schedule.h"

#include <math.h>

#define PI 3.14159265358979323846

/* From `from` to `to` by half a cosine, u in [0, 1]. */
static double half_cosine(double from, double to, double u) {
    return to + (from - to) * (1 + cos(PI * u)) / 2;
}

static double wsd(const du_train_config *config, int64_t step) {
    int64_t n = config->schedule.decay_steps;
    n = n > 0 ? n : config->steps / 10;
    int64_t left = config->steps - step;
    double f = config->schedule.final;
    return left >= n ? 1 : f + (1 - f) * (double)left / (double)n;
}

/* u: tokens read, in trillions. */
static double deepseek_v3(double u) {
    const double last = 7.3 / 220;
    return u <= 10 ? 1 : u <= 14.3 ? half_cosine(1, 0.1, (u - 10) / 4.3) : u <= 14.633 ? 0.1 : last;
}

double du_schedule_lr(const du_train_config *config, int64_t step) {
    int64_t warmup = config->schedule.warmup_steps;
    double lr = config->optim.lr, f = config->schedule.final;
    if (step < warmup) {
        return lr * (double)step / (double)warmup;
    }
    int64_t rest = config->steps - warmup;
    double u = rest > 0 ? (double)(step - warmup) / (double)rest : 1;
    switch ((du_schedule_name)config->schedule.name) {
    case DU_SCHEDULE_LINEAR:
        return lr * (1 - (1 - f) * u);
    case DU_SCHEDULE_COSINE:
        return lr * half_cosine(1, f, u);
    case DU_SCHEDULE_WSD:
        return lr * wsd(config, step);
    case DU_SCHEDULE_DEEPSEEK_V3:
        return lr * deepseek_v3(14.8 * (double)step / (double)config->steps);
    default:
        return lr;
    }
}

int64_t du_schedule_micros(const du_train_config *config, int64_t step) {
    int64_t n = config->schedule.batch_steps, from = config->schedule.batch_from;
    if (step > n) {
        return config->accumulate;
    }
    return from + (config->accumulate - from) * (step - 1) / n;
}

int64_t du_schedule_micros_before(const du_train_config *config, int64_t step) {
    int64_t n = 0, growing = config->schedule.batch_steps;
    growing = growing < step - 1 ? growing : step - 1;
    for (int64_t i = 1; i <= growing; i++) {
        n += du_schedule_micros(config, i);
    }
    return n + (step - 1 - growing) * config->accumulate;
}
