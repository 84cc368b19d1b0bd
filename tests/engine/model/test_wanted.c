/* test_wanted.c - the list of wanted tensors: of every family in the registry, the config.json of its goldens is enough to make
 * a random checkpoint that binds whole, with nothing ignored, to the parts and shapes of the reference's own checkpoint,
 * and that loads. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/tools/folder.h"
#include "tests/tools/random_weights.h"

static const char *const FOLDERS[] = {"tests/golden/models", "tests/golden/families", "tests/golden/dual"};
static const char *const FILES[] = {"config.json", "open_clip_config.json", "generation_config.json",
                                    "processor_config.json", "preprocessor_config.json"};
enum { MAX_FAMILIES = 64 };

static bool g_met[MAX_FAMILIES];

static void join(char out[512], const char *dir, const char *name) {
    assert_true(snprintf(out, 512, "%s/%s", dir, name) < 512);
}

static bool has(const char *dir, const char *name) {
    char path[512];
    join(path, dir, name);
    return access(path, R_OK) == 0;
}

/* The golden's config files, or its decoder's config alone, in a new folder. */
static void make_folder(const char *golden, bool decoder) {
    status st = {0};
    folder_new();
    for (size_t i = 0; i < ARRAY_LEN(FILES) && !decoder; i++) folder_copy(golden, FILES[i]);
    if (!decoder) return;
    json_t *j = ckpt_json(golden, "config.json", false, &st);
    folder_put_json("config.json", json_object_get(j, "text_config"));
    json_decref(j);
}

static void same_tensors(const plan *a, const plan *b) {
    assert_int_equal(a->n, b->n);
    for (int i = 0; i < a->n; i++) {
        const plan_tensor *x = &a->all[i], *y = &b->all[i];
        assert_int_equal(x->as.part, y->as.part);
        assert_int_equal(x->as.at, y->as.at);
        assert_int_equal(x->as.slot, y->as.slot);
        assert_int_equal(x->t.nd, y->t.nd);
        assert_memory_equal(x->t.d, y->t.d, (size_t)x->t.nd * sizeof *x->t.d);
    }
}

static void check(backend *be, const char *golden, bool decoder) {
    status st = {0};
    plan made, reference;
    make_folder(golden, decoder);
    if (!random_weights(folder, DT_BF16, 3, &st) || !plan_open(&made, folder, &st))
        fail_msg("%s: %s", golden, st.msg);
    for (size_t i = 0; i < ckpt_count(made.ckpt); i++)
        if (bind_state_of(made.bind, i) != BIND_USED)
            fail_msg("%s: %s is ignored: %s", golden, ckpt_at(made.ckpt, i)->name, bind_why(made.bind, i));
    if (!decoder) {
        if (!plan_open(&reference, golden, &st)) fail_msg("%s", st.msg);
        /* a head of its own beside a config that ties it: only the file says so */
        if (made.spec.text.tied == reference.spec.text.tied) same_tensors(&made, &reference);
        plan_close(&reference);
    }
    for (int i = 0; family_name(i); i++)
        if (strcmp(family_name(i), made.spec.family) == 0) g_met[i] = true;
    plan_close(&made);
    model *m = model_load(folder, be, &st);
    if (!m) fail_msg("%s: %s", golden, st.msg);
    model_free(m);
    folder_free();
}

/* A decoder of a registered type that no golden is alone. */
static bool unmet_decoder(const char *golden) {
    status st = {0};
    json_t *j = ckpt_json(golden, "config.json", false, &st);
    const char *type = json_string_value(json_object_get(json_object_get(j, "text_config"), "model_type"));
    bool unmet = false;
    for (int i = 0; type && family_name(i); i++) unmet |= !g_met[i] && strcmp(family_name(i), type) == 0;
    json_decref(j);
    return unmet;
}

static void every_family(void **state) {
    (void)state;
    status st = {0};
    backend *be = backend_new(&(backend_options){.device = "cpu", .threads = 1}, &st);
    assert_non_null(be);
    for (size_t i = 0; i < 2 * ARRAY_LEN(FOLDERS); i++) {
        bool decoder = i >= ARRAY_LEN(FOLDERS);
        const char *in = FOLDERS[i % ARRAY_LEN(FOLDERS)];
        DIR *d = opendir(in);
        assert_non_null(d);
        for (struct dirent *e; (e = readdir(d));) {
            char dir[512];
            join(dir, in, e->d_name);
            if (e->d_name[0] == '.' || !(has(dir, FILES[0]) || (!decoder && has(dir, FILES[1])))) continue;
            if (!decoder || unmet_decoder(dir)) check(be, dir, decoder);
        }
        closedir(d);
    }
    for (int i = 0; family_name(i); i++) {
        assert_true(i < MAX_FAMILIES);
        if (!g_met[i]) fail_msg("no golden checkpoint is of family %s", family_name(i));
    }
    backend_free(be);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_family)};
    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
