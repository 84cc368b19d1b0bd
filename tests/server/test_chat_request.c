/* test_chat_request.c - a chat body, field by field. Expected values: OpenAI's API reference and what each
 * case says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "server/chat_request.h"

static int unknown_count;
static char unknown_name[64];

static void on_unknown(void *arg, const char *name) {
    (void)arg;
    unknown_count++;
    snprintf(unknown_name, sizeof unknown_name, "%s", name);
}

static const chat_context context = {
    .defaults =
        {.max_tokens = -1, .temperature = 0.5f, .top_p = 0.9f, .repetition_penalty = 1, .top_logprobs = -1},
    .vocab_size = 1000,
    .unknown = on_unknown,
};

static char text[1 << 16];

static bool parse(chat_request *r, const char *json, status *st) {
    snprintf(text, sizeof text, "%s", json);
    *st = (status){0};
    return chat_request_parse(r, text, strlen(text), &context, st);
}

#define MESSAGES "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"

/* A good body with `fields` added. */
static bool with_fields(chat_request *r, const char *fields, status *st) {
    char json[8192];
    snprintf(json, sizeof json, "{" MESSAGES "%s%s}", *fields ? "," : "", fields);
    return parse(r, json, st);
}

static void good(chat_request *r, const char *fields) {
    status st;
    if (!with_fields(r, fields, &st)) fail_msg("%s: %s", fields, st.msg);
}

static void test_plain(void **state) {
    (void)state;
    chat_request r;
    good(&r, "");
    assert_null(r.model);
    assert_int_equal(r.params.max_tokens, -1);
    assert_true(r.params.temperature == 0.5f && r.params.top_p == 0.9f);
    assert_int_equal(r.params.top_logprobs, -1);
    assert_int_equal(json_array_size(r.chat.messages), 1);
    assert_false(r.stream);
    chat_request_fini(&r);
}

static void test_all_fields(void **state) {
    (void)state;
    chat_request r;
    good(&r, "\"model\":\"m\",\"max_tokens\":5,\"max_completion_tokens\":7,\"min_tokens\":2,\"temperature\":"
             "0,\"top_p\":1,"
             "\"top_k\":-1,\"min_p\":0.25,\"seed\":-3,\"stop\":[\"a\",\"b\"],\"stop_token_ids\":[1,999],"
             "\"ignore_eos\":true,"
             "\"repetition_penalty\":1.5,\"presence_penalty\":-2,\"frequency_penalty\":2,\"logit_bias\":{"
             "\"5\":-100,\"6\":1.5},"
             "\"logprobs\":true,\"top_logprobs\":20,\"return_token_ids\":true,\"stream\":true,"
             "\"stream_options\":{\"include_usage\":true},\"chat_template_kwargs\":{\"x\":1},\"user\":\"u\","
             "\"cache_salt\":\"s\",\"n\":16,\"best_of\":16");
    assert_int_equal(r.params.n, 16);
    assert_string_equal(r.model, "m");
    assert_int_equal(r.params.max_tokens, 7); /* the newer name wins */
    assert_string_equal(r.max_tokens_name, "max_completion_tokens");
    assert_int_equal(r.params.min_tokens, 2);
    assert_true(r.params.temperature == 0 && r.params.top_p == 1 && r.params.min_p == 0.25f);
    assert_int_equal(r.params.top_k, 0);
    assert_true(r.params.has_seed && r.params.seed == (uint64_t)-3);
    assert_int_equal(r.params.n_stop, 2);
    assert_string_equal(r.params.stop[1], "b");
    assert_int_equal(r.params.n_stop_ids, 2);
    assert_int_equal(r.params.stop_ids[1], 999);
    assert_true(r.params.ignore_eos && r.params.repetition_penalty == 1.5f &&
                r.params.presence_penalty == -2 && r.params.frequency_penalty == 2);
    assert_int_equal(r.params.n_bias, 2);
    assert_int_equal(r.params.bias_ids[0], 5);
    assert_true(r.params.bias[1] == 1.5f);
    assert_int_equal(r.params.top_logprobs, 20);
    assert_string_equal(r.params.cache_salt, "s");
    assert_true(r.stream && r.include_usage && r.return_token_ids && r.logprobs);
    assert_non_null(json_object_get(r.chat.template_kwargs, "x"));
    chat_request_fini(&r);
    good(&r, "\"max_completion_tokens\":null,\"max_tokens\":5.0,\"logprobs\":true,\"stop\":\"x\"");
    assert_int_equal(r.params.max_tokens, 5);
    assert_int_equal(r.params.top_logprobs, 0);
    assert_int_equal(r.params.n_stop, 1);
    assert_int_equal(r.params.n, 1);
    chat_request_fini(&r);
}

