/* Tests: what stands behind `is`. */
#include "text/jinja_int.h"

#define TEST(name, expr)                                                                           \
    static bool t_##name(jrun *run, jvalue self, const jcall *call, jvalue *out) {                 \
        (void)run;                                                                                 \
        (void)call;                                                                                \
        *out = j_bool(expr);                                                                       \
        return true;                                                                               \
    }
TEST(defined, self.type != J_UNDEFINED)
TEST(undefined, self.type == J_UNDEFINED)
TEST(none, self.type == J_NONE)
TEST(boolean, self.type == J_BOOL)
TEST(false, self.type == J_BOOL && !self.b)
TEST(true, self.type == J_BOOL && self.b)
TEST(integer, self.type == J_INT)
TEST(float, self.type == J_FLOAT)
TEST(number, j_is_number(self))
TEST(string, self.type == J_STR)
TEST(mapping, self.type == J_DICT)
TEST(iterable, du_jinja_iterable(self))
TEST(escaped, self.type == J_STR && self.s->markup)
TEST(sequence, self.type == J_STR || self.type == J_LIST || self.type == J_TUPLE ||
                   self.type == J_DICT || self.type == J_RANGE || self.type == J_UNDEFINED)
TEST(callable, self.type == J_FUNC || self.type == J_MACRO || self.type == J_LOOP ||
                   self.type == J_JOINER || self.type == J_UNDEFINED)
#undef TEST

/* Whether a table has the name. */
static bool is_known(jrun *run, jvalue self, const jbuiltin *(*find)(du_sv name), jvalue *out) {
    *out = j_bool(self.type == J_STR && find(j_view(self.s)));
    return du_jinja_hashable(self) ||
           du_jinja_fail(run, DU_EFORMAT, "%s is no name", du_jinja_type_name(self));
}

static bool t_filter(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    (void)call;
    return is_known(run, self, du_jinja_filter_find, out);
}

static bool t_test(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    (void)call;
    return is_known(run, self, du_jinja_test_find, out);
}

/* self % divisor == rest */
static bool rest_is(jrun *run, jvalue self, jvalue divisor, int64_t rest, jvalue *out) {
    jvalue v;
    bool same;
    if (!du_jinja_binary(run, OP_MOD, self, divisor, &v) ||
        !du_jinja_equal(run, v, j_int(rest), &same)) {
        return false;
    }
    *out = j_bool(same);
    return true;
}

static bool t_odd(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    (void)call;
    return rest_is(run, self, j_int(2), 1, out);
}

static bool t_even(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    (void)call;
    return rest_is(run, self, j_int(2), 0, out);
}

static bool t_divisibleby(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    return rest_is(run, self, call->p[0], 0, out);
}

static bool t_lower(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    (void)call;
    if (!du_jinja_to_str(run, self, &self)) {
        return false;
    }
    *out = j_bool(du_jinja_one_case(self.s, false));
    return true;
}

static bool t_upper(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    (void)call;
    if (!du_jinja_to_str(run, self, &self)) {
        return false;
    }
    *out = j_bool(du_jinja_one_case(self.s, true));
    return true;
}

/* Python's `is`: numbers and texts by value here, the rest by identity. */
static bool t_sameas(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    jvalue other = call->p[0];
    bool same = self.type == other.type;
    if (same && (j_is_number(self) || self.type == J_STR || self.type == J_NONE)) {
        if (!du_jinja_equal(run, self, other, &same)) {
            return false;
        }
    } else if (same) {
        same = self.iter == other.iter;
    }
    *out = j_bool(same);
    return true;
}

static bool t_in(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    bool found;
    if (!du_jinja_contains(run, call->p[0], self, &found)) {
        return false;
    }
    *out = j_bool(found);
    return true;
}

#define COMPARE(name, op)                                                                          \
    static bool t_##name(jrun *run, jvalue self, const jcall *call, jvalue *out) {                 \
        bool holds;                                                                                \
        if (!du_jinja_compare(run, op, self, call->p[0], &holds)) {                                \
            return false;                                                                          \
        }                                                                                          \
        *out = j_bool(holds);                                                                      \
        return true;                                                                               \
    }
COMPARE(eq, OP_EQ)
COMPARE(ne, OP_NE)
COMPARE(lt, OP_LT)
COMPARE(le, OP_LE)
COMPARE(gt, OP_GT)
COMPARE(ge, OP_GE)
#undef COMPARE

static const jbuiltin tests[] = {
    {"!=", t_ne, "/other", 1},
    {"<", t_lt, "/other", 1},
    {"<=", t_le, "/other", 1},
    {"==", t_eq, "/other", 1},
    {">", t_gt, "/other", 1},
    {">=", t_ge, "/other", 1},
    {"boolean", t_boolean, "", 0},
    {"callable", t_callable, "", 0},
    {"defined", t_defined, "", 0},
    {"divisibleby", t_divisibleby, "num", 1},
    {"eq", t_eq, "/other", 1},
    {"equalto", t_eq, "/other", 1},
    {"escaped", t_escaped, "", 0},
    {"even", t_even, "", 0},
    {"false", t_false, "", 0},
    {"filter", t_filter, "", 0},
    {"float", t_float, "", 0},
    {"ge", t_ge, "/other", 1},
    {"greaterthan", t_gt, "/other", 1},
    {"gt", t_gt, "/other", 1},
    {"in", t_in, "seq", 1},
    {"integer", t_integer, "", 0},
    {"iterable", t_iterable, "", 0},
    {"le", t_le, "/other", 1},
    {"lessthan", t_lt, "/other", 1},
    {"lower", t_lower, "", 0},
    {"lt", t_lt, "/other", 1},
    {"mapping", t_mapping, "", 0},
    {"ne", t_ne, "/other", 1},
    {"none", t_none, "", 0},
    {"number", t_number, "", 0},
    {"odd", t_odd, "", 0},
    {"sameas", t_sameas, "other", 1},
    {"sequence", t_sequence, "", 0},
    {"string", t_string, "", 0},
    {"test", t_test, "", 0},
    {"true", t_true, "", 0},
    {"undefined", t_undefined, "", 0},
    {"upper", t_upper, "", 0},
};

const jbuiltin *du_jinja_test_find(du_sv name) {
    return du_jinja_builtin_find(tests, sizeof tests / sizeof tests[0], name);
}
