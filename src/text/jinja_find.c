/* Methods of str in the Jinja interpreter that search and cut. Positions are code points. */
#include "text/jinja_int.h"
#include "text/jinja_text.h"

/* ---- searching ----------------------------------------------------------------------------- */

/* The part [start, end) of the text; *there is false when start is behind the end. */
static bool part_of(jrun *run, const jstr *s, const jvalue *bounds, du_sv *part, bool *there) {
    int64_t n = (int64_t)s->n_chars, at[2] = {0, n};
    for (int k = 0; k < 2; k++) {
        if (!j_given(bounds[k]) || bounds[k].type == J_NONE) {
            continue;
        }
        if (!j_is_int(bounds[k])) {
            return du_jinja_fail(run, DU_EFORMAT, "%s cannot be a position",
                                 du_jinja_type_name(bounds[k]));
        }
        at[k] = j_as_int(bounds[k]);
        at[k] += at[k] < 0 ? n : 0;
        at[k] = at[k] < 0 ? 0 : at[k];
    }
    at[1] = at[1] > n ? n : at[1];
    *there = at[0] <= at[1];
    if (*there) {
        size_t from = du_jinja_byte_of(s, at[0]);
        *part = (du_sv){s->s + from, du_jinja_byte_of(s, at[1]) - from};
    }
    return du_jinja_spend(run, (int64_t)(s->len / 64));
}

/* Comparing the needle at every place may take needle.len bytes each. */
static bool spend_find_last(jrun *run, du_sv hay, du_sv needle) {
    return du_jinja_spend(run, (int64_t)(hay.len / 16) * (int64_t)(needle.len / 64 + 1));
}

static int64_t find_last(du_sv hay, du_sv needle) {
    for (size_t at = hay.len + 1; at-- > needle.len;) {
        size_t from = at - needle.len;
        if (memcmp(hay.s + from, needle.s, needle.len) == 0) {
            return (int64_t)from;
        }
    }
    return -1;
}

/* The position of the text p[0] in the part p[1]..p[2]; -1 when it is not there. */
static bool find_in(jrun *run, const char *method, jvalue self, const jcall *call, bool last,
                    int64_t *out) {
    du_sv part;
    bool there;
    if (!du_jinja_want_str(run, method, call->p[0]) ||
        !part_of(run, self.s, call->p + 1, &part, &there)) {
        return false;
    }
    du_sv needle = j_view(call->p[0].s);
    if (last && there && !spend_find_last(run, part, needle)) {
        return false;
    }
    int64_t at = !there ? -1 : last ? find_last(part, needle) : du_sv_find(part, needle, 0);
    *out = at < 0 ? -1
                  : (int64_t)du_jinja_count_chars(
                        (du_sv){self.s->s, (size_t)(part.s - self.s->s) + (size_t)at});
    return true;
}

static bool find_or_fail(jrun *run, const char *method, jvalue self, const jcall *call, bool last,
                         jvalue *out) {
    int64_t at;
    if (!find_in(run, method, self, call, last, &at)) {
        return false;
    }
    *out = j_int(at);
    return at >= 0 || du_jinja_fail(run, DU_EFORMAT, "%s: the text is not there", method);
}

bool du_jinja_str_find(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    *out = j_int(0);
    return find_in(run, "find", self, call, false, &out->i);
}

bool du_jinja_str_rfind(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    *out = j_int(0);
    return find_in(run, "rfind", self, call, true, &out->i);
}

bool du_jinja_str_index(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    return find_or_fail(run, "index", self, call, false, out);
}

bool du_jinja_str_rindex(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    return find_or_fail(run, "rindex", self, call, true, out);
}

bool du_jinja_str_count(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    du_sv part;
    bool there;
    int64_t n = 0;
    if (!du_jinja_want_str(run, "count", call->p[0]) ||
        !part_of(run, self.s, call->p + 1, &part, &there)) {
        return false;
    }
    du_sv needle = j_view(call->p[0].s);
    if (there && needle.len == 0) {
        n = (int64_t)du_jinja_count_chars(part) + 1;
    }
    for (int64_t at = 0; there && needle.len && (at = du_sv_find(part, needle, (size_t)at)) >= 0;
         at += (int64_t)needle.len) {
        n++;
    }
    *out = j_int(n);
    return true;
}