static void test_neutral(void **state) {
    (void)state;
    static const char *const fields[] = {
        "\"n\":1",
        "\"n\":null",
        "\"n\":2.0",
        "\"best_of\":1",
        "\"best_of\":null",
        "\"tools\":[]",
        "\"tools\":null",
        "\"tool_choice\":\"none\"",
        "\"tool_choice\":\"auto\"",
        "\"response_format\":{\"type\":\"text\"}",
        "\"response_format\":null",
        "\"parallel_tool_calls\":true",
        "\"functions\":[]",
        "\"modalities\":[\"text\"]",
        "\"store\":false",
        "\"echo\":false",
        "\"skip_special_tokens\":true",
        "\"temperature\":null",
        "\"stop\":null",
        "\"stop\":[]",
        "\"logit_bias\":{}",
        "\"logit_bias\":null",
        "\"stream\":null",
        "\"stream_options\":null",
        "\"model\":null",
        "\"seed\":null",
        "\"top_logprobs\":0",
        "\"audio\":null",
        "\"logprobs\":null",
        "\"logprobs\":false",
        "\"chat_template_kwargs\":null",
        "\"stop_token_ids\":[]",
        "\"user\":\"x\"",
        "\"seed\":9223372036854775807",
        "\"temperature\":2",
        "\"top_k\":100000000000",
        "\"add_generation_prompt\":true",
    };
    unknown_count = 0;
    for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
        chat_request r;
        good(&r, fields[i]);
        chat_request_fini(&r);
    }
    assert_int_equal(unknown_count, 0);
    chat_request r;
    good(&r, "\"frobnicate\":{\"a\":1}");
    assert_int_equal(unknown_count, 1);
    assert_string_equal(unknown_name, "frobnicate");
    chat_request_fini(&r);
}

static void refused(const char *json, const char *param, status_code code) {
    chat_request r;
    status st;
    bool ok = parse(&r, json, &st);
    chat_request_fini(&r);
    if (ok) fail_msg("accepted: %s", json);
    if (st.code != code) fail_msg("%s: code %d, %s", json, st.code, st.msg);
    if (strcmp(st.param, param) != 0)
        fail_msg("%s: param \"%s\", expected \"%s\" (%s)", json, st.param, param, st.msg);
    assert_true(strlen(st.msg) > 5);
}

