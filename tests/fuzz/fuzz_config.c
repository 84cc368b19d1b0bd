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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static int started;
    static const char prep[] = "{\"image_processor_type\":\"CLIPImageProcessor\",\"do_center_crop\":false}";
    static const char native[] =
        "{\"image_processor_type\":\"Qwen2VLImageProcessor\"}"; /* for who takes any size */
    if (!started++) {
        CHECK(mkdtemp(g_dir));
        log_set_level(LOG_ERROR);
    }
    if (memmem(data, n, "_vl", 3))
        put("preprocessor_config.json", native, sizeof native - 1);
    else
        put("preprocessor_config.json", prep, sizeof prep - 1);
    put("config.json", data, n);
    model_spec s;
    const name_sheet *sheet;
    status st = {0};
    if (!family_read(g_dir, &s, &sheet, &st)) {
        CHECK(st.code != ST_OK && st.msg[0]);
        return 0;
    }
    int64_t d[TENSOR_MAX_DIMS];
    unsigned use;
    for (int i = 0; i < S_COUNT; i++)
        for (int k = slot_shape(&s, (slot)i, d, &use) - 1; k >= 0; k--) CHECK(d[k] > 0);
    for (int i = 0; i < L_COUNT; i++)
        for (int k = layer_slot_shape(&s.text.stack, 0, (layer_slot)i, d, &use) - 1; k >= 0; k--)
            CHECK(d[k] > 0);
    float *f = malloc((size_t)s.text.stack.rope.dims * sizeof *f), factor;
    CHECK(f);
    rope_frequencies(&s.text.stack.rope, f, &factor);
    if (rope_axes(&s.text.stack.rope, f))
        for (int i = 0; i < s.text.stack.rope.dims / 2; i++)
            CHECK(f[i] >= 0 && f[i] < (float)s.text.stack.rope.axes);
    for (int i = 0; i < s.deep.n * JOIN_SLOTS; i++)
        for (int k = join_slot_shape(&s.deep.join, (slot)(S_FIRST_JOIN + i % JOIN_SLOTS), d, &use) - 1;
             k >= 0; k--)
            CHECK(d[k] > 0);
    free(f);
    return 0;
}
