/* ckpt.c - see ckpt.h. Thread: whoever loads. The ckpt owns its files and the list of tensors. */
#include "engine/ckpt/ckpt.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "kernels/json.h"

enum { MAX_JSON_BYTES = 64 << 20, MAX_SHARDS = 4096 };

typedef struct shard {
    char *name;
    st_file *file;
} shard;

typedef struct place { /* one tensor of the whole checkpoint */
    const st_tensor *t;
    int shard;
} place;

struct ckpt {
    shard *shards;
    int n_shards;
    place *places; /* sorted by name */
    size_t n;
};

/* ---- JSON files ---------------------------------------------------------------------------------------------- */

static char *path_of(const char *dir, const char *name, status *st) {
    buf b = {0};
    buf_printf(&b, "%s/%s", dir, name);
    if (b.failed) {
        buf_fini(&b);
        status_set(st, ST_NO_MEMORY, "no memory for a path");
        return NULL;
    }
    return b.data;
}

json_t *ckpt_json(const char *dir, const char *name, bool optional, status *st) {
    char *path = path_of(dir, name, st);
    if (!path) return NULL;
    json_t *j = NULL;
    buf text = {0};
    status own = {0};
    json_error_t e;
    if (!buf_read_file(&text, path, MAX_JSON_BYTES, &own)) {
        if (!optional || own.code != ST_NOT_FOUND) status_set(st, own.code, "%s/%s: %s", dir, name, own.msg);
    } else if (!(j = json_parse(text.data, text.len, 0,
                                &e))) { /* of duplicate keys the last wins, as in Python */
        if (json_no_memory(&e))
            status_set(st, ST_NO_MEMORY, "no memory to read %s/%s", dir, name);
        else
            status_set(st, ST_INVALID, "%s/%s: not valid JSON, line %d column %d: %s", dir, name, e.line,
                       e.column, e.text);
    }
    buf_fini(&text);
    mem_free(path);
    return j;
}

/* ---- shards ------------------------------------------------------------------------------------------------------ */

static bool open_shard(ckpt *c, const char *dir, const char *name, status *st) {
    shard *s = &c->shards[c->n_shards];
    s->name = mem_strdup(name);
    char *path = path_of(dir, name, st);
    if (!s->name || !path) {
        mem_free(s->name);
        mem_free(path);
        return status_set(st, ST_NO_MEMORY, "no memory for a path");
    }
    s->file = st_open(path, st);
    mem_free(path);
    c->n_shards++; /* also when it failed: ckpt_close frees the name */
    return s->file || status_prefix(st, "%s/%s", dir, name);
}

/* An index may name files of its own folder only. */
static bool plain_name(const char *s) {
    size_t n = strlen(s);
    return n > 12 && n < 256 && s[0] != '.' && !strchr(s, '/') && !strchr(s, '\\') &&
           strcmp(s + n - 12, ".safetensors") == 0;
}

static int by_string(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static bool open_shards(ckpt *c, const char *dir, const json_t *index, status *st) {
    const json_t *map = json_object_get(index, "weight_map");
    if (!json_is_object(map) || json_object_size(map) == 0)
        return status_set(st, ST_INVALID, "expected an object weight_map with the tensors' files");
    size_t n = json_object_size(map), k = 0;
    const char **names = mem_calloc(n, sizeof *names);
    if (!names) return status_set(st, ST_NO_MEMORY, "no memory for the index");
    const char *key;
    json_t *v;
    bool ok = true;
    json_object_foreach((json_t *)(uintptr_t)map, key, v) {
        names[k] = json_string_value(v);
        if (!names[k] || !plain_name(names[k])) {
            ok = status_set(st, ST_INVALID,
                            "weight_map[\"%.120s\"]: expected the name of a .safetensors file in this "
                            "folder, found %.120s",
                            key, names[k] ? names[k] : "no string");
            break;
        }
        k++;
    }
    if (ok) {
        qsort(names, k, sizeof *names, by_string);
        size_t m = 0;
        for (size_t i = 0; i < k; i++)
            if (m == 0 || strcmp(names[m - 1], names[i]) != 0) names[m++] = names[i];
        if (m > MAX_SHARDS) {
            ok = status_set(st, ST_INVALID, "%zu files, at most %d are allowed", m, MAX_SHARDS);
        } else if (!(c->shards = mem_calloc(m, sizeof *c->shards))) {
            ok = status_set(st, ST_NO_MEMORY, "no memory for the index");
        }
        for (size_t i = 0; ok && i < m; i++) ok = open_shard(c, dir, names[i], st);
    }
    mem_free(names);
    return ok;
}

static int by_place_name(const void *a, const void *b) {
    const place *x = a, *y = b;
    int d = strcmp(x->t->name, y->t->name);
    return d ? d : x->shard - y->shard;
}

/* One sorted list of all tensors. A tensor that lies in two files is the one that the index names. */
static bool merge(ckpt *c, const json_t *map, status *st) {
    size_t n = 0;
    for (int i = 0; i < c->n_shards; i++) n += st_count(c->shards[i].file);
    c->places = mem_calloc(n ? n : 1, sizeof *c->places);
    if (!c->places) return status_set(st, ST_NO_MEMORY, "no memory for %zu tensors", n);
    for (int i = 0; i < c->n_shards; i++)
        for (size_t k = 0; k < st_count(c->shards[i].file); k++) {
            const st_tensor *t = st_at(c->shards[i].file, k);
            const char *want = json_string_value(json_object_get(map, t->name));
            if (want && strcmp(want, c->shards[i].name) != 0) continue;
            c->places[c->n++] = (place){t, i};
        }
    if (c->n) qsort(c->places, c->n, sizeof *c->places, by_place_name);
    for (size_t i = 1; i < c->n; i++)
        if (strcmp(c->places[i - 1].t->name, c->places[i].t->name) == 0)
            return status_set(st, ST_INVALID, "tensor %.200s lies in both %s and %s", c->places[i].t->name,
                              c->shards[c->places[i - 1].shard].name, c->shards[c->places[i].shard].name);
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)map, key, v) {
        if (ckpt_find(c, key) == SIZE_MAX)
            return status_set(st, ST_INVALID,
                              "weight_map says that %.120s holds tensor %.200s, but it does not",
                              json_string_value(v), key);
    }
    return true;
}

