#include "kern/cpu/strips_write.h"

void du_kern_fill_strips_avx2(du_kern *k) {
    k->strips_write = strips_write;
}
