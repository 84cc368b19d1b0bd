/* emu.cpp - runs CUDA kernels on the host, so that they are tested without a GPU; runtime.cpp stands in for the runtime.
 *
 * Grid: one block after the other; the threads of a block are fibers that run until they wait (barrier, warp operation) or
 * end. Blocks, warps and lanes take their turns by EMU_ORDER = forward | reverse | shuffle, a warp as long as nothing but itself
 * holds it up, or (shuffle) all side by side; shared memory starts as NaN, or as EMU_SHARED's byte: results must not depend on
 * either.
 * Threads: one host thread at a time. Owner: stacks, for good. x86-64. */
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "emu.h"

enum { STACK_BYTES = 256 << 10 };

[[noreturn]] void emu_fail(const char *what) {
    fprintf(stderr, "cuda emulator: %s (block %u,%u,%u thread %u,%u,%u)\n", what, emu_now ? blockIdx.x : 0,
            emu_now ? blockIdx.y : 0, emu_now ? blockIdx.z : 0, emu_now ? threadIdx.x : 0, emu_now ? threadIdx.y : 0,
            emu_now ? threadIdx.z : 0);
    abort();
}

/* ---- fibers ---- */

/* Saves what the ABI says a call keeps, changes stacks, takes it up again. */
extern "C" void emu_swap(void **save_sp, void *to_sp);
asm(R"(
.text
.type emu_swap, @function
emu_swap:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size emu_swap, .-emu_swap
)");

enum wait_kind { READY, AT_BARRIER, IN_WARP, DONE };

struct copy_async {
    void *to;
    const void *from;
    int bytes;
    bool read;
};

struct fiber {
    emu_where where;
    int index; /* in the block */
    wait_kind state;
    void *sp, *fake; /* fake: the sanitizer's */
    char *stack;
    std::thread::id host; /* whose fiber it is: a sanitizer keeps account of each thread's stacks */
    unsigned mask; /* of the warp operation */
    emu_warp_fn fn;
    const void *in;
    void *out;
    std::vector<copy_async> open;
    std::deque<std::vector<copy_async>> groups;
};

emu_where *emu_now;
static fiber fibers[EMU_MAX_THREADS];
static fiber *current;
static std::vector<int> order; /* of turns, in this block */
static size_t turn, turn_end;  /* whose is next, in order; whose is none of this round's */
static void *main_sp, *main_fake;
static const void *main_stack;
static size_t main_stack_bytes;
static const std::function<void()> *body_now;

static void before_switch(void **fake, const void *stack, size_t bytes) {
#if ASAN
    __sanitizer_start_switch_fiber(fake, stack, bytes);
#else
    (void)fake, (void)stack, (void)bytes;
#endif
}

/* from: the stack that was left; NULL: it is known */
static void after_switch(void *fake, const void **from, size_t *bytes) {
#if ASAN
    __sanitizer_finish_switch_fiber(fake, from, bytes);
#else
    (void)fake, (void)from, (void)bytes;
#endif
}

/* A fiber goes on, or begins. current: who came before, NULL: the host's code */
static void arrive(fiber *f, void *fake) {
    const bool from_main = !current;
    after_switch(fake, from_main ? &main_stack : nullptr, from_main ? &main_stack_bytes : nullptr);
    current = f;
    emu_now = &f->where;
}

static fiber *next_ready() {
    while (turn < turn_end) {
        fiber *f = &fibers[order[turn++]];
        if (f->state == READY) return f;
    }
    return nullptr;
}

/* To the next whose turn it is, or to the host's code after the last. */
static void yield_turn(wait_kind why) {
    fiber *f = current;
    f->state = why;
    fiber *to = next_ready();
    if (to)
        before_switch(&f->fake, to->stack, STACK_BYTES);
    else
        before_switch(&f->fake, main_stack, main_stack_bytes);
    emu_swap(&f->sp, to ? to->sp : main_sp);
    arrive(f, f->fake);
}

