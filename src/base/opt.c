/* The parser walks argv once and moves what is no option to the front; options store into the place
 * that their table entry names. A value is checked when it is read, so that the message can name
 * the option as it was written. */
#include "base/opt.h"

#include <errno.h>
#include <stdlib.h>

#include "base/mem.h"

enum { HELP_COLUMN = 26, NAMES_MAX = 128 };

typedef struct {
    const du_opt_group *groups;
    size_t n_groups;
    char **argv;
    int argc, next; /* next: the word to read */
    int n_args;
    du_diag *diag;
} parser;

void du_opt_list_done(du_opt_list *list) {
    du_free(list->items);
    *list = (du_opt_list){0};
}

static const du_opt *find_name(const parser *p, du_sv name) {
    for (size_t g = 0; g < p->n_groups; g++) {
        for (size_t i = 0; i < p->groups[g].n; i++) {
            if (du_sv_is(name, p->groups[g].opts[i].name)) {
                return &p->groups[g].opts[i];
            }
        }
    }
    return NULL;
}

static const du_opt *find_letter(const parser *p, char letter) {
    for (size_t g = 0; g < p->n_groups; g++) {
        for (size_t i = 0; i < p->groups[g].n; i++) {
            if (letter != 0 && p->groups[g].opts[i].letter == letter) {
                return &p->groups[g].opts[i];
            }
        }
    }
    return NULL;
}

static du_err fail_unknown(const parser *p, const char *word, du_sv name) {
    const char *names[NAMES_MAX];
    size_t n = 0;
    for (size_t g = 0; g < p->n_groups; g++) {
        for (size_t i = 0; i < p->groups[g].n && n < NAMES_MAX; i++) {
            names[n++] = p->groups[g].opts[i].name;
        }
    }
    char copy[64];
    const char *near = NULL;
    if (name.len > 0 && name.len < sizeof copy) {
        memcpy(copy, name.s, name.len);
        copy[name.len] = '\0';
        near = du_nearest(copy, names, n);
    }
    return near ? du_fail(p->diag, DU_EINVAL, "unknown option %s: did you mean --%s?", word, near)
                : du_fail(p->diag, DU_EINVAL, "unknown option %s", word);
}

/* The factor of a size's suffix; 0 when it is none. */
static int64_t size_factor(const char *suffix) {
    static const char letters[] = "kmgt";
    if (*suffix == '\0') {
        return 1;
    }
    const char *at = strchr(letters, *suffix | 0x20);
    return at && suffix[1] == '\0' ? INT64_C(1) << (10 * (at - letters + 1)) : 0;
}

static du_err read_int(const parser *p, const du_opt *opt, const char *word, const char *value) {
    errno = 0;
    char *end;
    int64_t v = strtoll(value, &end, 10);
    int64_t factor = opt->type == DU_OPT_SIZE ? size_factor(end) : *end == '\0';
    bool is_number = end != value && factor > 0;
    if (!is_number) {
        return du_fail(p->diag, DU_EINVAL, "%s: '%s' is not a whole number", word, value);
    }
    if (errno == ERANGE || !du_mul_i64(v, factor, &v) || v < opt->i_min || v > opt->i_max) {
        return opt->i_max == INT64_MAX
                   ? du_fail(p->diag, DU_EINVAL, "%s: %s is not a number from %lld up", word, value,
                             (long long)opt->i_min)
                   : du_fail(p->diag, DU_EINVAL, "%s: %s is not between %lld and %lld", word, value,
                             (long long)opt->i_min, (long long)opt->i_max);
    }
    *opt->to.i64 = v;
    return DU_OK;
}

static du_err read_float(const parser *p, const du_opt *opt, const char *word, const char *value) {
    char *end;
    double v = strtod(value, &end);
    if (end == value || *end != '\0') {
        return du_fail(p->diag, DU_EINVAL, "%s: '%s' is not a number", word, value);
    }
    if (!(v >= opt->f_min && v <= opt->f_max)) {
        return du_fail(p->diag, DU_EINVAL, "%s: %s is not between %g and %g", word, value,
                       opt->f_min, opt->f_max);
    }
    *opt->to.f64 = v;
    return DU_OK;
}

static du_err read_choice(const parser *p, const du_opt *opt, const char *word, const char *value) {
    size_t len = strlen(value);
    int i = 0;
    for (const char *at = opt->arg;; i++) {
        size_t n = strcspn(at, "|");
        if (n == len && memcmp(at, value, n) == 0) {
            *opt->to.choice = i;
            return DU_OK;
        }
        if (at[n] == '\0') {
            return du_fail(p->diag, DU_EINVAL, "%s: '%s' is none of %s", word, value, opt->arg);
        }
        at += n + 1;
    }
}

static du_err read_value(const parser *p, const du_opt *opt, const char *word, const char *value) {
    switch (opt->type) {
    case DU_OPT_FLAG:
        *opt->to.flag = true;
        return DU_OK;
    case DU_OPT_STR:
        *opt->to.str = value;
        return DU_OK;
    case DU_OPT_INT:
    case DU_OPT_SIZE:
        return read_int(p, opt, word, value);
    case DU_OPT_FLOAT:
        return read_float(p, opt, word, value);
    case DU_OPT_CHOICE:
        return read_choice(p, opt, word, value);
    case DU_OPT_LIST:
        break;
    }
    du_opt_list *list = opt->to.list;
    void *items = list->items;
    bool grown = du_grow(&items, &list->cap, list->n, sizeof *list->items);
    list->items = items;
    if (!grown) {
        return du_fail_nomem(p->diag, word);
    }
    list->items[list->n++] = value;
    return DU_OK;
}

