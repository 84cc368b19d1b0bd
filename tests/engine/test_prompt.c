/* test_prompt.c - chats to ids: equal to the reference's processors (tests/golden/prompt), whatever users type;
 * pictures counted from headers, decoded later; every refusal with its field. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/prompt.h"

/* The rows of a ViT with a class row: what LlavaProcessor computes. */
static int vit_rows(const model_spec *s, const prep_plan *p) {
    tile t = prep_plan_tile(p, 0);
    return tower_features_rows(&s->tower, t.w / s->tower.patch, t.h / s->tower.patch);
}

static json_t *load(const char *path) {
    json_error_t err;
    json_t *j = json_load_file(path, 0, &err);
    if (!j) fail_msg("%s:%d: %s", path, err.line, err.text);
    return j;
}

static model_spec spec_of(const char *dir, bool pictures) {
    model_spec s = {.image_token = -1, .bos = -1, .text.vocab = 4096, .text.max_pos = 2048};
    if (!pictures) return s;
    char path[300];
    status st = {0};
    snprintf(path, sizeof path, "%s/processor_config.json", dir);
    json_t *j = load(path);
    assert_true(prep_spec_from_json(json_object_get(j, "image_processor"), &s.prep, &st));
    s.fuse = FUSE_SPLICE;
    s.prompt_adds_special = true;
    s.image_rows = vit_rows;
    s.tower.cls = true;
    s.tower.patch = (int)json_integer_value(json_object_get(j, "patch_size"));
    s.tower.drop_first =
        strcmp(json_string_value(json_object_get(j, "vision_feature_select_strategy")), "default") == 0;
    json_decref(j);
    tok *t = tok_load(dir, &st);
    assert_non_null(t);
    s.image_token = tok_find(t, "<image>");
    assert_true(s.image_token >= 0);
    tok_free(t);
    return s;
}

static void dir_of(const char *kit, char *dir, size_t n) {
    if (strcmp(kit, "vlmd-tiny") == 0)
        snprintf(dir, n, "models/vlmd-tiny");
    else
        snprintf(dir, n, "tests/golden/prompt/%s", kit);
}

typedef struct fixture {
    model_spec spec;
    promptkit kit;
} fixture;

static void setup(fixture *f, const char *kit, int max_len) {
    char dir[256];
    status st = {0};
    dir_of(kit, dir, sizeof dir);
    bool pictures = strcmp(kit, "roles") != 0 && strncmp(kit, "llama", 5) != 0;
    f->spec = spec_of(dir, pictures);
    if (!promptkit_load(&f->kit, dir, NULL, &f->spec, max_len, &IMAGE_LIMITS_DEFAULT, &st))
        fail_msg("%s", st.msg);
}

static int count_images(const json_t *messages) {
    int n = 0;
    size_t i, j;
    json_t *m, *p;
    json_array_foreach(messages, i, m) json_array_foreach(json_object_get(m, "content"), j, p) n +=
        strcmp(json_string_value(json_object_get(p, "type")), "image") == 0;
    return n;
}

