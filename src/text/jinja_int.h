/* What the files of the Jinja interpreter share; nobody else includes this.
 *
 *   jinja_lex.c      text -> tokens, white space   jinja_scope.c   which slot each name lives in
 *   jinja_parse.c    tokens -> expressions         jinja_stmt.c    tokens -> statements
 *   jinja_postfix.c  attributes, calls, filters    jinja_tree.c    walking the tree
 *   jinja_eval.c     expressions                   jinja_exec.c    statements
 *   jinja_loop.c     for                           jinja_macro.c   macro, call
 *   jinja_value.c    values, equality, order       jinja_dict.c    dictionaries
 *   jinja_ops.c      operators, lookups, slices    jinja_iter.c    iteration
 *   jinja_call.c     parameters, global functions  jinja_attr.c    attributes and methods
 *   jinja_str.c      methods of str: case, build   jinja_find.c    ... search, cut
 *   jinja_percent.c  text % values                 jinja_format.c  str.format
 *   jinja_spec.c     a field of these two
 *   jinja_print.c    str, repr                     jinja_json.c    tojson
 *   jinja_filters.c  filters on single values      jinja_number.c  filters on numbers
 *   jinja_filters_seq.c  filters on sequences      jinja_lazy.c    map, select and their like
 *   jinja_tests.c    `is`                          jinja_text.c    Python's view of UTF-8
 *   jinja.c          the public functions
 *
 * Names with a plain j are types; functions are du_jinja_*. A function that evaluates returns false
 * after it recorded a failure in the jrun. */
#ifndef DU_TEXT_JINJA_INT_H
#define DU_TEXT_JINJA_INT_H

#include "base/hash.h"
#include "base/mem.h"
#include "text/jinja.h"

enum {
    J_NEST_MAX = 200,   /* nested blocks and brackets of a template */
    J_TREE_MAX = 1000,  /* levels of a template's tree */
    J_DEPTH_MAX = 1000, /* evaluations in progress at once */
    J_FLOAT_STEPS = 16, /* what printing a float costs more than another value */
    J_VALUE_DEPTH = 300 /* nested lists in one value, for everything that recurses into values */
};

/* ---- memory: pieces of an arena, zeroed, all freed together --------------------------------- */

typedef struct {
    du_arena *arena;
    char *at, *end;            /* what is left of the current block */
    size_t n_bytes, max_bytes; /* taken so far; 0: no limit */
} jpool;

/* NULL when memory is short or the limit is reached (then n_bytes > max_bytes). */
void *du_jinja_alloc(jpool *pool, size_t n, size_t size_bytes);

/* ---- values ---------------------------------------------------------------------------------- */

typedef enum {
    J_MISSING, /* no value at all: an unset slot, a parameter not given */
    J_UNDEFINED,
    J_NONE,
    J_BOOL,
    J_INT,
    J_FLOAT,
    J_STR,
    J_LIST,
    J_TUPLE,
    J_DICT,
    J_VIEW, /* keys(), values(), items() */
    J_RANGE,
    J_ITER, /* a lazy sequence that can be walked once */
    J_NAMESPACE,
    J_LOOP,
    J_MACRO,
    J_FUNC, /* a global function, or a method with its object */
    J_CYCLER,
    J_JOINER,
} jtype;

/* Room behind the bytes of the string that was appended to last, so that a text built by n
 * appends is copied O(1) times. */
typedef struct {
    size_t used, cap; /* bytes, from `start` */
    char *start;
} jgrow;

/* Valid UTF-8 without surrogates, not terminated, never changed. */
typedef struct {
    const char *s;
    size_t len;     /* bytes */
    size_t n_chars; /* code points */
    bool markup;    /* came from |safe or |escape: what is joined to it gets escaped */
    jgrow *grow;    /* NULL when the bytes have no room behind them */
} jstr;

typedef struct jvalue jvalue;
typedef struct jdict jdict;
typedef struct jiter jiter;
typedef struct jnode jnode;
typedef struct jrun jrun;
typedef struct jact jact;
typedef struct jlazy jlazy;