/* The value of an option that takes one: what follows in the word, or the next word. */
static du_err take_value(parser *p, const du_opt *opt, const char *word, const char *attached) {
    if (!attached && p->next == p->argc) {
        return du_fail(p->diag, DU_EINVAL, "%s needs a value: %s", word, opt->arg);
    }
    return read_value(p, opt, word, attached ? attached : p->argv[p->next++]);
}

static du_err read_long(parser *p, const char *word) {
    const char *equals = strchr(word, '=');
    du_sv name = {word + 2, equals ? (size_t)(equals - word) - 2 : strlen(word) - 2};
    char shown[64];
    snprintf(shown, sizeof shown, "--%.*s", (int)(name.len < 60 ? name.len : 60), name.s);
    const du_opt *opt = find_name(p, name);
    if (!opt) {
        return fail_unknown(p, shown, name);
    }
    if (opt->type != DU_OPT_FLAG) {
        return take_value(p, opt, shown, equals ? equals + 1 : NULL);
    }
    if (equals) {
        return du_fail(p->diag, DU_EINVAL, "%s takes no value", shown);
    }
    return read_value(p, opt, shown, NULL);
}

static du_err read_short(parser *p, const char *word) {
    du_err err = DU_OK;
    for (const char *at = word + 1; *at && err == DU_OK; at++) {
        const char shown[] = {'-', *at, '\0'};
        const du_opt *opt = find_letter(p, *at);
        if (!opt) {
            return fail_unknown(p, at == word + 1 ? word : shown, du_sv_of(word + 1));
        }
        if (opt->type != DU_OPT_FLAG) {
            return take_value(p, opt, shown, at[1] ? at + 1 : NULL);
        }
        err = read_value(p, opt, shown, NULL);
    }
    return err;
}

du_err du_opt_parse(const du_opt_group *groups, size_t n_groups, int argc, char **argv, int *n_args,
                    du_diag *diag) {
    parser p = {groups, n_groups, argv, argc, 0, 0, diag};
    bool options = true;
    du_err err = DU_OK;
    while (p.next < argc && err == DU_OK) {
        char *word = argv[p.next++];
        if (!options || word[0] != '-' || word[1] == '\0') {
            argv[p.n_args++] = word;
        } else if (strcmp(word, "--") == 0) {
            options = false;
        } else {
            err = word[1] == '-' ? read_long(&p, word) : read_short(&p, word);
        }
    }
    *n_args = p.n_args;
    return err;
}

/* Columns of UTF-8 text, one per character: what help texts hold. */
static size_t columns(const char *s, size_t len) {
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        n += ((unsigned char)s[i] & 0xc0) != 0x80;
    }
    return n;
}

static void add_blanks(du_str *out, size_t n) {
    for (; n > 0; n--) {
        du_str_add_c(out, ' ');
    }
}

void du_opt_wrap(du_str *out, const char *text, size_t at, size_t indent) {
    bool fresh = true; /* nothing but indentation in this line yet */
    while (*text) {
        if (*text == '\n') {
            du_str_add_c(out, '\n');
            text++;
            at = 0;
            fresh = true;
            continue;
        }
        if (*text == ' ') {
            text++;
            continue;
        }
        size_t len = strcspn(text, " \n");
        size_t width = columns(text, len);
        if (!fresh && at + 1 + width > DU_OPT_COLUMNS) {
            du_str_add_c(out, '\n');
            at = 0;
            fresh = true;
        }
        if (at == 0) {
            add_blanks(out, indent);
            at = indent;
        } else if (!fresh) {
            du_str_add_c(out, ' ');
            at++;
        }
        du_str_add(out, text, len);
        at += width;
        text += len;
        fresh = false;
    }
}

static void add_option(du_str *out, const du_opt *opt) {
    size_t start = out->len;
    if (opt->letter) {
        du_str_addf(out, "  -%c, ", opt->letter);
    } else {
        du_str_add_s(out, "      ");
    }
    du_str_addf(out, "--%s", opt->name);
    if (opt->arg) {
        du_str_addf(out, " %s", opt->arg);
    }
    size_t at = out->len - start;
    if (at + 2 > HELP_COLUMN) {
        du_str_add_c(out, '\n');
        at = 0;
    }
    add_blanks(out, HELP_COLUMN - at);
    du_opt_wrap(out, opt->help, HELP_COLUMN, HELP_COLUMN);
    du_str_add_c(out, '\n');
}

void du_opt_help(du_str *out, const du_opt_group *groups, size_t n_groups) {
    for (size_t g = 0; g < n_groups; g++) {
        du_str_addf(out, "%s%s:\n", g > 0 ? "\n" : "", groups[g].title);
        for (size_t i = 0; i < groups[g].n; i++) {
            add_option(out, &groups[g].opts[i]);
        }
    }
}
