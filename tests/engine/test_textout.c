/* test_textout.c - answers to text: against tok_decode and a plain search for stop strings, whatever the token
 * boundaries; what is held back; token entries. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/textout.h"

static tok *g_tok;

static uint32_t g_state = 4242;
static int rnd(int n) {
    g_state = g_state * 1664525u + 1013904223u;
    return (int)((g_state >> 8) % (uint32_t)n);
}

static int load(void **state) {
    (void)state;
    status st = {0};
    g_tok = tok_load("models/vlmd-tiny", &st);
    return g_tok ? 0 : -1;
}
static int unload(void **state) {
    (void)state;
    tok_free(g_tok);
    return 0;
}

static tok_ids encode(const char *text) {
    tok_ids ids = {0};
    status st = {0};
    assert_true(tok_encode(g_tok, text, strlen(text), NULL, 0, false, &ids, &st));
    return ids;
}

typedef struct answer {
    buf text, bytes;
    int pushed, entries;
    bool stopped;
} answer;

static void answer_fini(answer *a) {
    buf_fini(&a->text);
    buf_fini(&a->bytes);
}

static bool is_whole(const char *s, size_t n) {
    uint32_t cp;
    for (size_t i = 0; i < n;) {
        int k = utf8_decode(s + i, n - i, &cp);
        if (!k) return false;
        i += (size_t)k;
    }
    return true;
}

/* Pushes ids until a stop string; stop_at: the index of a token that ends the answer, or -1. */
static answer run(const int32_t *ids, size_t n, const engine_params *p, int stop_at) {
    answer a = {0};
    textout o;
    textout_piece piece;
    status st = {0};
    if (!textout_init(&o, g_tok, p, &st)) fail_msg("%s", st.msg);
    for (size_t i = 0; i < n && !a.stopped; i++) {
        sample_result r = {.id = ids[i]};
        assert_true(textout_push(&o, &r, (int)i == stop_at, &piece));
        assert_true(is_whole(piece.text, piece.n_text));
        buf_append(&a.text, piece.text, piece.n_text);
        assert_int_equal(piece.n_tokens, 1);
        assert_int_equal(piece.tokens->id, ids[i]);
        buf_append(&a.bytes, piece.tokens->bytes, piece.tokens->n_bytes);
        a.pushed++;
        a.stopped = piece.stopped;
        if ((int)i == stop_at) break;
    }
    assert_true(textout_end(&o, &piece));
    if (a.stopped) assert_int_equal(piece.n_text, 0);
    assert_true(is_whole(piece.text, piece.n_text));
    buf_append(&a.text, piece.text, piece.n_text);
    assert_int_equal(piece.n_tokens, 0);
    a.stopped |= piece.stopped;
    buf_append(&a.text, "", 0);
    textout_fini(&o);
    return a;
}

static buf decoded(const int32_t *ids, size_t n) {
    buf b = {0};
    status st = {0};
    assert_true(tok_decode(g_tok, ids, n, true, &b, &st));
    buf_append(&b, "", 0);
    return b;
}

/* Where the text ends by the rule: at the stop string whose end comes first, the longest of those. from: ends before
 * or at it do not count. */
static size_t cut_of(const buf *text, const engine_params *p, size_t from) {
    for (size_t e = from + 1; e <= text->len; e++) {
        size_t best = 0;
        for (int i = 0; i < p->n_stop; i++) {
            size_t n = strlen(p->stop[i]);
            if (n <= e && n > best && memcmp(text->data + e - n, p->stop[i], n) == 0) best = n;
        }
        if (best) return e - best;
    }
    return text->len;
}

static void check_against_search(const int32_t *ids, size_t n, const engine_params *p) {
    buf whole = decoded(ids, n);
    size_t from = 0;
    if (p->min_tokens >
        0) { /* only what has certainly come out by then: tests keep to texts without open characters */
        buf head = decoded(ids, (size_t)p->min_tokens < n ? (size_t)p->min_tokens : n);
        from = head.len;
        buf_fini(&head);
    }
    size_t want = cut_of(&whole, p, from);
    answer a = run(ids, n, p, -1);
    if (a.text.len != want || memcmp(a.text.data, whole.data, want) != 0)
        fail_msg("'%s' instead of the first %zu bytes of '%s'", a.text.data, want, whole.data);
    assert_int_equal(a.stopped, want < whole.len);
    answer_fini(&a);
    buf_fini(&whole);
}

