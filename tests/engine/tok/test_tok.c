/* test_tok.c - tokenizers against the Hugging Face library's ids and texts (tests/golden/tok/make_golden.py and
 * make_models.py), user spans, streams, sizes, files that are wrong, and vlmd tokenize. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/engine.h"
#include "engine/tok/tok.h"

#define GOLDEN "tests/golden/tok/"
static const char *const names[] = {"gpt2",      "roberta",   "llama3",  "qwen",    "o200k",     "deepseek",
                                    "smollm",    "clip",      "llama2",  "mistral", "metaspace", "gemma",
                                    "phi3",      "corners",   "bertbpe", "oldbpe",  "bytenorm",  "bert",
                                    "bertcased", "wordlevel", "t5",      "siglip",  "unicorners"};

static tok *load(const char *name) {
    char path[256];
    status st = {0};
    snprintf(path, sizeof path, GOLDEN "%s.tok.json", name);
    tok *t = tok_load(path, &st);
    if (!t) print_error("%s\n", st.msg);
    assert_non_null(t);
    return t;
}

static json_t *cases_of(const char *name) {
    char path[256];
    snprintf(path, sizeof path, GOLDEN "%s.cases.json", name);
    json_t *j = json_load_file(path, JSON_ALLOW_NUL, NULL);
    assert_non_null(j);
    return j;
}

static bool same_ids(const tok_ids *ids, const json_t *want) {
    if (ids->n != json_array_size(want)) return false;
    for (size_t i = 0; i < ids->n; i++)
        if (ids->v[i] != json_integer_value(json_array_get(want, i))) return false;
    return true;
}

static int expect_ids(const tok *t, const char *name, const json_t *text, const json_t *want, bool user,
                      bool special) {
    const char *s = json_string_value(text);
    size_t n = json_string_length(text);
    tok_span span = {0, n};
    tok_ids ids = {0};
    status st = {0};
    bool ok = tok_encode(t, s, n, &span, user, special, &ids, &st) && same_ids(&ids, want);
    if (!ok) {
        print_error("%s%s: '%s' %s\n  got ", name, user ? " (user)" : "", s, st.msg);
        for (size_t i = 0; i < ids.n; i++) print_error(" %d", (int)ids.v[i]);
        char *dump = json_dumps(want, 0);
        print_error("\n  want %s\n", dump);
        free(dump);
    }
    tok_ids_fini(&ids);
    return !ok;
}

static void encodes_as_library(void **state) {
    (void)state;
    int bad = 0;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        tok *t = load(names[i]);
        json_t *j = cases_of(names[i]), *c;
        size_t k;
        json_array_foreach(json_object_get(j, "texts"), k, c) {
            const json_t *text = json_object_get(c, "text");
            bad += expect_ids(t, names[i], text, json_object_get(c, "ids"), false, true);
            bad += expect_ids(t, names[i], text, json_object_get(c, "plain"), false, false);
            bad += expect_ids(t, names[i], text, json_object_get(c, "user"), true, false);
        }
        json_decref(j);
        tok_free(t);
    }
    assert_int_equal(bad, 0);
}

static int32_t *ids_of(const json_t *list, size_t *n) {
    *n = json_array_size(list);
    int32_t *v = malloc((*n + 1) * sizeof *v);
    assert_non_null(v);
    for (size_t i = 0; i < *n; i++) v[i] = (int32_t)json_integer_value(json_array_get(list, i));
    return v;
}

static int expect_text(const tok *t, const char *name, const json_t *list, const json_t *want, bool skip) {
    size_t n;
    int32_t *ids = ids_of(list, &n);
    buf whole = {0}, joined = {0}, piece = {0};
    status st = {0};
    assert_true(tok_decode(t, ids, n, skip, &whole, &st));
    int bad = whole.len != json_string_length(want) ||
              (whole.len && memcmp(whole.data, json_string_value(want), whole.len) != 0);
    tok_stream *s = tok_stream_new(t, skip);
    assert_non_null(s);
    for (size_t i = 0; i <= n; i++) {
        buf_clear(&piece);
        assert_true(i < n ? tok_stream_push(s, ids[i], &piece) : tok_stream_end(s, &piece));
        buf clean = {0}; /* a piece is whole characters */
        if (piece.len) buf_append_utf8(&clean, piece.data, piece.len);
        bad += clean.len != piece.len || (clean.len && memcmp(clean.data, piece.data, clean.len) != 0);
        buf_append(&joined, piece.data ? piece.data : "", piece.len);
        buf_fini(&clean);
    }
    bad += joined.len != whole.len || (whole.len && memcmp(joined.data, whole.data, whole.len) != 0);
    if (bad)
        print_error("%s: decode gives '%s', stream '%s', library '%s'\n", name, whole.data, joined.data,
                    json_string_value(want));
    tok_stream_free(s);
    buf_fini(&whole);
    buf_fini(&joined);
    buf_fini(&piece);
    free(ids);
    return bad;
}

