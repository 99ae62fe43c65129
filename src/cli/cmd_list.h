/* The commands in the order of `dure help`: X(name). A command is cli/cmd_<name>.c, which defines
 * du_cli_<name>. Adding one: that file, a line here, tests/e2e/test_<name>.py, its section in
 * docs/CLI.md. */
#ifndef DU_CLI_CMD_LIST_H
#define DU_CLI_CMD_LIST_H

#define DU_CLI_COMMAND_LIST(X)                                                                     \
    X(help)                                                                                        \
    X(version)

#endif
