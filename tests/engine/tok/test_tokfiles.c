/* test_tokfiles.c - tokenizers whose tokens stand in several files, or that come without tokenizer.json, give the ids of the
 * reference (tests/golden/tok/make_files.py); broken ones are refused by the name of their file. */
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/prompt.h"

static char g_dir[64];

static const char *path_of(const char *name) {
    static char path[160];
    snprintf(path, sizeof path, "%s/%s", g_dir, name);
    return path;
}

static void put_text(const char *name, const char *text) {
    FILE *f = fopen(path_of(name), "wb");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static void put(const char *name, const json_t *j) {
    assert_int_equal(json_dump_file(j, path_of(name), JSON_ENCODE_ANY), 0);
}

static void drop_all(void) {
    static const char *const files[] = {"tokenizer.json",    "vocab.json",
                                        "merges.txt",        "vocab.txt",
                                        "config.json",       "tokenizer_config.json",
                                        "added_tokens.json", "special_tokens_map.json"};
    for (size_t i = 0; i < ARRAY_LEN(files); i++) unlink(path_of(files[i]));
}

static void put_merges(const json_t *model) {
    FILE *f = fopen(path_of("merges.txt"), "wb");
    const json_t *m;
    size_t i;
    assert_non_null(f);
    fputs("#version: 0.2\n", f);
    json_array_foreach(json_object_get(model, "merges"), i, m) {
        if (json_is_string(m))
            fprintf(f, "%s\n", json_string_value(m));
        else
            fprintf(f, "%s %s\n", json_string_value(json_array_get(m, 0)),
                    json_string_value(json_array_get(m, 1)));
    }
    assert_int_equal(fclose(f), 0);
    put("vocab.json", json_object_get(model, "vocab"));
}

static void put_words(const json_t *vocab) {
    size_t n = 2 * json_object_size(vocab); /* there may be holes */
    const char **words = calloc(n, sizeof *words), *word;
    const json_t *id;
    json_object_foreach((json_t *)(uintptr_t)vocab, word, id) words[json_integer_value(id)] = word;
    FILE *f = fopen(path_of("vocab.txt"), "wb");
    assert_non_null(f);
    for (size_t i = 0; i < n; i++)
        if (words[i]) fprintf(f, "%s\n", words[i]);
    assert_int_equal(fclose(f), 0);
    free(words);
}

static void put_case(const json_t *c) {
    char from[128];
    const char *source = json_string_value(json_object_get(c, "from")), *name;
    const json_t *v;
    snprintf(from, sizeof from, "tests/golden/tok/%s.tok.json", json_string_value(json_object_get(c, "tok")));
    json_t *file = json_load_file(from, JSON_ALLOW_NUL, NULL);
    assert_non_null(file);
    drop_all();
    if (strcmp(source, "json") == 0)
        put("tokenizer.json", file);
    else if (strcmp(source, "merges") == 0)
        put_merges(json_object_get(file, "model"));
    else
        put_words(json_object_get(json_object_get(file, "model"), "vocab"));
    put("config.json", json_object_get(c, "config"));
    json_object_foreach(json_object_get(c, "files"), name, v) put(name, v);
    json_decref(file);
}

static void tokens_of_several_files(void **state) {
    (void)state;
    json_t *all = json_load_file("tests/golden/tok/files.json", 0, NULL), *c, *pair, *want;
    size_t i, k, n;
    assert_true(json_array_size(all) > 10);
    json_array_foreach(all, i, c) {
        put_case(c);
        status st = {0};
        tok *t = promptkit_tok(g_dir, &st);
        if (!t) fail_msg("case %zu: %s", i, st.msg);
        json_array_foreach(json_object_get(c, "texts"), k, pair) {
            const json_t *text = json_array_get(pair, 0), *ids = json_array_get(pair, 1);
            tok_ids got = {0};
            assert_true(
                tok_encode(t, json_string_value(text), json_string_length(text), NULL, 0, true, &got, &st));
            bool same = got.n == json_array_size(ids);
            json_array_foreach(ids, n, want) same = same && got.v[n] == json_integer_value(want);
            if (!same) fail_msg("case %zu: \"%s\"", i, json_string_value(text));
            buf bare = {0};
            assert_true(tok_decode(t, got.v, got.n, true, &bare, &st));
            const char *plain = json_string_value(json_array_get(pair, 2));
            if (bare.len != strlen(plain) || memcmp(bare.data ? bare.data : "", plain, bare.len) != 0)
                fail_msg("case %zu: \"%s\" comes back as \"%.*s\"", i, json_string_value(text), (int)bare.len,
                         bare.data);
            buf_fini(&bare);
            tok_ids_fini(&got);
        }
        tok_free(t);
    }
    json_decref(all);
}

static void refused(const char *part) {
    status st = {0};
    assert_null(promptkit_tok(g_dir, &st));
    if (!strstr(st.msg, part)) fail_msg("expected \"%s\" in: %s", part, st.msg);
}

static void broken_files_are_named(void **state) {
    (void)state;
    drop_all();
    refused("no tokenizer.json, nor vocab.json and merges.txt, nor vocab.txt");
    put_text("vocab.json", "{\"a\":0}");
    refused("no tokenizer.json, nor");
    put_text("merges.txt", "a b\n");
    put_text("config.json", "{\"model_type\":\"llama\"}");
    refused("none that builds one from its vocabulary");
    put_text("config.json", "{\"model_type\":\"opt\"}");
    refused("tokenizer.json: ");
    put_text("vocab.json", "[]");
    refused("vocab.json: expected an object");
    put_text("vocab.json", "{");
    refused("vocab.json: line 1");
    put_text("vocab.json", "{\"a\":0,\"b\":1,\"ab\":2}");
    put_text("added_tokens.json", "nope");
    refused("added_tokens.json: line 1");
    put_text("added_tokens.json", "{}");
    put_text("special_tokens_map.json", "[]");
    refused("special_tokens_map.json: expected an object");
    drop_all();
}

static int set_up(void **state) {
    (void)state;
    snprintf(g_dir, sizeof g_dir, "/tmp/vlmd-tokfiles-XXXXXX");
    return mkdtemp(g_dir) ? 0 : -1;
}

static int tear_down(void **state) {
    (void)state;
    drop_all();
    return rmdir(g_dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_of_several_files),
        cmocka_unit_test(broken_files_are_named),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
