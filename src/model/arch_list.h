/* The architectures: X(symbol of the du_arch). */
#define DU_ARCH_LIST(X)                                                                            \
    X(du_arch_deepseek2)                                                                           \
    X(du_arch_llama)                                                                               \
    X(du_arch_qwen2)                                                                               \
    X(du_arch_qwen3)                                                                               \
    X(du_arch_qwen3moe)
