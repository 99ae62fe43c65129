/* The list of keys, for people and for programs. */
#include "base/opt.h"
#include "train/config_int.h"

void du_train_config_help(du_str *out) {
    du_train_config defaults;
    if (du_train_config_init(&defaults, NULL) != DU_OK) {
        out->failed = true;
        return;
    }
    for (size_t i = 0; i < du_train_n_keys; i++) {
        const du_train_key *key = &du_train_keys[i];
        du_str value = {0};
        du_train_key_value(&value, &defaults, key);
        bool unit = key->type != KEY_MODEL && *key->unit;
        du_str_add_s(out, key->name);
        if (value.len > 0) {
            du_str_addf(out, " = %s", du_str_get(&value));
        }
        du_str_addf(out, "%s%s%s\n    ", unit ? "  (" : "", unit ? key->unit : "", unit ? ")" : "");
        out->failed = out->failed || value.failed;
        du_str_done(&value);
        du_opt_wrap(out, key->help, 4, 4);
        du_str_add_c(out, '\n');
    }
    du_train_config_done(&defaults);
}

json_t *du_train_config_json(void) {
    static const char *const types[] = {"text", "integer", "number", "word", "json"};
    du_train_config defaults;
    if (du_train_config_init(&defaults, NULL) != DU_OK) {
        return NULL;
    }
    json_t *list = json_array();
    bool failed = !list;
    for (size_t i = 0; !failed && i < du_train_n_keys; i++) {
        const du_train_key *key = &du_train_keys[i];
        du_str value = {0};
        du_train_key_value(&value, &defaults, key);
        json_t *entry = json_pack("{s:s, s:s, s:s, s:s, s:s, s:b}", "key", key->name, "type",
                                  types[key->type], "default", du_str_get(&value), "unit",
                                  key->type == KEY_MODEL ? "" : key->unit, "help", key->help,
                                  "alters_results", key->alters);
        failed = json_array_append_new(list, entry) != 0 || value.failed;
        du_str_done(&value);
    }
    du_train_config_done(&defaults);
    if (failed) {
        json_decref(list);
        return NULL;
    }
    return list;
}
