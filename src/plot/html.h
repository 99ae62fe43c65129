/* Text of others in HTML and SVG. */
#ifndef DU_PLOT_HTML_H
#define DU_PLOT_HTML_H

#include "base/str.h"

/* Appends text, which is UTF-8, so that it is text between tags and in quoted attributes, whatever
 * it holds: & < > " ' as entities, control characters but line feed and tab as U+FFFD. */
void du_html_add(du_str *out, du_sv text);

#endif