/* What is refused says what would pass and what was found. */
static void test_unbuilt_messages(void **state) {
    (void)state;
    static const struct {
        const char *field, *says;
    } cases[] = {
        {"\"n\":17", "n must be from 1 to 16, found 17"},
        {"\"n\":2,\"best_of\":3", "best_of: only the value of n, 2, is supported, found 3"},
        {"\"tools\":[{\"type\":\"function\"}]", "tools: only [] is supported, found a list of 1"},
        {"\"tools\":{}", "tools: expected a list, found an object"},
        {"\"tool_choice\":\"required\"",
         "tool_choice: only \"none\" or \"auto\" is supported, found \"required\""},
        {"\"response_format\":{\"type\":\"json_object\"}",
         "response_format: only {\"type\":\"text\"} is supported, found {\"type\":\"json_object\"}"},
        {"\"echo\":true", "echo: only false is supported, found true"},
        {"\"audio\":{}", "audio is not supported by this server, found an object"},
        {"\"mm_processor_kwargs\":{\"a\":1}", "mm_processor_kwargs: only {} is supported, found an object"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char json[300];
        snprintf(json, sizeof json, "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],%s}",
                 cases[i].field);
        chat_request r;
        status st;
        assert_false(parse(&r, json, &st));
        assert_string_equal(st.msg, cases[i].says);
        chat_request_fini(&r);
    }
}

static void test_bad_fields(void **state) {
    (void)state;
    static const struct {
        const char *field, *param;
        status_code code;
    } cases[] = {
        {"\"temperature\":2.1", "temperature", ST_INVALID},
        {"\"temperature\":-0.1", "temperature", ST_INVALID},
        {"\"temperature\":\"1\"", "temperature", ST_INVALID},
        {"\"temperature\":true", "temperature", ST_INVALID},
        {"\"top_p\":0", "top_p", ST_INVALID},
        {"\"top_p\":1.01", "top_p", ST_INVALID},
        {"\"top_k\":-2", "top_k", ST_INVALID},
        {"\"top_k\":1.5", "top_k", ST_INVALID},
        {"\"min_p\":1.1", "min_p", ST_INVALID},
        {"\"max_tokens\":0", "max_tokens", ST_INVALID},
        {"\"max_tokens\":-1", "max_tokens", ST_INVALID},
        {"\"max_tokens\":\"5\"", "max_tokens", ST_INVALID},
        {"\"max_tokens\":5.5", "max_tokens", ST_INVALID},
        {"\"max_tokens\":99999999999", "max_tokens", ST_INVALID},
        {"\"max_completion_tokens\":-5", "max_completion_tokens", ST_INVALID},
        {"\"min_tokens\":-1", "min_tokens", ST_INVALID},
        {"\"min_tokens\":6,\"max_tokens\":5", "min_tokens", ST_INVALID},
        {"\"seed\":1.5", "seed", ST_INVALID},
        {"\"seed\":\"x\"", "seed", ST_INVALID},
        {"\"cache_salt\":5", "cache_salt", ST_INVALID},
        {"\"stop\":5", "stop", ST_INVALID},
        {"\"stop\":\"\"", "stop", ST_INVALID},
        {"\"stop\":[\"a\",\"\"]", "stop", ST_INVALID},
        {"\"stop\":[\"a\",5]", "stop[1]", ST_INVALID},
        {"\"stop\":{}", "stop", ST_INVALID},
        {"\"stop_token_ids\":[1000]", "stop_token_ids", ST_INVALID},
        {"\"stop_token_ids\":[-1]", "stop_token_ids", ST_INVALID},
        {"\"stop_token_ids\":\"1\"", "stop_token_ids", ST_INVALID},
        {"\"ignore_eos\":1", "ignore_eos", ST_INVALID},
        {"\"repetition_penalty\":0", "repetition_penalty", ST_INVALID},
        {"\"repetition_penalty\":-1", "repetition_penalty", ST_INVALID},
        {"\"presence_penalty\":2.5", "presence_penalty", ST_INVALID},
        {"\"frequency_penalty\":-2.5", "frequency_penalty", ST_INVALID},
        {"\"logit_bias\":{\"1000\":1}", "logit_bias", ST_INVALID},
        {"\"logit_bias\":{\"x\":1}", "logit_bias", ST_INVALID},
        {"\"logit_bias\":{\"-1\":1}", "logit_bias", ST_INVALID},
        {"\"logit_bias\":{\"1x\":1}", "logit_bias", ST_INVALID},
        {"\"logit_bias\":{\"1\":101}", "logit_bias", ST_INVALID},
        {"\"logit_bias\":{\"1\":\"1\"}", "logit_bias.1", ST_INVALID},
        {"\"logit_bias\":[1]", "logit_bias", ST_INVALID},
        {"\"logprobs\":5", "logprobs", ST_INVALID},
        {"\"top_logprobs\":5", "top_logprobs", ST_INVALID},
        {"\"logprobs\":false,\"top_logprobs\":5", "top_logprobs", ST_INVALID},
        {"\"logprobs\":true,\"top_logprobs\":21", "top_logprobs", ST_INVALID},
        {"\"logprobs\":true,\"top_logprobs\":-1", "top_logprobs", ST_INVALID},
        {"\"stream\":\"yes\"", "stream", ST_INVALID},
        {"\"stream_options\":{\"include_usage\":true}", "stream_options", ST_INVALID},
        {"\"stream\":true,\"stream_options\":[]", "stream_options", ST_INVALID},
        {"\"stream\":true,\"stream_options\":{\"include_usage\":1}", "stream_options.include_usage",
         ST_INVALID},
        {"\"chat_template_kwargs\":[]", "chat_template_kwargs", ST_INVALID},
        {"\"model\":5", "model", ST_INVALID},
        {"\"user\":5", "user", ST_INVALID},
        {"\"priority\":\"high\"", "priority", ST_INVALID},
        {"\"priority\":1.5", "priority", ST_INVALID},
        {"\"priority\":2147483648", "priority", ST_INVALID},
        {"\"n\":0", "n", ST_INVALID},
        {"\"n\":-1", "n", ST_INVALID},
        {"\"n\":17", "n", ST_INVALID},
        {"\"n\":1.5", "n", ST_INVALID},
        {"\"n\":\"2\"", "n", ST_INVALID},
        {"\"n\":[2]", "n", ST_INVALID},
        {"\"n\":2,\"best_of\":3", "best_of", ST_UNSUPPORTED},
        {"\"n\":2,\"best_of\":1", "best_of", ST_UNSUPPORTED},
        {"\"best_of\":2", "best_of", ST_UNSUPPORTED},
        {"\"best_of\":\"1\"", "best_of", ST_INVALID},
        {"\"tools\":[{\"type\":\"function\"}]", "tools", ST_UNSUPPORTED},
        {"\"tools\":\"x\"", "tools", ST_INVALID},
        {"\"tool_choice\":\"required\"", "tool_choice", ST_UNSUPPORTED},
        {"\"tool_choice\":{\"type\":\"function\"}", "tool_choice", ST_UNSUPPORTED},
        {"\"response_format\":{\"type\":\"json_object\"}", "response_format", ST_UNSUPPORTED},
        {"\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{}}", "response_format",
         ST_UNSUPPORTED},
        {"\"response_format\":\"text\"", "response_format", ST_INVALID},
        {"\"modalities\":[\"text\",\"audio\"]", "modalities", ST_UNSUPPORTED},
        {"\"functions\":[{}]", "functions", ST_UNSUPPORTED},
        {"\"echo\":true", "echo", ST_UNSUPPORTED},
        {"\"guided_json\":{}", "guided_json", ST_UNSUPPORTED},
        {"\"chat_template\":\"{{ x }}\"", "chat_template", ST_UNSUPPORTED},
        {"\"return_token_ids\":\"x\"", "return_token_ids", ST_INVALID},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char json[1024];
        snprintf(json, sizeof json, "{" MESSAGES ",%s}", cases[i].field);
        refused(json, cases[i].param, cases[i].code);
    }
}

static void test_bad_messages(void **state) {
    (void)state;
#define PART(p)                                                                                              \
    "{\"messages\":[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":[" p "]}]}"
    static const struct {
        const char *json, *param;
        status_code code;
    } cases[] = {
        {"{}", "messages", ST_INVALID},
        {"{\"messages\":null}", "messages", ST_INVALID},
        {"{\"messages\":[]}", "messages", ST_INVALID},
        {"{\"messages\":{}}", "messages", ST_INVALID},
        {"{\"messages\":\"hi\"}", "messages", ST_INVALID},
        {"{\"messages\":[5]}", "messages[0]", ST_INVALID},
        {"{\"messages\":[{\"content\":\"x\"}]}", "messages[0].role", ST_INVALID},
        {"{\"messages\":[{\"role\":5,\"content\":\"x\"}]}", "messages[0].role", ST_INVALID},
        {"{\"messages\":[{\"role\":\"robot\",\"content\":\"x\"}]}", "messages[0].role", ST_INVALID},
        {"{\"messages\":[{\"role\":\"user\"}]}", "messages[0].content", ST_INVALID},
        {"{\"messages\":[{\"role\":\"user\",\"content\":null}]}", "messages[0].content", ST_INVALID},
        {"{\"messages\":[{\"role\":\"user\",\"content\":5}]}", "messages[0].content", ST_INVALID},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[]}]}", "messages[0].content", ST_INVALID},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"x\",\"name\":5}]}", "messages[0].name", ST_INVALID},
        {PART("\"x\""), "messages[1].content[0]", ST_INVALID},
        {PART("{}"), "messages[1].content[0].type", ST_INVALID},
        {PART("{\"type\":\"text\"}"), "messages[1].content[0].text", ST_INVALID},
        {PART("{\"type\":\"text\",\"text\":5}"), "messages[1].content[0].text", ST_INVALID},
        {PART("{\"type\":\"input_audio\"}"), "messages[1].content[0].type", ST_UNSUPPORTED},
        {PART("{\"type\":\"image\"}"), "messages[1].content[0].type", ST_UNSUPPORTED},
        {PART("{\"type\":\"image_url\"}"), "messages[1].content[0].image_url", ST_INVALID},
        {PART("{\"type\":\"image_url\",\"image_url\":5}"), "messages[1].content[0].image_url", ST_INVALID},
        {PART("{\"type\":\"image_url\",\"image_url\":{}}"), "messages[1].content[0].image_url.url",
         ST_INVALID},
        {PART("{\"type\":\"image_url\",\"image_url\":{\"url\":5}}"), "messages[1].content[0].image_url.url",
         ST_INVALID},
        {PART("{\"type\":\"image_url\",\"image_url\":{\"url\":\"\"}}"),
         "messages[1].content[0].image_url.url", ST_INVALID},
        {PART("{\"type\":\"image_url\",\"image_url\":{\"url\":\"https://x/y.png\"}}"),
         "messages[1].content[0].image_url.url", ST_UNSUPPORTED},
        {PART("{\"type\":\"image_url\",\"image_url\":{\"url\":\"file:///etc/passwd\"}}"),
         "messages[1].content[0].image_url.url", ST_INVALID},
        {PART("{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:image/png,AAAA\"}}"),
         "messages[1].content[0].image_url.url", ST_UNSUPPORTED},
        {PART("{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:image/png;base64\"}}"),
         "messages[1].content[0].image_url.url", ST_INVALID},
        {PART("{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:image/png;base64,\"}}"),
         "messages[1].content[0].image_url.url", ST_INVALID},
        {PART("{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:image/png;base64,AA\",\"detail\":5}}"),
         "messages[1].content[0].image_url.detail", ST_INVALID},
        {PART("{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:image/"
              "png;base64,AA\",\"detail\":\"huge\"}}"),
         "messages[1].content[0].image_url.detail", ST_INVALID},
        {"", "", ST_INVALID},
        {"   ", "", ST_INVALID},
        {"[]", "", ST_INVALID},
        {"5", "", ST_INVALID},
        {"null", "", ST_INVALID},
        {"{\"messages\":[", "", ST_INVALID},
        {"{" MESSAGES "}x", "", ST_INVALID},
        {"{" MESSAGES ",}", "", ST_INVALID},
        {"{" MESSAGES ",\"temperature\":NaN}", "", ST_INVALID},
        {"{" MESSAGES ",\"temperature\":Infinity}", "", ST_INVALID},
        {"{" MESSAGES ",\"temperature\":1e999}", "", ST_INVALID},
        {"{" MESSAGES ",\"seed\":99999999999999999999}", "", ST_INVALID},
        {"{" MESSAGES ",\"seed\":1,\"seed\":2}", "", ST_INVALID},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"\xFF\"}]}", "", ST_INVALID},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"\\ud800\"}]}", "", ST_INVALID},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"a\\u0000b\"}]}", "", ST_INVALID},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"a\nb\"}]}", "", ST_INVALID},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) refused(cases[i].json, cases[i].param, cases[i].code);
    char deep[400] = "{\"x\":";
    memset(deep + 5, '[', 300);
    refused(deep, "", ST_INVALID);
}

