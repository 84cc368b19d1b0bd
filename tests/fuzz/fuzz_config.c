/* fuzz_config.c - any bytes as config.json: a spec whose every shape can be computed, or an error that says why. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
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
    if (!started++) {
        CHECK(mkdtemp(g_dir));
        put("preprocessor_config.json", prep, sizeof prep - 1);
        log_set_level(LOG_ERROR);
    }
    put("config.json", data, n);
    model_spec s;
    const name_sheet *sheet;
    status st = {0};
    if (!family_read(g_dir, &s, &sheet, &st)) {
        CHECK(st.code != ST_OK && st.msg[0]);
        return 0;
    }
    int64_t d[4];
    unsigned use;
    for (int i = 0; i < S_COUNT; i++)
        for (int k = slot_shape(&s, (slot)i, d, &use) - 1; k >= 0; k--) CHECK(d[k] > 0);
    for (int i = 0; i < L_COUNT; i++)
        for (int k = layer_slot_shape(&s.text.stack, 0, (layer_slot)i, d, &use) - 1; k >= 0; k--)
            CHECK(d[k] > 0);
    float *f = malloc((size_t)s.text.stack.rope.dims * sizeof *f), factor;
    CHECK(f);
    rope_frequencies(&s.text.stack.rope, f, &factor);
    free(f);
    return 0;
}