/* A list or tuple; never changed once it is visible. */
typedef struct {
    const jvalue *items;
    int64_t n;
    bool group; /* tuple (grouper, list) of the filter groupby, with these attributes */
} jlist;

typedef struct {
    int64_t start, step, n; /* item i is start + i * step */
    int64_t stop;           /* as it was given, for printing */
} jrange;

typedef enum { J_KEYS, J_VALUES, J_ITEMS } jview_kind;

typedef struct {
    jview_kind kind;
    jdict *dict;
} jview;

typedef struct jundef jundef;
typedef struct jloop jloop;
typedef struct jmacro jmacro;
typedef struct jfunc jfunc;
typedef struct jcycler jcycler;
typedef struct jjoiner jjoiner;

struct jvalue {
    jtype type;
    union {
        bool b;
        int64_t i;
        double f;
        const jstr *s;
        const jlist *list; /* J_LIST, J_TUPLE */
        jdict *dict;       /* J_DICT, J_NAMESPACE: its attributes */
        const jview *view;
        const jrange *range;
        jiter *iter;
        const jundef *undef; /* NULL: nothing is known about it */
        jloop *loop;
        jmacro *macro;
        jfunc *func;
        jcycler *cycler;
        jjoiner *joiner;
    };
};

typedef struct {
    jvalue key, value;
} jentry;

/* Insertion-ordered, keys equal as in Python (1 == 1.0 == True). Only namespaces change. */
struct jdict {
    jentry *entries;
    int64_t n, cap;
    du_hash *index;    /* canonical key -> entry, from J_DICT_INDEX entries on */
    int64_t n_indexed; /* entries that are in it */
    jdict *next_indexed;
};

/* Why a value is undefined; a message is made of it only when it is used. */
struct jundef {
    const char
        *hint; /* the whole reason; NULL: looked up `name`, in `object` if that is not missing */
    jvalue object, name;
};

typedef struct {
    const jvalue *args;
    int64_t n_args;
    jdict *kwargs;   /* NULL: none */
    const jvalue *p; /* bound to the declared parameters, J_MISSING where not given */
} jcall;

enum { J_PARAMS_MAX = 8 };

/* A function, method, filter or test. `self` is the object, or the value left of | and is. */
typedef struct {
    const char *name;
    bool (*fn)(jrun *run, jvalue self, const jcall *call, jvalue *out); /* NULL: not supported */
    const char
        *params; /* "a,b,c"; a leading '/': by position only; NULL: takes the call as it is */
    int n_required;
} jbuiltin;

struct jfunc {
    const jbuiltin *def;
    jvalue self;
};

struct jmacro {
    const jnode *node;
    jact *closure; /* the activation it was defined in */
};

struct jcycler {
    const jvalue *items;
    int64_t n, pos;
};

struct jjoiner {
    jvalue sep;
    bool used;
};

/* The variable `loop`. `after` is an item that was looked at ahead of its turn. */
struct jloop {
    const jnode *node;
    jact *closure; /* where a recursive call evaluates */
    jiter *iter;
    jvalue iterable;
    jvalue before, current, after; /* J_MISSING when there is none */
    bool ended;                    /* the iterator gave all it had */
    int64_t index0, depth0;
    int64_t length;       /* -1: not known yet */
    const jlist *changed; /* arguments of the last loop.changed */
};

/* ---- templates ------------------------------------------------------------------------------- */

