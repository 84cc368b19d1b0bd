/* test_reply.c - the JSON of replies and streams, read back with the JSON library. Shapes: OpenAI's API
 * reference. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <jansson.h>
#include <math.h>
#include <string.h>

#include "server/chat_stream.h"
#include "server/reply.h"

static json_t *read_back(const buf *b) {
    json_error_t err;
    json_t *v = json_loadb(b->data, b->len, JSON_DECODE_ANY | JSON_ALLOW_NUL, &err);
    if (!v) fail_msg("%s: %s", err.text, b->data);
    return v;
}

static void check_string(const char *in, size_t n, const char *expected, size_t n_expected) {
    buf b = {0};
    json_put_string(&b, in, n);
    json_t *v = read_back(&b);
    assert_int_equal(json_string_length(v), n_expected);
    assert_memory_equal(json_string_value(v), expected, n_expected);
    json_decref(v);
    buf_fini(&b);
}

static void test_strings(void **state) {
    (void)state;
    char all[128];
    for (int i = 0; i < 128; i++) all[i] = (char)i;
    check_string(all, sizeof all, all, sizeof all);
    check_string("", 0, "", 0);
    check_string("\xC3\xA9\xF0\x9F\x98\x80", 6, "\xC3\xA9\xF0\x9F\x98\x80", 6);
    /* As Python's bytes.decode(errors="replace"). */
    check_string("a\xFFz", 3, "a\xEF\xBF\xBDz", 5);
    check_string("\xE2\x82", 2, "\xEF\xBF\xBD", 3);
    check_string("\xED\xA0\x80", 3, "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD", 9);
}

static void test_reals(void **state) {
    (void)state;
    static const struct {
        double in, out;
    } cases[] = {{0, 0},
                 {-1.5, -1.5},
                 {(double)-0.1f, (double)-0.1f},
                 {1e-20, 1e-20},
                 {123456789, 123456789},
                 {(double)INFINITY, 9999},
                 {(double)-INFINITY, -9999},
                 {(double)NAN, 0}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        buf b = {0};
        json_put_real(&b, cases[i].in);
        json_t *v = read_back(&b);
        assert_true(json_is_real(v));
        assert_true((float)json_real_value(v) == (float)cases[i].out);
        json_decref(v);
        buf_fini(&b);
    }
}

static void test_errors(void **state) {
    (void)state;
    static const struct {
        status_code code;
        int http;
    } map[] = {{ST_OK, 200},        {ST_INVALID, 400}, {ST_UNSUPPORTED, 400}, {ST_NOT_FOUND, 404},
               {ST_TOO_LARGE, 400}, {ST_BUSY, 429},    {ST_CANCELLED, 503},   {ST_NO_MEMORY, 503},
               {ST_IO, 500},        {ST_INTERNAL, 500}};
    for (size_t i = 0; i < ARRAY_LEN(map); i++)
        assert_int_equal(reply_http_status(&(status){.code = map[i].code}), map[i].http);
    status st = {0};
    status_set(&st, ST_INVALID, "bad \"thing\"");
    status_param(&st, "messages[0]");
    buf b = {0};
    reply_error_status(&b, &st);
    json_t *v = read_back(&b), *e = json_object_get(v, "error");
    assert_string_equal(json_string_value(json_object_get(e, "message")), "bad \"thing\"");
    assert_string_equal(json_string_value(json_object_get(e, "param")), "messages[0]");
    assert_string_equal(json_string_value(json_object_get(e, "type")), "invalid_request_error");
    assert_true(json_is_null(json_object_get(e, "code")));
    json_decref(v);
    buf_clear(&b);
    reply_error_status(&b, &(status){.code = ST_BUSY, .msg = "full"});
    v = read_back(&b);
    e = json_object_get(v, "error");
    assert_string_equal(json_string_value(json_object_get(e, "type")), "rate_limit_error");
    assert_string_equal(json_string_value(json_object_get(e, "code")), "rate_limit_exceeded");
    json_decref(v);
    buf_fini(&b);
}

