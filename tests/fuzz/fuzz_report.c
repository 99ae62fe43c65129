/* The page of a run whose files hold anything.
 *
 *     bytes 0-3  lengths of metrics.jsonl and samples.jsonl; what follows them is run.json */
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "folder.h"
#include "train/report.h"
#include "train/samples.h"

/* Up to `most` bytes of the input into a file. Returns the rest. */
static const uint8_t *put(const char *name, const uint8_t *data, const uint8_t *end, size_t most) {
    size_t n = (size_t)(end - data) < most ? (size_t)(end - data) : most;
    fuzz_put(name, data, n);
    return data + n;
}

static size_t length_at(const uint8_t *data) {
    return (size_t)data[0] | (size_t)data[1] << 8;
}

/* Markup is ours alone. */
static void check_page(void) {
    char *text = fuzz_get("page.html", NULL);
    FUZZ_CHECK(strstr(text, "<script") == NULL && strstr(text, "<img") == NULL);
    FUZZ_CHECK(strstr(text, "</main></body></html>\n") != NULL);
    du_free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    FUZZ_ONCE(fuzz_make_dir());
    if (size < 4) {
        return 0;
    }
    const uint8_t *end = data + size, *at = put("metrics.jsonl", data + 4, end, length_at(data));
    at = put(DU_SAMPLES_FILE, at, end, length_at(data + 2));
    put("run.json", at, end, SIZE_MAX);
    du_diag diag;
    du_diag_reset(&diag);
    du_report *report = NULL;
    FUZZ_CHECK(du_report_open(&report, fuzz_dir, &diag) == DU_OK);
    FUZZ_CHECK(du_report_step(report) >= 0);
    FUZZ_CHECK(du_report_write(report, fuzz_path("page.html"), &diag) == DU_OK);
    du_report_free(report);
    check_page();
    return 0;
}