typedef enum {
    /* expressions */
    N_CONST,   /* value */
    N_NAME,    /* ref */
    N_NSREF,   /* ref, attr: target ns.attr */
    N_TUPLE,   /* list */
    N_LIST,    /* list */
    N_DICT,    /* list: key, value, key, value, ... */
    N_COND,    /* cond */
    N_AND,     /* bin */
    N_OR,      /* bin */
    N_NOT,     /* bin.left */
    N_NEG,     /* bin.left */
    N_POS,     /* bin.left */
    N_BINARY,  /* bin, op */
    N_COMPARE, /* list: operand, operand, ...; ops: between them */
    N_CONCAT,  /* list */
    N_GETATTR, /* get.object, get.name */
    N_GETITEM, /* get.object, get.key */
    N_SLICE,   /* slice; only as the key of N_GETITEM */
    N_CALL,    /* call.target */
    N_FILTER,  /* call.target (NULL: the text of the block), call.def */
    N_TEST,    /* call.target, call.def */
    /* statements */
    N_OUTPUT,       /* list: expressions and constant text */
    N_IF,           /* branch */
    N_FOR,          /* loop */
    N_SET,          /* set.target, set.value */
    N_SET_BLOCK,    /* set.target, set.value (a filter or NULL), set.body */
    N_WITH,         /* with */
    N_MACRO,        /* macro */
    N_CALL_BLOCK,   /* macro, macro.call */
    N_FILTER_BLOCK, /* set.value, set.body */
    N_GENERATION,   /* set.body */
    N_BREAK,
    N_CONTINUE,
} jnode_type;

typedef enum {
    OP_ADD,
    OP_SUB,
    OP_MUL,
    OP_DIV,
    OP_FLOORDIV,
    OP_MOD,
    OP_POW, /* N_BINARY */
    OP_EQ,
    OP_NE,
    OP_LT,
    OP_LE,
    OP_GT,
    OP_GE,
    OP_IN,
    OP_NOT_IN, /* N_COMPARE */
} jop;

/* Where a variable lives: slot `slot` of the activation `up` functions further out. */
typedef struct {
    int32_t name; /* index into the template's names */
    int32_t up, slot;
} jref;

/* How a slot gets its value when its scope is entered. */
typedef enum {
    LOAD_PARAM,   /* set by whoever enters */
    LOAD_RESOLVE, /* from the variables that the caller gave, or the global functions */
    LOAD_ALIAS,   /* from the variable of the same name further out */
    LOAD_UNSET,
} jload_kind;

typedef struct {
    jload_kind kind;
    int32_t slot;
    jref from; /* LOAD_ALIAS; LOAD_RESOLVE: name */
} jload;

typedef struct {
    jload *loads;
    int32_t n;
} jscope;

typedef struct {
    jnode **items;
    int32_t n;
} jnodes;

struct jnode {
    jnode_type type;
    int32_t line;
    union {
        jvalue value;
        struct {
            jref ref;
            bool store;
            const jstr *attr; /* N_NSREF */
        } var;
        struct {
            jnodes items;
            jop *ops;
        } list;
        struct {
            jnode *test, *yes, *no; /* no: NULL when there is no else */
        } cond;
        struct {
            jnode *left, *right;
            jop op;
        } bin;
        struct {
            jnode *object, *key;
            const jstr *name;
        } get;
        struct {
            jnode *start, *stop, *step; /* each may be NULL */
        } slice;
        struct {
            jnode *target;
            const jstr *name; /* of the filter or test */
            const jbuiltin *def;
            jnodes args;
            jnodes kwargs; /* values */
            const jstr **kw_names;
            jnode *dyn_args, *dyn_kwargs; /* *args, **kwargs; NULL */
        } call;
        struct {
            jnodes tests;   /* if, elif, ... */
            jnodes *bodies; /* one more than tests when there is an else */
            int32_t n_bodies;
        } branch;
        struct {
            jnode *target, *iter;
            jnode *test, *test_target; /* `if` of the loop; NULL. The target in its own scope */
            jnodes body, otherwise;
            bool recursive;
            int32_t n_slots;   /* of its function, when recursive */
            int32_t loop_slot; /* -1: the body does not look at `loop` */
            jscope body_scope, else_scope, test_scope;
        } loop;
        struct {
            jnode *target, *value;
            jnodes body;
            jscope scope;
        } set;
        struct {
            jnodes targets, values, body;
            jscope scope;
        } with;
        struct {
            const jstr *name;
            jref ref;        /* N_MACRO: where the macro is stored */
            jnodes params;   /* N_NAME each */
            jnodes defaults; /* of the last parameters */
            jnodes body;
            jnode *call; /* N_CALL_BLOCK */
            jscope scope;
            int32_t n_slots;
            int32_t caller_slot, kwargs_slot, varargs_slot; /* -1: not used */
        } macro;
    };
};