/* A batch of two tokens: "h\xC3" and "\xA9", which together are one text. */
static void fill(outbox_choice *b) {
    static outbox_token tokens[2] = {{7, -0.25f, 0, 2, false, 0, 1}, {8, -INFINITY, 2, 1, false, 1, 0}};
    static outbox_top tops[1] = {{-0.25f, 0, 2, false}};
    *b = (outbox_choice){.tokens = tokens, .n_tokens = 2, .tops = tops, .n_tops = 1};
    buf_append(&b->text, "h\xC3\xA9", 3);
    buf_append(&b->bytes, "h\xC3\xA9", 3);
}

/* A special token shows its name, and no bytes. */
static void test_special_token(void **state) {
    (void)state;
    outbox_token t = {.id = 2, .n_bytes = 4, .special = true, .n_top = 1};
    outbox_top top = {.n_bytes = 4, .special = true};
    outbox_choice batch = {.tokens = &t, .n_tokens = 1, .tops = &top, .n_tops = 1};
    buf_puts(&batch.bytes, "</s>");
    buf b = {0};
    reply_logprobs(&b, &batch);
    json_t *v = read_back(&b), *e = json_array_get(json_object_get(v, "content"), 0);
    for (int i = 0; i < 2; i++, e = json_array_get(json_object_get(e, "top_logprobs"), 0)) {
        assert_string_equal(json_string_value(json_object_get(e, "token")), "</s>");
        assert_int_equal(json_array_size(json_object_get(e, "bytes")), 0);
    }
    json_decref(v);
    buf_fini(&b);
    buf_fini(&batch.bytes);
}

static void batch_fini(outbox_batch *b) { /* tokens are not its own */
    for (int i = 0; i < b->n_choices; i++) {
        buf_fini(&b->choices[i].text);
        buf_fini(&b->choices[i].bytes);
    }
}

static void test_completion(void **state) {
    (void)state;
    outbox_batch batch = {.n_choices = 1};
    fill(&batch.choices[0]);
    batch.choices[0].finish = FINISH_STOP;
    static const int32_t ids[] = {1, 2, 3};
    reply_head h = {"chatcmpl-1", "m", 42, true, true, ids, 3};
    outbox_end end = {.ended = true, .prompt_tokens = 3, .completion_tokens = 2, .cached_tokens = 1};
    buf b = {0};
    reply_completion(&b, &h, &batch, &end);
    json_t *v = read_back(&b), *choice = json_array_get(json_object_get(v, "choices"), 0);
    assert_string_equal(json_string_value(json_object_get(v, "object")), "chat.completion");
    assert_string_equal(json_string_value(json_object_get(v, "id")), "chatcmpl-1");
    assert_int_equal(json_integer_value(json_object_get(v, "created")), 42);
    assert_string_equal(json_string_value(json_object_get(json_object_get(choice, "message"), "content")),
                        "h\xC3\xA9");
    assert_string_equal(json_string_value(json_object_get(choice, "finish_reason")), "stop");
    json_t *lp = json_object_get(json_object_get(choice, "logprobs"), "content");
    assert_int_equal(json_array_size(lp), 2);
    json_t *first = json_array_get(lp, 0), *second = json_array_get(lp, 1);
    assert_string_equal(json_string_value(json_object_get(first, "token")), "h\xEF\xBF\xBD");
    assert_int_equal(json_integer_value(json_array_get(json_object_get(first, "bytes"), 1)), 0xC3);
    assert_int_equal(json_array_size(json_object_get(first, "top_logprobs")), 1);
    assert_true(json_real_value(json_object_get(first, "logprob")) == -0.25);
    assert_true(json_real_value(json_object_get(second, "logprob")) == -9999);
    assert_int_equal(json_integer_value(json_array_get(json_object_get(choice, "token_ids"), 1)), 8);
    assert_int_equal(json_array_size(json_object_get(v, "prompt_token_ids")), 3);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(v, "usage"), "total_tokens")), 5);
    const json_t *details = json_object_get(json_object_get(v, "usage"), "prompt_tokens_details");
    assert_int_equal(json_integer_value(json_object_get(details, "cached_tokens")), 1);
    json_decref(v);
    buf_fini(&b);
    batch_fini(&batch);
}