/* startswith and endswith take a text or a tuple of them. */
static bool affix(jrun *run, const char *method, jvalue self, const jcall *call, bool end,
                  jvalue *out) {
    du_sv part;
    bool there, found = false;
    const jvalue *options = &call->p[0];
    int64_t n = 1;
    if (call->p[0].type == J_TUPLE) {
        options = call->p[0].list->items;
        n = call->p[0].list->n;
    }
    if (!part_of(run, self.s, call->p + 1, &part, &there)) {
        return false;
    }
    for (int64_t i = 0; !found && i < n; i++) {
        if (!du_jinja_want_str(run, method, options[i])) {
            return false;
        }
        du_sv a = j_view(options[i].s);
        found = there && a.len <= part.len &&
                memcmp(end ? part.s + part.len - a.len : part.s, a.s, a.len) == 0;
    }
    *out = j_bool(found);
    return true;
}

bool du_jinja_str_startswith(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    return affix(run, "startswith", self, call, false, out);
}

bool du_jinja_str_endswith(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    return affix(run, "endswith", self, call, true, out);
}

/* ---- cutting ------------------------------------------------------------------------------- */

bool du_jinja_strip(jrun *run, const char *method, jvalue self, jvalue chars, bool start, bool end,
                    jvalue *out) {
    du_sv text = j_view(self.s), set = {0};
    bool any = j_given(chars) && chars.type != J_NONE;
    if (any && !du_jinja_want_str(run, method, chars)) {
        return false;
    }
    if (any) {
        set = j_view(chars.s);
    }
    size_t from = start ? du_jinja_strip_start(text, any ? &set : NULL) : 0;
    text = (du_sv){text.s + from, text.len - from};
    text.len -= end ? du_jinja_strip_end(text, any ? &set : NULL) : 0;
    return du_jinja_spend(run, (int64_t)((self.s->len - text.len) * (set.len + 1) / 64)) &&
           du_jinja_str_sub(run, self.s, from, text.len, out);
}

bool du_jinja_str_strip(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    return du_jinja_strip(run, "strip", self, call->p[0], true, true, out);
}

bool du_jinja_str_lstrip(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    return du_jinja_strip(run, "lstrip", self, call->p[0], true, false, out);
}

bool du_jinja_str_rstrip(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    return du_jinja_strip(run, "rstrip", self, call->p[0], false, true, out);
}

bool du_jinja_str_removeprefix(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    if (!du_jinja_want_str(run, "removeprefix", call->p[0])) {
        return false;
    }
    const jstr *s = self.s, *a = call->p[0].s;
    size_t n = s->len >= a->len && memcmp(s->s, a->s, a->len) == 0 ? a->len : 0;
    return du_jinja_str_sub(run, s, n, s->len - n, out);
}

bool du_jinja_str_removesuffix(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    if (!du_jinja_want_str(run, "removesuffix", call->p[0])) {
        return false;
    }
    const jstr *s = self.s, *a = call->p[0].s;
    size_t n = s->len >= a->len && memcmp(s->s + s->len - a->len, a->s, a->len) == 0 ? a->len : 0;
    return du_jinja_str_sub(run, s, 0, s->len - n, out);
}

static bool push_sub(jrun *run, jitems *to, const jstr *s, size_t from, size_t end) {
    jvalue part;
    return du_jinja_str_sub(run, s, from, end - from, &part) && du_jinja_push(run, to, part);
}

/* Pieces between white space; none is empty. */
static bool split_space(jrun *run, const jstr *s, int64_t max, jitems *to) {
    size_t at = du_jinja_strip_start(j_view(s), NULL), n;
    while (at < s->len) {
        size_t end = at;
        if (max >= 0 && to->n == max) {
            return push_sub(run, to, s, at, s->len);
        }
        while (end < s->len && !du_jinja_is_space(du_jinja_char_get(s->s + end, &n))) {
            end += n;
        }
        if (!push_sub(run, to, s, at, end)) {
            return false;
        }
        at = end + du_jinja_strip_start((du_sv){s->s + end, s->len - end}, NULL);
    }
    return true;
}

/* The same from the end; the pieces come in reverse order. */
static bool rsplit_space(jrun *run, const jstr *s, int64_t max, jitems *to) {
    size_t end = s->len - du_jinja_strip_end(j_view(s), NULL), n;
    while (end > 0) {
        size_t at = end;
        if (max >= 0 && to->n == max) {
            return push_sub(run, to, s, 0, end);
        }
        while (at > 0 && !du_jinja_is_space(du_jinja_char_before(s->s, at, &n))) {
            at -= n;
        }
        if (!push_sub(run, to, s, at, end)) {
            return false;
        }
        end = at - du_jinja_strip_end((du_sv){s->s, at}, NULL);
    }
    return true;
}

