#include "text/tokenizer.h"

#include "base/mem.h"
#include "text/tokenizer_int.h"

du_tokenizer *du_tokenizer_new(void) {
    du_tokenizer *tok = du_alloc_zero(1, sizeof *tok);
    if (!tok) {
        return NULL;
    }
    tok->pool = du_work_pool_new();
    if (!tok->pool) {
        du_free(tok);
        return NULL;
    }
    du_tokenizer_info *info = &tok->info;
    info->bos = info->eos = info->eot = info->eom = info->pad = info->unk = -1;
    tok->unk = -1;
    info->fim_prefix = info->fim_suffix = info->fim_middle = -1;
    return tok;
}

void du_tokenizer_free(du_tokenizer *tok) {
    if (!tok) {
        return;
    }
    du_work_pool_free(tok->pool);
    du_vocab_done(&tok->vocab);
    du_pretok_free(tok->pretok);
    du_bpe_done(&tok->bpe);
    du_free(tok->merges);
    du_spm_done(&tok->spm);
    du_added_done(&tok->added);
    du_added_done(&tok->added_normalized);
    du_normalizer_done(&tok->normalizer);
    du_normalizer_done(&tok->edits);
    du_hash_done(&tok->whole);
    du_free(tok);
}

const du_tokenizer_info *du_tokenizer_get_info(const du_tokenizer *tok) {
    return &tok->info;
}

static bool has_id(const du_tokenizer *tok, int32_t id) {
    return id >= 0 && id < tok->vocab.n;
}

du_sv du_tokenizer_text(const du_tokenizer *tok, int32_t id) {
    return has_id(tok, id) ? tok->vocab.texts[id] : du_sv_of("");
}

du_token_type du_tokenizer_type(const du_tokenizer *tok, int32_t id) {
    return has_id(tok, id) ? tok->vocab.types[id] : DU_TOKEN_UNUSED;
}

int32_t du_tokenizer_find(const du_tokenizer *tok, du_sv text) {
    return du_vocab_find(&tok->vocab, text);
}

bool du_tokenizer_is_eog(const du_tokenizer *tok, int32_t id) {
    return has_id(tok, id) && tok->vocab.eog[id];
}

void du_tokenizer_add_eog(du_tokenizer *tok, int32_t id) {
    if (has_id(tok, id)) {
        tok->vocab.eog[id] = true;
    }
}

du_sv du_tokenizer_piece(const du_tokenizer *tok, int32_t id, unsigned flags) {
    if (!has_id(tok, id)) {
        return du_sv_of("");
    }
    switch (tok->vocab.types[id]) {
    case DU_TOKEN_CONTROL:
    case DU_TOKEN_UNKNOWN:
        return flags & DU_DECODE_SPECIAL ? tok->vocab.pieces[id] : du_sv_of("");
    case DU_TOKEN_UNUSED:
        return du_sv_of("");
    default:
        return tok->vocab.pieces[id];
    }
}

void du_ids_done(du_ids *list) {
    du_free(list->ids);
    *list = (du_ids){0};
}

bool du_ids_add(du_ids *list, int32_t id) {
    if (!du_grow((void **)&list->ids, &list->cap, list->n, sizeof list->ids[0])) {
        return false;
    }
    list->ids[list->n++] = id;
    return true;
}

du_err du_tokenizer_begin_merges(du_tokenizer *tok, size_t n, du_diag *diag) {
    if (n > DU_VOCAB_MERGES_MAX) {
        return du_fail(diag, DU_ELIMIT, "%zu merges, more than %d", n, DU_VOCAB_MERGES_MAX);
    }
    tok->merges = du_alloc_zero(n, sizeof tok->merges[0]);
    tok->n_merges = n;
    return tok->merges && du_bpe_init(&tok->bpe, n) ? DU_OK : du_fail_nomem(diag, "the merges");
}

static du_err part_missing(size_t rank, const char *which, du_sv text, du_diag *diag) {
    return du_fail(diag, DU_EFORMAT, "merge %zu: %s, '%.*s', is no token", rank, which,
                   (int)text.len, text.s);
}

du_err du_tokenizer_add_merge(du_tokenizer *tok, size_t rank, du_sv left, du_sv right, bool replace,
                              du_str *tmp, du_diag *diag) {
    int32_t l = du_vocab_find(&tok->vocab, left), r = du_vocab_find(&tok->vocab, right);
    if (l < 0) {
        return part_missing(rank, "its left part", left, diag);
    }
    if (r < 0) {
        return part_missing(rank, "its right part", right, diag);
    }
    du_str_reset(tmp);
    du_str_add_sv(tmp, left);
    du_str_add_sv(tmp, right);
    if (tmp->failed) {
        return du_fail_nomem(diag, "the merges");
    }
    int32_t merged = du_vocab_find(&tok->vocab, du_str_view(tmp));
    if (merged < 0) {
        return part_missing(rank, "what it makes", du_str_view(tmp), diag);
    }
    tok->merges[rank] = (du_merge){l, r, merged};
    uint32_t before = du_bpe_add(&tok->bpe, l, r, (uint32_t)rank, merged, replace);
    if (before != DU_RANK_NONE) {
        tok->merges[replace ? before : rank].left = -1;
    }
    return DU_OK;
}