static void test_no_stops(void **state) {
    (void)state;
    static const char *const texts[] = {"Hello, world!\n  two  spaces", "größer 大きい 🙂🙃 e\u0301",
                                        "", "a </s> b <image> c"};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        tok_ids ids = encode(texts[i]);
        engine_params p = {0};
        check_against_search(ids.v, ids.n, &p);
        answer a = run(ids.v, ids.n, &p, -1);
        /* The entries' bytes are the text, but for what the decoder strips in front. */
        assert_true(a.bytes.len >= a.text.len);
        assert_memory_equal(a.bytes.data + (a.bytes.len - a.text.len), a.text.data, a.text.len);
        answer_fini(&a);
        tok_ids_fini(&ids);
    }
}

/* Any ids at all: byte tokens that form no character, specials, ids outside the vocabulary. */
static void test_random_ids(void **state) {
    (void)state;
    engine_params p = {0};
    for (int round = 0; round < 300; round++) {
        int32_t ids[40];
        size_t n = (size_t)rnd(40);
        for (size_t i = 0; i < n; i++) ids[i] = rnd(round % 2 ? (int)tok_size(g_tok) + 5 : 280);
        buf whole = decoded(ids, n);
        answer a = run(ids, n, &p, -1);
        assert_int_equal(a.text.len, whole.len);
        if (whole.len) assert_memory_equal(a.text.data, whole.data, whole.len);
        answer_fini(&a);
        buf_fini(&whole);
    }
}

static void test_stops_against_search(void **state) {
    (void)state;
    static const char letters[] = "aaabbc ";
    for (int round = 0; round < 1500; round++) {
        char text[80], stops[6][12];
        const char *list[6];
        int n = rnd(78);
        for (int i = 0; i < n; i++) text[i] = letters[rnd((int)sizeof letters - 1)];
        text[n] = 0;
        engine_params p = {.stop = list, .n_stop = 1 + rnd(6), .min_tokens = rnd(3) ? 0 : rnd(12)};
        for (int i = 0; i < p.n_stop; i++) {
            int m = 1 + rnd(10);
            for (int k = 0; k < m; k++) stops[i][k] = letters[rnd((int)sizeof letters - 1)];
            stops[i][m] = 0;
            list[i] = stops[i];
        }
        tok_ids ids = encode(text);
        check_against_search(ids.v, ids.n, &p);
        tok_ids_fini(&ids);
    }
}

static void test_stop_cases(void **state) {
    (void)state;
    static const struct {
        const char *text, *stop[3], *want;
    } cases[] = {
        {"one two three", {" two"}, "one"},
        {"one two three", {"e", "one"}, ""},        /* end together: the longest */
        {"one two three", {"otw", "threes"}, NULL}, /* none */
        {"größer 大きい", {"大"}, "größer "},
        {"größer", {"ö"}, "gr"},
        {"A\nB\nUSER: x", {"\nUSER:"}, "A\nB"},
        {"xaaab", {"aab"}, "xa"},
        {"abcabd", {"abcabx", "bd"}, "abca"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        engine_params p = {.stop = cases[i].stop, .n_stop = 0};
        while (p.n_stop < 3 && cases[i].stop[p.n_stop]) p.n_stop++;
        tok_ids ids = encode(cases[i].text);
        answer a = run(ids.v, ids.n, &p, -1);
        assert_string_equal(a.text.data, cases[i].want ? cases[i].want : cases[i].text);
        assert_int_equal(a.stopped, cases[i].want != NULL);
        answer_fini(&a);
        tok_ids_fini(&ids);
    }
}

/* Text goes out at once when it cannot begin a stop string, and waits when it can. */
static void test_hold_back(void **state) {
    (void)state;
    const char *stop[] = {"STOP"};
    engine_params p = {.stop = stop, .n_stop = 1};
    textout o;
    textout_piece piece;
    assert_true(textout_init(&o, g_tok, &p, NULL));
    static const char *const pieces[] = {"a", "S", "T", "O", "x", "S", "T"}, *const out[] = {"a", "",     "",
                                                                                             "",  "STOx", "",
                                                                                             ""};
    for (size_t i = 0; i < ARRAY_LEN(pieces); i++) {
        int32_t id = tok_find(g_tok, pieces[i]);
        assert_true(id >= 0);
        assert_true(textout_push(&o, &(sample_result){.id = id}, false, &piece));
        assert_int_equal(piece.n_text, strlen(out[i]));
        assert_memory_equal(piece.text, out[i], piece.n_text);
    }
    assert_true(textout_end(&o, &piece));
    assert_int_equal(piece.n_text, 2); /* "ST": nothing completes it */
    assert_memory_equal(piece.text, "ST", 2);
    assert_false(piece.stopped);
    textout_fini(&o);
}

static void test_stop_token_and_entries(void **state) {
    (void)state;
    tok_ids ids = encode("Hi there");
    int32_t eos = tok_find(g_tok, "</s>");
    assert_true(tok_ids_push(&ids, eos));
    engine_params p = {0};
    answer a = run(ids.v, ids.n, &p, (int)ids.n - 1);
    assert_string_equal(a.text.data, "Hi there");
    assert_int_equal(a.pushed, ids.n);
    answer_fini(&a);
    /* A token of the text that is asked to end the answer has no text either, but has its bytes. */
    textout o;
    textout_piece piece;
    assert_true(textout_init(&o, g_tok, &p, NULL));
    sample_result r = {
        .id = ids.v[0], .logprob = -0.5f, .n_top = 2, .top_id = {eos, ids.v[1]}, .top_logprob = {-0.1f, -2}};
    assert_true(textout_push(&o, &r, true, &piece));
    assert_int_equal(piece.n_text, 0);
    assert_true(piece.tokens->n_bytes > 0);
    assert_true(piece.tokens->logprob == -0.5f);
    assert_int_equal(piece.tokens->n_top, 2);
    assert_int_equal(piece.tokens->top[0].id, eos);
    assert_int_equal(piece.tokens->top[0].n_bytes, 0); /* special: no bytes of the text, but a name */
    assert_string_equal(piece.tokens->top[0].special, "</s>");
    assert_null(piece.tokens->special);
    assert_null(piece.tokens->top[1].special);
    buf b = {0};
    assert_true(tok_id_bytes(g_tok, ids.v[1], &b));
    assert_int_equal(piece.tokens->top[1].n_bytes, b.len);
    assert_memory_equal(piece.tokens->top[1].bytes, b.data, b.len);
    buf_fini(&b);
    textout_fini(&o);
    tok_ids_fini(&ids);
}

static void test_refused_stops(void **state) {
    (void)state;
    char *big = mem_alloc(TEXTOUT_MAX_STOP_BYTES + 2);
    memset(big, 'a', TEXTOUT_MAX_STOP_BYTES + 1);
    big[TEXTOUT_MAX_STOP_BYTES + 1] = 0;
    const struct {
        const char *stop[2];
        status_code code;
    } bad[] = {{{"x", ""}, ST_INVALID}, {{"x", "\xC3"}, ST_INVALID}, {{"x", big}, ST_TOO_LARGE}};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        status st = {0};
        textout o;
        engine_params p = {.stop = bad[i].stop, .n_stop = 2};
        assert_false(textout_init(&o, g_tok, &p, &st));
        assert_int_equal(st.code, bad[i].code);
        assert_string_equal(st.param, "stop");
        textout_fini(&o);
    }
    mem_free(big);
}

