/* emu.cpp - runs CUDA kernels and the runtime's calls on the host, so that a backend's logic is tested without a GPU.
 *
 * Grid: one block after the other; the threads of a block are fibers that run until they wait (barrier, warp operation) or
 * end. Blocks, warps and lanes take their turns by EMU_ORDER = forward | reverse | shuffle, a warp as long as nothing but itself
 * holds it up, or (shuffle) all side by side; shared memory starts as NaN, or as EMU_SHARED's byte: results must not depend on
 * either.
 * Streams: work is kept until somebody waits for it (EMU_STREAMS = lazy, the default) or done at once (eager). Device
 * memory is poisoned for the host but while device work runs, as is pinned memory that a copy is on its way to: with
 * AddressSanitizer a read too early, or of a device pointer, is caught.
 * The device: EMU_MEMORY = its bytes (4 GiB); EMU_FAIL_LAUNCH = n: the n-th grid that runs breaks it for good, as an
 * illegal address does.
 * Threads: one host thread. Owner: everything lives until the matching destroy call. x86-64. */
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "cuda_runtime.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define ASAN 1
#else
#define ASAN 0
#endif

enum { MAX_THREADS = 1024, STACK_BYTES = 256 << 10, STATIC_SHARED = 48 << 10, OPTIN_SHARED = 227 << 10 };

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
static fiber fibers[MAX_THREADS];
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

static std::string setting(const char *name, const char *otherwise) {
    const char *v = getenv(name);
    return v && *v ? v : otherwise;
}

