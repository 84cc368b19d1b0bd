/* fuzz_base64.c - libFuzzer: any bytes as base64 and as a URL; decoding at once, by pieces and with skips
 * must agree. */
#include <stdlib.h>
#include <string.h>

#include "engine/image/codec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *s = (const char *)data;
    image_source src;
    status st = {0};
    if (image_source_from_url(s, size, &src, &st))
        CHECK(src.n <= size);
    else
        CHECK(st.code == ST_INVALID);
    buf all = {0};
    bool ok = base64_decode(s, size, &all);
    codec_reader r;
    codec_reader_base64(&r, s, size);
    size_t at = 0, step = 1;
    uint8_t piece[97];
    while (codec_read(&r, piece, step)) {
        CHECK(at + step <= all.len && memcmp(all.data + at, piece, step) == 0);
        at += step;
        step = step % 97 + 1;
    }
    if (ok) {
        CHECK(!r.b64.bad);
        codec_reader_base64(&r, s, size);
        CHECK(codec_skip(&r, all.len) && !codec_read(&r, piece, 1));
    }
    buf_fini(&all);
    return 0;
}