/* The first of these texts that an added token has, -1: none. */
static int32_t find_added(const du_tokenizer *tok, const char *const *names) {
    for (size_t i = 0; names[i]; i++) {
        int32_t id = du_vocab_find(&tok->vocab, du_sv_of(names[i]));
        if (id >= 0 && (tok->vocab.types[id] == DU_TOKEN_CONTROL ||
                        tok->vocab.types[id] == DU_TOKEN_USER_DEFINED)) {
            return id;
        }
    }
    return -1;
}

static void set_by_name(const du_tokenizer *tok, int32_t *id, const char *const *names) {
    if (*id < 0) {
        *id = find_added(tok, names);
    }
}

/* Tokens that files name nowhere but are known by their text (ggml-org/llama.cpp:
 * src/llama-vocab.cpp has the same names). */
static void find_named(du_tokenizer *tok) {
    static const char *const eot[] = {"<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>",
                                      "<|EOT|>",    "<EOT>",      "[EOT]",   NULL};
    static const char *const eom[] = {"<|eom_id|>", NULL};
    static const char *const prefix[] = {"<｜fim▁begin｜>", "<|fim_prefix|>",  "<fim_prefix>",
                                         "<fim-prefix>",    "<|code_prefix|>", NULL};
    static const char *const suffix[] = {"<｜fim▁hole｜>", "<|fim_suffix|>",  "<fim_suffix>",
                                         "<fim-suffix>",   "<|code_suffix|>", NULL};
    static const char *const middle[] = {"<｜fim▁end｜>", "<|fim_middle|>",  "<fim_middle>",
                                         "<fim-middle>",  "<|code_middle|>", NULL};
    static const char *const ends[] = {"<｜end▁of▁sentence｜>",
                                       "<|im_end|>",
                                       "<|eot_id|>",
                                       "<|endoftext|>",
                                       "</s>",
                                       "<|eom_id|>",
                                       "<|end|>",
                                       "<|EOT|>",
                                       "<EOT>",
                                       "_<EOT>",
                                       "[EOT]",
                                       "[EOS]",
                                       "<end_of_turn>",
                                       "<|end_of_text|>",
                                       "<eos>",
                                       "<end_of_utterance>",
                                       NULL};
    du_tokenizer_info *info = &tok->info;
    set_by_name(tok, &info->eot, eot);
    set_by_name(tok, &info->eom, eom);
    set_by_name(tok, &info->fim_prefix, prefix);
    set_by_name(tok, &info->fim_suffix, suffix);
    set_by_name(tok, &info->fim_middle, middle);
    for (size_t i = 0; ends[i]; i++) {
        const char *const one[] = {ends[i], NULL};
        du_tokenizer_add_eog(tok, find_added(tok, one));
    }
    du_tokenizer_add_eog(tok, info->eos);
    du_tokenizer_add_eog(tok, info->eot);
    du_tokenizer_add_eog(tok, info->eom);
}

/* Whether U+2581 is a token and stands in none behind another character. */
static bool may_cut_at_blank(const du_tokenizer *tok) {
    static const char blank[] = "\xe2\x96\x81";
    if (du_vocab_find(&tok->vocab, du_sv_of(blank)) < 0) {
        return false;
    }
    for (int32_t id = 0; id < tok->vocab.n; id++) {
        du_sv text = tok->vocab.texts[id];
        bool joins = tok->vocab.types[id] == DU_TOKEN_NORMAL ||
                     tok->vocab.types[id] == DU_TOKEN_USER_DEFINED;
        size_t i = 0;
        while (text.len - i >= 3 && memcmp(text.s + i, blank, 3) == 0) {
            i += 3;
        }
        if (joins && du_sv_find(text, du_sv_of(blank), i) >= 0) {
            return false;
        }
    }
    return true;
}

/* The pieces that ignore_merges takes whole: all but those that text must not turn into. */
static du_err fill_whole(du_tokenizer *tok, du_diag *diag) {
    for (int32_t id = 0; id < tok->vocab.n; id++) {
        if (tok->vocab.types[id] == DU_TOKEN_NORMAL && tok->vocab.pieces[id].len &&
            du_hash_add(&tok->whole, tok->vocab.pieces[id], id) == DU_ENOMEM) {
            return du_fail_nomem(diag, "the vocabulary");
        }
    }
    return DU_OK;
}

du_err du_tokenizer_finish(du_tokenizer *tok, du_diag *diag) {
    tok->info.n_vocab = tok->vocab.n;
    tok->info.model = tok->kind == DU_TOKENIZE_BYTES ? "gpt2" : "llama";
    tok->info.pre = tok->rule ? tok->rule->name : NULL;
    find_named(tok);
    tok->cut_at_blank = tok->kind != DU_TOKENIZE_BYTES && may_cut_at_blank(tok);
    return tok->ignore_merges ? fill_whole(tok, diag) : DU_OK;
}