static void check_case(const promptkit *k, const json_t *c, const json_t *pictures) {
    const json_t *messages = json_object_get(c, "messages"), *ids = json_object_get(c, "ids");
    const char *kit = json_string_value(json_object_get(c, "kit")),
               *name = json_string_value(json_object_get(c, "name"));
    engine_image images[8];
    int n_images = count_images(messages);
    assert_in_range(n_images, 0, 8);
    for (int i = 0; i < n_images; i++) {
        const json_t *b64 = json_array_get(pictures, (size_t)i % json_array_size(pictures));
        images[i] = (engine_image){json_string_value(b64), json_string_length(b64), "messages[0].content[0]"};
    }
    engine_chat chat = {.messages = messages,
                        .images = images,
                        .n_images = n_images,
                        .template_kwargs = json_object_get(c, "kwargs"),
                        .no_generation_prompt = !json_is_true(json_object_get(c, "add_generation_prompt"))};
    status st = {0};
    prompt *p = prompt_new_chat(k, &chat, &st);
    if (!p) fail_msg("%s %s: %s", kit, name, st.msg);
    size_t n;
    const int32_t *v = prompt_ids(p, &n);
    for (size_t i = 0; i < n && i < json_array_size(ids); i++)
        if (v[i] != json_integer_value(json_array_get(ids, i)))
            fail_msg("%s %s: id %zu is %d (%s), the reference's %lld (%s)", kit, name, i, v[i],
                     tok_id_string(k->tok, v[i]), (long long)json_integer_value(json_array_get(ids, i)),
                     tok_id_string(k->tok, (int32_t)json_integer_value(json_array_get(ids, i))));
    if (n != json_array_size(ids))
        fail_msg("%s %s: %zu ids, expected %zu", kit, name, n, json_array_size(ids));
    /* The pictures' rows are the placeholders, in order. */
    size_t rows = 0, seen = 0;
    for (size_t i = 0; i < n; i++) rows += v[i] == k->spec->image_token;
    assert_int_equal(p->n_images, n_images);
    for (int r = 0; r < p->n_rows; r++) {
        for (int i = 0; i < p->rows[r].n; i++) assert_int_equal(v[p->rows[r].row + i], k->spec->image_token);
        seen += (size_t)p->rows[r].n;
        assert_int_equal(p->rows[r].image, r);
        assert_int_equal(p->rows[r].from, 0);
        assert_int_equal(p->images[r].n_rows, p->rows[r].n);
    }
    assert_int_equal(rows, seen);
    for (int i = 0; i < p->n_images; i++) assert_true(prompt_decode_image(k, p, i, NULL, &st));
    for (int i = 0; i < p->n_images; i++) {
        assert_non_null(p->images[i].pixels.rgb);
        assert_null(p->images[i].source.b64);
        uint8_t key[IMAGE_KEY_BYTES];
        image_key(&p->images[i].pixels, p->images[i].info.w, p->images[i].info.h, &k->spec->prep, key);
        assert_memory_equal(key, p->images[i].key, IMAGE_KEY_BYTES);
    }
    prompt_free(p);
}

static void test_reference_ids(void **state) {
    (void)state;
    json_t *j = load("tests/golden/prompt/cases.json"), *c;
    static const char *const kits[] = {"vlmd-tiny", "strings", "parts", "roles", "llama", "llama_legacy"};
    size_t n = 0;
    for (size_t k = 0; k < ARRAY_LEN(kits); k++) {
        fixture f;
        size_t i;
        setup(&f, kits[k], 2048);
        json_array_foreach(json_object_get(j, "cases"), i, c) {
            if (strcmp(json_string_value(json_object_get(c, "kit")), kits[k]) != 0) continue;
            check_case(&f.kit, c, json_object_get(j, "pictures"));
            n++;
        }
        promptkit_fini(&f.kit);
    }
    assert_int_equal(n, json_array_size(json_object_get(j, "cases")));
    assert_true(n > 40);
    json_decref(j);
}

/* ---- refusals ---- */

/* images: how many of the first golden picture. */
static void refuse(const promptkit *k, const char *messages, int images, const char *b64, status_code code,
                   const char *param, const char *says) {
    json_error_t err;
    json_t *j = load("tests/golden/prompt/cases.json"), *m = json_loads(messages, 0, &err);
    assert_non_null(m);
    engine_image im[4];
    for (int i = 0; i < images; i++) {
        const char *s = b64 ? b64 : json_string_value(json_array_get(json_object_get(j, "pictures"), 0));
        im[i] = (engine_image){s, strlen(s), i ? "messages[0].content[1]" : "messages[0].content[0]"};
    }
    engine_chat chat = {.messages = m, .images = im, .n_images = images};
    status st = {0};
    prompt *p = prompt_new_chat(k, &chat, &st);
    if (p) fail_msg("accepted: %s", messages);
    assert_int_equal(st.code, code);
    assert_string_equal(st.param, param);
    if (!strstr(st.msg, says)) fail_msg("expected '%s' in: %s", says, st.msg);
    json_decref(m);
    json_decref(j);
}

#define ONE_PICTURE                                                                                          \
    "[{\"role\":\"user\",\"content\":[{\"type\":\"image\"},{\"type\":\"text\",\"text\":\"a\"}]}]"