static bool split_at(jrun *run, const jstr *s, du_sv sep, int64_t max, jitems *to) {
    size_t at = 0;
    for (;;) {
        int64_t next = max >= 0 && to->n == max ? -1 : du_sv_find(j_view(s), sep, at);
        if (next < 0) {
            return push_sub(run, to, s, at, s->len);
        }
        if (!push_sub(run, to, s, at, (size_t)next)) {
            return false;
        }
        at = (size_t)next + sep.len;
    }
}

static bool rsplit_at(jrun *run, const jstr *s, du_sv sep, int64_t max, jitems *to) {
    size_t end = s->len;
    for (;;) {
        int64_t at = max >= 0 && to->n == max ? -1 : find_last((du_sv){s->s, end}, sep);
        if (at < 0) {
            return push_sub(run, to, s, 0, end);
        }
        if (!push_sub(run, to, s, (size_t)at + sep.len, end)) {
            return false;
        }
        end = (size_t)at;
    }
}

static bool split(jrun *run, const char *method, jvalue self, const jcall *call, bool from_end,
                  jvalue *out) {
    jitems items = {0};
    jvalue sep = call->p[0];
    int64_t max = -1;
    if (j_given(call->p[1]) && !du_jinja_arg_int(run, method, call->p[1], &max)) {
        return false;
    }
    bool ok = du_jinja_spend(run, (int64_t)(self.s->len / 16));
    if (!j_given(sep) || sep.type == J_NONE) {
        ok = ok && (from_end ? rsplit_space : split_space)(run, self.s, max, &items);
    } else if (!du_jinja_want_str(run, method, sep)) {
        return false;
    } else if (sep.s->len == 0) {
        return du_jinja_fail(run, DU_EFORMAT, "%s: the separator is empty", method);
    } else {
        ok = ok && (!from_end || spend_find_last(run, j_view(self.s), j_view(sep.s))) &&
             (from_end ? rsplit_at : split_at)(run, self.s, j_view(sep.s), max, &items);
    }
    for (int64_t i = 0; ok && from_end && i < items.n / 2; i++) {
        jvalue v = items.items[i];
        items.items[i] = items.items[items.n - 1 - i];
        items.items[items.n - 1 - i] = v;
    }
    return ok && du_jinja_list_of(run, J_LIST, items.items, items.n, out);
}

bool du_jinja_str_split(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    return split(run, "split", self, call, false, out);
}

bool du_jinja_str_rsplit(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    return split(run, "rsplit", self, call, true, out);
}

bool du_jinja_splitlines(jrun *run, const jstr *s, bool keep, jitems *to) {
    size_t at = 0, n;
    for (size_t i = 0; i < s->len; i += n) {
        int32_t c = du_jinja_char_get(s->s + i, &n);
        if (!du_jinja_is_line_end(c)) {
            continue;
        }
        n += c == '\r' && i + 1 < s->len && s->s[i + 1] == '\n';
        if (!push_sub(run, to, s, at, keep ? i + n : i)) {
            return false;
        }
        at = i + n;
    }
    return (at == s->len || push_sub(run, to, s, at, s->len)) &&
           du_jinja_spend(run, (int64_t)(s->len / 16));
}

bool du_jinja_str_splitlines(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    jitems items = {0};
    bool keep = false;
    return (!j_given(call->p[0]) || du_jinja_truth(run, call->p[0], &keep)) &&
           du_jinja_splitlines(run, self.s, keep, &items) &&
           du_jinja_list_of(run, J_LIST, items.items, items.n, out);
}

static bool partition(jrun *run, const char *method, jvalue self, jvalue sep, bool last,
                      jvalue *out) {
    const jstr *s = self.s;
    jitems items = {0};
    if (!du_jinja_want_str(run, method, sep)) {
        return false;
    }
    if (sep.s->len == 0) {
        return du_jinja_fail(run, DU_EFORMAT, "%s: the separator is empty", method);
    }
    if (last && !spend_find_last(run, j_view(s), j_view(sep.s))) {
        return false;
    }
    int64_t at =
        last ? find_last(j_view(s), j_view(sep.s)) : du_sv_find(j_view(s), j_view(sep.s), 0);
    size_t cut = at >= 0 ? (size_t)at : last ? 0 : s->len;
    size_t behind = at >= 0 ? cut + sep.s->len : cut;
    return du_jinja_spend(run, (int64_t)(s->len / 16)) && push_sub(run, &items, s, 0, cut) &&
           push_sub(run, &items, s, cut, behind) && push_sub(run, &items, s, behind, s->len) &&
           du_jinja_list_of(run, J_TUPLE, items.items, items.n, out);
}

bool du_jinja_str_partition(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    return partition(run, "partition", self, call->p[0], false, out);
}

bool du_jinja_str_rpartition(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    return partition(run, "rpartition", self, call->p[0], true, out);
}