/* As many and as long as allowed: all prefixes of each other, and thousands of short ones. Linear work, or this does
 * not end. */
static void test_many_stops(void **state) {
    (void)state;
    enum { MANY = 40000 };
    char *one = mem_alloc(TEXTOUT_MAX_STOP_BYTES + 1),
         (*short_ones)[8] = mem_alloc(MANY * sizeof *short_ones);
    const char **list = mem_alloc(MANY * sizeof *list);
    memset(one, 'a', TEXTOUT_MAX_STOP_BYTES);
    one[TEXTOUT_MAX_STOP_BYTES - 1] = 'b';
    one[TEXTOUT_MAX_STOP_BYTES] = 0;
    list[0] = one;
    tok_ids ids = encode("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaac");
    size_t n = ids.n;
    for (int r = 0; r < 500; r++)
        for (size_t i = 0; i < n; i++) assert_true(tok_ids_push(&ids, ids.v[i]));
    engine_params p = {.stop = list, .n_stop = 1};
    buf whole = decoded(ids.v, ids.n);
    answer a = run(ids.v, ids.n, &p, -1);
    assert_int_equal(a.text.len, whole.len);
    answer_fini(&a);
    for (int i = 0; i < MANY; i++) {
        snprintf(short_ones[i], sizeof short_ones[i], "%05dx", i);
        list[i] = short_ones[i];
    }
    p.n_stop = MANY;
    a = run(ids.v, ids.n, &p, -1);
    assert_int_equal(a.text.len, whole.len);
    answer_fini(&a);
    tok_ids hit = encode("see 12345x");
    a = run(hit.v, hit.n, &p, -1);
    assert_string_equal(a.text.data, "see ");
    answer_fini(&a);
    tok_ids_fini(&hit);
    tok_ids_fini(&ids);
    buf_fini(&whole);
    mem_free(list);
    mem_free(short_ones);
    mem_free(one);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_stops),
        cmocka_unit_test(test_random_ids),
        cmocka_unit_test(test_stops_against_search),
        cmocka_unit_test(test_stop_cases),
        cmocka_unit_test(test_hold_back),
        cmocka_unit_test(test_stop_token_and_entries),
        cmocka_unit_test(test_refused_stops),
        cmocka_unit_test(test_many_stops),
    };
    return cmocka_run_group_tests(tests, load, unload);
}
