#include "data/example.h"

#include <string.h>

#include "base/hash.h"
#include "base/mem.h"

typedef struct {
    const du_example_params *params;
    du_examples *e;
    du_diag *diag;
} call;

void du_examples_done(du_examples *e) {
    du_ids_done(&e->ids);
    du_str_done(&e->counts);
    du_free(e->ends);
    *e = (du_examples){0};
}

static du_err nomem(du_diag *diag) {
    return du_fail_nomem(diag, "the tokens of a document");
}

/* Whether the tokens from the list's counted end on count. */
static du_err count_rest(const call *c, bool counts) {
    size_t n = c->e->ids.n - c->e->counts.len;
    du_str_reserve(&c->e->counts, n + 1);
    if (c->e->counts.failed) {
        return nomem(c->diag);
    }
    memset(c->e->counts.data + c->e->counts.len, counts, n);
    c->e->counts.len += n;
    return DU_OK;
}

/* The tokens of a piece of a document. begins: it is the first, and BOS goes before it. */
static du_err add_piece(const call *c, du_sv text, bool begins, unsigned flags, bool counts) {
    const du_tokenizer *tok = c->params->tok;
    du_err err = begins ? du_tokenizer_encode_prompt(tok, text, flags, &c->e->ids, c->diag)
                        : du_tokenizer_encode(tok, text, flags, &c->e->ids, c->diag);
    return err ? err : count_rest(c, counts);
}

static du_err add_eos(const call *c, bool counts) {
    int32_t eos = du_tokenizer_get_info(c->params->tok)->eos;
    return du_ids_add(&c->e->ids, eos) ? count_rest(c, counts) : nomem(c->diag);
}

/* Ends the document that began at token `start`. */
static du_err end_document(const call *c, size_t start) {
    du_examples *e = c->e;
    if (e->ids.n == start) {
        return DU_OK;
    }
    if (!du_grow((void **)&e->ends, &e->cap, e->n, sizeof e->ends[0])) {
        return nomem(c->diag);
    }
    e->counts.data[start] = 0;
    e->ends[e->n++] = e->ids.n;
    return DU_OK;
}

static void mix_hash(du_examples *e, du_sv text) {
    e->hash = du_checksum(e->hash, text.s, text.len);
}

static du_err add_text(const call *c, du_sv text, bool begins, bool ends) {
    size_t start = c->e->ids.n;
    mix_hash(c->e, text);
    if (text.len == 0) {
        return DU_OK;
    }
    du_err err = add_piece(c, text, begins, 0, true);
    err = err || !ends ? err : add_eos(c, true);
    return err ? err : end_document(c, start);
}

static du_err add_answer(const call *c, du_sv prompt, du_sv response) {
    size_t start = c->e->ids.n;
    mix_hash(c->e, prompt);
    mix_hash(c->e, response);
    du_err err = add_piece(c, prompt, true, 0, false);
    err = err ? err : add_piece(c, response, false, 0, true);
    err = err ? err : add_eos(c, true);
    return err ? err : end_document(c, start);
}

/* ---- chats ------------------------------------------------------------------------------------
 */

/* A document of a chat: its text and where the answers that count begin and end in it. */
typedef struct {
    du_str text;
    size_t *cuts; /* [n] begin, end, begin, end, ... */
    size_t n, cap;
} dialog;

static void dialog_done(dialog *d) {
    du_str_done(&d->text);
    du_free(d->cuts);
}

/* What an answer had behind the last token that ends one is not its own. False: it has none. */
static bool trim_answer(du_examples *e, const du_tokenizer *tok, size_t start) {
    size_t end = e->ids.n;
    while (end > start && !du_tokenizer_is_eog(tok, e->ids.ids[end - 1])) {
        end--;
    }
    if (end > start) {
        memset(e->counts.data + end, 0, e->ids.n - end);
    }
    return end > start;
}

