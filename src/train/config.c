/* Keys and their values as texts, both ways: a value is set from what a file, a command line or a
 * checkpoint says, and told as it would be written there. */
#include "train/config_int.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/opt.h"
#include "train/samples.h"

static void *field_of(const du_train_config *config, const du_train_key *key) {
    return (char *)(uintptr_t)config + key->field;
}

const du_train_key *du_train_key_find(du_sv name) {
    for (size_t i = 0; i < du_train_n_keys; i++) {
        if (du_sv_is(name, du_train_keys[i].name)) {
            return &du_train_keys[i];
        }
    }
    return NULL;
}

du_err du_train_config_init(du_train_config *config, du_diag *diag) {
    *config = (du_train_config){.model = json_object()};
    bool failed = !config->model;
    for (size_t i = 0; i < du_train_n_keys; i++) {
        void *field = field_of(config, &du_train_keys[i]);
        if (du_train_keys[i].type == KEY_TEXT) {
            char **text = field;
            *text = du_strdup("");
            failed = failed || !*text;
        } else if (du_train_keys[i].type == KEY_INT) {
            *(int64_t *)field = du_train_keys[i].i_default;
        } else if (du_train_keys[i].type == KEY_REAL) {
            *(double *)field = du_train_keys[i].f_default;
        } else if (du_train_keys[i].type == KEY_WORD) {
            *(int *)field = (int)du_train_keys[i].i_default;
        }
    }
    if (failed) {
        du_train_config_done(config);
        return du_fail_nomem(diag, "the configuration");
    }
    return DU_OK;
}

void du_train_config_done(du_train_config *config) {
    for (size_t i = 0; i < du_train_n_keys; i++) {
        if (du_train_keys[i].type == KEY_TEXT) {
            du_free(*(char **)field_of(config, &du_train_keys[i]));
        }
    }
    json_decref(config->model);
    *config = (du_train_config){0};
}

/* The place of a word in "a|b|c"; -1 when it is none of them. */
static int find_word(const char *words, du_sv word) {
    for (int i = 0; *words; i++) {
        size_t n = strcspn(words, "|");
        if (du_sv_eq((du_sv){words, n}, word)) {
            return i;
        }
        words += n + (words[n] == '|');
    }
    return -1;
}

static du_sv word_at(const char *words, int i) {
    for (; i > 0; i--) {
        words += strcspn(words, "|") + 1;
    }
    return (du_sv){words, strcspn(words, "|")};
}

static du_err refuse(const du_train_key *key, du_sv value, const char *where, const char *takes,
                     du_diag *diag) {
    return du_fail(diag, DU_EINVAL, "%s: %s = %.*s: %s", where, key->name,
                   (int)(value.len < 60 ? value.len : 60), value.s, takes);
}

/* A whole text that is one number. */
static bool read_number(const char *text, double *real, int64_t *whole) {
    char *end = NULL;
    errno = 0;
    if (whole) {
        *whole = strtoll(text, &end, 10);
    } else {
        *real = strtod(text, &end);
    }
    return errno == 0 && end != text && *end == '\0' && (whole || isfinite(*real));
}

static du_err set_number(du_train_config *config, const du_train_key *key, const char *text,
                         const char *where, du_diag *diag) {
    char takes[128];
    double real = 0;
    int64_t whole = 0;
    if (key->type == KEY_INT) {
        if (read_number(text, NULL, &whole) && whole >= key->i_min && whole <= key->i_max) {
            *(int64_t *)field_of(config, key) = whole;
            return DU_OK;
        }
        snprintf(takes, sizeof takes, "takes a whole number from %lld to %lld",
                 (long long)key->i_min, (long long)key->i_max);
    } else {
        if (read_number(text, &real, NULL) && real >= key->f_min && real <= key->f_max) {
            *(double *)field_of(config, key) = real;
            return DU_OK;
        }
        snprintf(takes, sizeof takes, "takes a number from %g to %g", key->f_min, key->f_max);
    }
    return refuse(key, du_sv_of(text), where, takes, diag);
}

static bool is_word(const char *text) {
    return strspn(text, "abcdefghijklmnopqrstuvwxyz_0123456789") == strlen(text);
}