struct du_jinja {
    char *name;
    jpool pool;    /* the tree */
    du_hash index; /* name -> index into names */
    const jstr **names;
    bool *reads; /* per name: it is read as a variable somewhere */
    size_t n_names, cap_names, cap_reads;
    jnodes body;
    jscope scope;
    int32_t n_slots;
};

/* ---- parsing --------------------------------------------------------------------------------- */

typedef enum {
    T_EOF,
    T_DATA,
    T_BLOCK_BEGIN,
    T_BLOCK_END,
    T_VAR_BEGIN,
    T_VAR_END,
    T_NAME,
    T_STRING,
    T_INT,
    T_FLOAT,
    T_ADD,
    T_SUB,
    T_MUL,
    T_DIV,
    T_FLOORDIV,
    T_MOD,
    T_POW,
    T_TILDE,
    T_LPAREN,
    T_RPAREN,
    T_LBRACKET,
    T_RBRACKET,
    T_LBRACE,
    T_RBRACE,
    T_EQ,
    T_NE,
    T_LT,
    T_LE,
    T_GT,
    T_GE,
    T_ASSIGN,
    T_DOT,
    T_COLON,
    T_PIPE,
    T_COMMA,
    T_SEMICOLON,
} jtoken_type;

typedef struct {
    jtoken_type type;
    int32_t line;
    du_sv text;   /* T_DATA, T_NAME: itself; others: as written */
    jvalue value; /* T_STRING, T_INT, T_FLOAT */
} jtoken;

typedef enum { LEX_TEXT, LEX_RAW, LEX_BLOCK, LEX_VARIABLE } jlex_state;

typedef struct {
    du_sv src; /* newlines are \n, the last one is gone */
    size_t pos;
    int32_t line; /* of pos_line, to count on from */
    size_t pos_line;
    jlex_state state;
    jtoken_type pending; /* the tag that begins after a T_DATA; T_EOF: none */
    bool line_start;     /* the last tag's end took a newline, or there was no tag yet */
    char brackets[J_NEST_MAX];
    int n_brackets;
    jpool *pool;
    const char *name;
    du_diag *diag;
    du_err err;
} jlex;

/* The next token; on failure lex->err is set and T_EOF given. */
jtoken du_jinja_lex_next(jlex *lex);
const char *du_jinja_token_name(jtoken_type type);

typedef struct {
    du_jinja *template;
    jlex lex;
    jtoken cur, next;
    int depth;
    const char *open_tags[J_NEST_MAX]; /* statements in progress, for messages */
    int32_t open_lines[J_NEST_MAX];
    int n_open;
    du_err err;
} jparser;

/* These give NULL or false after a failure was recorded. */
bool du_jinja_parse_template(jparser *p);
jnode *du_jinja_parse_expr(jparser *p, bool with_cond);
jnode *du_jinja_parse_tuple(jparser *p, bool with_cond); /* one, or several with commas */
jnode *du_jinja_parse_target(jparser *p, bool with_namespace);
jnode *du_jinja_parse_primary(jparser *p, bool with_namespace);
jnode *du_jinja_parse_postfix(jparser *p, jnode *node);
jnode *du_jinja_parse_filters(jparser *p, jnode *node, bool start_inline);
jnode *du_jinja_parse_filter_expr(jparser *p, jnode *node);