static void fiber_main() {
    arrive(&fibers[order[turn - 1]], nullptr);
    for (;;) { /* a thread of one block after the other: new stacks for each block would cost more than most kernels */
        (*body_now)();
        yield_turn(DONE);
    }
}

static void resume(fiber *f) {
    before_switch(&main_fake, f->stack, STACK_BYTES);
    emu_swap(&main_sp, f->sp);
    after_switch(main_fake, nullptr, nullptr);
    emu_now = nullptr;
    current = nullptr;
}

static void start_fiber(fiber *f) {
    f->state = READY;
    f->open.clear();
    f->groups.clear();
    if (f->stack && f->host == std::this_thread::get_id()) return; /* it waits in fiber_main */
    f->host = std::this_thread::get_id();
    if (!f->stack) f->stack = static_cast<char *>(aligned_alloc(4096, STACK_BYTES));
#if ASAN
    __asan_unpoison_memory_region(f->stack, STACK_BYTES);
#endif
    void **top = reinterpret_cast<void **>(f->stack + STACK_BYTES);
    *--top = nullptr; /* fiber_main begins as if called: the stack is 8 off 16 */
    *--top = reinterpret_cast<void *>(fiber_main);
    for (int i = 0; i < 6; i++) *--top = nullptr;
    f->sp = top;
    f->fake = nullptr;
}

/* ---- what kernels wait for ---- */

void emu_barrier() { yield_turn(AT_BARRIER); }

int emu_lane() { return current->index % 32; }

void emu_warp(unsigned mask, emu_warp_fn fn, const void *in, void *out) {
    fiber *f = current;
    if (!(mask >> emu_lane() & 1)) emu_fail("a warp operation by a lane outside its mask");
    f->mask = mask;
    f->fn = fn;
    f->in = in;
    f->out = out;
    yield_turn(IN_WARP);
}

static void ballot(const void *const in[32], void *const out[32], unsigned mask) {
    unsigned bits = 0;
    for (int i = 0; i < 32; i++)
        if (mask >> i & 1) bits |= (unsigned)(*static_cast<const int *>(in[i]) != 0) << i;
    for (int i = 0; i < 32; i++)
        if (mask >> i & 1) *static_cast<unsigned *>(out[i]) = bits;
}

unsigned __ballot_sync(unsigned mask, int predicate) {
    unsigned out;
    emu_warp(mask, ballot, &predicate, &out);
    return out;
}

void emu_cp_async(void *shared, const void *global, int bytes, bool read) {
    if (reinterpret_cast<uintptr_t>(shared) % (unsigned)bytes || (read && reinterpret_cast<uintptr_t>(global) % (unsigned)bytes))
        emu_fail("an asynchronous copy that is not aligned to its size");
    memset(shared, 0xff, (size_t)bytes); /* from here on nobody may read there, and until the wait nothing has come */
    current->open.push_back({shared, global, bytes, read});
}

void emu_cp_commit() {
    current->groups.push_back(std::move(current->open));
    current->open.clear();
}

void emu_cp_wait(int groups_left) {
    while ((int)current->groups.size() > groups_left) {
        for (const copy_async &c : current->groups.front())
            if (c.read)
                memcpy(c.to, c.from, (size_t)c.bytes);
            else
                memset(c.to, 0, (size_t)c.bytes);
        current->groups.pop_front();
    }
}

/* ---- one grid ---- */

std::string emu_setting(const char *name, const char *otherwise) {
    const char *v = getenv(name);
    return v && *v ? v : otherwise;
}

static std::vector<int> order_of(int n) {
    static const std::string how = emu_setting("EMU_ORDER", "forward");
    static std::mt19937 random(12345);
    std::vector<int> o((size_t)n);
    for (int i = 0; i < n; i++) o[(size_t)i] = how == "reverse" ? n - 1 - i : i;
    if (how == "shuffle") std::shuffle(o.begin(), o.end(), random);
    return o;
}

