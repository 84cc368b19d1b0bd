/* bench_tok.c - MB/s of encoding and decoding English text, seconds to load a tokenizer.json, and the time that
 * 100 kB of one letter take. Usage: bench_tok [TOKENIZER_JSON...]; without any, the bundled ones. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/tok/tok.h"

static const char *const words[] = {"the",        "of",          "picture",
                                    "shows",      "a",           "small",
                                    "town",       "by",          "river,",
                                    "with",       "houses",      "and",
                                    "three",      "boats.",      "People",
                                    "walk",       "along",       "its",
                                    "banks;",     "it's",        "late",
                                    "in",         "1987",        "(or",
                                    "so",         "they",        "say),",
                                    "nobody",     "remembers",   "exactly",
                                    "why.",       "However,",    "international",
                                    "agreements", "wouldn't",    "allow",
                                    "that",       "\"anymore\"", "-",
                                    "is",         "for",         "to",
                                    "was",        "on"};

static void bench(const char *path) {
    status st = {0};
    double t0 = time_now_s();
    tok *t = tok_load(path, &st);
    double load = time_now_s() - t0;
    if (!t) {
        printf("%s: %s\n", path, st.msg);
        return;
    }
    buf text = {0};
    uint32_t r = 1;
    while (text.len < 4000000) { /* with misspelt words, so that not all are met again */
        r = r * 1664525u + 1013904223u;
        const char *w = words[(r >> 8) % ARRAY_LEN(words)];
        buf_puts(&text, w);
        if ((r >> 20) % 8 == 0)
            buf_printf(&text, "%c%c", 'a' + (int)((r >> 3) % 26), 'a' + (int)((r >> 13) % 26));
        buf_putc(&text, (r >> 24) % 16 ? ' ' : '\n');
    }
    tok_ids ids = {0};
    t0 = time_now_s();
    bool ok = tok_encode(t, text.data, text.len, NULL, 0, false, &ids, &st);
    double enc = time_now_s() - t0;
    buf back = {0};
    t0 = time_now_s();
    ok = ok && tok_decode(t, ids.v, ids.n, false, &back, &st);
    double dec = time_now_s() - t0;
    double bytes = (double)text.len;
    size_t n = ids.n;
    buf_clear(&text);
    for (int i = 0; i < 100000; i++) buf_putc(&text, 'a');
    ids.n = 0;
    t0 = time_now_s();
    ok = ok && tok_encode(t, text.data, text.len, NULL, 0, false, &ids, &st);
    double one = time_now_s() - t0;
    t0 = time_now_s();
    for (int i = 0; i < 1000; i++) {
        ids.n = 0;
        ok =
            ok && tok_encode(t, "What is in this picture? Answer in one word.", 44, NULL, 0, true, &ids, &st);
    }
    double small = (time_now_s() - t0) / 1000;
    printf("%-50s load %.3f s  encode %6.1f MB/s  decode %6.1f MB/s  %.2f bytes a token  100 kB of 'a' %.3f "
           "s  a question %.1f us%s\n",
           path, load, bytes / enc / 1e6, (double)back.len / dec / 1e6, bytes / (double)n, one, small * 1e6,
           ok ? "" : "  FAILED");
    buf_fini(&text);
    buf_fini(&back);
    tok_ids_fini(&ids);
    tok_free(t);
}

int main(int argc, char **argv) {
    static const char *const usual[] = {"models/vlmd-tiny",
                                        "tests/golden/tok/qwen.tok.json",
                                        "tests/golden/tok/llama2.tok.json",
                                        "tests/golden/tok/mistral.tok.json",
                                        "tests/golden/tok/gemma.tok.json",
                                        "tests/golden/tok/clip.tok.json"};
    for (int i = 1; i < argc; i++) bench(argv[i]);
    for (size_t i = 0; argc == 1 && i < ARRAY_LEN(usual); i++) bench(usual[i]);
    return 0;
}