jnode *du_jinja_node_new(jparser *p, jnode_type type, int32_t line);
jnode *du_jinja_name_node(jparser *p, du_sv text, int32_t line, bool store);
jnode *du_jinja_const_node(jparser *p, jvalue v, int32_t line);
jnode *du_jinja_copy_target(jparser *p, const jnode *target);
bool du_jinja_nodes_add(jparser *p, jnodes *list, jnode *node);
const jstr *du_jinja_name_str(jparser *p, du_sv text);
bool du_jinja_enter(jparser *p); /* one level deeper; p->depth-- leaves it */

void du_jinja_advance(jparser *p);
bool du_jinja_at_name(const jparser *p, const char *name);
bool du_jinja_skip(jparser *p, jtoken_type type);
bool du_jinja_skip_name(jparser *p, const char *name);
bool du_jinja_expect(jparser *p, jtoken_type type, jtoken *token);
bool du_jinja_expect_name(jparser *p, const char *name);
jnode *du_jinja_fail_unexpected(jparser *p, const char *wanted);
void du_jinja_parse_error(jparser *p, du_err code, int32_t line, const char *fmt, ...)
    DU_PRINTF(4, 5);
void du_jinja_parse_nomem(jparser *p);

/* Whether the tree is deeper than what walks through it by recursion may stand: brackets count
 * while they are open, but chains (a+b+c) around brackets around chains make more levels than
 * brackets. */
bool du_jinja_too_deep(const jnodes *body, int32_t *line);
/* Gives every name its slot. */
du_err du_jinja_resolve_scopes(du_jinja *t, du_diag *diag);
/* Calls visit on each child of a node, in the order they stand; false when a visit returned it. */
bool du_jinja_each_child(jnode *node, bool (*visit)(void *data, jnode *child), void *data);

/* ---- rendering ------------------------------------------------------------------------------- */

/* The variables of one call of a function (template, macro, recursive loop). */
struct jact {
    jact *outer; /* of the function around it */
    jvalue *slots;
};

struct jrun {
    const du_jinja *template;
    jpool pool;
    du_str out;
    size_t out_max; /* bytes, of the output and of each text on its way there */
    int64_t steps_left;
    int depth;
    int32_t line;
    jact *act;
    jvalue block_text; /* what a filter without a value applies to */
    jdict *vars;
    jdict *indexed; /* dictionaries whose index is to be freed */
    int64_t now_s;  /* 0: the clock */
    du_diag *diag;
    du_err err;
};

/* Records a failure at the current line; always returns false. */
bool du_jinja_fail(jrun *run, du_err code, const char *fmt, ...) DU_PRINTF(3, 4);
bool du_jinja_fail_undefined(jrun *run, jvalue v);
bool du_jinja_fail_memory(jrun *run);
bool du_jinja_spend(jrun *run, int64_t n_steps);
bool du_jinja_deeper(jrun *run); /* one evaluation deeper; run->depth-- leaves it */
bool du_jinja_within_limits(jrun *run, const du_str *text, int depth);
void *du_jinja_run_alloc(jrun *run, int64_t n, size_t size_bytes); /* NULL: failure recorded */

/* Statements */
typedef enum { FLOW_NEXT, FLOW_BREAK, FLOW_CONTINUE, FLOW_FAIL } jflow;

bool du_jinja_render_body(jrun *run);
jflow du_jinja_exec_body(jrun *run, const jnodes *body);
jflow du_jinja_exec_for(jrun *run, const jnode *node);
bool du_jinja_exec_call_block(jrun *run, const jnode *node);
bool du_jinja_assign(jrun *run, const jnode *target, jvalue v);
bool du_jinja_enter_scope(jrun *run, const jscope *scope);
void du_jinja_leave_scope(jrun *run, const jscope *scope);
bool du_jinja_captured(jrun *run, size_t start, jvalue *out);
jact *du_jinja_act_new(jrun *run, jact *outer, int32_t n_slots);
jvalue *du_jinja_slot(jrun *run, jref ref);
bool du_jinja_macro_new(jrun *run, const jnode *node, jvalue *out);
bool du_jinja_macro_call(jrun *run, jmacro *macro, const jcall *call, jvalue *out);
bool du_jinja_loop_call(jrun *run, jloop *loop, jvalue iterable, jvalue *out);
bool du_jinja_loop_length(jrun *run, jloop *loop, int64_t *out);
bool du_jinja_loop_peek(jrun *run, jloop *loop, jvalue *out); /* missing: there is no next item */