/* Numbers, true, false, null, objects and quoted texts as in JSON; any other word is a text. */
static du_err set_model(du_train_config *config, const du_train_key *key, const char *text,
                        const char *where, du_diag *diag) {
    json_t *value = json_loads(text, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, NULL);
    if (!value && is_word(text)) {
        value = json_string(text);
    }
    if (!value) {
        return refuse(key, du_sv_of(text), where, "takes a number, true, false, a word or JSON",
                      diag);
    }
    return json_object_set_new(config->model, key->unit, value) == 0
               ? DU_OK
               : du_fail_nomem(diag, "the configuration");
}

/* What a JSON text can hold, since a checkpoint keeps it in one. */
static bool is_utf8(const char *text) {
    json_t *value = json_string(text);
    json_decref(value);
    return value != NULL;
}

static du_err set_text(du_train_config *config, const du_train_key *key, const char *text,
                       const char *where, du_diag *diag) {
    if (!is_utf8(text)) {
        return refuse(key, du_sv_of("..."), where, "takes a text in UTF-8", diag);
    }
    char *copy = du_strdup(text), **field = field_of(config, key);
    if (!copy) {
        return du_fail_nomem(diag, "the configuration");
    }
    du_free(*field);
    *field = copy;
    return DU_OK;
}

/* Sample prompts are read here already, while it is known where they stand. */
static du_err check_prompts(const du_train_config *config, const char *where, du_diag *diag) {
    json_t *prompts = NULL;
    du_err err = du_samples_prompts(&prompts, config, diag);
    json_decref(prompts);
    if (err != DU_OK) {
        du_diag_context(diag, "%s", where);
    }
    return err;
}

static du_err set_key(du_train_config *config, const du_train_key *key, const char *text,
                      const char *where, du_diag *diag) {
    char takes[160];
    int word;
    switch (key->type) {
    case KEY_TEXT:
        return set_text(config, key, text, where, diag);
    case KEY_WORD:
        word = find_word(key->unit, du_sv_of(text));
        snprintf(takes, sizeof takes, "takes one of %s", key->unit);
        if (word < 0) {
            return refuse(key, du_sv_of(text), where, takes, diag);
        }
        *(int *)field_of(config, key) = word;
        return DU_OK;
    case KEY_MODEL:
        return set_model(config, key, text, where, diag);
    default:
        return set_number(config, key, text, where, diag);
    }
}

/* The first key that ends in a dot and the word; NULL: none does. */
static const char *key_without_prefix(const char *word) {
    for (size_t i = 0; i < du_train_n_keys; i++) {
        const char *dot = strrchr(du_train_keys[i].name, '.');
        if (dot && strcmp(dot + 1, word) == 0) {
            return du_train_keys[i].name;
        }
    }
    return NULL;
}

static du_err unknown_key(du_sv name, const char *where, du_diag *diag) {
    const char *names[DU_TRAIN_KEYS_MAX];
    for (size_t i = 0; i < du_train_n_keys; i++) {
        names[i] = du_train_keys[i].name;
    }
    char word[80];
    snprintf(word, sizeof word, "%.*s", (int)(name.len < 79 ? name.len : 79), name.s);
    const char *near = key_without_prefix(word);
    near = near ? near : du_nearest(word, names, du_train_n_keys);
    return du_fail(diag, DU_EINVAL, "%s: unknown key %s%s%s (`dure train --keys` lists them)",
                   where, word, near ? ", did you mean " : "", near ? near : "");
}

du_err du_train_config_set(du_train_config *config, du_sv name, du_sv value, const char *where,
                           du_diag *diag) {
    const du_train_key *key = du_train_key_find(du_sv_trim(name));
    if (!key) {
        return unknown_key(du_sv_trim(name), where, diag);
    }
    du_str text = {0};
    du_str_add_sv(&text, du_sv_trim(value));
    du_err err = text.failed ? du_fail_nomem(diag, "the configuration")
                             : set_key(config, key, du_str_get(&text), where, diag);
    du_str_done(&text);
    bool prompt = key->type == KEY_TEXT && field_of(config, key) == &config->sample.prompt;
    return err == DU_OK && prompt ? check_prompts(config, where, diag) : err;
}

du_err du_train_config_set_pair(du_train_config *config, const char *pair, du_diag *diag) {
    const char *equals = strchr(pair, '=');
    if (!equals) {
        return du_fail(diag, DU_EINVAL, "--set %s: takes KEY=VALUE", pair);
    }
    return du_train_config_set(config, (du_sv){pair, (size_t)(equals - pair)}, du_sv_of(equals + 1),
                               "--set", diag);
}