static void test_completion_of_many(void **state) {
    (void)state;
    outbox_batch batch = {.n_choices = 3};
    static const char *const texts[] = {"a", "", "ccc"};
    for (int i = 0; i < 3; i++) {
        buf_puts(&batch.choices[i].text, texts[i]);
        batch.choices[i].finish = i == 2 ? FINISH_LENGTH : FINISH_STOP;
    }
    reply_head h = {.id = "id", .model = "m"};
    outbox_end end = {.ended = true, .prompt_tokens = 3, .completion_tokens = 9, .mixed = true};
    buf b = {0};
    reply_completion(&b, &h, &batch, &end);
    json_t *v = read_back(&b), *all = json_object_get(v, "choices");
    assert_int_equal(json_array_size(all), 3);
    for (size_t i = 0; i < 3; i++) {
        json_t *c = json_array_get(all, i);
        assert_int_equal(json_integer_value(json_object_get(c, "index")), i);
        assert_string_equal(json_string_value(json_object_get(json_object_get(c, "message"), "content")),
                            texts[i]);
        assert_string_equal(json_string_value(json_object_get(c, "finish_reason")),
                            i == 2 ? "length" : "stop");
    }
    assert_int_equal(json_integer_value(json_object_get(json_object_get(v, "usage"), "total_tokens")), 12);
    json_decref(v);
    buf_fini(&b);
    batch_fini(&batch);
}

/* The n-th "data: " of a stream, parsed; NULL past the end; a JSON string for what is no JSON. */
static json_t *event(const buf *b, int n) {
    const char *p = b->data;
    for (; p && *p; p = strstr(p, "\n\n") + 2) {
        if (strncmp(p, "data: ", 6) != 0) continue;
        if (n-- > 0) continue;
        const char *e = strstr(p, "\n\n");
        assert_non_null(e);
        json_t *v = json_loadb(p + 6, (size_t)(e - p - 6), 0, NULL);
        return v ? v : json_stringn(p + 6, (size_t)(e - p - 6));
    }
    return NULL;
}

static json_t *delta_of(json_t *chunk) {
    return json_object_get(json_array_get(json_object_get(chunk, "choices"), 0), "delta");
}

static void test_stream(void **state) {
    (void)state;
    outbox_batch batch = {.n_choices = 1}, none = {.n_choices = 1, .n_comments = 1}, last_one = none;
    fill(&batch.choices[0]);
    last_one.n_comments = 0;
    last_one.choices[0].ended = true;
    last_one.choices[0].finish = FINISH_LENGTH;
    outbox_end going = {0}, end = {.ended = true, .prompt_tokens = 3, .completion_tokens = 2};
    static const int32_t ids[] = {1, 2, 3};
    chat_stream s = {.head = {"id", "m", 1, true, true, ids, 3}, .include_usage = true};
    buf b = {0};
    chat_stream_render(&s, &none, &going, &b);
    assert_true(b.len > 2 && b.data[0] == ':');
    chat_stream_render(&s, &batch, &going, &b);
    none.n_comments = 0;
    chat_stream_render(&s, &none, &going, &b);
    chat_stream_render(&s, &last_one, &end, &b);
    json_t *e[6];
    for (int i = 0; i < 6; i++) e[i] = event(&b, i);
    assert_string_equal(json_string_value(json_object_get(delta_of(e[0]), "role")), "assistant");
    assert_int_equal(json_array_size(json_object_get(e[0], "prompt_token_ids")), 3);
    assert_string_equal(json_string_value(json_object_get(delta_of(e[1]), "content")), "h\xC3\xA9");
    assert_null(json_object_get(delta_of(e[1]), "role"));
    assert_true(json_is_null(json_object_get(e[1], "usage")));
    json_t *last = json_array_get(json_object_get(e[2], "choices"), 0);
    assert_string_equal(json_string_value(json_object_get(last, "finish_reason")), "length");
    assert_int_equal(json_array_size(json_object_get(e[3], "choices")), 0);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(e[3], "usage"), "completion_tokens")),
                     2);
    assert_string_equal(json_string_value(e[4]), "[DONE]");
    assert_null(e[5]);
    for (int i = 0; i < 6; i++) json_decref(e[i]);
    buf_fini(&b);
    batch_fini(&batch);
}

