/* Over libedit's own interface. It counts columns of wide characters only in a UTF-8 locale, so one
 * is set where the environment names none. The history file is in libedit's format. */
#include "cli/editor.h"

#include <errno.h>
#include <histedit.h>
#include <langinfo.h>
#include <locale.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <wchar.h>

#include "base/file.h"
#include "base/mem.h"
#include "cli/interrupt.h"

enum { HISTORY_LINES = 1000 };

struct du_cli_editor {
    EditLine *el; /* NULL: no terminal */
    History *history;
    HistEvent event;
    char *history_path; /* NULL: nowhere to keep it */
    const char *prompt;
};

/* Waits until there is input; false when a signal came first. */
static bool wait_for_input(void) {
    struct pollfd both[] = {{.fd = STDIN_FILENO, .events = POLLIN},
                            {.fd = du_cli_interrupt_fd(), .events = POLLIN}};
    while (poll(both, 2, -1) < 0 && errno == EINTR) {
    }
    return !both[1].revents;
}

/* What libedit reads characters with: 1, 0 at the end of the input, -1 when a signal came. Bytes
 * that are no character are passed over. */
static int read_char(EditLine *el, wchar_t *out) {
    (void)el;
    mbstate_t state = {0};
    while (wait_for_input()) {
        char byte;
        ssize_t n = read(STDIN_FILENO, &byte, 1);
        if (n <= 0) {
            return (int)n;
        }
        size_t got = mbrtowc(out, &byte, 1, &state);
        if (got <= 1) {
            return 1;
        }
        if (got == (size_t)-1) {
            state = (mbstate_t){0};
        }
    }
    return -1;
}

static char *prompt_of(EditLine *el) {
    du_cli_editor *ed;
    el_get(el, EL_CLIENTDATA, &ed);
    return (char *)(uintptr_t)ed->prompt;
}

/* The history file, its folder made; NULL when there is no place for it. */
static char *find_history(void) {
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    char *base = NULL, *dir = NULL, *path = NULL;
    if (state && *state == '/') {
        base = du_strdup(state);
    } else if (home && *home == '/') {
        base = du_path_join(home, ".local/state");
    }
    if (base) {
        dir = du_path_join(base, "dure");
    }
    if (dir && du_dir_make(dir, NULL) == DU_OK) {
        path = du_path_join(dir, "history");
    }
    du_free(base);
    du_free(dir);
    return path;
}

static du_err start_editing(du_cli_editor *ed, du_diag *diag) {
    setlocale(LC_CTYPE, "");
    if (strcmp(nl_langinfo(CODESET), "UTF-8") != 0) {
        setlocale(LC_CTYPE, "C.UTF-8");
    }
    ed->el = el_init("dure", stdin, stderr, stderr);
    ed->history = history_init();
    if (!ed->el || !ed->history) {
        return du_fail_nomem(diag, "line editing");
    }
    history(ed->history, &ed->event, H_SETSIZE, HISTORY_LINES);
    history(ed->history, &ed->event, H_SETUNIQUE, 1);
    el_set(ed->el, EL_CLIENTDATA, ed);
    el_set(ed->el, EL_PROMPT_ESC, prompt_of, '\1');
    el_set(ed->el, EL_EDITOR, "emacs");
    el_set(ed->el, EL_HIST, history, ed->history);
    el_set(ed->el, EL_BIND, "^R", "em-inc-search-prev", NULL);
    el_source(ed->el, NULL);
    el_set(ed->el, EL_SIGNAL, 1);
    el_set(ed->el, EL_GETCFN, read_char);
    ed->history_path = find_history();
    if (ed->history_path) {
        history(ed->history, &ed->event, H_LOAD, ed->history_path);
    }
    return DU_OK;
}

du_err du_cli_editor_open(du_cli_editor **out, du_diag *diag) {
    du_cli_editor *ed = du_alloc_zero(1, sizeof *ed);
    if (!ed) {
        return du_fail_nomem(diag, "line editing");
    }
    du_err err = isatty(STDIN_FILENO) ? start_editing(ed, diag) : DU_OK;
    if (err != DU_OK) {
        du_cli_editor_close(ed);
        return err;
    }
    *out = ed;
    return DU_OK;
}

void du_cli_editor_close(du_cli_editor *ed) {
    if (!ed) {
        return;
    }
    if (ed->history_path) {
        history(ed->history, &ed->event, H_SAVE, ed->history_path);
    }
    if (ed->history) {
        history_end(ed->history);
    }
    if (ed->el) {
        el_end(ed->el);
    }
    du_free(ed->history_path);
    du_free(ed);
}

bool du_cli_editor_is_terminal(const du_cli_editor *ed) {
    return ed->el != NULL;
}

static du_err plain_line(du_str *out, du_diag *diag) {
    char c = '\0';
    ssize_t n = 0;
    while (wait_for_input() && (n = read(STDIN_FILENO, &c, 1)) == 1 && c != '\n') {
        du_str_add_c(out, c);
    }
    if (out->failed) {
        return du_fail_nomem(diag, "a line");
    }
    if (du_cli_interrupted()) {
        return DU_ECANCELLED;
    }
    return n <= 0 && out->len == 0 ? DU_ENOENT : DU_OK;
}

du_err du_cli_editor_line(du_cli_editor *ed, const char *prompt, du_str *out, du_diag *diag) {
    du_str_reset(out);
    if (!ed->el) {
        return plain_line(out, diag);
    }
    ed->prompt = prompt;
    int n = 0;
    const char *line = el_gets(ed->el, &n);
    if (du_cli_interrupted()) {
        fputc('\n', stderr);
        return DU_ECANCELLED;
    }
    if (!line) {
        fputc('\n', stderr);
        return DU_ENOENT;
    }
    du_str_add(out, line, n > 0 && line[n - 1] == '\n' ? (size_t)n - 1 : (size_t)n);
    return out->failed ? du_fail_nomem(diag, "a line") : DU_OK;
}

void du_cli_editor_remember(du_cli_editor *ed, const char *text) {
    if (ed->history && *text) {
        history(ed->history, &ed->event, H_ENTER, text);
    }
}
