/* memplan.c - see memplan.h. One thread; owns nothing. */
#include "engine/memplan.h"

#include <stdio.h>
#include <unistd.h>

#include "engine/kv.h"

static double mib(size_t bytes) {
    return (double)bytes / (1 << 20);
}

/* Physical memory, or the container's limit where that is lower. */
static size_t machine_memory(void) {
    size_t bytes = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
    FILE *f = fopen("/sys/fs/cgroup/memory.max", "r");
    unsigned long long limit;
    if (f && fscanf(f, "%llu", &limit) == 1 && limit < bytes) bytes = (size_t)limit;
    if (f) fclose(f);
    return bytes;
}

static size_t full_length(const memplan_kv *kv) {
    return (size_t)kv_pages_of(kv->max_len);
}

/* Pages that so many bytes hold, as many as can be numbered. */
static size_t pages_in(const memplan_kv *kv, size_t bytes) {
    const size_t n = bytes / kv->page_bytes;
    return n < INT32_MAX / KV_PAGE_TOK ? n : INT32_MAX / KV_PAGE_TOK;
}

/* A length that nobody asked for gives way until one fits; false: not even two pages do. */
static bool shorten(const memplan_kv *kv, size_t fit, memplan *out) {
    out->max_len = kv->max_len;
    if (fit > full_length(kv)) return true;
    if (fit < 2) return false;
    out->max_len = (int)(fit - 1) * KV_PAGE_TOK;
    log_warn("max-model-len is %d instead of the model's %d: so much fits into a KV cache of %.1f MB",
             out->max_len, kv->max_len, (double)(fit * kv->page_bytes) / 1e6);
    return true;
}

static bool too_small(const memplan_kv *kv, size_t fit, size_t bytes, status *st) {
    if (kv->len_is_asked)
        return status_set(
            st, ST_INVALID, "a KV cache of %zu bytes holds %zu tokens; max-model-len %d needs %zu bytes",
            bytes, (fit ? fit - 1 : 0) * KV_PAGE_TOK, kv->max_len, (full_length(kv) + 1) * kv->page_bytes);
    return status_set(st, ST_INVALID, "a KV cache of %zu bytes is too small; two pages take %zu", bytes,
                      2 * kv->page_bytes);
}

bool memplan_on_host(const memplan_kv *kv, memplan *out, status *st) {
    const size_t most = kv->asked_bytes ? kv->asked_bytes : machine_memory() / 4, fit = pages_in(kv, most);
    out->max_len = kv->max_len;
    if (kv->len_is_asked ? kv->asked_bytes && fit <= full_length(kv) : !shorten(kv, fit, out))
        return too_small(kv, fit, most, st);
    const size_t full = (size_t)kv_pages_of(out->max_len);
    size_t want = full * (size_t)(kv->max_seqs / 2 > 1 ? kv->max_seqs / 2 : 1) + 1;
    if (kv->asked_bytes || want > fit) want = fit;
    if (want < full + 1) want = full + 1; /* a length that was asked for may take more */
    out->n_pages = (int)want;
    return true;
}

/* ---- a device ---- */

size_t memplan_budget(const memplan_device *d) {
    return (size_t)((double)d->total_bytes * (d->utilization > 0 ? d->utilization : 0.9));
}

static bool does_not_fit(const memplan_device *d, size_t kv_bytes, const char *how, status *st) {
    return status_set(st, ST_NO_MEMORY,
                      "the GPU's memory does not suffice, in MiB: weights %.1f, activations %.1f, workspace "
                      "%.1f, pictures %.1f "
                      "(image-memory), KV cache %s %.1f: %.1f together, of %.1f (gpu-memory-utilization %.2g "
                      "of %.1f; %.1f are free)",
                      mib(d->weights), mib(d->activations), mib(d->workspace), mib(d->pictures), how,
                      mib(kv_bytes), mib(d->weights + d->activations + d->workspace + d->pictures + kv_bytes),
                      mib(memplan_budget(d)), d->utilization > 0 ? d->utilization : 0.9, mib(d->total_bytes),
                      mib(d->free_bytes));
}

static bool is_free(const memplan_device *d, status *st) {
    if (memplan_budget(d) <= d->free_bytes + d->taken) return true;
    return status_set(
        st, ST_NO_MEMORY,
        "gpu-memory-utilization %.2g is %.1f MiB of the GPU's %.1f, but only %.1f are free: give it "
        "less, or end what uses the rest",
        d->utilization > 0 ? d->utilization : 0.9, mib(memplan_budget(d)), mib(d->total_bytes),
        mib(d->free_bytes));
}

bool memplan_without_kv(const memplan_device *d, status *st) {
    if (!is_free(d, st)) return false;
    return d->weights + d->activations + d->workspace + d->pictures <= memplan_budget(d) ||
           does_not_fit(d, 0, "of", st);
}

bool memplan_on_device(const memplan_kv *kv, const memplan_device *d, memplan *out, status *st) {
    const size_t budget = memplan_budget(d),
                 others = d->weights + d->activations + d->workspace + d->pictures;
    const size_t least = (kv->len_is_asked ? full_length(kv) + 1 : 2) * kv->page_bytes;
    if (!is_free(d, st)) return false;
    size_t left = budget > others ? budget - others : 0;
    if (kv->asked_bytes && left < kv->asked_bytes) return does_not_fit(d, kv->asked_bytes, "of", st);
    if (kv->asked_bytes) left = kv->asked_bytes;
    const size_t fit = pages_in(kv, left);
    if (left < least)
        return kv->asked_bytes ? too_small(kv, fit, left, st) : does_not_fit(d, least, "of at least", st);
    shorten(kv, fit, out);
    out->n_pages = (int)fit;
    return true;
}
