/* fuzz_request.c - libFuzzer over the bodies of a chat, of a request for vectors and of a zero-shot one: the scanner that
 * lifts pictures, and the checks of every field. */
#include <string.h>

#include "server/chat_request.h"
#include "server/embed_request.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static const chat_context context = {
        .defaults = {.max_tokens = -1, .top_logprobs = -1}, .vocab_size = 100, .max_model_len = 100};
    char *body = mem_alloc(n); /* exactly as long as it is, so that a byte too far is seen */
    if (!body) return 0;
    memcpy(body, data, n);
    chat_request r;
    status st = {0};
    bool ok = chat_request_parse(&r, body, n, &context, &st);
    CHECK(ok == (st.code == ST_OK));
    if (ok) {
        size_t total = 0;
        for (int i = 0; i < r.chat.n_images; i++)
            for (size_t k = 0; k < r.chat.images[i].n; k++) total += (unsigned char)r.chat.images[i].b64[k];
        CHECK(total < SIZE_MAX);
    }
    chat_request_fini(&r);
    static const embed_context vectors = {.width = 8, .vocab_size = 100};
    for (int zero_shot = 0; zero_shot < 2; zero_shot++) {
        embed_request e;
        st = (status){0};
        memcpy(body, data, n);
        ok = (zero_shot ? zero_shot_request_parse : embed_request_parse)(&e, body, n, &vectors, &st);
        CHECK(ok == (st.code == ST_OK));
        size_t total = 0;
        for (int i = 0; ok && i < e.n; i++) {
            for (size_t k = 0; k < e.in[i].n_text; k++) total += (unsigned char)e.in[i].text[k];
            for (size_t k = 0; k < e.in[i].n_ids; k++) total += (size_t)e.in[i].ids[k];
            for (size_t k = 0; e.in[i].image && k < e.in[i].image->n; k++)
                total += (unsigned char)e.in[i].image->b64[k];
        }
        CHECK(total < SIZE_MAX);
        embed_request_fini(&e);
    }
    mem_free(body);
    return 0;
}