static bool is_there(const char *dir, const char *name) {
    struct stat sb;
    char *path = path_of(dir, name, NULL);
    bool is = path && stat(path, &sb) == 0;
    mem_free(path);
    return is;
}

static bool no_weights(const char *dir, const char *single, const char *index, status *st) {
    static const char *const pickled[] = {"pytorch_model.bin", "pytorch_model.bin.index.json",
                                          "open_clip_pytorch_model.bin"};
    for (size_t i = 0; i < ARRAY_LEN(pickled); i++)
        if (is_there(dir, pickled[i]))
            return status_set(
                st, ST_NOT_FOUND,
                "%s: expected %s or %s, found %s, which is a pickle and not read: convert it to safetensors",
                dir, single, index, pickled[i]);
    return status_set(st, ST_NOT_FOUND, "%s: neither %s nor %s is there (other formats are not read)", dir,
                      single, index);
}

ckpt *ckpt_open(const char *dir, status *st) {
    static const char *const singles[] = {"model.safetensors", "open_clip_model.safetensors"};
    static const char index_name[] = "model.safetensors.index.json";
    status local = {0};
    if (!st) st = &local;
    ckpt *c = mem_calloc(1, sizeof *c);
    json_t *index = NULL;
    bool ok = c != NULL;
    if (!ok) {
        status_set(st, ST_NO_MEMORY, "no memory for a checkpoint");
    } else {
        bool one = is_there(dir, singles[0]), index_there = !one && is_there(dir, index_name);
        const char *single = one ? singles[0] : singles[1];
        if (one || (!index_there && is_there(dir, single))) {
            c->shards = mem_calloc(1, sizeof *c->shards);
            ok = c->shards ? open_shard(c, dir, single, st)
                           : status_set(st, ST_NO_MEMORY, "no memory for a checkpoint");
            if (ok) ok = merge(c, NULL, st) || status_prefix(st, "%s/%s", dir, single);
        } else if ((index = ckpt_json(dir, index_name, true, st))) {
            ok = open_shards(c, dir, index, st) && merge(c, json_object_get(index, "weight_map"), st);
            if (!ok) status_prefix(st, "%s/%s", dir, index_name);
        } else {
            ok = no_weights(dir, singles[0], index_name, st);
        }
    }
    json_decref(index);
    if (ok) return c;
    ckpt_close(c);
    return NULL;
}

void ckpt_close(ckpt *c) {
    if (!c) return;
    for (int i = 0; i < c->n_shards; i++) {
        st_close(c->shards[i].file);
        mem_free(c->shards[i].name);
    }
    mem_free(c->shards);
    mem_free(c->places);
    mem_free(c);
}

size_t ckpt_count(const ckpt *c) {
    return c->n;
}

const st_tensor *ckpt_at(const ckpt *c, size_t i) {
    CHECK(i < c->n);
    return c->places[i].t;
}

const char *ckpt_file_of(const ckpt *c, size_t i) {
    CHECK(i < c->n);
    return c->shards[c->places[i].shard].name;
}

size_t ckpt_find(const ckpt *c, const char *name) {
    size_t lo = 0, hi = c->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int d = strcmp(name, c->places[mid].t->name);
        if (d == 0) return mid;
        if (d < 0)
            hi = mid;
        else
            lo = mid + 1;
    }
    return SIZE_MAX;
}

void ckpt_forget(const ckpt *c) {
    for (int i = 0; i < c->n_shards; i++) st_forget(c->shards[i].file);
}

int ckpt_n_files(const ckpt *c) {
    return c->n_shards;
}
