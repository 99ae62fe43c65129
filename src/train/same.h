/* Do all ranks train the same? Each compares what it has with what rank 0 has. Ranks that differ
 * would add up what does not belong together, or wait for each other where they take other ways.
 *
 * All ranks call these functions in the same order, and get the same error: DU_EINVAL where the
 * first one that differs says in what; DU_EIO (a rank is lost), DU_ENOMEM. */
#ifndef DU_TRAIN_SAME_H
#define DU_TRAIN_SAME_H

#include "train/trainer.h"

/* Before anything else: the same dure, with kernels that give the same bits. Processors of one
 * kernel level differ in their fastest kinds of products (kern/gemm.h). */
DU_NODISCARD
du_err du_same_program(du_ranks *ranks, const du_kern *kern, du_diag *diag);

/* Every key of the configuration; paths too, since a checkpoint keeps those of rank 0. */
DU_NODISCARD
du_err du_same_config(du_ranks *ranks, const du_train_config *config, du_diag *diag);

/* A trainer that is to take its first step, with data: how far the run is, data, weights. */
DU_NODISCARD
du_err du_same_start(const du_trainer *trainer, du_diag *diag);

#endif
