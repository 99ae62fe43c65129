#include "kern/kern.h"

#include <pthread.h>

#include "kern/cpu/fill.h"

static du_kern tables[DU_ISA_COUNT];
static pthread_once_t tables_once = PTHREAD_ONCE_INIT;

static void fill_c(du_kern *k) {
    k->isa = DU_ISA_C;
    du_kern_fill_mm_float_c(k);
    du_kern_fill_mm_block_c(k);
    du_kern_fill_attn_c(k);
    du_kern_fill_vec_c(k);
}

static void fill_tables(void) {
    fill_c(&tables[DU_ISA_C]);
    for (int i = 1; i < DU_ISA_COUNT; i++) {
        tables[i] = tables[DU_ISA_C];
        tables[i].isa = (du_isa)i;
    }
}

const du_kern *du_kern_get(du_isa isa) {
    pthread_once(&tables_once, fill_tables);
    return du_isa_available(isa) ? &tables[isa] : NULL;
}
