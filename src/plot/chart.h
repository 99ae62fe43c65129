/* Charts of series over steps as figures of HTML with SVG in them: no script, nothing from outside.
 * Colours are classes of the page's style (report_page.c). */
#ifndef DU_PLOT_CHART_H
#define DU_PLOT_CHART_H

#include "base/str.h"
#include "plot/series.h"

typedef struct {
    const char *name;        /* in the legend; NULL: not there */
    const du_series *series; /* one without values is left out */
    const char *colour;      /* class */
    bool raw;                /* the values, pale, beneath a smoothed line */
    bool exact;              /* means of bins, not smoothed; dots where few steps have values */
} du_chart_line;

/* Texts are ours: they are not escaped. */
typedef struct {
    const char *id, *title;
    const char *about; /* what is drawn, in a sentence */
    const du_chart_line *lines;
    int64_t n_lines;
    int64_t last_step; /* the axis of steps goes from 0 to here */
    double log_from;   /* the axis is logarithmic where the most is so many times the least; 0:
                          never */
    bool from_zero;    /* the axis begins with 0 */
    bool wide;         /* as wide as the page */
} du_chart;

/* Appends <figure id=ID>; nothing where no series has values. Fails when memory is short. */
void du_chart_add(du_str *html, const du_chart *chart);

#endif
