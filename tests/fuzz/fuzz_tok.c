/* fuzz_tok.c - bytes as a tokenizer.json, then texts through whatever loads. The input is the file; its last bytes
 * are also encoded as a text, in part as a user's, and ids are decoded. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/tok/tok.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_text(const tok *t, const char *s, size_t n) {
    tok_span user = {n / 3, n / 2};
    tok_ids ids = {0};
    status st = {0};
    buf whole = {0}, joined = {0};
    if (tok_encode(t, s, n, &user, 1, true, &ids, &st) && tok_decode(t, ids.v, ids.n, false, &whole, &st)) {
        tok_stream *stream = tok_stream_new(t, false);
        for (size_t i = 0; stream && i < ids.n; i++) tok_stream_push(stream, ids.v[i], &joined);
        if (stream) tok_stream_end(stream, &joined);
        CHECK(joined.len == whole.len && (whole.len == 0 || memcmp(joined.data, whole.data, whole.len) == 0));
        tok_stream_free(stream);
    }
    buf_fini(&whole);
    buf_fini(&joined);
    tok_ids_fini(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static char path[64];
    if (!path[0]) {
        snprintf(path, sizeof path, "/tmp/fuzz_tok.%d", (int)getpid());
    }
    FILE *f = fopen(path, "wb");
    if (!f) return 0;
    fwrite(data, 1, size, f);
    fclose(f);
    status st = {0};
    tok *t = tok_load(path, &st);
    unlink(path);
    if (!t) return 0;
    size_t n = size < 300 ? size : 300;
    try_text(t, (const char *)data + size - n, n);
    try_text(t, "Hello  world\n it's 12 <s>\xE2\x96\x81 \xF0\x9F\x98\x80\xFF", 34);
    buf b = {0};
    for (int32_t id = -1; id < 20; id++) tok_id_bytes(t, id, &b);
    buf_fini(&b);
    tok_free(t);
    return 0;
}