/* A value of model.*, NULL: not given. */
static void add_model(du_str *out, const json_t *value) {
    if (json_is_string(value) && is_word(json_string_value(value))) {
        du_str_add_s(out, json_string_value(value));
    } else if (json_is_real(value)) {
        du_str_add_f64(out, json_real_value(value));
    } else if (value) {
        du_json_add(out, value, JSON_COMPACT | JSON_SORT_KEYS);
    }
}

void du_train_key_value(du_str *out, const du_train_config *config, const du_train_key *key) {
    const void *field = field_of(config, key);
    switch (key->type) {
    case KEY_TEXT:
        du_str_add_s(out, *(char *const *)field);
        break;
    case KEY_INT:
        du_str_addf(out, "%lld", (long long)*(const int64_t *)field);
        break;
    case KEY_REAL:
        du_str_add_f64(out, *(const double *)field);
        break;
    case KEY_WORD:
        du_str_add_sv(out, word_at(key->unit, *(const int *)field));
        break;
    case KEY_MODEL:
        add_model(out, json_object_get(config->model, key->unit));
        break;
    }
}

static bool is_default(const du_train_config *config, const du_train_key *key) {
    const void *field = field_of(config, key);
    switch (key->type) {
    case KEY_TEXT:
        return **(char *const *)field == '\0';
    case KEY_INT:
        return *(const int64_t *)field == key->i_default;
    case KEY_REAL:
        return *(const double *)field == key->f_default;
    case KEY_WORD:
        return *(const int *)field == (int)key->i_default;
    default:
        return !json_object_get(config->model, key->unit);
    }
}

/* {key: text of the value} of the keys that are not at their default. */
static json_t *given(const du_train_config *config, bool altering_alone) {
    json_t *kept = json_object();
    du_str value = {0};
    bool failed = !kept;
    for (size_t i = 0; !failed && i < du_train_n_keys; i++) {
        const du_train_key *key = &du_train_keys[i];
        if ((key->alters || !altering_alone) && !is_default(config, key)) {
            du_str_reset(&value);
            du_train_key_value(&value, config, key);
            failed = value.failed ||
                     json_object_set_new(kept, key->name, json_string(du_str_get(&value))) != 0;
        }
    }
    du_str_done(&value);
    if (failed) {
        json_decref(kept);
        return NULL;
    }
    return kept;
}

json_t *du_train_config_kept(const du_train_config *config) {
    return given(config, true);
}

json_t *du_train_config_given(const du_train_config *config) {
    return given(config, false);
}

du_err du_train_config_take(du_train_config *config, const json_t *kept, const char *where,
                            du_diag *diag) {
    const char *name;
    json_t *value;
    du_err err = DU_OK;
    if (!json_is_object(kept)) {
        return du_fail(diag, DU_EINVAL, "%s: no configuration", where);
    }
    json_object_foreach((json_t *)(uintptr_t)kept, name, value) {
        if (!json_is_string(value)) {
            err = du_fail(diag, DU_EINVAL, "%s: %s is no text", where, name);
        }
        err = err ? err
                  : du_train_config_set(config, du_sv_of(name), du_sv_of(json_string_value(value)),
                                        where, diag);
    }
    return err;
}

du_err du_train_config_same_run(const du_train_config *now, const du_train_config *begun,
                                du_diag *diag) {
    du_str a = {0}, b = {0};
    du_err err = DU_OK;
    for (size_t i = 0; err == DU_OK && i < du_train_n_keys; i++) {
        du_str_reset(&a);
        du_str_reset(&b);
        du_train_key_value(&a, now, &du_train_keys[i]);
        du_train_key_value(&b, begun, &du_train_keys[i]);
        if (a.failed || b.failed) {
            err = du_fail_nomem(diag, "the configuration");
        } else if (du_train_keys[i].alters && !du_sv_eq(du_str_view(&a), du_str_view(&b))) {
            err = du_fail(diag, DU_EINVAL,
                          "%s is '%s' now and was '%s' when the run was begun: it would not be the "
                          "same run",
                          du_train_keys[i].name, du_str_get(&a), du_str_get(&b));
        }
    }
    du_str_done(&a);
    du_str_done(&b);
    return err;
}
