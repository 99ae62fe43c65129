/* OUT/run.json: what a run is and which processes have worked on it, for people and the report.
 * Nothing that is computed depends on it.
 *
 *     {"config": {key: text}, keys that are not at their default
 *      "model": {"arch", "params", "params_active", "params_trained", "layers", "width", "experts",
 *                "experts_used"},
 *      "tokens": of the training data,
 *      "processes": [{"time": "2026-11-23T00:30:00Z", "step": steps done before, "version",
 *                     "machine", "isa", "threads", "ranks"}]}, the first and the last 63 */
#ifndef DU_TRAIN_RECORD_H
#define DU_TRAIN_RECORD_H

#include "train/trainer.h"

#define DU_RECORD_FILE "run.json"
enum { DU_RECORD_BYTES_MAX = 1 << 22 };

/* Adds this process, and writes what the run is now: the file is there whole or as it was. A file
 * that cannot be read is replaced.
 * Returns DU_OK, DU_EIO, DU_ENOENT, DU_ENOMEM. */
DU_NODISCARD
du_err du_record_add(const char *dir, const du_trainer *trainer, du_diag *diag);

#endif