/* Expressions and calls */
bool du_jinja_eval(jrun *run, const jnode *node, jvalue *out);
bool du_jinja_eval_args(jrun *run, const jnode *node, jcall *call);
bool du_jinja_call(jrun *run, jvalue target, const jcall *call, jvalue *out);
bool du_jinja_call_builtin(jrun *run, const jbuiltin *def, jvalue self, const jcall *call,
                           jvalue *out);
bool du_jinja_func(jrun *run, const jbuiltin *def, jvalue self, jvalue *out);
bool du_jinja_arg_int(jrun *run, const char *who, jvalue v, int64_t *out);
const jbuiltin *du_jinja_builtin_find(const jbuiltin *table, size_t n, du_sv name);
const jbuiltin *du_jinja_filter_find(du_sv name);
const jbuiltin *du_jinja_test_find(du_sv name);
const jbuiltin *du_jinja_str_method(du_sv name);
bool du_jinja_global_find(jrun *run, du_sv name, jvalue *out); /* missing: there is none */
/* What an object has by itself: a method or property, not an item. */
bool du_jinja_builtin_attr(jrun *run, jvalue object, du_sv name, bool *found, jvalue *out);

/* Values */
static inline jvalue j_none(void) {
    return (jvalue){.type = J_NONE};
}
static inline jvalue j_bool(bool b) {
    return (jvalue){.type = J_BOOL, .b = b};
}
static inline jvalue j_int(int64_t i) {
    return (jvalue){.type = J_INT, .i = i};
}
static inline jvalue j_float(double f) {
    return (jvalue){.type = J_FLOAT, .f = f};
}
static inline jvalue j_str(const jstr *s) {
    return (jvalue){.type = J_STR, .s = s};
}
static inline jvalue j_dict(jdict *d) {
    return (jvalue){.type = J_DICT, .dict = d};
}
static inline bool j_given(jvalue v) {
    return v.type != J_MISSING;
}
static inline bool j_is_int(jvalue v) {
    return v.type == J_INT || v.type == J_BOOL;
}
static inline bool j_is_number(jvalue v) {
    return j_is_int(v) || v.type == J_FLOAT;
}
static inline int64_t j_as_int(jvalue v) {
    return v.type == J_BOOL ? v.b : v.i;
}
static inline double j_as_float(jvalue v) {
    return v.type == J_FLOAT ? v.f : (double)j_as_int(v);
}
static inline du_sv j_view(const jstr *s) {
    return (du_sv){s->s, s->len};
}
static inline bool j_str_is(jvalue v, const char *text) {
    return v.type == J_STR && du_sv_is(j_view(v.s), text);
}
const char *du_jinja_type_name(jvalue v);
bool du_jinja_undefined(jrun *run, const char *hint, jvalue object, jvalue name, jvalue *out);
bool du_jinja_truth(jrun *run, jvalue v, bool *out);
bool du_jinja_equal(jrun *run, jvalue a, jvalue b, bool *out);
bool du_jinja_compare(jrun *run, jop op, jvalue a, jvalue b, bool *out);
bool du_jinja_length(jrun *run, jvalue v, int64_t *out); /* -1: it has none */

