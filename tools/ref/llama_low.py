"""The little of llama.cpp's C interface that the scripts need, through llama-cpp-python."""

import ctypes

import llama_cpp
import numpy as np

_QUIET = llama_cpp.llama_log_callback(lambda level, text, data: None)
llama_cpp.llama_log_set(_QUIET, ctypes.c_void_p(0))
llama_cpp.llama_backend_init()


class Model:
    """A model, or only its vocabulary. repack: let llama.cpp rearrange the weights for the processor; off
    by default, since its AMX kernels crash in some virtual machines that announce the instructions."""

    def __init__(self, path, vocab_only=False, repack=False):
        params = llama_cpp.llama_model_default_params()
        params.vocab_only = vocab_only
        params.n_gpu_layers = 0
        params.use_extra_bufts = repack
        self.handle = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        if not self.handle:
            raise ValueError(f"llama.cpp does not open {path}")
        self.vocab = llama_cpp.llama_model_get_vocab(self.handle)
        self.n_vocab = llama_cpp.llama_vocab_n_tokens(self.vocab)

    def close(self):
        llama_cpp.llama_model_free(self.handle)

    def tokenize(self, data, parse_special):
        room = len(data) + 16
        out = (llama_cpp.llama_token * room)()
        n = llama_cpp.llama_tokenize(self.vocab, data, len(data), out, room, False, parse_special)
        if n < 0:
            raise ValueError("llama_tokenize needs more room")
        return list(out[:n])

    def template(self):
        text = llama_cpp.llama_model_chat_template(self.handle, None)
        return text.decode() if text else None


class Context:
    """Logits of token sequences. exact: cache in F32 and no flash attention, as exact as llama.cpp gets;
    more: further fields of llama_context_params."""

    def __init__(self, model, n_ctx, n_thread, exact=True, **more):
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = n_ctx
        params.n_batch = n_ctx
        params.n_ubatch = min(n_ctx, 512)
        params.n_threads = params.n_threads_batch = n_thread
        if exact:
            params.type_k = params.type_v = llama_cpp.GGML_TYPE_F32
            params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        for name, value in more.items():
            setattr(params, name, value)
        self.model = model
        self.handle = llama_cpp.llama_init_from_model(model.handle, params)
        if not self.handle:
            raise ValueError("llama.cpp makes no context")

    def close(self):
        llama_cpp.llama_free(self.handle)

    def reset(self):
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.handle), True)

    def decode(self, ids, at, every=True):
        """Runs ids at positions from `at`; logits [T, V], or those of the last position."""
        batch = llama_cpp.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            batch.token[i], batch.pos[i] = token, at + i
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
            batch.logits[i] = every or i == len(ids) - 1
        code = llama_cpp.llama_decode(self.handle, batch)
        llama_cpp.llama_batch_free(batch)
        if code:
            raise ValueError(f"llama_decode returned {code}")
        n = len(ids) if every else 1
        first = llama_cpp.llama_get_logits(self.handle)
        return np.ctypeslib.as_array(first, (n, self.model.n_vocab)).copy()
