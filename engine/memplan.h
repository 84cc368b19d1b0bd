/* memplan.h - how memory is divided at start: how many KV pages there are, and what a device has for everything else.
 *
 * Arithmetic alone: sizes go in, a plan or a message that names each part comes out. Bytes throughout. Thread: the loader's.
 * Tested by tests/engine/test_memplan.c. */
#ifndef VLMD_ENGINE_MEMPLAN_H
#define VLMD_ENGINE_MEMPLAN_H

#include "kernels/base.h"

typedef struct memplan_kv { /* what is wanted of the KV cache */
    size_t page_bytes;
    int max_seqs;
    int max_len; /* tokens; when nobody asked for it, it gives way to memory */
    bool len_is_asked;
    size_t asked_bytes; /* 0: not asked for */
} memplan_kv;

typedef struct memplan {
    int max_len, n_pages; /* page 0 included */
} memplan;

/* Of a device with memory of its own. */
typedef struct memplan_device {
    size_t free_bytes, total_bytes;
    double utilization; /* of total_bytes may be used; 0: 0.9 */
    size_t weights, activations, workspace, pictures;
    size_t taken; /* of the workspace, already: not within free_bytes */
} memplan_device;
size_t memplan_budget(const memplan_device *d);

/* In the machine's memory: pages for half of the sequences at full length, in a quarter of it, but never less than one full
 * length, so that any request that the length allows can finish. Errors: ST_INVALID. */
bool memplan_on_host(const memplan_kv *kv, memplan *out, status *st);
/* On the device: what the other parts leave of the budget is KV pages, or what was asked for. Errors: ST_NO_MEMORY, with
 * each part; ST_INVALID. */
bool memplan_on_device(const memplan_kv *kv, const memplan_device *d, memplan *out, status *st);
/* The same of a model without a KV cache. */
bool memplan_without_kv(const memplan_device *d, status *st);

#endif
