/* fuzz_image.c - libFuzzer: any bytes as a picture, by header (base64 and bytes) and whole. What the header
 * promised must hold: the size, and that both ways agree. Pictures are kept small so that a run is quick. */
#include <stdlib.h>

#include "engine/image/codec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    image_limits lim = IMAGE_LIMITS_DEFAULT;
    lim.max_pixels = 1 << 20;
    lim.max_scans = 20;
    char *b64 = malloc((size + 2) / 3 * 4 + 1);
    size_t m = 0;
    for (size_t i = 0; i < size; i += 3) {
        uint32_t v = (uint32_t)data[i] << 16 | (i + 1 < size ? (uint32_t)data[i + 1] << 8 : 0) |
                     (i + 2 < size ? data[i + 2] : 0);
        for (int k = 0; k < 4 && (size_t)k <= size - i; k++) b64[m++] = digits[v >> (18 - 6 * k) & 63];
    }
    image_source src = {b64, m};
    image_info info;
    image im;
    status probe = {0}, st = {0};
    bool probed = image_probe(&src, &lim, &info, &probe);
    bool decoded = image_decode_bytes(data, size, &lim, &im, &st);
    CHECK(probed || probe.code != ST_OK);
    CHECK(decoded || (st.code != ST_OK && st.msg[0] && !im.rgb));
    if (decoded) {
        CHECK(probed && info.w == im.w && info.h == im.h);
        CHECK(info.decode_bytes >= (size_t)im.w * (size_t)im.h * 3);
        image_fini(&im);
    }
    free(b64);
    return 0;
}