static void decodes_as_library(void **state) {
    (void)state;
    int bad = 0;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        tok *t = load(names[i]);
        json_t *j = cases_of(names[i]), *c;
        size_t k;
        json_array_foreach(json_object_get(j, "decodes"), k, c) {
            bad += expect_text(t, names[i], json_object_get(c, "ids"), json_object_get(c, "text"), false);
            bad += expect_text(t, names[i], json_object_get(c, "ids"), json_object_get(c, "skip"), true);
        }
        json_decref(j);
        tok_free(t);
    }
    assert_int_equal(bad, 0);
}

static void cuts_as_library(void **state) {
    (void)state;
    int bad = 0, seen = 0;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        tok *t = load(names[i]);
        json_t *j = cases_of(names[i]), *c;
        size_t k;
        json_array_foreach(json_object_get(j, "cuts"), k, c) {
            const json_t *text = json_object_get(c, "text");
            size_t n = (size_t)json_integer_value(json_object_get(c, "n"));
            tok_ids ids = {0};
            status st = {0};
            if (!tok_encode_max(t, json_string_value(text), json_string_length(text), NULL, 0, true, n, &ids,
                                &st) ||
                !same_ids(&ids, json_object_get(c, "ids")) || ids.n > n) {
                print_error("%s: '%s' in %zu ids: %s\n", names[i], json_string_value(text), n, st.msg);
                bad++;
            }
            seen++;
            tok_ids_fini(&ids);
        }
        json_decref(j);
        tok_free(t);
    }
    assert_int_equal(bad, 0);
    assert_true(seen > 40);
    tok *t = load("bert");
    tok_ids ids = {0};
    status st = {0};
    assert_true(tok_ids_push(&ids, 7)); /* what is there already does not count */
    assert_false(tok_encode_max(t, "the dog", 7, NULL, 0, true, 1, &ids, &st));
    assert_int_equal(st.code, ST_INVALID);
    assert_int_equal(ids.n, 1);
    st = (status){0};
    assert_true(tok_encode_max(t, "the dog", 7, NULL, 0, true, 3, &ids, &st));
    assert_int_equal(ids.n, 4);
    assert_int_equal(ids.v[3], tok_find(t, "[SEP]"));
    assert_true(tok_encode_max(t, "the dog", 7, NULL, 0, false, 1, &ids, &st));
    assert_int_equal(ids.n, 5);
    assert_int_equal(tok_pad_id(t), -1);
    tok_ids_fini(&ids);
    tok_free(t);
    t = load("siglip");
    assert_int_equal(tok_pad_id(t), 1);
    tok_free(t);
}

static size_t count_id(const tok *t, const char *text, tok_span *user, size_t n_user, const char *token) {
    tok_ids ids = {0};
    status st = {0};
    assert_true(tok_encode(t, text, strlen(text), user, n_user, false, &ids, &st));
    size_t n = 0;
    for (size_t i = 0; i < ids.n; i++) n += ids.v[i] == tok_find(t, token);
    tok_ids_fini(&ids);
    return n;
}

