#include "nn/slots.h"

#include <string.h>

void du_slots_sort(int64_t *first, int32_t *i_token, int32_t *slot_of, const int32_t *ids,
                   int64_t E, int64_t K, int64_t T) {
    memset(first, 0, (size_t)(E + 1) * sizeof *first);
    for (int64_t i = 0; i < T * K; i++) {
        first[ids[i]]++;
    }
    int64_t slot = 0;
    for (int64_t e = 0; e < E; e++) {
        slot += first[e];
        first[e] = slot - first[e];
    }
    for (int64_t i = 0; i < T * K; i++) {
        int64_t s = first[ids[i]]++;
        i_token[s] = (int32_t)(i / K);
        slot_of[i] = (int32_t)s;
    }
    for (int64_t e = E; e > 0; e--) { /* what was counted up is the next one's first */
        first[e] = first[e - 1];
    }
    first[0] = 0;
}
