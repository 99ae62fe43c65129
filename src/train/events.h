/* TensorBoard's event files: the scalars of metrics.jsonl for those who look at runs there.
 *
 * OUT/events.out.tfevents.SECONDS.STEP.dure is a sequence of records (TensorFlow's
 * tensorflow/core/lib/io/record_writer.h), little-endian:
 *
 *     length      8 bytes
 *     checksum    4 bytes, of the length
 *     data        `length` bytes: an Event (tensorflow/core/util/event.proto)
 *     checksum    4 bytes, of the data
 *
 * a checksum being the CRC-32C turned right by 15 bits, plus 0xa282ead8. A process that goes on
 * with a run begins a file of its own, whose first step takes away from charts what an earlier one
 * has behind it. */
#ifndef DU_TRAIN_EVENTS_H
#define DU_TRAIN_EVENTS_H

#include "base/str.h"
#include "train/metrics.h"

/* CRC-32C (Castagnoli; RFC 3720, appendix B.4) of n bytes. */
uint32_t du_events_crc(const void *bytes, size_t n);

/* Appends a record. */
void du_events_record(du_str *out, const void *data, size_t n);

typedef struct {
    int fd; /* -1: closed */
    char *path;
    int64_t n_bytes; /* of whole records */
    du_str event, record;
} du_events;

/* Makes the file of a process that has done `step` steps.
 * out  for du_events_close, also after a failure
 * Returns DU_OK, DU_EIO, DU_ENOENT, DU_ENOMEM. */
DU_NODISCARD
du_err du_events_open(du_events *out, const char *dir, int64_t step, du_diag *diag);

/* Adds the numbers of a step, all or none. Returns DU_OK, DU_EIO, DU_ENOMEM. */
DU_NODISCARD
du_err du_events_add(du_events *events, const du_metrics *m, du_diag *diag);

void du_events_close(du_events *events);

/* Removes the event files of a folder. Returns DU_OK, DU_EIO, DU_ENOENT, DU_ENOMEM. */
DU_NODISCARD
du_err du_events_remove(const char *dir, du_diag *diag);

#endif