/* Strings */
bool du_jinja_str_copy(jrun *run, const char *s, size_t len, jvalue *out);
bool du_jinja_str_borrow(jrun *run, const char *s, size_t len, bool markup, jvalue *out);
bool du_jinja_str_sub(jrun *run, const jstr *s, size_t from, size_t len, jvalue *out); /* bytes */
bool du_jinja_str_take(jrun *run, du_str *s, bool markup, jvalue *out); /* copies and frees */
bool du_jinja_str_append(jrun *run, const jstr *a, const jstr *b, jvalue *out);
bool du_jinja_repeat(jrun *run, du_sv text, int64_t n, bool markup, jvalue *out);
size_t du_jinja_byte_of(const jstr *s, int64_t i);      /* of code point i, 0 <= i <= n_chars */
bool du_jinja_escape(jrun *run, jvalue v, jvalue *out); /* HTML; gives markup */
bool du_jinja_lower(jrun *run, const jstr *s, jvalue *out);
bool du_jinja_to_case(jrun *run, const jstr *s, int how, jvalue *out); /* a du_case */
bool du_jinja_one_case(const jstr *s, bool upper);
bool du_jinja_strip(jrun *run, const char *who, jvalue self, jvalue chars, bool start, bool end,
                    jvalue *out);
bool du_jinja_center(jrun *run, const jstr *s, int64_t width, jvalue fill, jvalue *out);
bool du_jinja_replace(jrun *run, const jstr *s, du_sv old, du_sv with, int64_t max, jvalue *out);

/* Lists, pairs */
typedef struct {
    jvalue *items;
    int64_t n, cap;
} jitems;

bool du_jinja_push(jrun *run, jitems *items, jvalue v);
bool du_jinja_list_new(jrun *run, jtype type, int64_t n, jvalue *out, jvalue **items);
/* A list of n items that are there already. */
bool du_jinja_list_of(jrun *run, jtype type, const jvalue *items, int64_t n, jvalue *out);
bool du_jinja_pair(jrun *run, jvalue a, jvalue b, jvalue *out);
bool du_jinja_to_list(jrun *run, jvalue v, jtype type, jvalue *out);
bool du_jinja_splitlines(jrun *run, const jstr *s, bool keep, jitems *to);

/* Dictionaries */
bool du_jinja_dict_new(jrun *run, int64_t cap, jdict **out);
bool du_jinja_dict_set(jrun *run, jdict *d, jvalue key, jvalue value);
bool du_jinja_dict_append(jrun *run, jdict *d, jvalue key, jvalue value); /* a key not in it */
bool du_jinja_dict_find(jrun *run, jdict *d, jvalue key, jvalue **out);   /* NULL: absent */
bool du_jinja_dict_find_sv(jrun *run, jdict *d, du_sv key, jvalue **out);
bool du_jinja_hashable(jvalue v);
bool du_jinja_view(jrun *run, jdict *d, jview_kind kind, jvalue *out);
bool du_jinja_sorted_entries(jrun *run, const jdict *d, const jentry **out);

/* Iteration */
typedef bool jnext(jrun *run, jiter *it, jvalue *out, bool *more);

struct jiter {
    jnext *next;
    const char *type_name; /* Python's, for messages */
    jvalue src;            /* what is walked through */
    int64_t pos;           /* the next item's index; J_STR: byte */
    bool ended;
    jlazy *lazy; /* NULL for what is there already */
};

/* What a lazy sequence does with the items of another. */
struct jlazy {
    jiter *inner;        /* the other one, once it was begun */
    const jnode *node;   /* the test of a loop, */
    jact *act;           /* evaluated there */
    bool ready;          /* the arguments were looked at */
    jcall call;          /* map, select: the arguments of def */
    const jbuiltin *def; /* filter or test to apply; NULL */
    jvalue attr, fallback;
    bool by_attr, negate, case_sensitive;
    jdict *seen; /* unique */
};

bool du_jinja_iter_new(jrun *run, jvalue src, jnext *next, const char *type_name, jiter **out);
bool du_jinja_iterable(jvalue v);
bool du_jinja_iter(jrun *run, jvalue v, jiter **out);
bool du_jinja_next(jrun *run, jiter *it, jvalue *out, bool *more);
bool du_jinja_reversed(jrun *run, jvalue v, jvalue *out);

