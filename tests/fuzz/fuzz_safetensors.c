/* fuzz_safetensors.c - any bytes as a .safetensors file. What is accepted must be readable to its last byte. */
#include "engine/ckpt/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    status st = {0};
    st_file *f = st_open_bytes(data, n, &st);
    if (!f) {
        CHECK(st.code != ST_OK && st.msg[0]);
        return 0;
    }
    unsigned sum = 0;
    char text[64];
    for (size_t i = 0; i < st_count(f); i++) {
        const st_tensor *t = st_at(f, i);
        for (size_t k = 0; k < t->bytes; k++) sum += t->data[k];
        CHECK(st_find(f, t->name) == t);
        st_describe(t, text, sizeof text);
    }
    CHECK(sum != 0xdeadbeef);
    st_close(f);
    return 0;
}