/* Lets a warp's lanes go on when all that one of them waits for are there. */
static bool meet(int first, int n) {
    bool any = false;
    for (int i = first; i < n && i < first + 32; i++) {
        fiber *f = &fibers[i];
        if (f->state != IN_WARP) continue;
        const void *in[32] = {};
        void *out[32] = {};
        bool all = true;
        for (int l = 0; l < 32 && all; l++) {
            if (!(f->mask >> l & 1)) continue;
            if (first + l >= n) continue; /* a block that does not fill its last warp */
            fiber *g = &fibers[first + l];
            if (g->state == DONE) emu_fail("a warp operation waits for a lane that has ended");
            all = g->state == IN_WARP && g->mask == f->mask && g->fn == f->fn;
            in[l] = g->in;
            out[l] = g->out;
        }
        if (!all) continue;
        unsigned mask = f->mask;
        for (int l = 0; l < 32; l++)
            if (first + l >= n) mask &= ~(1u << l);
        f->fn(in, out, mask);
        for (int l = 0; l < 32; l++)
            if (mask >> l & 1) fibers[first + l].state = READY;
        any = true;
    }
    return any;
}

/* Those from turn `from` up to `upto` of the order each go on to what they wait for, and warps that have met go on. False: none
 * could. */
static bool run_turns(size_t from, size_t upto, int n) {
    turn = from;
    turn_end = upto;
    fiber *first = next_ready();
    bool progress = first != nullptr;
    if (first) resume(first);
    for (size_t i = from; i < upto; i++)
        if (fibers[order[i]].state == IN_WARP) progress = meet(order[i] / 32 * 32, n) || progress;
    return progress;
}

/* Forward and in reverse each warp goes as far as it can before the next one begins: nothing but a barrier keeps warps together.
 * Shuffled, all take their turns side by side. */
static void run_block(int n) {
    static const bool beside = emu_setting("EMU_ORDER", "forward") == "shuffle";
    order = order_of(n);
    for (;;) {
        for (size_t from = 0, upto; from < order.size(); from = upto) {
            for (upto = from + 1; upto < order.size() && (beside || order[upto] / 32 == order[from] / 32);) upto++;
            while (run_turns(from, upto, n)) continue;
        }
        int at_barrier = 0, done = 0;
        for (int i = 0; i < n; i++) {
            at_barrier += fibers[i].state == AT_BARRIER;
            done += fibers[i].state == DONE;
        }
        if (done == n) return;
        if (at_barrier < n) emu_fail(done ? "a barrier that some threads never reach" : "lanes that wait for each other for ever");
        for (int i = 0; i < n; i++) fibers[i].state = READY;
    }
}

void emu_run_grid(dim3 grid, dim3 block, size_t shared, const std::function<void()> &body) {
    static const int fill = std::stoi(emu_setting("EMU_SHARED", "255"), nullptr, 0); /* 0xffffffff is a NaN */
    const int n = (int)(block.x * block.y * block.z);
    std::unique_ptr<uint8_t, decltype(&free)> room(static_cast<uint8_t *>(aligned_alloc(1024, (shared + 1024) / 1024 * 1024)), free);
#if ASAN
    __asan_poison_memory_region(room.get() + shared, (shared + 1024) / 1024 * 1024 - shared);
#endif
    body_now = &body;
    for (int b : order_of((int)(grid.x * grid.y * grid.z))) {
        memset(room.get(), fill, shared);
        for (int i = 0; i < n; i++) {
            fiber *f = &fibers[i];
            unsigned t = (unsigned)i, k = (unsigned)b;
            f->index = i;
            f->where = {{t % block.x, t / block.x % block.y, t / block.x / block.y},
                        {k % grid.x, k / grid.x % grid.y, k / grid.x / grid.y},
                        block,
                        grid,
                        room.get()};
            start_fiber(f);
        }
        run_block(n);
    }
#if ASAN
    __asan_unpoison_memory_region(room.get(), (shared + 1024) / 1024 * 1024);
#endif
}
