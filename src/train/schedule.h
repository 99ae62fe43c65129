/* The learning rate and the size of each step. */
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
 *     deepseek_v3  1 to 10/14.8 of the steps, half a cosine to 0.1 at 14.3/14.8,
 *                  0.1 to 14.633/14.8, then 7.3/220
 *
 * where deepseek_v3's steps stand for their share of 14.8T tokens (DeepSeek-V3, arXiv 2412.19437,
 * section 4.2). */
double du_schedule_lr(const du_train_config *config, int64_t step);

/* The micro-batches of step i, from 1: with b = schedule.batch_from, n = schedule.batch_steps
 *
 *     b + floor((accumulate - b) (i - 1) / n)   before step n + 1
 *     accumulate                                then, and where n is 0
 *
 * as DeepSeek-V3's batches grow (arXiv 2412.19437, section 4.2). */
int64_t du_schedule_micros(const du_train_config *config, int64_t step);

/* The micro-batches of all steps before step i. */
int64_t du_schedule_micros_before(const du_train_config *config, int64_t step);

#endif
