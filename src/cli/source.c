#include "cli/source.h"

#include "base/file.h"
#include "cli/default_model.h"

const char du_cli_default_name[] = "the built-in model";

du_err du_cli_default_bytes(const uint8_t **bytes, size_t *len, du_diag *diag) {
    *bytes = du_cli_default_model(len);
    return *bytes ? DU_OK
                  : du_fail(diag, DU_ENOENT,
                            "this program was built without models/dure-tiny.gguf: name a MODEL");
}

du_err du_cli_files_open(du_cli_files *out, const char *model, du_diag *diag) {
    *out = (du_cli_files){0};
    if (model) {
        return du_dir_exists(model) ? du_hf_open(&out->hf, model, diag)
                                    : du_gguf_open(&out->gguf, model, diag);
    }
    const uint8_t *bytes;
    size_t len;
    du_err err = du_cli_default_bytes(&bytes, &len, diag);
    return err == DU_OK ? du_gguf_parse(&out->gguf, bytes, len, du_cli_default_name, diag) : err;
}

void du_cli_files_close(du_cli_files *files) {
    du_gguf_close(files->gguf);
    du_hf_close(files->hf);
    *files = (du_cli_files){0};
}

du_err du_cli_tokenizer_open(du_tokenizer **out, const char *model, du_diag *diag) {
    if (model && du_dir_exists(model)) {
        return du_tokenizer_from_dir(out, model, diag);
    }
    du_cli_files files;
    du_err err = du_cli_files_open(&files, model, diag);
    if (err == DU_OK) {
        err = du_tokenizer_from_gguf(out, files.gguf, diag);
    }
    du_cli_files_close(&files);
    return err;
}
