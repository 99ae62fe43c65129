#include "plot/html.h"

static const char *entity_of(char c) {
    switch (c) {
    case '&':
        return "&amp;";
    case '<':
        return "&lt;";
    case '>':
        return "&gt;";
    case '"':
        return "&quot;";
    case '\'':
        return "&#39;";
    default:
        return NULL;
    }
}

void du_html_add(du_str *out, du_sv text) {
    for (size_t i = 0; i < text.len; i++) {
        char c = text.s[i];
        const char *entity = entity_of(c);
        bool control = ((unsigned char)c < 0x20 && c != '\n' && c != '\t') || c == 0x7f;
        if (entity || control) {
            du_str_add_s(out, entity ? entity : "\xef\xbf\xbd");
        } else {
            du_str_add_c(out, c);
        }
    }
}