/* Appends the dialog as a document. */
static du_err add_dialog(const call *c, const dialog *d) {
    const du_tokenizer *tok = c->params->tok;
    du_examples *e = c->e;
    size_t start = e->ids.n, at = 0, answer = start;
    du_err err = DU_OK;
    bool ended = false;
    for (size_t i = 0; i < d->n && err == DU_OK; i++) {
        bool counts = i % 2 == 1;
        answer = e->ids.n;
        du_sv piece = {du_str_get(&d->text) + at, d->cuts[i] - at};
        err = add_piece(c, piece, i == 0, DU_ENCODE_SPECIAL, counts);
        ended = err == DU_OK && counts && trim_answer(e, tok, answer);
        at = d->cuts[i];
    }
    if (err == DU_OK &&
        !(e->ids.n > start && e->ids.ids[e->ids.n - 1] == du_tokenizer_get_info(tok)->eos)) {
        err = add_eos(c, !ended);
    }
    return err ? err : end_document(c, start);
}

/* What the template makes of the first n messages. */
static du_err render(const call *c, const du_record *record, size_t n, bool prompt, du_str *out) {
    json_t *messages = json_array();
    du_err err = messages ? DU_OK : nomem(c->diag);
    for (size_t i = 0; i < n && err == DU_OK; i++) {
        if (json_array_append(messages, json_array_get(record->messages, i)) != 0) {
            err = nomem(c->diag);
        }
    }
    du_chat_input input = {.messages = messages,
                           .tools = record->tools,
                           .vars = c->params->vars,
                           .add_generation_prompt = prompt,
                           .now_s = 1}; /* the same tokens whenever this runs */
    du_str_reset(out);
    err = err ? err : du_chat_render(c->params->chat, &input, out, c->diag);
    json_decref(messages);
    return err;
}

/* How many bytes the two begin with alike, whole characters of them. */
static size_t common_length(du_sv a, du_sv b) {
    size_t n = 0;
    while (n < a.len && n < b.len && a.s[n] == b.s[n]) {
        n++;
    }
    while (n > 0 && n < b.len && ((uint8_t)b.s[n] & 0xc0) == 0x80) {
        n--;
    }
    return n;
}

static bool add_cut(dialog *d, size_t at) {
    if (!du_grow((void **)&d->cuts, &d->cap, d->n, sizeof d->cuts[0])) {
        return false;
    }
    d->cuts[d->n++] = at;
    return true;
}

/* The turn of message i, an assistant's: goes on with the dialog, or ends it and begins another. */
static du_err add_turn(const call *c, const du_record *record, size_t i, dialog *d, du_str *prompt,
                       du_str *whole) {
    du_err err = render(c, record, i, true, prompt);
    err = err ? err : render(c, record, i + 1, false, whole);
    if (err != DU_OK) {
        return err;
    }
    size_t begin = common_length(du_str_view(prompt), du_str_view(whole));
    if (d->n > 0 && (d->text.len > begin ||
                     common_length(du_str_view(&d->text), du_str_view(whole)) < d->text.len)) {
        err = add_dialog(c, d);
        d->n = 0;
    }
    du_str_reset(&d->text);
    du_str_add_sv(&d->text, du_str_view(whole));
    if (err == DU_OK && (d->text.failed || !add_cut(d, begin) || !add_cut(d, whole->len))) {
        err = nomem(c->diag);
    }
    return err;
}

static du_err add_chat(const call *c, const du_record *record) {
    if (!c->params->chat) {
        return du_fail(c->diag, DU_EUNSUPPORTED,
                       "\"messages\" need a chat template, and the tokenizer has none");
    }
    dialog d = {0};
    du_str prompt = {0}, whole = {0};
    du_err err = DU_OK;
    size_t i;
    json_t *message;
    json_array_foreach(record->messages, i, message) {
        const char *role = json_string_value(json_object_get(message, "role"));
        if (err == DU_OK && strcmp(role, "assistant") == 0) {
            err = add_turn(c, record, i, &d, &prompt, &whole);
        }
    }
    mix_hash(c->e, du_str_view(&d.text));
    if (err == DU_OK && d.n > 0) {
        err = add_dialog(c, &d);
    }
    dialog_done(&d);
    du_str_done(&prompt);
    du_str_done(&whole);
    return err;
}

du_err du_examples_add(du_examples *e, const du_example_params *params, const du_record *record,
                       bool begins, bool ends, du_diag *diag) {
    call c = {params, e, diag};
    e->whole = record->kind != DU_RECORD_TEXT;
    switch (record->kind) {
    case DU_RECORD_TEXT:
        return add_text(&c, record->text, begins, ends);
    case DU_RECORD_ANSWER:
        return add_answer(&c, record->prompt, record->response);
    case DU_RECORD_CHAT:
        break;
    }
    return add_chat(&c, record);
}
