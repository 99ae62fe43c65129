#include "text/spm.h"

#include <stdlib.h>

typedef struct {
    float score;
    int32_t id;
} scored;

static int by_falling_score(const void *a, const void *b) {
    const scored *x = a, *y = b;
    return x->score != y->score ? (x->score < y->score) - (x->score > y->score)
                                : (x->id > y->id) - (x->id < y->id);
}

static bool may_come_out(const du_vocab *vocab, int32_t id) {
    bool usable = vocab->types[id] == DU_TOKEN_NORMAL || vocab->types[id] == DU_TOKEN_USER_DEFINED;
    return usable && !du_vocab_is_twin(vocab, id);
}

bool du_spm_init(du_spm *spm, const du_vocab *vocab) {
    size_t n = (size_t)vocab->n;
    *spm = (du_spm){.vocab = vocab, .ranks = du_alloc_array(n, sizeof spm->ranks[0])};
    scored *order = du_alloc_array(n, sizeof order[0]);
    if (!spm->ranks || !order) {
        du_free(order);
        du_spm_done(spm);
        return false;
    }
    for (int32_t id = 0; id < vocab->n; id++) {
        order[id] = (scored){vocab->scores[id], id};
    }
    qsort(order, n, sizeof order[0], by_falling_score);
    uint32_t rank = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t id = order[i].id;
        rank += i > 0 && order[i].score < order[i - 1].score;
        spm->ranks[id] = may_come_out(vocab, id) ? rank : DU_RANK_NONE;
        if (vocab->texts[id].len > spm->text_len_max) {
            spm->text_len_max = vocab->texts[id].len;
        }
    }
    du_free(order);
    return true;
}

void du_spm_done(du_spm *spm) {
    du_free(spm->ranks);
    *spm = (du_spm){0};
}

int32_t du_spm_find(const du_spm *spm, du_sv text) {
    if (text.len > spm->text_len_max) {
        return -1;
    }
    int32_t id = du_vocab_find(spm->vocab, text);
    return id >= 0 && spm->ranks[id] != DU_RANK_NONE ? id : -1;
}

typedef struct {
    const du_spm *spm;
    const char *text;
} lookup;

static void find_pair(const void *arg, du_symbol *left, const du_symbol *right, uint32_t end) {
    (void)right;
    const lookup *l = arg;
    left->merged = du_spm_find(l->spm, (du_sv){l->text + left->start, end - left->start});
    left->rank = left->merged < 0 ? DU_RANK_NONE : l->spm->ranks[left->merged];
}

bool du_spm_merge(const du_spm *spm, du_merge_work *w, const char *text) {
    lookup l = {spm, text};
    for (size_t i = 0; i < w->n; i++) {
        du_symbol *s = &w->symbols[i];
        s->id = du_spm_find(spm, (du_sv){text + s->start, s[1].start - s->start});
    }
    return du_merge_run(w, find_pair, &l);
}
