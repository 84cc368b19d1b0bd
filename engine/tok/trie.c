/* trie.c - a trie over bytes in one hash table; see tok_int.h. Owns its arrays; read-only after the last trie_put. */
#include "engine/tok/tok_int.h"

bool trie_init(trie *t, size_t bytes) {
    *t = (trie){0};
    if (bytes > UINT32_MAX / 4) return false;
    size_t size = 16;
    while (size < 2 * bytes + 2) size *= 2;
    t->edges = mem_calloc(size, sizeof *t->edges);
    t->ends = mem_alloc((bytes + 1) * sizeof *t->ends);
    t->mask = size - 1;
    if (!t->edges || !t->ends) return false;
    t->ends[0] = -1;
    t->nodes = 1;
    return true;
}

void trie_fini(trie *t) {
    mem_free(t->edges);
    mem_free(t->ends);
    *t = (trie){0};
}

static inline size_t slot_of(const trie *t, uint32_t node, uint8_t byte) {
    return (size_t)((((uint64_t)node << 8 | byte) * 0x9E3779B97F4A7C15u) >> 32) & t->mask;
}

uint32_t trie_child(const trie *t, uint32_t node, uint8_t byte) {
    for (size_t k = slot_of(t, node, byte);; k = (k + 1) & t->mask) {
        const trie_edge *e = &t->edges[k];
        if (!e->key_node) return 0;
        if (e->key_node == node + 1 && e->byte == byte) return e->child;
    }
}

int32_t *trie_put(trie *t, const char *s, size_t n) {
    uint32_t node = 0;
    for (size_t i = 0; i < n; i++) {
        uint8_t c = (uint8_t)s[i];
        uint32_t next = trie_child(t, node, c);
        if (!next) {
            next = (uint32_t)t->nodes++;
            t->ends[next] = -1;
            size_t k = slot_of(t, node, c);
            while (t->edges[k].key_node) k = (k + 1) & t->mask;
            t->edges[k] = (trie_edge){node + 1, next, c};
        }
        node = next;
    }
    return &t->ends[node];
}
