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

typedef struct random_list {
    const model_spec *s;
    random_tensor *all;
    size_t n;
} random_list;

/* A tensor's name, shape and how it is drawn: activations keep their size from layer to layer. */
static inline bool random_want(void *to, const wanted *w, status *st) {
    random_list *l = to;
    if ((l->n & (l->n - 1)) == 0) { /* room doubles */
        random_tensor *all = mem_realloc(l->all, (l->n ? 2 * l->n : 1) * sizeof *all);
        if (!all) return status_set(st, ST_NO_MEMORY, "no memory");
        l->all = all;
    }
    random_tensor *t = &l->all[l->n];
    *t = (random_tensor){.nd = w->nd};
    memcpy(t->d, w->d, sizeof t->d);
    snprintf(t->name, sizeof t->name, "%s%s", w->in[0], w->name);
    int part = 0, parts = 1;
    char *hash = strchr(t->name, '#');
    if (hash && sscanf(hash, "#%d/%d", &part, &parts) == 2) *hash = 0;
    if (part) return true; /* "name#k/n" stands in the tensor of "name#0/n", which has n times the rows */
    t->d[0] *= parts;
    l->n++;
    size_t len = strlen(t->name);
    bool vector = w->use == WEIGHT_VECTOR;
    bool gain = vector && !(len >= 4 && strcmp(t->name + len - 4, "bias") == 0);
    float offset = w->stack                                             ? w->stack->norm_offset
                   : w->part == WANTED_ALONE && w->slot >= S_FIRST_TEXT ? l->s->text.stack.norm_offset
                   : w->part == WANTED_ALONE && w->slot >= S_FIRST_JOIN ? l->s->join.norm_offset
                                                                        : 0;
    int64_t in = w->transposed ? t->d[0] : random_count(t) / t->d[0];
    t->mean = gain ? 1.0f - offset : 0.0f;
    t->std = vector || t->nd == 1 ? 0.05f : w->use & WEIGHT_TABLE ? 0.5f : 1.0f / sqrtf((float)in);
    return true;
}

/* Reads dir/config.json and writes dir/model.safetensors. */
static inline bool random_weights(const char *dir, dtype dt, uint64_t seed, status *st) {
    model_spec s;
    const name_sheet *sheet;
    if (!family_read(dir, &s, &sheet, st)) return false;
    random_list list = {&s, NULL, 0};
    float *normal = mem_calloc(1 << 16, sizeof *normal);
    if (!normal) return status_set(st, ST_NO_MEMORY, "no memory");
    bool ok = wanted_each(&s, sheet, random_want, &list, st);
    random_tensor *t = list.all;
    size_t n = list.n;
    buf header = {0};
    buf_puts(&header, "{\"__metadata__\":{\"format\":\"pt\"}"); /* or older readers refuse it */
    uint64_t at = 0;
    for (size_t i = 0; i < n; i++) {
        uint64_t bytes = (uint64_t)random_count(&t[i]) * dtype_size(dt);
        buf_printf(&header, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", t[i].name,
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
    ok = ok && f && !header.failed;
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