static void test_refusals(void **state) {
    (void)state;
    fixture f;
    setup(&f, "vlmd-tiny", 40);
    refuse(&f.kit, "[{\"role\":\"user\",\"content\":[{\"type\":\"image\"},{\"type\":\"image\"}]}]", 2, NULL,
           ST_INVALID, "messages", "maximum context length is 40 tokens");
    refuse(&f.kit, ONE_PICTURE, 1, "AAAA", ST_INVALID, "messages[0].content[0]", "");
    refuse(&f.kit, ONE_PICTURE, 1, "", ST_INVALID, "messages[0].content[0]", "");
    /* The template drops pictures of unknown parts, and a picture that no message holds is left over. */
    refuse(&f.kit, "[{\"role\":\"user\",\"content\":\"a\"}]", 1, NULL, ST_INVALID, "messages",
           "1 picture, but the model's chat template made 0 placeholders");
    /* The mark of trusted text cannot come from outside. */
    refuse(&f.kit, "[{\"role\":\"user\",\"content\":{\"\\u0001mixed\":[{\"trusted\":\"<image>\"}]}}]", 0,
           NULL, ST_INVALID, "messages", "U+0001");
    promptkit_fini(&f.kit);
    setup(&f, "roles", 2048);
    refuse(&f.kit, ONE_PICTURE, 1, NULL, ST_INVALID, "messages[0].content[0]", "does not take pictures");
    tmpl_free(f.kit.tmpl);
    f.kit.tmpl = NULL;
    refuse(&f.kit, "[{\"role\":\"user\",\"content\":\"a\"}]", 0, NULL, ST_INVALID, "", "no chat template");
    promptkit_fini(&f.kit);
}

/* Exactly at the bound: one token must be left for the answer. */
static void test_length_bound(void **state) {
    (void)state;
    fixture f;
    setup(&f, "vlmd-tiny", 2048);
    json_t *m = json_loads("[{\"role\":\"user\",\"content\":\"Hello there\"}]", 0, NULL);
    engine_chat chat = {.messages = m};
    status st = {0};
    prompt *p = prompt_new_chat(&f.kit, &chat, &st);
    assert_non_null(p);
    size_t n;
    prompt_ids(p, &n);
    prompt_free(p);
    f.kit.max_model_len = (int)n + 1;
    p = prompt_new_chat(&f.kit, &chat, &st);
    assert_non_null(p);
    prompt_free(p);
    f.kit.max_model_len = (int)n;
    assert_null(prompt_new_chat(&f.kit, &chat, &st));
    assert_int_equal(st.code, ST_INVALID);
    assert_non_null(strstr(st.msg, "no room"));
    json_decref(m);
    promptkit_fini(&f.kit);
}

/* A template's own refusal reaches the caller; null fields are not there for it. */
static void test_template_errors(void **state) {
    (void)state;
    static const char src[] =
        "{% for m in messages %}{% if m.name is defined %}{{ raise_exception('no names') }}"
        "{% endif %}{{ m.content }}{% endfor %}";
    fixture f;
    status st = {0};
    setup(&f, "roles", 2048);
    tmpl_free(f.kit.tmpl);
    f.kit.tmpl = tmpl_parse(src, sizeof src - 1, &st);
    assert_non_null(f.kit.tmpl);
    f.kit.forms = tmpl_content_forms(f.kit.tmpl);
    refuse(&f.kit, "[{\"role\":\"user\",\"content\":\"a\",\"name\":\"x\"}]", 0, NULL, ST_INVALID, "messages",
           "no names");
    refuse(&f.kit, "[{\"role\":\"user\",\"content\":\"\"}]", 0, NULL, ST_INVALID, "messages", "empty prompt");
    json_t *m = json_loads("[{\"role\":\"user\",\"content\":\"a\",\"name\":null}]", 0, NULL);
    prompt *p = prompt_new_chat(&f.kit, &(engine_chat){.messages = m}, &st);
    assert_non_null(p);
    prompt_free(p);
    json_decref(m);
    promptkit_fini(&f.kit);
}