/* Every chunk names its choice; each choice has one role, first of all, and one finish. */
static void test_stream_of_many(void **state) {
    (void)state;
    static const int32_t ids[] = {1};
    chat_stream s = {.head = {"id", "m", 1, false, false, ids, 1}, .include_usage = true};
    outbox_end going = {0}, end = {.ended = true, .prompt_tokens = 3, .completion_tokens = 9};
    outbox_batch first = {.n_choices = 3}, second = first;
    buf_puts(&first.choices[2].text, "c");
    buf_puts(&first.choices[0].text, "a");
    first.choices[0].ended = true;
    buf_puts(&second.choices[2].text, "d");
    second.choices[1].ended = second.choices[2].ended = true;
    second.choices[2].finish = FINISH_LENGTH;
    buf b = {0};
    chat_stream_render(&s, &first, &going, &b);
    chat_stream_render(&s, &second, &end, &b);
    static const struct {
        int index;
        const char *role, *content, *finish;
    } want[] = {{0, "assistant", "", NULL}, {0, NULL, "a", NULL}, {0, NULL, NULL, "stop"},
                {2, "assistant", "", NULL}, {2, NULL, "c", NULL}, {1, "assistant", "", NULL},
                {1, NULL, NULL, "stop"},    {2, NULL, "d", NULL}, {2, NULL, NULL, "length"}};
    for (size_t i = 0; i < ARRAY_LEN(want); i++) {
        json_t *v = event(&b, (int)i), *c = json_array_get(json_object_get(v, "choices"), 0);
        assert_int_equal(json_integer_value(json_object_get(c, "index")), want[i].index);
        const char *const got[] = {json_string_value(json_object_get(delta_of(v), "role")),
                                   json_string_value(json_object_get(delta_of(v), "content")),
                                   json_string_value(json_object_get(c, "finish_reason"))};
        const char *const wanted[] = {want[i].role, want[i].content, want[i].finish};
        for (int k = 0; k < 3; k++) {
            assert_int_equal(got[k] != NULL, wanted[k] != NULL);
            if (got[k]) assert_string_equal(got[k], wanted[k]);
        }
        assert_int_equal(json_object_get(v, "prompt_token_ids") != NULL, i == 0);
        json_decref(v);
    }
    json_t *usage = event(&b, ARRAY_LEN(want)), *done = event(&b, ARRAY_LEN(want) + 1);
    assert_int_equal(
        json_integer_value(json_object_get(json_object_get(usage, "usage"), "completion_tokens")), 9);
    assert_string_equal(json_string_value(done), "[DONE]");
    assert_null(event(&b, ARRAY_LEN(want) + 2));
    json_decref(usage);
    json_decref(done);
    buf_fini(&b);
    batch_fini(&first);
    batch_fini(&second);
}

static void test_stream_error(void **state) {
    (void)state;
    outbox_batch none = {0};
    outbox_end end = {.ended = true, .failed = true};
    status_set(&end.error, ST_INTERNAL, "gone");
    chat_stream s = {.head = {"id", "m", 1}, .include_usage = true};
    buf b = {0};
    chat_stream_render(&s, &none, &end, &b);
    json_t *first = event(&b, 0), *second = event(&b, 1);
    assert_string_equal(json_string_value(json_object_get(json_object_get(first, "error"), "message")),
                        "gone");
    assert_string_equal(json_string_value(second), "[DONE]");
    json_decref(first);
    json_decref(second);
    buf_fini(&b);
}

static void test_base64(void **state) {
    (void)state;
    static const char *const cases[][2] = {{"", ""},        {"f", "Zg=="},        {"fo", "Zm8="},
                                           {"foo", "Zm9v"}, {"foob", "Zm9vYg=="}, {"\xff\xfe\xfb", "//77"}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        buf b = {0};
        buf_puts(&b, "\"");
        reply_base64(&b, cases[i][0], strlen(cases[i][0]));
        buf_puts(&b, "\"");
        assert_int_equal(b.len, strlen(cases[i][1]) + 2);
        assert_memory_equal(b.data + 1, cases[i][1], b.len - 2);
        buf_fini(&b);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_strings),        cmocka_unit_test(test_reals),
        cmocka_unit_test(test_errors),         cmocka_unit_test(test_special_token),
        cmocka_unit_test(test_completion),     cmocka_unit_test(test_stream),
        cmocka_unit_test(test_stream_error),   cmocka_unit_test(test_completion_of_many),
        cmocka_unit_test(test_stream_of_many), cmocka_unit_test(test_base64),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
