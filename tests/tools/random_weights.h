/* random_weights.h - writes the weights of any config.json that vlmd serves, random and scaled, fast enough for
 * billions: normals come from a table of 65536, four to a 64-bit draw. For benchmarks and the tool beside it. */
#ifndef TESTS_TOOLS_RANDOM_WEIGHTS_H
#define TESTS_TOOLS_RANDOM_WEIGHTS_H

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "engine/families/registry.h"
#include "engine/model/impl.h"

typedef struct random_tensor {
    char name[160];
    int64_t d[TENSOR_MAX_DIMS];
    int nd;
    float mean, std;
} random_tensor;

static inline uint16_t random_bf16(float x) {
    uint32_t u;
    memcpy(&u, &x, 4);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

static inline uint16_t random_f16(float x) {
    _Float16 h = (_Float16)x;
    uint16_t u;
    memcpy(&u, &h, 2);
    return u;
}

static inline int64_t random_count(const random_tensor *t) {
    int64_t n = 1;
    for (int i = 0; i < t->nd; i++) n *= t->d[i];
    return n;
}

static inline bool random_write_tensor(FILE *f, const random_tensor *t, dtype dt, const float *normal,
                                       uint64_t *seed) {
    enum { BLOCK = 1 << 16 };
    static union {
        uint16_t half[BLOCK];
        float whole[BLOCK];
    } out;
    static union {
        uint16_t half[BLOCK];
        float whole[BLOCK];
    } table;
    for (int i = 0; i < BLOCK; i++) {
        float x = t->mean + t->std * normal[i];
        if (dt == DT_F32)
            table.whole[i] = x;
        else
            table.half[i] = dt == DT_BF16 ? random_bf16(x) : random_f16(x);
    }
    int64_t left = random_count(t);
    while (left > 0) {
        int n = left < BLOCK ? (int)left : BLOCK;
        for (int i = 0; i < n; i += 4) {
            *seed ^= *seed << 13;
            *seed ^= *seed >> 7;
            *seed ^= *seed << 17;
            uint64_t r = *seed * 0x2545F4914F6CDD1Dull;
            for (int k = 0; k < 4 && i + k < n; k++, r >>= 16) {
                if (dt == DT_F32)
                    out.whole[i + k] = table.whole[r & 0xffff];
                else
                    out.half[i + k] = table.half[r & 0xffff];
            }
        }
        if (fwrite(&out, dtype_size(dt), (size_t)n, f) != (size_t)n) return false;
        left -= n;
    }
    return true;
}

/* How a parameter is drawn, by its part in the model: activations keep their size from layer to layer. */
static inline void random_scale(random_tensor *t, bool gain, float offset, bool table) {
    t->mean = gain ? 1.0f - offset : 0.0f;
    t->std = gain || t->nd == 1 ? 0.05f : table ? 0.5f : 1.0f / sqrtf((float)(random_count(t) / t->d[0]));
}

static inline bool random_is_gain(int k) {
    return k == L_NORM1_G || k == L_NORM2_G || k == L_QNORM_G || k == L_KNORM_G || k == L_POST1_G ||
           k == L_POST2_G || k == L_BESIDE_NORM_G;
}

/* "name#0/n" is one tensor of n times the rows, "name#k/n" stands in that one: false. */
static inline bool random_whole(random_tensor *t) {
    int part = 0, parts = 1;
    char *hash = strchr(t->name, '#');
    if (hash && sscanf(hash, "#%d/%d", &part, &parts) == 2) *hash = 0;
    t->d[0] *= parts;
    return part == 0;
}

/* Reads dir/config.json and writes dir/model.safetensors. */
static inline bool random_weights(const char *dir, dtype dt, uint64_t seed, status *st) {
    model_spec s;
    const name_sheet *sheet;
    if (!family_read(dir, &s, &sheet, st)) return false;
    size_t cap = S_COUNT +
                 (size_t)(s.tower.stack.n_layers + s.join.stack.n_layers + s.text.stack.n_layers) * L_COUNT +
                 (size_t)s.deep.n * JOIN_SLOTS + DUAL_COUNT,
           n = 0;
    random_tensor *t = mem_calloc(cap, sizeof *t);
    float *normal = mem_calloc(1 << 16, sizeof *normal);
    if (!t || !normal) return status_set(st, ST_NO_MEMORY, "no memory");
    unsigned use;
    for (int i = 0; i < S_COUNT; i++) {
        t[n].nd = slot_shape(&s, (slot)i, t[n].d, &use);
        if (!t[n].nd) continue;
        const char *const *at = i == S_HEAD         ? sheet->head_at
                                : i >= S_FIRST_TEXT ? sheet->text_at
                                : i >= S_FIRST_JOIN ? sheet->join_at
                                                    : sheet->tower_at;
        bool linear = s.join.kind == JOIN_LINEAR && (i == S_FC1_W || i == S_FC1_B);
        if (linear)
            snprintf(t[n].name, sizeof t[n].name, "%s%s", sheet->linear_at[0],
                     i == S_FC1_W ? "weight" : "bias");
        else
            snprintf(t[n].name, sizeof t[n].name, "%s%s", at[0],
                     i >= S_FIRST_TEXT ? s.text.names->names[i] : sheet->names[i]);
        char *turned = strstr(t[n].name, "^T");
        if (turned) {
            int64_t in = t[n].d[1];
            t[n].d[1] = t[n].d[0];
            t[n].d[0] = in;
            *turned = 0;
        }
        random_scale(&t[n++], i == S_NORM_G || i == S_PRE_G || i == S_POST_G || i == S_JOIN_G,
                     i == S_NORM_G ? s.text.stack.norm_offset : 0,
                     i == S_POS || i == S_EMBED_POS || i == S_EMBED || i == S_LATENTS);
    }
    const struct {
        const stack_spec *stack;
        const char *const *names, *const *at;
    } stacks[] = {{&s.tower.stack, sheet->tower_layer, sheet->tower_at},
                  {&s.join.stack, sheet->join_layer, sheet->join_at},
                  {&s.text.stack, s.text.names->layer, sheet->text_at}};
    for (size_t part = 0; part < ARRAY_LEN(stacks); part++) {
        const stack_spec *k = stacks[part].stack;
        const char *const *names = stacks[part].names;
        for (int i = 0; i < k->n_layers; i++)
            for (int j = 0; j < L_COUNT; j++) {
                char name[128];
                t[n].nd = layer_slot_shape(k, i, (layer_slot)j, t[n].d, &use);
                if (!t[n].nd) continue;
                snprintf(name, sizeof name, names[j], i);
                snprintf(t[n].name, sizeof t[n].name, "%s%s", stacks[part].at[0], name);
                if (!random_whole(&t[n])) continue;
                random_scale(&t[n++], random_is_gain(j), k->norm_offset, false);
            }
    }
    for (int i = 0; i < s.deep.n * JOIN_SLOTS; i++) {
        char name[128];
        slot which = (slot)(S_FIRST_JOIN + i % JOIN_SLOTS);
        t[n].nd = join_slot_shape(&s.deep.join, which, t[n].d, &use);
        if (!t[n].nd) continue;
        snprintf(name, sizeof name, sheet->deep[i % JOIN_SLOTS], i / JOIN_SLOTS);
        snprintf(t[n].name, sizeof t[n].name, "%s%s", sheet->tower_at[0], name);
        random_scale(&t[n++], which == S_JOIN_G, 0, false);
    }
    for (int i = 0; i < DUAL_COUNT && s.dual.on; i++) {
        t[n].nd = dual_slot_shape(&s, (dual_slot)i, t[n].d, &use);
        if (!t[n].nd) continue;
        int part = 0, parts = 1;
        char *fused = strchr(sheet->dual[i], '#');
        if (fused) sscanf(fused, "#%d/%d", &part, &parts);
        if (part) continue; /* stands in the first one's tensor */
        t[n].d[0] *= parts;
        snprintf(t[n].name, sizeof t[n].name, "%.*s", (int)strcspn(sheet->dual[i], "#"), sheet->dual[i]);
        random_scale(&t[n++], i == DUAL_NORM_G, 0, i == DUAL_PROBE);
    }
    buf header = {0};
    uint64_t at = 0;
    for (size_t i = 0; i < n; i++) {
        uint64_t bytes = (uint64_t)random_count(&t[i]) * dtype_size(dt);
        buf_printf(&header, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[", i ? "," : "{", t[i].name,
                   dt == DT_F32    ? "F32"
                   : dt == DT_BF16 ? "BF16"
                                   : "F16");
        for (int k = 0; k < t[i].nd; k++) buf_printf(&header, "%s%lld", k ? "," : "", (long long)t[i].d[k]);
        buf_printf(&header, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)at,
                   (unsigned long long)(at + bytes));
        at += bytes;
    }
    buf_puts(&header, "}");
    while (header.len % 64 != 56) buf_putc(&header, ' ');
    char path[1024];
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    FILE *f = fopen(path, "wb");
    bool ok = f && !header.failed;
    if (ok) {
        unsigned char len[8];
        for (int i = 0; i < 8; i++) len[i] = (unsigned char)((uint64_t)header.len >> (8 * i));
        ok = fwrite(len, 1, 8, f) == 8 && fwrite(header.data, 1, header.len, f) == header.len;
    }
    seed = seed * 0x9E3779B97F4A7C15ull + 1;
    for (int i = 0; i < 1 << 16;
         i += 2) { /* Box and Muller, on a grid that a shuffled draw then picks from */
        double u = ((i / 2) % 181 + 0.5) / 181, v = (i / 2 / 181 % 181 + 0.5) / 181, r = sqrt(-2 * log(u));
        normal[i] = (float)(r * cos(2 * M_PI * v));
        normal[i + 1] = (float)(r * sin(2 * M_PI * v));
    }
    for (size_t i = 0; ok && i < n; i++) ok = random_write_tensor(f, &t[i], dt, normal, &seed);
    if (f && fclose(f) != 0) ok = false;
    buf_fini(&header);
    mem_free(normal);
    mem_free(t);
    return ok || status_set(st, ST_IO, "cannot write %s", path);
}

#endif
