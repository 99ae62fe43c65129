/* Splits what a model writes into its reasoning (<think> ... </think>) and its answer, as it
 * arrives, in pieces of any size.
 *
 * Where the text starts (du_reasoning_start) comes from the prompt, because many templates open the
 * block themselves:
 *
 *   AUTO    the model may open a block: <think> counts when only white space is before it. A
 *           </think> without an opening tag means that all before it was reasoning.
 *   OPEN    the prompt ended inside a block: all is reasoning up to </think>; a <think> that the
 *           model repeats at the start is dropped.
 *   CLOSED  the prompt ended with </think>: all is content, tags too.
 *
 * White space (blank, tab, CR, LF) is dropped at both ends of the reasoning, and at the start of
 * the content where a block came before it; everything else stays as it is. Text after the first
 * </think> is content whatever it holds. A block that never closes is reasoning to its end, and the
 * content is empty.
 *
 * The split depends on the whole text only, never on the pieces. Text is held back only while it
 * may still turn out to be (part of) a tag or white space to drop; finish gives it out. */
#ifndef DU_TEXT_REASONING_H
#define DU_TEXT_REASONING_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/str.h"

typedef enum {
    DU_REASONING_AUTO,
    DU_REASONING_OPEN,
    DU_REASONING_CLOSED,
} du_reasoning_start;

/* What the end of a rendered prompt says: an open <think>, a </think>, or neither. White space
 * behind the tag does not count. */
du_reasoning_start du_reasoning_start_of(const char *prompt, size_t len);

typedef struct {
    du_str reasoning;                          /* the split of what was fed so far, */
    du_str content;                            /* without what is held back */
    du_str held;                               /* undecided text */
    size_t n_reasoning_taken, n_content_taken; /* bytes handed out by _take_* */
    int state;
} du_reasoning;

void du_reasoning_init(du_reasoning *r, du_reasoning_start start);
void du_reasoning_done(du_reasoning *r);

/* Adds a piece of text. Returns DU_OK, DU_ENOMEM. */
DU_NODISCARD
du_err du_reasoning_feed(du_reasoning *r, const char *bytes, size_t n);

/* Says that the text has ended. Returns DU_OK, DU_ENOMEM. */
DU_NODISCARD
du_err du_reasoning_finish(du_reasoning *r);

/* What came since the last call, for streaming; valid until the next call on r. When a </think>
 * without its opening tag turns content that was handed out already into reasoning, it is not
 * handed out again. */
du_sv du_reasoning_take_reasoning(du_reasoning *r);
du_sv du_reasoning_take_content(du_reasoning *r);

#endif
