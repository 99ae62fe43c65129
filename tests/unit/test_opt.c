#include "test.h"

#include "base/mem.h"
#include "base/opt.h"

static bool quiet, verbose;
static const char *prompt;
static int64_t n_predict, ctx;
static double temp;
static int color;
static du_opt_list stops;

static const du_opt own[] = {
    DU_OPTION_STR('p', "prompt", "TEXT", &prompt, "the prompt"),
    DU_OPTION_INT('n', "n-predict", "N", &n_predict, -1, 1000000, "tokens to generate"),
    DU_OPTION_FLOAT(0, "temp", "X", &temp, 0, 100,
                    "a sentence that is long enough to need a second line of the help text here"),
    DU_OPTION_LIST(0, "stop", "TEXT", &stops, "end at this text"),
    DU_OPTION_FLAG('q', "quiet", &quiet, "say nothing"),
    DU_OPTION_FLAG('v', "verbose", &verbose, "say much"),
};
static const du_opt shared[] = {
    DU_OPTION_SIZE('c', "ctx", "N", &ctx, 0, INT64_MAX, "context"),
    DU_OPTION_CHOICE(0, "color-of-the-output", "auto|always|never", &color, "when to colour"),
};
static const du_opt_group groups[] = {{"Options", own, sizeof own / sizeof *own},
                                      {"Computing", shared, sizeof shared / sizeof *shared}};

/* Parses words, which ends with NULL, from the defaults. */
static du_err parse(const char *const *words, int *n_args, char **argv, du_diag *diag) {
    quiet = verbose = false;
    prompt = NULL;
    n_predict = ctx = color = 0;
    temp = 0;
    stops.n = 0;
    int argc = 0;
    while (words[argc]) {
        argv[argc] = (char *)(uintptr_t)words[argc];
        argc++;
    }
    du_diag_reset(diag);
    return du_opt_parse(groups, 2, argc, argv, n_args, diag);
}

#define PARSE(...) parse((const char *const[]){__VA_ARGS__, NULL}, &n_args, argv, &diag)

static void forms(void **state) {
    (void)state;
    du_diag diag;
    int n_args;
    char *argv[16];
    assert_ok(PARSE("model", "-p", "hello there", "--n-predict=7", "-", "-qv", "-c4k"), &diag);
    assert_int_equal(n_args, 2);
    assert_string_equal(argv[0], "model");
    assert_string_equal(argv[1], "-");
    assert_string_equal(prompt, "hello there");
    assert_int_equal(n_predict, 7);
    assert_int_equal(ctx, 4096);
    assert_true(quiet && verbose);
    assert_ok(PARSE("-vn", "-1", "--temp", "2.5e-1", "--color-of-the-output", "never"), &diag);
    assert_int_equal(n_predict, -1);
    assert_true(temp == 0.25 && verbose && !quiet);
    assert_int_equal(color, 2);
    assert_ok(PARSE("--stop", "a", "--", "--stop", "-v"), &diag);
    assert_int_equal(n_args, 2);
    assert_string_equal(argv[0], "--stop");
    assert_int_equal(stops.n, 1);
    assert_ok(PARSE("--stop=a=b", "--stop", "", "--prompt=", "-n", "1", "-n2"), &diag);
    assert_int_equal(stops.n, 2);
    assert_string_equal(stops.items[0], "a=b");
    assert_string_equal(stops.items[1], "");
    assert_string_equal(prompt, "");
    assert_int_equal(n_predict, 2);
    du_opt_list_done(&stops);
}

static void mistakes_are_named(void **state) {
    (void)state;
    du_diag diag;
    int n_args;
    char *argv[16];
    assert_fails(PARSE("--promt", "x"), DU_EINVAL, &diag,
                 "unknown option --promt: did you mean --prompt?");
    assert_fails(PARSE("--zzzzzz=1"), DU_EINVAL, &diag, "unknown option --zzzzzz");
    assert_fails(PARSE("-quiet"), DU_EINVAL, &diag, "did you mean --quiet?");
    assert_fails(PARSE("-x"), DU_EINVAL, &diag, "unknown option -x");
    assert_fails(PARSE("--ctx"), DU_EINVAL, &diag, "--ctx needs a value: N");
    assert_fails(PARSE("-p"), DU_EINVAL, &diag, "-p needs a value: TEXT");
    assert_fails(PARSE("--quiet=yes"), DU_EINVAL, &diag, "--quiet takes no value");
    assert_fails(PARSE("-n", "x"), DU_EINVAL, &diag, "-n: 'x' is not a whole number");
    assert_fails(PARSE("-n", "4k"), DU_EINVAL, &diag, "-n: '4k' is not a whole number");
    assert_fails(PARSE("-n", ""), DU_EINVAL, &diag, "-n: '' is not a whole number");
    assert_fails(PARSE("-n", "-2"), DU_EINVAL, &diag, "-n: -2 is not between -1 and 1000000");
    assert_fails(PARSE("-c", "99999999999999T"), DU_EINVAL, &diag, "is not a number from 0 up");
    assert_fails(PARSE("-c", "4kk"), DU_EINVAL, &diag, "not a whole number");
    assert_fails(PARSE("--temp", "nan"), DU_EINVAL, &diag, "--temp: nan is not between 0 and 100");
    assert_fails(PARSE("--temp", "1,5"), DU_EINVAL, &diag, "--temp: '1,5' is not a number");
    assert_fails(PARSE("--color-of-the-output=red"), DU_EINVAL, &diag,
                 "'red' is none of auto|always|never");
    du_mem_fail_at(1, false);
    assert_fails(PARSE("--stop", "x"), DU_ENOMEM, &diag, "--stop");
    du_mem_fail_at(0, false);
    du_opt_list_done(&stops);
}

static void help_keeps_to_80_columns(void **state) {
    (void)state;
    du_str help = {0};
    du_opt_help(&help, groups, 2);
    assert_string_equal(du_str_get(&help),
                        "Options:\n"
                        "  -p, --prompt TEXT       the prompt\n"
                        "  -n, --n-predict N       tokens to generate\n"
                        "      --temp X            a sentence that is long enough to need a second "
                        "line\n"
                        "                          of the help text here\n"
                        "      --stop TEXT         end at this text\n"
                        "  -q, --quiet             say nothing\n"
                        "  -v, --verbose           say much\n"
                        "\n"
                        "Computing:\n"
                        "  -c, --ctx N             context\n"
                        "      --color-of-the-output auto|always|never\n"
                        "                          when to colour\n");
    du_str_reset(&help);
    du_opt_wrap(&help, "one two\n\nthree", 0, 2);
    assert_string_equal(du_str_get(&help), "  one two\n\n  three");
    du_str_done(&help);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forms),
        cmocka_unit_test(mistakes_are_named),
        cmocka_unit_test(help_keeps_to_80_columns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
