/* test_embed_request.c - bodies of /v1/embeddings and /v1/zero-shot: every form of an input, pictures lifted and not,
 * options, and what is wrong named with its path. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "server/embed_request.h"

#define URL "data:image/png;base64,QUJD"

static int n_unknown;
static void unknown(void *arg, const char *name) {
    (void)arg, (void)name;
    n_unknown++;
}
static const embed_context CTX = {.width = 8, .vocab_size = 100, .unknown = unknown};

static bool parse(embed_request *r, const char *json, bool zero_shot, status *st) {
    static char body[4096];
    snprintf(body, sizeof body, "%s", json);
    *st = (status){0};
    n_unknown = 0;
    return (zero_shot ? zero_shot_request_parse : embed_request_parse)(r, body, strlen(body), &CTX, st);
}

static void test_texts(void **state) {
    (void)state;
    static const struct {
        const char *json;
        int n;
        const char *first, *param;
    } cases[] = {
        {"{\"input\":\"ab\"}", 1, "ab", "input"},
        {"{\"input\":[\"ab\",\"c\"]}", 2, "ab", "input[0]"},
        {"{\"input\":\"\"}", 1, "", "input"},
        {"{\"input\":{\"text\":\"ab\"}}", 1, "ab", "input.text"},
        {"{\"input\":[{\"type\":\"text\",\"text\":\"ab\"}]}", 1, "ab", "input[0].text"},
        {"{\"input\":[{\"content\":\"ab\"},\"x\",\"y\"]}", 3, "ab", "input[0].content"},
        {"{\"input\":{\"content\":[{\"type\":\"text\",\"text\":\"ab\"}]}}", 1, "ab", "input.content[0].text"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"ab\"}]}", 1, "ab", "messages[0].content"},
        {"{\"messages\":[{\"content\":[{\"type\":\"text\",\"text\":\"ab\"}]}]}", 1, "ab",
         "messages[0].content[0].text"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        embed_request r;
        status st;
        if (!parse(&r, cases[i].json, false, &st)) fail_msg("%s: %s", cases[i].json, st.msg);
        assert_int_equal(r.n, cases[i].n);
        assert_string_equal(r.in[0].text, cases[i].first);
        assert_int_equal(r.in[0].n_text, strlen(cases[i].first));
        assert_string_equal(r.in[0].param, cases[i].param);
        assert_false(r.base64 || r.o.raw || r.o.truncate || r.o.priority);
        embed_request_fini(&r);
    }
}

static void test_ids(void **state) {
    (void)state;
    embed_request r;
    status st;
    assert_true(parse(&r, "{\"input\":[5,6.0,7]}", false, &st));
    assert_int_equal(r.n, 1);
    assert_int_equal(r.in[0].n_ids, 3);
    assert_int_equal(r.in[0].ids[1], 6);
    embed_request_fini(&r);
    assert_true(parse(&r, "{\"input\":[[5],\"x\",[99,0]]}", false, &st));
    assert_int_equal(r.n, 3);
    assert_true(r.in[0].n_ids == 1 && r.in[0].ids[0] == 5 && r.in[2].ids[0] == 99 && r.in[2].ids[1] == 0);
    assert_null(r.in[1].ids);
    embed_request_fini(&r);
}

/* lifted: the picture's bytes lie in the body and the JSON library never saw them. */
static void check_image(const char *json, bool zero_shot, bool lifted, const char *param) {
    embed_request r;
    status st;
    if (!parse(&r, json, zero_shot, &st)) fail_msg("%s: %s", json, st.msg);
    assert_int_equal(r.scan.n_spans, lifted);
    assert_non_null(r.in[0].image);
    assert_int_equal(r.in[0].image->n, 4);
    assert_memory_equal(r.in[0].image->b64, "QUJD", 4);
    assert_string_equal(r.in[0].image->param, param);
    embed_request_fini(&r);
}

static void test_images(void **state) {
    (void)state;
    check_image("{\"input\":{\"image\":\"" URL "\"}}", false, true, "input.image");
    check_image("{\"input\":[{\"image\":\"" URL "\"}]}", false, true, "input[0].image");
    check_image("{\"input\":[{\"image\":{\"url\":\"" URL "\"}}]}", false, true, "input[0].image.url");
    check_image("{\"input\":[{\"type\":\"image_url\",\"image_url\":\"" URL "\"}]}", false, true,
                "input[0].image_url");
    check_image("{\"input\":[{\"type\":\"image_url\",\"image_url\":{\"url\":\"" URL "\"}}]}", false, true,
                "input[0].image_url.url");
    check_image("{\"input\":{\"type\":\"image_url\",\"image_url\":{\"url\":\"" URL "\"}}}", false, true,
                "input.image_url.url");
    check_image("{\"input\":[{\"content\":[{\"type\":\"image_url\",\"image_url\":{\"url\":\"" URL "\"}}]}]}",
                false, true, "input[0].content[0].image_url.url");
    check_image("{\"messages\":[{\"content\":[{\"type\":\"image_url\",\"image_url\":{\"url\":\"" URL
                "\"}}]}]}",
                false, true, "messages[0].content[0].image_url.url");
    check_image("{\"input\":[{\"image\":\"data:image\\/png;base64,QUJD\"}]}", false, true, "input[0].image");
    check_image("{\"input\":[{\"im\\u0061ge\":\"" URL "\"}]}", false, false, "input[0].image");
    static const char *const zero[][2] = {
        {"\"" URL "\"", "image"},
        {"{\"url\":\"" URL "\"}", "image.url"},
        {"{\"image_url\":\"" URL "\"}", "image.image_url"},
        {"{\"type\":\"image_url\",\"image_url\":{\"url\":\"" URL "\"}}", "image.image_url.url"}};
    for (size_t i = 0; i < ARRAY_LEN(zero); i++) {
        char json[512];
        snprintf(json, sizeof json, "{\"labels\":[\"a\"],\"image\":%s}", zero[i][0]);
        check_image(json, true, true, zero[i][1]);
    }
}