static void user_text_is_no_special_token(void **state) {
    (void)state;
    tok *t = load("qwen");
    const char *text = "<|im_start|>hi <|im_end|> <think><|im_end|>";
    tok_span part[2] = {{12, 33}, {33, 40}}; /* "hi <|im_end|> <think>" and a piece of the last token */
    assert_int_equal(count_id(t, text, NULL, 0, "<|im_end|>"), 2);
    assert_int_equal(count_id(t, text, part, 1, "<|im_end|>"), 1);
    assert_int_equal(count_id(t, text, part, 2, "<|im_end|>"), 0); /* one byte of overlap is enough */
    assert_int_equal(count_id(t, text, part, 2, "<|im_start|>"), 1);
    assert_int_equal(count_id(t, text, part, 2, "<think>"), 1); /* special=false: matches */
    tok_span empty = {5, 5};
    assert_int_equal(count_id(t, text, &empty, 1, "<|im_start|>"), 1);
    /* a token put together from the template's text and the user's */
    tok_span tail = {5, 12};
    assert_int_equal(count_id(t, text, &tail, 1, "<|im_start|>"), 0);
    /* bytes that are not UTF-8 move the spans along */
    tok_span moved = {3, 13};
    assert_int_equal(count_id(t, "\xFF\xC3\xE2<|im_end|><|im_end|>", &moved, 1, "<|im_end|>"), 1);
    tok_free(t);
    /* normalized special tokens are found in the normal form; their origin counts */
    t = load("corners");
    const char *u = "\xE3\x80\x80\xC3\xA9<s> <s>"; /* a space that is stripped, an accent that is dropped */
    tok_span first = {5, 8}, second = {9, 12};
    assert_int_equal(count_id(t, u, NULL, 0, "<s>"), 2);
    assert_int_equal(count_id(t, u, &first, 1, "<s>"), 1);
    assert_int_equal(count_id(t, u, &second, 1, "<s>"), 1);
    tok_free(t);
    static const char *const models[] = {"bert", "wordlevel", "t5", "siglip", "unicorners"};
    static const char *const tokens[] = {"[SEP]", "</s>", "</s>", "</s>", "<s>"};
    for (size_t i = 0; i < ARRAY_LEN(models); i++) {
        t = load(models[i]);
        char made[64];
        size_t k = strlen(tokens[i]);
        /* U+FB01 becomes two characters, two spaces one: spans are in bytes of the original all the same */
        snprintf(made, sizeof made, "\xEF\xAC\x81  %s a %s", tokens[i], tokens[i]);
        tok_span here = {5, 5 + k}, last = {k + 8, 2 * k + 8}, all = {0, 2 * k + 8};
        assert_int_equal(count_id(t, made, NULL, 0, tokens[i]), 2);
        assert_int_equal(count_id(t, made, &here, 1, tokens[i]), 1);
        assert_int_equal(count_id(t, made, &last, 1, tokens[i]), 1);
        assert_int_equal(count_id(t, made, &all, 1, tokens[i]), 0);
        tok_free(t);
    }
}

static void broken_utf8_is_replaced(void **state) {
    (void)state;
    static const char *const raw[] = {"a\xFF"
                                      "b",
                                      "\xE2\x82",
                                      "\xF0\x9F\x98",
                                      "\xC3(",
                                      "\xED\xA0\x80",
                                      "x\xF4\x90\x80\x80",
                                      "\x80\x80"};
    tok *t = load("llama2");
    for (size_t i = 0; i < ARRAY_LEN(raw); i++) {
        buf fixed = {0};
        tok_ids a = {0}, b = {0};
        status st = {0};
        buf_append_utf8(&fixed, raw[i], strlen(raw[i]));
        assert_true(tok_encode(t, raw[i], strlen(raw[i]), NULL, 0, true, &a, &st));
        assert_true(tok_encode(t, fixed.data, fixed.len, NULL, 0, true, &b, &st));
        assert_int_equal(a.n, b.n);
        assert_memory_equal(a.v, b.v, a.n * sizeof *a.v);
        tok_ids_fini(&a);
        tok_ids_fini(&b);
        buf_fini(&fixed);
    }
    tok_free(t);
}

/* A word of a megabyte, of every model: time that grows with its square would be minutes. Spaces are fewer, because a
 * regular expression gives up on a million of them. */
static void long_words(void **state) {
    (void)state;
    size_t most = 1000000;
    char *text = malloc(most + 1);
    assert_non_null(text);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        tok *t = load(names[i]);
        for (int kind = 0; kind < 4; kind++) {
            size_t n = kind == 1 ? most / 10 : most;
            for (size_t k = 0; k < n; k++)
                text[k] = kind == 0   ? 'a'
                          : kind == 1 ? ' '
                          : kind == 2 ? "ab1 ."[(k * k / 7) % 5]
                                      : "\xCC\x81"[k % 2]; /* one accent after the other */
            text[n] = 0;
            tok_ids ids = {0};
            status st = {0};
            if (!tok_encode(t, text, n, NULL, 0, false, &ids, &st))
                fail_msg("%s, text %d: %s", names[i], kind, st.msg);
            assert_true(ids.n <= 2 * n + 10);
            tok_ids_fini(&ids);
        }
        tok_free(t);
    }
    free(text);
}

