#include "formats/span.h"

#include <stddef.h>
#include <stdlib.h>

static int compare(const void *x, const void *y) {
    const du_span *a = x, *b = y;
    if (a->begin != b->begin) {
        return a->begin < b->begin ? -1 : 1;
    }
    if (a->end != b->end) {
        return a->end < b->end ? -1 : 1;
    }
    return (a->i > b->i) - (a->i < b->i);
}

void du_span_sort(du_span *spans, int64_t n) {
    if (n > 1) {
        qsort(spans, (size_t)n, sizeof *spans, compare);
    }
}
