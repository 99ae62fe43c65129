#include "cli/interrupt.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "base/file.h"
#include "cli/cli.h"

static volatile sig_atomic_t catching, came; /* came: the signal's number */
static int wake[2] = {-1, -1};

static void on_signal(int number) {
    int before = errno;
    if (catching && !came) {
        came = number;
        (void)!write(wake[1], "", 1);
        errno = before;
        return;
    }
    du_writer_remove_all_temporary();
    _exit(DU_CLI_INTERRUPTED);
}

void du_cli_interrupt_install(void) {
    if (pipe2(wake, O_CLOEXEC | O_NONBLOCK) != 0) {
        wake[0] = wake[1] = -1;
    }
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR1};
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART}, before;
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        if (sigaction(numbers[i], NULL, &before) == 0 && before.sa_handler != SIG_IGN) {
            sigaction(numbers[i], &action, NULL);
        }
    }
    signal(SIGXFSZ, SIG_IGN); /* a file at its limit is a failed write */
}

void du_cli_interrupt_catch(bool on) {
    char byte;
    while (read(wake[0], &byte, 1) == 1) {
    }
    came = 0;
    catching = on;
}

bool du_cli_interrupted(void) {
    return came != 0;
}

bool du_cli_terminated(void) {
    return came != 0 && came != SIGINT;
}

int du_cli_interrupt_fd(void) {
    return wake[0];
}
