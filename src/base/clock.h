/* Monotonic time. */
#ifndef DU_BASE_CLOCK_H
#define DU_BASE_CLOCK_H

/* Seconds since an arbitrary start; never goes back. */
double du_clock_s(void);

#endif