/* The rendered prompt without the picture's placeholder, whatever a user types, goes with the picture. */
static void test_text_beside_pictures(void **state) {
    (void)state;
    fixture f;
    setup(&f, "vlmd-tiny", 2048);
    f.spec.reads = (reads_spec){.what = READS_PROMPT, .max_tok = 2048, .vocab = 4096};
    f.kit.read_tok = f.kit.tok;
    json_t
        *j = load("tests/golden/prompt/cases.json"),
        *m = json_loads(
            "[{\"role\":\"user\",\"content\":[{\"type\":\"image\"},{\"type\":\"text\",\"text\":\"Is <image> "
            "</s> red?\"}]}]",
            0, NULL);
    const char *b64 = json_string_value(json_array_get(json_object_get(j, "pictures"), 0));
    engine_image im = {b64, strlen(b64), "messages[0].content[0]"};
    engine_chat chat = {.messages = m, .images = &im, .n_images = 1};
    status st = {0};
    prompt *p = prompt_new_chat(&f.kit, &chat, &st);
    if (!p) fail_msg("%s", st.msg);
    static const char want[] = "USER: \nIs <image> </s> red? ASSISTANT:";
    tok_ids ids = {0};
    tok_span user = {strstr(want, "Is") - want, strstr(want, " ASS") - want};
    assert_true(tok_encode(f.kit.tok, want, strlen(want), &user, 1, true, &ids, &st));
    assert_int_equal(p->images[0].pixels.plan.n_text, ids.n);
    assert_memory_equal(p->images[0].pixels.text, ids.v, ids.n * sizeof *ids.v);
    assert_true(prompt_decode_image(&f.kit, p, 0, NULL, &st));
    assert_memory_equal(p->images[0].pixels.text, ids.v, ids.n * sizeof *ids.v);
    prompt *q = prompt_clone(p, &st);
    assert_null(q->images[0].pixels.text);
    prompt_free(q);
    prompt_free(p);
    f.spec.reads.max_tok = (int)ids.n;
    prompt_free(prompt_new_chat(&f.kit, &chat, &st));
    assert_int_equal(st.code, ST_OK);
    f.spec.reads.max_tok--; /* exactly at the bound */
    assert_null(prompt_new_chat(&f.kit, &chat, &st));
    assert_int_equal(st.code, ST_INVALID);
    assert_string_equal(st.param, "messages");
    assert_non_null(strstr(st.msg, "of text together with a picture"));
    tok_ids_fini(&ids);
    json_decref(m);
    json_decref(j);
    promptkit_fini(&f.kit);
}