static void test_messages(void **state) {
    (void)state;
    chat_request r;
    status st;
    static const char json[] =
        "{\"messages\":[{\"role\":\"developer\",\"content\":\"s\"},"
        "{\"role\":\"user\",\"name\":\"n\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},"
        "{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:image/"
        "png;base64,QUJD\",\"detail\":\"auto\"}}]},"
        "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[]},"
        "{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":\"data:;charset=x;base64,RA=="
        "\"},"
        "{\"type\":\"image_url\",\"image_url\":\"\\u0064ata:;base64,RUU=\"}]}]}";
    assert_true(parse(&r, json, &st));
    assert_string_equal(json_string_value(json_object_get(json_array_get(r.chat.messages, 0), "role")),
                        "system");
    assert_string_equal(json_string_value(json_object_get(json_array_get(r.chat.messages, 1), "name")), "n");
    assert_string_equal(json_string_value(json_object_get(json_array_get(r.chat.messages, 2), "content")),
                        "");
    json_t *part = json_array_get(json_object_get(json_array_get(r.chat.messages, 1), "content"), 1);
    assert_string_equal(json_string_value(json_object_get(part, "type")), "image");
    assert_null(json_object_get(part, "image_url"));
    static const char *const b64[] = {"QUJD", "RA==", "RUU="};
    static const char *const params[] = {"messages[1].content[1].image_url.url",
                                         "messages[3].content[0].image_url",
                                         "messages[3].content[1].image_url"};
    assert_int_equal(r.chat.n_images, 3);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(r.chat.images[i].n, strlen(b64[i]));
        assert_memory_equal(r.chat.images[i].b64, b64[i], r.chat.images[i].n);
        assert_string_equal(r.chat.images[i].param, params[i]);
    }
    chat_request_fini(&r);
}

