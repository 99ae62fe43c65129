/* The learning rate of each step. */
#ifndef DU_TRAIN_SCHEDULE_H
#define DU_TRAIN_SCHEDULE_H

#include "train/config.h"

/* The learning rate of step i, from 1 to `steps`: it grows by equal amounts from 0 to optim.lr at
 * step warmup_steps, then with u = (i - warmup) / (steps - warmup), f = schedule.final and as a
 * fraction of optim.lr
 *
 *     constant     1
 *     linear       1 - (1 - f) u
 *     cosine       f + (1 - f) (1 + cos(pi u)) / 2
 *     wsd          1, then a line to f in the last decay_steps (0: a tenth of the steps)
 *     deepseek_v3  1 to 10/14.8 of the steps, half a cosine to 0.1 at 14.3/14.8, 0.1
 * to 14.633/14.8, then 7.3/220, each step standing for its share of 14.8T tokens (DeepSeek-V3,
 * arXiv 2412.19437, section 4.2) */
double du_schedule_lr(const du_train_config *config, int64_t step);

#endif
