/* test_tokfiles.c - tokenizers whose tokens stand in several files, or that come without tokenizer.json, give the ids of the
 * reference (tests/golden/tok/make_files.py); broken ones are refused by the name of their file. */
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/prompt.h"
#include "tests/tools/folder.h"

static void put_merges(const json_t *model) {
    FILE *f = fopen(folder_at("merges.txt"), "wb");
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
    folder_put_json("vocab.json", json_object_get(model, "vocab"));
}

static void put_words(const json_t *vocab) {
    size_t n = 2 * json_object_size(vocab); /* there may be holes */
    const char **words = calloc(n, sizeof *words), *word;
    const json_t *id;
    json_object_foreach((json_t *)(uintptr_t)vocab, word, id) words[json_integer_value(id)] = word;
    FILE *f = fopen(folder_at("vocab.txt"), "wb");
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
    folder_clear();
    if (strcmp(source, "json") == 0)
        folder_put_json("tokenizer.json", file);
    else if (strcmp(source, "merges") == 0)
        put_merges(json_object_get(file, "model"));
    else
        put_words(json_object_get(json_object_get(file, "model"), "vocab"));
    folder_put_json("config.json", json_object_get(c, "config"));
    json_object_foreach(json_object_get(c, "files"), name, v) folder_put_json(name, v);
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
        tok *t = promptkit_tok(folder, &st);
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
    assert_null(promptkit_tok(folder, &st));
    if (!strstr(st.msg, part)) fail_msg("expected \"%s\" in: %s", part, st.msg);
}

static void broken_files_are_named(void **state) {
    (void)state;
    folder_clear();
    refused("no tokenizer.json, nor vocab.json and merges.txt, nor vocab.txt");
    folder_put("vocab.json", "{\"a\":0}");
    refused("no tokenizer.json, nor");
    folder_put("merges.txt", "a b\n");
    folder_put("config.json", "{\"model_type\":\"llama\"}");
    refused("none that builds one from its vocabulary");
    folder_put("config.json", "{\"model_type\":\"opt\"}");
    refused("tokenizer.json: ");
    folder_put("vocab.json", "[]");
    refused("vocab.json: expected an object");
    folder_put("vocab.json", "{");
    refused("vocab.json: line 1");
    folder_put("vocab.json", "{\"a\":0,\"b\":1,\"ab\":2}");
    folder_put("added_tokens.json", "nope");
    refused("added_tokens.json: line 1");
    folder_put("added_tokens.json", "{}");
    folder_put("special_tokens_map.json", "[]");
    refused("special_tokens_map.json: expected an object");
    folder_clear();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_of_several_files),
        cmocka_unit_test(broken_files_are_named),
    };
    return cmocka_run_group_tests(tests, folder_set_up, folder_tear_down);
}
