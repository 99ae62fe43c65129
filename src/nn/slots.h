/* The chosen (token, expert) pairs as rows of work. Sorted by expert, keeping the order of tokens,
 * expert e owns the consecutive slots [first[e], first[e+1]):
 *
 *     slot      0  1  2 | 3 | 4  5 ...
 *     expert    0  0  0 | 2 | 7  7
 *     i_token   1  4  9 | 0 | 4  5          the token of the slot */
#ifndef DU_NN_SLOTS_H
#define DU_NN_SLOTS_H

#include <stdint.h>

/* ids [T,K] in [0, E); first [E+1], i_token [T*K], slot_of [T,K] out */
void du_slots_sort(int64_t *first, int32_t *i_token, int32_t *slot_of, const int32_t *ids,
                   int64_t E, int64_t K, int64_t T);

#endif
