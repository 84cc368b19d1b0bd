/* fuzz_config.c - any bytes as config.json: a spec whose every shape can be computed, or an error that says why. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/model/impl.h"
#include "engine/families/registry.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static char g_dir[] = "/tmp/vlmd-fuzz-XXXXXX";

static void put(const char *name, const void *p, size_t n) {
    char path[128];
    snprintf(path, sizeof path, "%s/%s", g_dir, name);
    FILE *f = fopen(path, "wb");
    CHECK(f && fwrite(p, 1, n, f) == n);
    fclose(f);
}

/* The image processor's file that goes with a config, by a word in it; the tiles are those of the corpus. */
static const char *prep_for(const uint8_t *data, size_t n) {
    static const char *const preps[][2] = {
        {"llava_next",
         "{\"image_processor_type\":\"LlavaNextImageProcessor\",\"size\":{\"shortest_edge\":28},"
         "\"crop_size\":28,\"image_grid_pinpoints\":[[56,56]]}"},
        {"llava_onevision",
         "{\"image_processor_type\":\"LlavaOnevisionImageProcessor\",\"size\":{\"height\":28,\"width\":28},"
         "\"image_grid_pinpoints\":[[56,56]]}"},
        {"internvl",
         "{\"image_processor_type\":\"GotOcr2ImageProcessor\",\"size\":{\"height\":28,\"width\":28}}"},
        {"idefics3",
         "{\"image_processor_type\":\"Idefics3ImageProcessor\",\"max_image_size\":{\"longest_edge\":28}}"},
        {"blip_2", "{\"image_processor_type\":\"BlipImageProcessor\",\"size\":{\"height\":42,\"width\":42}}"},
        {"instructblip",
         "{\"image_processor_type\":\"BlipImageProcessor\",\"size\":{\"height\":42,\"width\":42}}"},
        {"_vl", "{\"image_processor_type\":\"Qwen2VLImageProcessor\"}"},
    };
    for (size_t i = 0; i < ARRAY_LEN(preps); i++)
        if (memmem(data, n, preps[i][0], strlen(preps[i][0]))) return preps[i][1];
    return "{\"image_processor_type\":\"CLIPImageProcessor\",\"do_center_crop\":false,\"do_resize\":false}";
}

static const char *spell(const void *of, int32_t id) {
    (void)of;
    return id % 2 ? "T" : NULL;
}

/* Pictures of any size become tiles, rows and text that agree, or are refused. */
static void ask(const model_spec *s) {
    static const int sizes[][2] = {{28, 28}, {1, 1}, {640, 480}, {5, 700}};
    for (size_t i = 0; i < ARRAY_LEN(sizes) * 2; i++) {
        prep_plan p;
        image_ask a = {sizes[i / 2][0], sizes[i / 2][1], 1 + (int)(i % 2)};
        if (!spec_plan_image(s, &a, &IMAGE_LIMITS_DEFAULT, &p, NULL)) continue;
        int n = s->image_rows(s, &p);
        if (n < 1 || n > 1 << 20) continue;
        buf text = {0};
        image_text t = {.text = &text, .row_token = "R", .spell = spell};
        spec_write_image(s, &p, &t);
        for (int k = 0; k < t.n_runs && s->fuse == FUSE_SPLICE; k++) n -= t.runs[k].n;
        CHECK(n == 0 || s->fuse != FUSE_SPLICE);
        image_text_fini(&t);
        buf_fini(&text);
        if (!s->pack) continue;
        n = s->image_rows(s, &p);
        pack_row *rows = calloc((size_t)n, sizeof *rows);
        CHECK(rows);
        s->pack(s, &p, rows);
        free(rows);
    }
}

/* What a spec asks of a checkpoint has a name and a shape. */
static bool has_shape(void *unused, const wanted *w, status *st) {
    (void)unused;
    (void)st;
    CHECK(w->nd >= 1 && w->nd <= TENSOR_MAX_DIMS && w->name[0] && w->use);
    for (int k = 0; k < w->nd; k++) CHECK(w->d[k] > 0);
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static int started;
    if (!started++) {
        CHECK(mkdtemp(g_dir));
        log_set_level(LOG_ERROR);
    }
    const char *prep = prep_for(data, n);
    put("preprocessor_config.json", prep, strlen(prep));
    put("config.json", data, n);
    model_spec s;
    const name_sheet *sheet;
    status st = {0};
    if (!family_read(g_dir, &s, &sheet, &st)) {
        CHECK(st.code != ST_OK && st.msg[0]);
        return 0;
    }
    CHECK(wanted_each(&s, sheet, has_shape, NULL, &st));
    if (s.tower.stack.n_layers) ask(&s);
    float *f = malloc((size_t)s.text.stack.rope.dims * sizeof *f), factor;
    CHECK(f);
    rope_frequencies(&s.text.stack.rope, f, &factor);
    if (rope_axes(&s.text.stack.rope, f))
        for (int i = 0; i < s.text.stack.rope.dims / 2; i++)
            CHECK(f[i] >= 0 && f[i] < (float)s.text.stack.rope.axes);
    free(f);
    return 0;
}
