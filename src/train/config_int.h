/* The table of keys (config_keys.c), and what config*.c share. */
#ifndef DU_TRAIN_CONFIG_INT_H
#define DU_TRAIN_CONFIG_INT_H

#include "train/config.h"

typedef enum { KEY_TEXT, KEY_INT, KEY_REAL, KEY_WORD, KEY_MODEL } key_type;

typedef struct {
    const char *name, *help;
    key_type type;
    bool alters;      /* a change of it gives other results */
    size_t field;     /* offset in du_train_config; of KEY_MODEL unused */
    const char *unit; /* KEY_WORD: its words, KEY_MODEL: the name in config.json */
    int64_t i_default, i_min, i_max;
    double f_default, f_min, f_max;
} du_train_key;

extern const du_train_key du_train_keys[];
extern const size_t du_train_n_keys; /* at most DU_TRAIN_KEYS_MAX */
enum { DU_TRAIN_KEYS_MAX = 128 };

/* NULL: there is no such key. */
const du_train_key *du_train_key_find(du_sv name);

/* Appends the value as it would be written in a file; nothing for a model key that is not given. */
void du_train_key_value(du_str *out, const du_train_config *config, const du_train_key *key);

#endif
