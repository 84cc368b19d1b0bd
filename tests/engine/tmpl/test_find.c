/* test_find.c - finding a checkpoint's template, and vlmd render over a folder. */
#include "tests/engine/tmpl/util.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/engine.h"
#include "engine/tmpl/find.h"

static char dir[] = "/tmp/vlmd-find-XXXXXX";

static void put(const char *name, const char *text) {
    char path[300];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void drop(const char *name) {
    char path[300];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    remove(path);
}

static void expect(const char *name, const char *want) {
    status st = {0};
    size_t n = 0;
    char *t = tmpl_find_source(dir, name, &n, &st);
    if (!t) fail_msg("%s", st.msg);
    assert_string_equal(t, want);
    assert_int_equal(n, strlen(want));
    mem_free(t);
}

static void expect_error(status_code code, const char *part) {
    status st = {0};
    size_t n;
    assert_null(tmpl_find_source(dir, NULL, &n, &st));
    assert_int_equal(st.code, code);
    if (!strstr(st.msg, part)) fail_msg("%s", st.msg);
}

static void rendered(const char *in, const char *want) {
    status st = {0};
    char *text = NULL;
    size_t n = 0;
    FILE *i = fmemopen((void *)in, strlen(in), "r"), *o = open_memstream(&text, &n);
    bool ok = tool_render(dir, i, o, &st);
    fclose(i);
    fclose(o);
    if (!ok && want) fail_msg("%s", st.msg);
    if (want)
        assert_string_equal(text, want);
    else
        assert_int_equal(st.code, ST_INVALID);
    free(text);
}

static void test_order(void **state) {
    (void)state;
    assert_non_null(mkdtemp(dir));
    expect_error(ST_NOT_FOUND, "no chat template");
    put("tokenizer_config.json", "{\"model_max_length\": 1000000000000000019884624838656, \"chat_template\": "
                                 "\"A\\u00e9 12345678901234567890\"}");
    expect(NULL, "A\xc3\xa9 12345678901234567890");
    expect("tool_use", "A\xc3\xa9 12345678901234567890");
    put("tokenizer_config.json", "{\"chat_template\": [{\"name\": \"default\", \"template\": \"D{{ tools is "
                                 "none }}\"}, {\"name\": \"tool_use\", \"template\": \"T\"}]}");
    expect(NULL, "D{{ tools is none }}");
    expect("tool_use", "T");
    expect("rag", "D{{ tools is none }}");
    rendered("{}", "DTrue");
    rendered("{\"tools\": null}", "DTrue");
    rendered("{\"tools\": []}", "T");
    put("tokenizer_config.json", "{\"chat_template\": [{\"name\": \"other\", \"template\": \"T\"}]}");
    expect_error(ST_INVALID, "default");
    put("tokenizer_config.json", "{}");
    put("chat_template.json", "{\"chat_template\": \"J\"}");
    expect(NULL, "J");
    put("chat_template.jinja",
        "{% for m in messages %}{{ m.content }}{{ m.reasoning_content }}{{ m.thinking }};{% endfor %}\n");
    expect(NULL,
           "{% for m in messages %}{{ m.content }}{{ m.reasoning_content }}{{ m.thinking }};{% endfor %}\n");
    rendered("{\"messages\": [{\"content\": \"a\", \"reasoning\": \"r\"}]}", "arr;");
    rendered("[]", NULL);
    rendered("{", NULL);
    put("chat_template.jinja", "{{ raise_exception('no') }}");
    rendered("{}", NULL);
    drop("chat_template.jinja");
    put("chat_template.json", "{\"chat_template\": 3}");
    expect_error(ST_INVALID, "expected a string");
    put("chat_template.json", "nope");
    expect_error(ST_INVALID, "not JSON");
    put("chat_template.json", "[1]");
    expect_error(ST_INVALID, "expected a JSON object");
    drop("chat_template.json");
    drop("tokenizer_config.json");
    rmdir(dir);
}

/* As AutoTokenizer and AutoProcessor of the reference choose among them. */
static void test_order_of_a_processor(void **state) {
    (void)state;
    strcpy(dir + strlen(dir) - 6, "XXXXXX");
    assert_non_null(mkdtemp(dir));
    put("tokenizer_config.json", "{\"chat_template\": \"T\"}");
    put("chat_template.json", "{\"chat_template\": \"S\"}");
    expect(NULL, "T");
    put("chat_template.jinja", "J");
    expect(NULL, "J");
    put("preprocessor_config.json", "{}");
    expect(NULL, "S");
    put("processor_config.json", "{\"chat_template\": \"P\"}");
    expect(NULL, "P");
    put("processor_config.json", "{}");
    drop("preprocessor_config.json");
    expect(NULL, "S");
    drop("chat_template.json");
    expect(NULL, "J");
    drop("chat_template.jinja");
    expect(NULL, "T");
    drop("processor_config.json");
    drop("tokenizer_config.json");
    rmdir(dir);
}

static void test_bundled_model(void **state) {
    (void)state;
    status st = {0};
    size_t n;
    char *t = tmpl_find_source("models/vlmd-tiny", NULL, &n, &st);
    assert_non_null(t);
    tmpl *p = tmpl_parse(t, n, &st);
    assert_non_null(p);
    assert_true(tmpl_content_forms(p).takes_string && tmpl_content_forms(p).takes_parts);
    tmpl_free(p);
    mem_free(t);
    t = tmpl_file_source("models/vlmd-tiny/nothing.jinja", NULL, &n, &st);
    assert_null(t);
    assert_int_equal(st.code, ST_NOT_FOUND);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_order),
                                       cmocka_unit_test(test_order_of_a_processor),
                                       cmocka_unit_test(test_bundled_model)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