static void test_stop_bounds(void **state) {
    (void)state;
    buf b = {0};
    buf_puts(&b, "{" MESSAGES ",\"stop\":[");
    for (int i = 0; i < CHAT_MAX_STOPS + 1; i++) buf_printf(&b, "%s\"s%d\"", i ? "," : "", i);
    buf_puts(&b, "]}");
    refused(b.data, "stop", ST_INVALID);
    buf_clear(&b);
    buf_puts(&b, "{" MESSAGES ",\"stop\":\"");
    for (int i = 0; i < CHAT_MAX_STOP_BYTES + 1; i++) buf_putc(&b, 'x');
    buf_puts(&b, "\"}");
    refused(b.data, "stop", ST_INVALID);
    buf_fini(&b);
}

static void test_priority(void **state) {
    (void)state;
    chat_request r;
    good(&r, "\"priority\":-7");
    assert_int_equal(r.params.priority, -7);
    chat_request_fini(&r);
    good(&r, "\"priority\":null");
    assert_int_equal(r.params.priority, 0);
    chat_request_fini(&r);
}

/* The bound grows with the model, and pictures do not count. */
static void test_text_bound(void **state) {
    (void)state;
    body_scan scan = {.n_json = CHAT_MIN_TEXT_BYTES};
    status st = {0};
    const int big = CHAT_MIN_TEXT_BYTES / CHAT_TOKEN_BYTES + 1;
    assert_true(chat_request_text_fits(&scan, 10, &st));
    scan.n_json++;
    assert_false(chat_request_text_fits(&scan, big - 1, &st));
    assert_int_equal(st.code, ST_INVALID);
    assert_non_null(strstr(st.msg, "1048577"));
    assert_non_null(strstr(st.msg, "1048576"));
    st = (status){0};
    assert_true(chat_request_text_fits(&scan, big, &st));
    buf b = {0};
    buf_puts(&b,
             "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{\"url\":"
             "\"data:image/png;base64,");
    for (int i = 0; i < CHAT_MIN_TEXT_BYTES + 99; i++) buf_putc(&b, 'A');
    buf_puts(&b, "\"}}]}]}");
    chat_request r;
    assert_true(chat_request_parse(&r, b.data, b.len, &context, &st));
    chat_request_fini(&r);
    buf_fini(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),
        cmocka_unit_test(test_all_fields),
        cmocka_unit_test(test_neutral),
        cmocka_unit_test(test_bad_fields),
        cmocka_unit_test(test_unbuilt_messages),
        cmocka_unit_test(test_bad_messages),
        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_stop_bounds),
        cmocka_unit_test(test_priority),
        cmocka_unit_test(test_text_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
