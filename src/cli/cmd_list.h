/* The commands in the order of `dure help`: X(name), two words joined by _. A command is
 * cli/cmd_<name>.c, which defines du_cli_<name>. Adding one: that file, a line here,
 * tests/e2e/test_<name>.py, its section in docs/CLI.md. */
#ifndef DU_CLI_CMD_LIST_H
#define DU_CLI_CMD_LIST_H

#define DU_CLI_COMMAND_LIST(X)                                                                     \
    X(run)                                                                                         \
    X(chat)                                                                                        \
    X(inspect)                                                                                     \
    X(bench)                                                                                       \
    X(convert)                                                                                     \
    X(quantize)                                                                                    \
    X(imatrix)                                                                                     \
    X(perplexity)                                                                                  \
    X(logits)                                                                                      \
    X(tokenize)                                                                                    \
    X(detokenize)                                                                                  \
    X(tokenizer_train)                                                                             \
    X(data_pack)                                                                                   \
    X(train)                                                                                       \
    X(report)                                                                                      \
    X(merge)                                                                                       \
    X(template)                                                                                    \
    X(help)                                                                                        \
    X(version)

#endif
