/* test_args.c - options from flags and config files; expected values are the ones written in each test. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/args.h"
#include "server/serve_options.h"

typedef struct run {
    serve_options o;
    arg_values v;
    status st;
    arg_result res;
} run;

static void parse(run *r, const char *const *argv) {
    int n = 0;
    while (argv[n]) n++;
    memset(r, 0, sizeof *r);
    r->res = args_parse(&serve_command, n, (char **)argv, &r->o, &r->v, &r->st);
}
#define PARSE(r, ...) parse(r, (const char *const[]){__VA_ARGS__, NULL})

static void done(run *r) {
    args_fini(&serve_command, &r->v);
}

static void test_defaults(void **state) {
    (void)state;
    run r;
    PARSE(&r, "--");
    assert_int_equal(r.res, ARGS_RUN);
    assert_string_equal(r.o.host, "127.0.0.1");
    assert_int_equal(r.o.port, 8000);
    assert_int_equal(r.o.max_body_size, 64 << 20);
    assert_int_equal(r.o.max_image_pixels, 64000000);
    assert_int_equal(r.v.n_pos, 0);
    done(&r);
}

static void test_values(void **state) {
    (void)state;
    run r;
    PARSE(&r, "dir", "--port=0", "--kv-cache-memory", "512M", "--api-key", "a", "--api-key=b",
          "--drain-seconds", "1.5", "--max_model_len", "99");
    assert_int_equal(r.res, ARGS_RUN);
    assert_int_equal(r.o.port, 0);
    assert_int_equal(r.o.kv_cache_memory, 512ul << 20);
    assert_int_equal(r.o.api_key.n, 2);
    assert_string_equal(r.o.api_key.v[1], "b");
    assert_true(r.o.drain_seconds == 1.5);
    assert_int_equal(r.o.max_model_len, 99);
    assert_string_equal(r.v.pos[0], "dir");
    done(&r);
}

static void bad(const char *const *argv, const char *says) {
    run r;
    parse(&r, argv);
    assert_int_equal(r.res, ARGS_BAD);
    if (!strstr(r.st.msg, says)) fail_msg("\"%s\" does not say \"%s\"", r.st.msg, says);
    done(&r);
}
#define BAD(says, ...) bad((const char *const[]){__VA_ARGS__, NULL}, says)

static void test_bad_usage(void **state) {
    (void)state;
    BAD("did you mean --port?", "--prot", "1");
    BAD("did you mean --max-model-len?", "--max-model", "1");
    BAD("unknown option --zzzzzzzz", "--zzzzzzzz");
    BAD("needs a value", "--port");
    BAD("needs a value", "--port", "--host", "x");
    BAD("whole number", "--port", "eighty");
    BAD("from 0 to 65535", "--port", "65536");
    BAD("from 0 to 65535", "--port", "-1");
    BAD("whole number", "--port", "0x50");
    BAD("a size such as", "--max-body-size", "12Q");
    BAD("a size such as", "--kv-cache-memory", "-5");
    BAD("a number", "--drain-seconds", "nan");
    BAD("unexpected argument", "a", "b");
    BAD("options start with --", "-p", "1");
    BAD("", "--config", "/no/such/file.json");
}

/* What the table cannot say. */
static void test_plans(void **state) {
    (void)state;
    static const struct {
        const char *option, *value, *says;
    } cases[] = {{"--scheduling-policy", "lifo", "fcfs or priority"},
                 {"--image-cache-memory", "2G", "--image-memory (1073741824 bytes)"},
                 {"--max-body-size", "2G", "--request-memory (1073741824 bytes)"}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        run r;
        PARSE(&r, cases[i].option, cases[i].value);
        assert_int_equal(r.res, ARGS_RUN);
        assert_false(serve_check(&r.o, NULL, &r.st));
        if (!strstr(r.st.msg, cases[i].says)) fail_msg("\"%s\" does not say \"%s\"", r.st.msg, cases[i].says);
        done(&r);
    }
}

static void test_help_version(void **state) {
    (void)state;
    run r;
    PARSE(&r, "--port", "1", "--help");
    assert_int_equal(r.res, ARGS_HELP);
    done(&r);
    PARSE(&r, "--version");
    assert_int_equal(r.res, ARGS_VERSION);
    done(&r);
    buf b = {0};
    args_help(&serve_command, &b);
    for (int i = 0; i < serve_command.n_defs; i++)
        assert_non_null(strstr(b.data, serve_command.defs[i].name));
    buf_fini(&b);
}