/* Text */
bool du_jinja_to_str(jrun *run, jvalue v, jvalue *out);   /* str(v) */
bool du_jinja_soft_str(jrun *run, jvalue v, jvalue *out); /* str(v), markup stays markup */
bool du_jinja_print(jrun *run, du_str *to, jvalue v);     /* appends str(v) */
bool du_jinja_repr(jrun *run, du_str *to, jvalue v);
void du_jinja_print_float(du_str *to, double f);

/* Formatting */
enum { J_WIDTH_MAX = 1000 * 1000, J_PRECISION_MAX = 400 };

typedef struct {
    char fill[4];      /* one character */
    size_t n_fill;     /* its bytes */
    char align;        /* < > ^ =, 0: as the type has it */
    char sign;         /* + or blank; 0 or -: only minus */
    bool alternate;    /* # */
    char thousands;    /* , or _; 0 */
    int64_t width;     /* characters */
    int64_t precision; /* -1: none */
    char type;         /* 0: none */
} jspec;

bool du_jinja_spec_text(jrun *run, du_str *to, const jspec *s, jvalue text);
void du_jinja_spec_int(du_str *to, const jspec *s, int64_t v, int64_t min_digits);
void du_jinja_spec_float(du_str *to, const jspec *s, double f);
bool du_jinja_spec_count(jrun *run, const char **p, const char *end, int64_t max, int64_t *out);
bool du_jinja_percent(jrun *run, const jstr *format, jvalue args, jvalue *out);
bool du_jinja_str_format(jrun *run, const jstr *format, const jcall *call, jvalue *out);

/* Operators */
bool du_jinja_binary(jrun *run, jop op, jvalue a, jvalue b, jvalue *out);
bool du_jinja_negate(jrun *run, jvalue v, bool minus, jvalue *out);
bool du_jinja_contains(jrun *run, jvalue container, jvalue item, bool *out);
bool du_jinja_getattr(jrun *run, jvalue object, const jstr *name, jvalue *out);
bool du_jinja_getitem(jrun *run, jvalue object, jvalue key, jvalue *out);
bool du_jinja_slice(jrun *run, jvalue object, jvalue start, jvalue stop, jvalue step, jvalue *out);

/* Methods and filters that are not where their table is */
typedef bool jbuiltin_fn(jrun *run, jvalue self, const jcall *call, jvalue *out);

jbuiltin_fn du_jinja_str_find, du_jinja_str_rfind, du_jinja_str_index, du_jinja_str_rindex,
    du_jinja_str_count, du_jinja_str_startswith, du_jinja_str_endswith, du_jinja_str_strip,
    du_jinja_str_lstrip, du_jinja_str_rstrip, du_jinja_str_removeprefix, du_jinja_str_removesuffix,
    du_jinja_str_split, du_jinja_str_rsplit, du_jinja_str_splitlines, du_jinja_str_partition,
    du_jinja_str_rpartition;
jbuiltin_fn du_jinja_tojson;
jbuiltin_fn du_jinja_f_abs, du_jinja_f_filesizeformat, du_jinja_f_float, du_jinja_f_int,
    du_jinja_f_round;
jbuiltin_fn du_jinja_f_batch, du_jinja_f_dictsort, du_jinja_f_first, du_jinja_f_groupby,
    du_jinja_f_join, du_jinja_f_last, du_jinja_f_list, du_jinja_f_max, du_jinja_f_min,
    du_jinja_f_reverse, du_jinja_f_slice, du_jinja_f_sort, du_jinja_f_sum;
jbuiltin_fn du_jinja_f_items, du_jinja_f_map, du_jinja_f_reject, du_jinja_f_rejectattr,
    du_jinja_f_select, du_jinja_f_selectattr, du_jinja_f_unique;
bool du_jinja_want_str(jrun *run, const char *who, jvalue v);
bool du_jinja_get_attr(jrun *run, jvalue item, jvalue attr, jvalue fallback, jvalue *out);
bool du_jinja_ignore_case(jrun *run, jvalue v, bool case_sensitive, jvalue *out);

#endif
