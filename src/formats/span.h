/* Byte ranges of a file's tensors, put in order to find overlaps and holes. */
#ifndef DU_FORMATS_SPAN_H
#define DU_FORMATS_SPAN_H

#include <stdint.h>

typedef struct {
    uint64_t begin, end; /* bytes */
    int64_t i;           /* whose */
} du_span;

/* By begin, then by end, then by i. */
void du_span_sort(du_span *spans, int64_t n);

#endif