static void with_config(run *r, const char *json, const char *flag) {
    static char path[] = "/tmp/vlmd-test-args.XXXXXX";
    strcpy(path, "/tmp/vlmd-test-args.XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0 && write(fd, json, strlen(json)) == (ssize_t)strlen(json));
    close(fd);
    if (flag)
        PARSE(r, "--config", path, flag);
    else
        PARSE(r, "--config", path);
    unlink(path);
}

static void test_config(void **state) {
    (void)state;
    run r;
    with_config(&r,
                "{\"port\": 81, \"max_model_len\": 7, \"api-key\": [\"x\", \"y\"], \"max-body-size\": "
                "\"1M\", \"host\": null}",
                "--port=82");
    assert_int_equal(r.res, ARGS_RUN);
    assert_int_equal(r.o.port, 82); /* flags win */
    assert_int_equal(r.o.max_model_len, 7);
    assert_int_equal(r.o.api_key.n, 2);
    assert_int_equal(r.o.max_body_size, 1 << 20);
    assert_string_equal(r.o.host, "127.0.0.1");
    done(&r);
    static const char *const cases[][2] = {
        {"{\"prot\": 1}", "did you mean \"port\"?"},
        {"{\"port\": \"x\"}", "port"},
        {"{\"port\": 1.5}", "whole number"},
        {"{\"port\": true}", "found true"},
        {"{\"port\": [1]}", "found a list"},
        {"{\"api-key\": [1]}", "list of texts"},
        {"[1]", "one JSON object"},
        {"{\"port\": 1, \"port\": 2}", "duplicate"},
        {"{", "line 1"},
        {"{\"config\": \"x\"}", "cannot be set"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        with_config(&r, cases[i][0], NULL);
        assert_int_equal(r.res, ARGS_BAD);
        if (!strstr(r.st.msg, cases[i][1])) fail_msg("\"%s\" does not say \"%s\"", r.st.msg, cases[i][1]);
        done(&r);
    }
}

/* config/server.json is documentation: it must say what the defaults are. */
static void test_shipped_config(void **state) {
    (void)state;
    run plain, file;
    PARSE(&plain, "--");
    PARSE(&file, "--config", "config/server.json");
    assert_int_equal(file.res, ARGS_RUN);
    assert_string_equal(plain.o.host, file.o.host);
    assert_string_equal(plain.o.device, file.o.device);
    assert_string_equal(plain.o.log_level, file.o.log_level);
    assert_string_equal(plain.o.log_format, file.o.log_format);
    assert_string_equal(plain.o.scheduling_policy, file.o.scheduling_policy);
    assert_string_equal(plain.o.kv_cache_dtype, file.o.kv_cache_dtype);
    file.o.host = plain.o.host;
    file.o.device = plain.o.device;
    file.o.log_level = plain.o.log_level;
    file.o.log_format = plain.o.log_format;
    file.o.scheduling_policy = plain.o.scheduling_policy;
    file.o.kv_cache_dtype = plain.o.kv_cache_dtype;
    file.o.config = plain.o.config;
    assert_memory_equal(&plain.o, &file.o, sizeof plain.o);
    done(&plain);
    done(&file);
}

static void test_numbers(void **state) {
    (void)state;
    static const struct {
        const char *text;
        double v;
    } good[] = {{"1k", 1024},      {"1KiB", 1024}, {"2g", 2147483648.0},
                {"1.5M", 1572864}, {"0", 0},       {"1T", 1099511627776.0}};
    double v;
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        assert_true(args_parse_number(good[i].text, 1024, &v));
        assert_true(v == good[i].v);
    }
    static const char *const wrong[] = {"", "M", "1MM", "1 M", "inf", "nan", "0x10", "1e999", "--1", "1Mx"};
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) assert_false(args_parse_number(wrong[i], 1024, &v));
}

static void test_nearest(void **state) {
    (void)state;
    static const char *const names[] = {"serve", "tokenize", "render"};
    assert_string_equal(args_nearest("sevre", names, 3), "serve");
    assert_string_equal(args_nearest("tokenise", names, 3), "tokenize");
    assert_null(args_nearest("chat", names, 3));
    assert_null(args_nearest("", names, 3));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),       cmocka_unit_test(test_values),
        cmocka_unit_test(test_bad_usage),      cmocka_unit_test(test_help_version),
        cmocka_unit_test(test_plans),          cmocka_unit_test(test_config),
        cmocka_unit_test(test_shipped_config), cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_nearest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