static void test_options(void **state) {
    (void)state;
    embed_request r;
    status st;
    assert_true(
        parse(&r,
              "{\"input\":\"a\",\"encoding_format\":\"base64\",\"normalize\":false,\"truncate\":true,"
              "\"priority\":-4,\"dimensions\":8,\"user\":\"u\",\"model\":\"m\",\"what\":1,\"ever\":null}",
              false, &st));
    assert_true(r.base64 && r.o.raw && r.o.truncate && r.o.priority == -4);
    assert_string_equal(r.model, "m");
    assert_int_equal(n_unknown, 2);
    embed_request_fini(&r);
    assert_true(parse(&r, "{\"input\":\"a\",\"truncate_prompt_tokens\":-1,\"truncate\":false}", false, &st));
    assert_true(r.o.truncate);
    embed_request_fini(&r);
}

static void test_labels(void **state) {
    (void)state;
    embed_request r;
    status st;
    assert_true(parse(
        &r, "{\"labels\":[\"cat\",\"\",\"a {} b\"],\"image\":\"" URL "\",\"template\":\"<{}>\"}", true, &st));
    assert_int_equal(r.n, 4);
    static const char *const want[] = {"<cat>", "<>", "<a {} b>"};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(r.in[i + 1].n_text, strlen(want[i]));
        assert_memory_equal(r.in[i + 1].text, want[i], strlen(want[i]));
    }
    assert_string_equal(r.in[3].param, "labels[2]");
    embed_request_fini(&r);
    assert_true(parse(&r, "{\"labels\":[\"cat\"],\"image\":\"" URL "\"}", true, &st));
    assert_memory_equal(r.in[1].text, "a photo of a cat.", r.in[1].n_text);
    embed_request_fini(&r);
}

static void test_refused(void **state) {
    (void)state;
    static const struct {
        const char *json, *param;
        bool zero_shot;
        status_code code;
    } cases[] = {
        {"", "", false, ST_INVALID},
        {"[]", "", false, ST_INVALID},
        {"{}", "input", false, ST_INVALID},
        {"{\"input\":[]}", "input", false, ST_INVALID},
        {"{\"input\":true}", "input", false, ST_INVALID},
        {"{\"input\":[\"a\",null]}", "input[1]", false, ST_INVALID},
        {"{\"input\":[100]}", "input[0]", false, ST_INVALID},
        {"{\"input\":[[1],[2,\"x\"]]}", "input[1][1]", false, ST_INVALID},
        {"{\"input\":{\"type\":\"video\"}}", "input.type", false, ST_UNSUPPORTED},
        {"{\"input\":{\"image\":\"http://a/b\"}}", "input.image", false, ST_UNSUPPORTED},
        {"{\"input\":{\"image\":\"data:image/png,xx\"}}", "input.image", false, ST_UNSUPPORTED},
        {"{\"input\":{\"content\":[]}}", "input.content", false, ST_INVALID},
        {"{\"input\":\"a\",\"dimensions\":4}", "dimensions", false, ST_UNSUPPORTED},
        {"{\"input\":\"a\",\"encoding_format\":\"x\"}", "encoding_format", false, ST_INVALID},
        {"{\"input\":\"a\",\"input\":\"b\"}", "", false, ST_INVALID},
        {"{\"labels\":[],\"image\":\"" URL "\"}", "labels", true, ST_INVALID},
        {"{\"labels\":[\"a\",1],\"image\":\"" URL "\"}", "labels[1]", true, ST_INVALID},
        {"{\"labels\":[\"a\"],\"image\":\"" URL "\",\"template\":\"x\"}", "template", true, ST_INVALID},
        {"{\"labels\":[\"a\"]}", "image", true, ST_INVALID},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        embed_request r;
        status st;
        if (parse(&r, cases[i].json, cases[i].zero_shot, &st)) fail_msg("accepted: %s", cases[i].json);
        if (strcmp(st.param, cases[i].param) != 0 || st.code != cases[i].code)
            fail_msg("%s: %d, \"%s\": %s", cases[i].json, st.code, st.param, st.msg);
        embed_request_fini(&r);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_texts),  cmocka_unit_test(test_ids),
                                       cmocka_unit_test(test_images), cmocka_unit_test(test_options),
                                       cmocka_unit_test(test_labels), cmocka_unit_test(test_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