static std::vector<int> order_of(int n) {
    static const std::string how = setting("EMU_ORDER", "forward");
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
    static const bool beside = setting("EMU_ORDER", "forward") == "shuffle";
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

/* Set once a grid has broken the device: from then on nothing runs, and every call says so. */
static cudaError_t broken;

static void run_grid(dim3 grid, dim3 block, size_t shared, const std::function<void()> &body) {
    static const int fill = std::stoi(setting("EMU_SHARED", "255"), nullptr, 0); /* 0xffffffff is a NaN */
    static const long fail_at = std::stol(setting("EMU_FAIL_LAUNCH", "0"));
    static long n_run;
    if (!broken && ++n_run == fail_at) broken = cudaErrorLaunchFailure;
    if (broken) return;
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

/* ---- memory ---- */

static std::map<char *, size_t> device_memory, pinned_memory, managed_memory;
static size_t device_bytes;
static const size_t DEVICE_BYTES = std::stoull(setting("EMU_MEMORY", "4294967296"));
static int device_work; /* nested */

static void guard(char *p, size_t n, bool closed) {
#if ASAN
    if (closed)
        __asan_poison_memory_region(p, n);
    else
        __asan_unpoison_memory_region(p, n);
#else
    (void)p, (void)n, (void)closed;
#endif
}

struct on_device { /* while one lives, device memory can be touched */
    on_device() {
        if (device_work++ == 0)
            for (auto &m : device_memory) guard(m.first, m.second, false);
    }
    ~on_device() {
        if (--device_work == 0)
            for (auto &m : device_memory) guard(m.first, m.second, true);
    }
};

static bool lies_in(const std::map<char *, size_t> &all, const void *p, size_t n) {
    char *c = static_cast<char *>(const_cast<void *>(p));
    auto at = all.upper_bound(c);
    if (at == all.begin()) return false;
    --at;
    return c >= at->first && c + n <= at->first + at->second;
}

/* As guard, for pinned memory. A sanitizer guards eight bytes at a time: what ends with its allocation is closed to the full
 * eight. */
static void guard_pinned(char *p, size_t n, bool closed) {
    auto at = std::prev(pinned_memory.upper_bound(p));
    guard(p, p + n == at->first + at->second ? (n + 7) / 8 * 8 : n, closed);
}

/* ---- streams ---- */

struct CUevent_st {
    cudaStream_t stream;
    size_t upto; /* ops of that stream before it */
    bool timed;
    std::shared_ptr<double> ms; /* when it was reached */
};
struct CUgraph_st {
    std::vector<std::function<void()>> ops;
    std::vector<std::pair<char *, size_t>> lands; /* pinned memory that its copies go to */
};
struct CUgraphExec_st {
    CUgraph_st g;
};
struct CUstream_st {
    std::deque<std::function<void()>> ops;
    size_t n_done = 0, n_added = 0;
    cudaGraph_t capture = nullptr;
};

static std::vector<cudaStream_t> streams;
static cudaError_t last_error;

static cudaError_t note(cudaError_t e) {
    if (broken) e = broken;
    if (e != cudaSuccess) last_error = e;
    return e;
}

static void drain(cudaStream_t s, size_t upto) {
    on_device open;
    while (s->n_done < upto) {
        std::function<void()> op = std::move(s->ops.front());
        s->ops.pop_front();
        op();
        s->n_done++;
    }
}

static bool capturing() {
    return std::any_of(streams.begin(), streams.end(), [](cudaStream_t s) { return s->capture; });
}

static cudaError_t add(cudaStream_t s, std::function<void()> op) {
    static const bool eager = setting("EMU_STREAMS", "lazy") == "eager";
    if (!s) emu_fail("the legacy stream is not used");
    if (s->capture) {
        s->capture->ops.push_back(std::move(op));
        return cudaSuccess;
    }
    s->ops.push_back(std::move(op));
    s->n_added++;
    if (eager) drain(s, s->n_added);
    return broken;
}


static std::map<const void *, size_t> &shared_limits() {
    static std::map<const void *, size_t> limits;
    return limits;
}

cudaError_t emu_launch(const void *kernel, dim3 grid, dim3 block, size_t shared, cudaStream_t s, std::function<void()> body) {
    size_t n = (size_t)block.x * block.y * block.z, limit = STATIC_SHARED;
    auto set = shared_limits().find(kernel);
    if (set != shared_limits().end()) limit = set->second;
    if (n < 1 || n > MAX_THREADS || block.z > 64 || grid.x < 1 || grid.y < 1 || grid.z < 1 || grid.x > 2147483647u || grid.y > 65535 ||
        grid.z > 65535 || shared > limit)
        return note(cudaErrorInvalidConfiguration);
    return note(add(s, [=] { run_grid(grid, block, shared, body); }));
}

extern "C" {

const char *cudaGetErrorString(cudaError_t e) {
    switch (e) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInvalidConfiguration: return "invalid configuration argument";
    case cudaErrorStreamCaptureUnsupported: return "operation not permitted when stream is capturing";
    case cudaErrorInvalidDevice: return "invalid device ordinal";
    case cudaErrorLaunchFailure: return "unspecified launch failure";
    default: return "unknown error";
    }
}
const char *cudaGetErrorName(cudaError_t e) { return cudaGetErrorString(e); }
cudaError_t cudaGetLastError(void) {
    cudaError_t e = last_error;
    last_error = broken;
    return e;
}
cudaError_t cudaPeekAtLastError(void) { return last_error; }

cudaError_t cudaGetDeviceCount(int *n) {
    *n = 1;
    return cudaSuccess;
}
cudaError_t cudaSetDevice(int i) { return note(i == 0 ? cudaSuccess : cudaErrorInvalidDevice); }
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int i) {
    if (i != 0) return note(cudaErrorInvalidDevice);
    *p = cudaDeviceProp{};
    snprintf(p->name, sizeof p->name, "emulated");
    p->totalGlobalMem = DEVICE_BYTES;
    p->sharedMemPerBlockOptin = OPTIN_SHARED;
    p->major = 9;
    p->multiProcessorCount = 4;
    p->l2CacheSize = 1 << 20;
    return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int *v) {
    *v = CUDART_VERSION;
    return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total) {
    *free_bytes = DEVICE_BYTES - device_bytes;
    *total = DEVICE_BYTES;
    return note(cudaSuccess);
}

cudaError_t cudaMalloc(void **p, size_t n) {
    if (broken) return note(broken);
    if (capturing()) return note(cudaErrorStreamCaptureUnsupported);
    if (n > DEVICE_BYTES - device_bytes) return note(cudaErrorMemoryAllocation);
    char *c = static_cast<char *>(aligned_alloc(256, (n + 511) / 256 * 256));
    if (!c) return note(cudaErrorMemoryAllocation);
    memset(c, 0xff, (n + 511) / 256 * 256); /* NaNs: nobody may count on zeros */
    device_bytes += n;
    device_memory[c] = n;
    guard(c, (n + 511) / 256 * 256, true); /* also what lies behind: no access there at any time */
    if (device_work) guard(c, n, false);
    *p = c;
    return cudaSuccess;
}
cudaError_t cudaMallocManaged(void **p, size_t n, unsigned) {
    char *c = static_cast<char *>(malloc(n ? n : 1)); /* exactly n: a sanitizer sees what lies beyond */
    if (!c) return note(cudaErrorMemoryAllocation);
    memset(c, 0xff, n);
    managed_memory[c] = n;
    *p = c;
    return cudaSuccess;
}
cudaError_t cudaFree(void *p) {
    if (!p) return cudaSuccess;
    cudaDeviceSynchronize();
    if (managed_memory.erase(static_cast<char *>(p))) {
        free(p);
        return cudaSuccess;
    }
    auto at = device_memory.find(static_cast<char *>(p));
    if (at == device_memory.end()) return note(cudaErrorInvalidValue);
    device_bytes -= at->second;
    guard(at->first, (at->second + 511) / 256 * 256, false);
    device_memory.erase(at);
    free(p);
    return cudaSuccess;
}
cudaError_t cudaMallocHost(void **p, size_t n) {
    char *c = static_cast<char *>(aligned_alloc(256, (n + 511) / 256 * 256));
    if (!c) return note(cudaErrorMemoryAllocation);
    memset(c, 0xff, n);
    pinned_memory[c] = n;
    *p = c;
    return cudaSuccess;
}
cudaError_t cudaFreeHost(void *p) {
    if (!p) return cudaSuccess;
    cudaDeviceSynchronize();
    if (!pinned_memory.erase(static_cast<char *>(p))) return note(cudaErrorInvalidValue);
    free(p);
    return cudaSuccess;
}

static cudaError_t copy(void *dst, const void *src, size_t n, enum cudaMemcpyKind kind, cudaStream_t s) {
    const bool to = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    const bool from = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    if (broken) return note(broken);
    if (n == 0) return cudaSuccess;
    if (lies_in(device_memory, dst, n) != to || lies_in(device_memory, src, n) != from) return note(cudaErrorInvalidValue);
    char *d = static_cast<char *>(dst);
    if (kind == cudaMemcpyHostToDevice && !lies_in(pinned_memory, src, n)) { /* staged before the call returns */
        auto staged = std::make_shared<std::vector<char>>(static_cast<const char *>(src), static_cast<const char *>(src) + n);
        return add(s, [=] { memcpy(d, staged->data(), n); });
    }
    if (kind == cudaMemcpyDeviceToHost) {
        const bool pinned = lies_in(pinned_memory, dst, n);
        if (s->capture && !pinned) emu_fail("a graph that copies to pageable memory");
        if (s->capture)
            s->capture->lands.push_back({d, n});
        else
            memset(d, 0xa5, n);
        if (pinned && !s->capture) guard_pinned(d, n, true);
        cudaError_t e = add(s, [=] {
            if (pinned) guard_pinned(d, n, false);
            memcpy(d, src, n);
        });
        if (!pinned && !s->capture) drain(s, s->n_added);
        return broken ? note(broken) : e;
    }
    return add(s, [=] { memcpy(d, src, n); });
}
cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t n, enum cudaMemcpyKind kind, cudaStream_t s) {
    return copy(dst, src, n, kind, s);
}
static cudaStream_t own_stream() {
    static CUstream_st s;
    return &s;
}
cudaError_t cudaMemcpy(void *dst, const void *src, size_t n, enum cudaMemcpyKind kind) {
    if (capturing()) return note(cudaErrorStreamCaptureUnsupported);
    cudaDeviceSynchronize();
    cudaError_t e = copy(dst, src, n, kind, own_stream());
    drain(own_stream(), own_stream()->n_added);
    return e;
}
cudaError_t cudaMemsetAsync(void *p, int value, size_t n, cudaStream_t s) {
    if (!lies_in(device_memory, p, n)) return note(cudaErrorInvalidValue);
    return add(s, [=] { memset(p, value, n); });
}
cudaError_t cudaMemset(void *p, int value, size_t n) {
    if (capturing()) return note(cudaErrorStreamCaptureUnsupported);
    cudaDeviceSynchronize();
    cudaError_t e = cudaMemsetAsync(p, value, n, own_stream());
    drain(own_stream(), own_stream()->n_added);
    return e;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned) {
    *s = new CUstream_st;
    streams.push_back(*s);
    return cudaSuccess;
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *s, unsigned flags, int) { return cudaStreamCreateWithFlags(s, flags); }
cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
    *least = 0;
    *greatest = -5;
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t s) {
    if (s->capture) return note(cudaErrorStreamCaptureUnsupported);
    drain(s, s->n_added);
    return note(cudaSuccess);
}
cudaError_t cudaStreamQuery(cudaStream_t s) {
    if (broken) return note(broken);
    return s->n_done == s->n_added ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t cudaStreamDestroy(cudaStream_t s) {
    if (!s) return cudaSuccess;
    drain(s, s->n_added);
    streams.erase(std::find(streams.begin(), streams.end(), s));
    delete s;
    return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize(void) {
    if (capturing()) return note(cudaErrorStreamCaptureUnsupported);
    for (size_t i = 0; i < streams.size(); i++) drain(streams[i], streams[i]->n_added);
    return note(cudaSuccess);
}

static double now_ms() {
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count();
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned flags) {
    *e = new CUevent_st{nullptr, 0, !(flags & cudaEventDisableTiming), nullptr};
    return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t e) {
    delete e;
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s) {
    if (s->capture) emu_fail("an event in a graph");
    if (e->timed) {
        auto ms = e->ms = std::make_shared<double>();
        add(s, [ms] { *ms = now_ms(); });
    }
    e->stream = s;
    e->upto = s->n_added;
    return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned) {
    if (!e->stream || s->capture) return cudaSuccess;
    cudaStream_t other = e->stream;
    size_t upto = e->upto;
    return add(s, [=] { drain(other, upto); });
}
cudaError_t cudaEventSynchronize(cudaEvent_t e) {
    if (e->stream) drain(e->stream, e->upto);
    return note(cudaSuccess);
}
/* Who asks again and again sees time pass. */
cudaError_t cudaEventQuery(cudaEvent_t e) {
    if (!e->stream || e->stream->n_done >= e->upto) return cudaSuccess;
    drain(e->stream, e->stream->n_done + 1);
    return cudaErrorNotReady;
}
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to) {
    for (cudaEvent_t e : {from, to}) {
        if (!e->timed || !e->stream) return note(cudaErrorInvalidResourceHandle);
        if (e->stream->n_done < e->upto) return cudaErrorNotReady;
    }
    *ms = (float)(*to->ms - *from->ms);
    return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t s, enum cudaStreamCaptureMode) {
    if (s->capture) return note(cudaErrorStreamCaptureUnsupported);
    s->capture = new CUgraph_st;
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *g) {
    if (!s->capture) return note(cudaErrorInvalidValue);
    *g = s->capture;
    s->capture = nullptr;
    return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *x, cudaGraph_t g, unsigned long long) {
    *x = new CUgraphExec_st{*g};
    return cudaSuccess;
}
cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t s) { return s->capture ? note(cudaErrorStreamCaptureUnsupported) : cudaSuccess; }
cudaError_t cudaGraphLaunch(cudaGraphExec_t x, cudaStream_t s) {
    auto ops = std::make_shared<std::vector<std::function<void()>>>(x->g.ops);
    for (const auto &l : x->g.lands) guard_pinned(l.first, l.second, true);
    return add(s, [=] {
        for (const auto &op : *ops) op();
    });
}
cudaError_t cudaGraphDestroy(cudaGraph_t g) {
    delete g;
    return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t x) {
    delete x;
    return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void *kernel, enum cudaFuncAttribute, int value) {
    if (value > OPTIN_SHARED) return note(cudaErrorInvalidValue);
    shared_limits()[kernel] = (size_t)value;
    return cudaSuccess;
}

} /* extern "C" */
