#include "cli/interrupt.h"

#include <signal.h>
#include <unistd.h>

#include "base/file.h"
#include "cli/cli.h"

static volatile sig_atomic_t catching, came;

static void on_signal(int number) {
    (void)number;
    if (catching && !came) {
        came = 1;
        return;
    }
    du_writer_remove_all_temporary();
    _exit(DU_CLI_INTERRUPTED);
}

void du_cli_interrupt_install(void) {
    struct sigaction action = {.sa_handler = on_signal};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

void du_cli_interrupt_catch(bool on) {
    came = 0;
    catching = on;
}

bool du_cli_interrupted(void) {
    return came != 0;
}
