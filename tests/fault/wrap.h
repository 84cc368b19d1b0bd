/* wrap.h - what the driver (tests/fault/inject.py) and the program under test share: one small file, mapped by both.
 *
 * Any thread of the program writes counters; the driver arms and disarms while the program runs. */
#ifndef VLMD_TESTS_FAULT_WRAP_H
#define VLMD_TESTS_FAULT_WRAP_H

#include <stdatomic.h>
#include <stdint.h>

/* Each twice: made by vlmd's own code, and by the libraries of the request path. inject.py has the same list. */
enum kind {
    K_MEMORY,
    K_MAP,
    K_OPEN,
    K_READ,
    K_THREAD,
    K_LOCK,
    K_FD,
    K_WATCH,
    K_WAIT,
    K_SEND,
    K_RECV,
    K_RANDOM,
    N_KINDS
};
enum { N_SITES = 1 << 14, N_FRAMES = 16 };

typedef struct fault_kind {
    _Atomic uint64_t calls;
    _Atomic uint64_t from, to;  /* calls of these numbers fail */
    _Atomic uint64_t threshold; /* and others with this probability, of 2^32 */
    _Atomic uint64_t failed;
} fault_kind;

/* One call stack that made calls of a kind, while they are recorded. */
typedef struct fault_site {
    uint64_t hash, kind, first, last;
} fault_site;

typedef struct fault_control {
    _Atomic uint64_t base;             /* where the program lies in memory: 0 until it has started */
    _Atomic uint64_t record;           /* whether to fill sites */
    _Atomic uint64_t random;           /* state of the generator */
    _Atomic int64_t budget;            /* random faults left */
    _Atomic uint64_t frames[N_FRAMES]; /* the call stack of the last fault */
    fault_kind kinds[2 * N_KINDS];
    _Atomic uint64_t n_sites;
    fault_site sites[N_SITES];
} fault_control;

#endif