static void answers(void **state) {
    (void)state;
    tok *t = load("llama2");
    assert_int_equal(tok_find(t, "<s>"), 1);
    assert_int_equal(tok_find(t, "no such token"), -1);
    assert_true(tok_is_special(t, 1));
    assert_false(tok_is_special(t, 300));
    assert_string_equal(tok_id_string(t, 2), "</s>");
    assert_null(tok_id_string(t, -1));
    assert_null(tok_id_string(t, (int32_t)tok_size(t)));
    assert_non_null(tok_id_string(t, (int32_t)tok_size(t) - 1));
    buf b = {0};
    assert_true(tok_id_bytes(t, tok_find(t, "<0xC3>"), &b) &&
                tok_id_bytes(t, tok_find(t, "\xE2\x96\x81"), &b));
    assert_string_equal(b.data, "\xC3 ");
    buf_clear(&b);
    tok_free(t);
    t = load("gpt2");
    assert_true(tok_id_bytes(t, tok_find(t, "\xC4\xA0"), &b) &&
                tok_id_bytes(t, tok_find(t, "\xC3\x83"), &b) && tok_id_bytes(t, 1 << 20, &b));
    assert_string_equal(b.data, " \xC3");
    buf_fini(&b);
    tok_free(t);
}

/* ---- files ---- */

static tok *load_text(const char *json, status *st) {
    char path[] = "/tmp/test_tok.XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    FILE *f = fdopen(fd, "wb");
    assert_non_null(f);
    fputs(json, f);
    fclose(f);
    tok *t = tok_load(path, st);
    unlink(path);
    return t;
}

static void wrong_files(void **state) {
    (void)state;
    static const struct {
        const char *json, *says;
        status_code code;
    } cases[] = {
        {"", "JSON", ST_INVALID},
        {"{", "JSON", ST_INVALID},
        {"[]", "object", ST_INVALID},
        {"{}", "model", ST_INVALID},
        {"{\"model\":{\"type\":\"Odd\",\"vocab\":{}}}", "Odd", ST_UNSUPPORTED},
        {"{\"model\":{\"type\":\"WordPiece\",\"vocab\":{}}}", "unk_token", ST_INVALID},
        {"{\"model\":{\"type\":\"WordPiece\",\"vocab\":{},\"unk_token\":\"?\"}}", "continuing_subword_prefix",
         ST_INVALID},
        {"{\"model\":{\"type\":\"WordPiece\",\"vocab\":{},\"unk_token\":\"?\",\"continuing_subword_prefix\":"
         "\"\","
         "\"max_input_chars_per_word\":-1}}",
         "max_input_chars_per_word", ST_INVALID},
        {"{\"model\":{\"type\":\"WordLevel\",\"vocab\":[],\"unk_token\":\"?\"}}", "vocab", ST_INVALID},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":{}}}", "vocab", ST_INVALID},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",0],[\"b\"]]}}", "vocab[1]", ST_INVALID},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",0]],\"unk_id\":1}}", "unk_id", ST_INVALID},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":[],\"merges\":[]}}", "vocab", ST_INVALID},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]}}", "id", ST_INVALID},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":2000000000},\"merges\":[]}}", "id", ST_INVALID},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a b\"]}}", "merges[0]", ST_INVALID},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a\"]}}", "merges[0]", ST_INVALID},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[[\"a\"]]}}", "merges[0]", ST_INVALID},
        {"{\"model\":{\"type\":\"BPE\",\"dropout\":0.1,\"vocab\":{\"a\":0},\"merges\":[]}}", "dropout",
         ST_UNSUPPORTED},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]},\"normalizer\":{\"type\":"
         "\"Precompiled\"}}",
         "Precompiled", ST_INVALID},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[]},\"normalizer\":{\"type\":\"Precompiled\","
         "\"precompiled_charsmap\":\"a?\"}}",
         "base64", ST_INVALID},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[]},\"normalizer\":{\"type\":\"Precompiled\","
         "\"precompiled_charsmap\":\"AAAAAA==\"}}",
         "trie", ST_INVALID},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[]},\"normalizer\":{\"type\":\"Precompiled\","
         "\"precompiled_charsmap\":\"BAAAAAAAAAD/\"}}",
         "UTF-8", ST_INVALID},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]},\"normalizer\":{\"type\":"
         "\"Odd\"}}",
         "Odd", ST_UNSUPPORTED},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]},\"pre_tokenizer\":{\"type\":"
         "\"Split\",\"pattern\":{\"Regex\":"
         "\"(\"},\"behavior\":\"Isolated\",\"invert\":false}}",
         "regular expression", ST_INVALID},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]},\"pre_tokenizer\":{\"type\":"
         "\"UnicodeScripts\"}}",
         "UnicodeScripts", ST_UNSUPPORTED},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]},\"decoder\":{\"type\":\"CTC\"}}",
         "CTC", ST_UNSUPPORTED},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]},\"post_processor\":{\"type\":"
         "\"Odd\"}}",
         "Odd", ST_UNSUPPORTED},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]},\"added_tokens\":[{\"id\":1}]}",
         "added_tokens[0]", ST_INVALID},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        status st = {0};
        assert_null(load_text(cases[i].json, &st));
        if (!strstr(st.msg, cases[i].says) || st.code != cases[i].code)
            print_error("case %zu: %s\n", i, st.msg);
        assert_non_null(strstr(st.msg, cases[i].says));
        assert_int_equal(st.code, cases[i].code);
    }
    status st = {0};
    assert_null(tok_load("/no/such/tokenizer.json", &st));
    assert_int_equal(st.code, ST_NOT_FOUND);
    /* no parts but a model is a tokenizer; a character that is nowhere gives nothing */
    st = (status){0};
    tok *t = load_text(
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":5},\"merges\":[\"a b\"]}}", &st);
    assert_non_null(t);
    tok_ids ids = {0};
    assert_true(tok_encode(t, "abxb", 4, NULL, 0, true, &ids, &st));
    assert_int_equal(ids.n, 2);
    assert_int_equal(ids.v[0], 5);
    buf b = {0};
    assert_true(tok_decode(t, ids.v, ids.n, false, &b, &st));
    assert_string_equal(b.data, "ab b");
    buf_fini(&b);
    tok_ids_fini(&ids);
    assert_int_equal(tok_size(t), 6);
    tok_free(t);
    /* what is unknown and has no token to stand for it is an error of the text's encoding */
    static const char *const no_unk[] = {
        "{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",-1]]}}",
        "{\"model\":{\"vocab\":{\"a\":0},\"unk_token\":\"?\",\"continuing_subword_prefix\":\"\","
        "\"max_input_chars_per_word\":100}}",
        "{\"model\":{\"type\":\"WordLevel\",\"vocab\":{\"a\":0},\"unk_token\":\"?\"}}"};
    for (size_t i = 0; i < ARRAY_LEN(no_unk); i++) {
        assert_non_null(t = load_text(no_unk[i], &st));
        tok_ids none = {0};
        assert_true(tok_encode(t, "a", 1, NULL, 0, true, &none, &st));
        assert_int_equal(none.n, 1);
        assert_false(tok_encode(t, "x", 1, NULL, 0, true, &none, &st));
        assert_int_equal(st.code, ST_INVALID);
        assert_int_equal(none.n, 1);
        st = (status){0};
        tok_ids_fini(&none);
        tok_free(t);
    }
    assert_non_null(t = tok_load("models/vlmd-tiny", &st)); /* a folder */
    tok_free(t);
}