static void put(const char *dir, const char *name, const char *text) {
    char path[300];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

/* Pictures in front: before BOS, whatever the template makes of their parts; it may know strings alone. */
static void test_in_front(void **state) {
    (void)state;
    json_t *j = load("tests/golden/prompt/cases.json");
    const json_t *b64 = json_array_get(json_object_get(j, "pictures"), 0);
    engine_image images[2];
    for (int i = 0; i < 2; i++)
        images[i] = (engine_image){json_string_value(b64), json_string_length(b64),
                                   i ? "messages[0].content[1]" : "messages[0].content[0]"};
    json_t *parts = json_loads("[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"Look\"},"
                               "{\"type\":\"image\"},{\"type\":\"text\",\"text\":\"twice.\"}]}]",
                               0, NULL),
           *string = json_loads("[{\"role\":\"user\",\"content\":\"Look\\ntwice.\"}]", 0, NULL);
    fixture f;
    setup(&f, "strings", 512);
    assert_true(f.kit.forms.takes_string && !f.kit.forms.takes_parts);
    engine_chat with = {.messages = parts, .images = images, .n_images = 1}, without = {.messages = string};
    status st = {0};
    prompt *text = prompt_new_chat(&f.kit, &without, &st);
    assert_non_null(text);
    promptkit_fini(&f.kit);
    f.spec.pictures_in_front = true;
    f.spec.max_pictures = 1;
    assert_true(promptkit_load(&f.kit, "tests/golden/prompt/strings", NULL, &f.spec, 512,
                               &IMAGE_LIMITS_DEFAULT, &st));
    prompt *p = prompt_new_chat(&f.kit, &with, &st);
    if (!p) fail_msg("%s", st.msg);
    int rows = p->images[0].n_rows;
    assert_int_equal(p->n_rows, 1);
    assert_int_equal(p->rows[0].row, 0);
    assert_int_equal(p->rows[0].n, rows);
    assert_int_equal(p->ids.n, text->ids.n + (size_t)rows);
    for (int i = 0; i < rows; i++) assert_int_equal(p->ids.v[i], f.spec.image_token);
    assert_memory_equal(p->ids.v + rows, text->ids.v, text->ids.n * sizeof *text->ids.v);
    prompt_free(p);
    with.n_images = 2;
    assert_null(prompt_new_chat(&f.kit, &with, &st));
    assert_int_equal(st.code, ST_INVALID);
    assert_string_equal(st.param, "messages[0].content[1]");
    assert_non_null(strstr(st.msg, "at most 1 picture in a prompt; the messages hold 2"));
    prompt_free(text);
    promptkit_fini(&f.kit);
    json_decref(parts);
    json_decref(string);
    json_decref(j);
}

/* A token that the processor adds stands behind the tokenizer's last, with or without a row in the table of embeddings. */
static void test_added_token(void **state) {
    (void)state;
    static const char dir[] = "tests/golden/prompt/strings";
    fixture f;
    status st = {0};
    setup(&f, "strings", 512);
    int32_t has = f.spec.image_token, next = (int32_t)tok_size(f.kit.tok);
    promptkit_fini(&f.kit);
    f.spec.image_token = -1;
    f.spec.added_token = "<image>";
    assert_true(promptkit_load(&f.kit, dir, NULL, &f.spec, 512, &IMAGE_LIMITS_DEFAULT, &st));
    assert_int_equal(f.kit.image_token, has);
    promptkit_fini(&f.kit);
    f.spec.added_token = "<picture>";
    assert_true(promptkit_load(&f.kit, dir, NULL, &f.spec, 512, &IMAGE_LIMITS_DEFAULT, &st));
    assert_int_equal(f.kit.image_token, next);
    assert_string_equal(f.kit.row_token, "<picture>");
    assert_true(tok_is_special(f.kit.tok, next));
    promptkit_fini(&f.kit);
    f.spec.text.vocab = next; /* its rows are never looked up */
    assert_true(promptkit_load(&f.kit, dir, NULL, &f.spec, 512, &IMAGE_LIMITS_DEFAULT, &st));
    assert_int_equal(f.kit.image_token, next);
    promptkit_fini(&f.kit);
}

static void test_broken_folders(void **state) {
    (void)state;
    char dir[] = "/tmp/vlmd-prompt-XXXXXX", cmd[400];
    assert_non_null(mkdtemp(dir));
    model_spec s = {.image_token = -1};
    promptkit k;
    status st = {0};
    assert_false(promptkit_load(&k, dir, NULL, &s, 10, &IMAGE_LIMITS_DEFAULT, &st));
    assert_int_equal(st.code, ST_NOT_FOUND);
    snprintf(cmd, sizeof cmd, "cp tests/golden/prompt/roles/tokenizer.json %s/", dir);
    assert_int_equal(system(cmd), 0);
    st = (status){0};
    assert_true(
        promptkit_load(&k, dir, NULL, &s, 10, &IMAGE_LIMITS_DEFAULT, &st)); /* a folder with nothing else */
    assert_null(k.tmpl);
    promptkit_fini(&k);
    static const struct {
        const char *name, *text, *says;
    } bad[] = {
        {"tokenizer_config.json", "{\"bos_token\": ", "tokenizer_config.json"},
        {"tokenizer_config.json", "[]", "expected an object"},
        {"special_tokens_map.json", "nope", "special_tokens_map.json"},
        {"chat_template.jinja", "{% if %}", "chat template"},
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        put(dir, bad[i].name, bad[i].text);
        st = (status){0};
        assert_false(promptkit_load(&k, dir, NULL, &s, 10, &IMAGE_LIMITS_DEFAULT, &st));
        if (!strstr(st.msg, bad[i].says)) fail_msg("expected '%s' in: %s", bad[i].says, st.msg);
        put(dir, bad[i].name, bad[i].name[0] == 'c' ? "x" : "{}");
    }
    s.fuse = FUSE_SPLICE;
    s.image_token = 99999;
    st = (status){0};
    assert_false(promptkit_load(&k, dir, NULL, &s, 10, &IMAGE_LIMITS_DEFAULT, &st));
    assert_non_null(strstr(st.msg, "99999"));
    snprintf(cmd, sizeof cmd, "rm -r %s", dir);
    assert_int_equal(system(cmd), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference_ids),  cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_length_bound),   cmocka_unit_test(test_template_errors),
        cmocka_unit_test(test_broken_folders), cmocka_unit_test(test_text_beside_pictures),
        cmocka_unit_test(test_in_front),       cmocka_unit_test(test_added_token),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