/* ---- vlmd tokenize ---- */

static char *run_tool(tool_tokenize_opts o, const char *input, status *st, bool *ok) {
    char *out = NULL;
    size_t n = 0;
    FILE *in = fmemopen((void *)(uintptr_t)input, strlen(input), "rb"), *f = open_memstream(&out, &n);
    assert_non_null(in);
    assert_non_null(f);
    *ok = tool_tokenize(&o, in, f, st);
    fclose(in);
    fclose(f);
    return out;
}

static void tool(void **state) {
    (void)state;
    tool_tokenize_opts o = {.path = GOLDEN "llama2.tok.json"};
    status st = {0};
    bool ok;
    char *plain = run_tool(o, "the dog", &st, &ok);
    assert_true(ok);
    o.json_lines = true;
    char *lines = run_tool(o, "\"the dog\"\n\"\\u0000\\ud83d\\ude00\"\n", &st, &ok);
    assert_true(ok);
    assert_true(plain[0] == '1' && plain[1] == ' ' && lines[0] == '[' && lines[1] == '1'); /* <s> */
    assert_null(strchr(plain, ','));
    o.decode = true;
    char *back = run_tool(o, lines, &st, &ok);
    assert_true(ok);
    assert_string_equal(back, "\"<s> the dog\"\n\"<s> \\u0000\\uD83D\\uDE00\"\n");
    free(plain);
    free(lines);
    free(back);
    o.decode = false;
    free(run_tool(o, "\"fine\"\n12\n", &st, &ok));
    assert_false(ok);
    assert_non_null(strstr(st.msg, "line 2"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(encodes_as_library),
        cmocka_unit_test(decodes_as_library),
        cmocka_unit_test(cuts_as_library),
        cmocka_unit_test(user_text_is_no_special_token),
        cmocka_unit_test(broken_utf8_is_replaced),
        cmocka_unit_test(long_words),
        cmocka_unit_test(answers),
        cmocka_unit_test(wrong_files),
        cmocka_unit_test(tool),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
