/* runtime.cpp - the CUDA runtime's calls on the host, so that a backend's logic is tested without a GPU; kernels run in emu.cpp.
 *
 * Streams: work is kept until somebody waits for it (EMU_STREAMS = lazy, the default) or done at once (eager). Device
 * memory is poisoned for the host but while device work runs, as is pinned memory that a copy is on its way to: with
 * AddressSanitizer a read too early, or of a device pointer, is caught. So is, always, a write into pinned memory that a copy
 * has not read yet. A copy from memory that is not pinned waits for its stream.
 * Devices: two; each thread has a current one, the first until it says otherwise. Stricter than the runtime: whatever belongs
 * to a device (streams, events, memory, pinned memory too, graphs) can be used only while that one is current, so that a call
 * that would go to the wrong device is an error. EMU_CAPABILITY = their compute capability (9.0); there is code for 9.0 and
 * later. Once one kernel was loaded before its launch, another that was not is an error. EMU_MEMORY = each one's bytes (4 GiB);
 * EMU_FAIL_FILE = path: once a file is there the next grid that runs breaks them for good, as an illegal address does.
 * Threads: one host thread at a time. Owner: everything lives until the matching destroy call. */
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include <unistd.h>

#include "emu.h"

/* ---- memory ---- */

enum { DEVICES = 2, STATIC_SHARED = 48 << 10, OPTIN_SHARED = 227 << 10 };
static thread_local int device_now; /* index of the calling thread's device */
struct piece {
    size_t bytes;
    int device;
};
static std::map<char *, piece> device_memory, pinned_memory;
static std::map<char *, size_t> managed_memory;
static size_t large_bytes[DEVICES], small_bytes[DEVICES]; /* what is taken; small ones share blocks */
static const size_t BLOCK = 2 << 20;
static const size_t DEVICE_BYTES = std::stoull(emu_setting("EMU_MEMORY", "4294967296"));
static int device_work[DEVICES]; /* nested */

#if ASAN
/* An eighth of it, in stripes, straight in the sanitizer's own map: a byte for eight. */
__attribute__((no_sanitize("address"))) static void guard_large(char *p, size_t n, bool closed) {
    size_t scale, offset;
    __asan_get_shadow_mapping(&scale, &offset);
    for (size_t at = 0; at + 512 <= n; at += 4096) {
        volatile uint64_t *map = reinterpret_cast<volatile uint64_t *>((reinterpret_cast<size_t>(p + at) >> scale) + offset);
        for (int i = 0; i < 8; i++) map[i] = closed ? 0xf7f7f7f7f7f7f7f7u : 0;
    }
}
#endif

/* Opened and closed with each piece of work. */
static void guard(char *p, size_t n, bool closed) {
#if ASAN
    if (n >= 4 << 20) {
        guard_large(p, n, closed);
    } else if (closed) {
        __asan_poison_memory_region(p, n);
    } else {
        __asan_unpoison_memory_region(p, n);
    }
#else
    (void)p, (void)n, (void)closed;
#endif
}

struct on_device { /* while one lives, that device's memory can be touched */
    const int device;
    explicit on_device(int of) : device(of) {
        if (device_work[device]++ == 0) close_all(false);
    }
    ~on_device() {
        if (--device_work[device] == 0) close_all(true);
    }
    void close_all(bool closed) {
        for (auto &m : device_memory)
            if (m.second.device == device) guard(m.first, m.second.bytes, closed);
    }
};

/* Of the current device. */
static bool lies_in(const std::map<char *, piece> &all, const void *p, size_t n) {
    char *c = static_cast<char *>(const_cast<void *>(p));
    auto at = all.upper_bound(c);
    if (at == all.begin()) return false;
    --at;
    return at->second.device == device_now && c >= at->first && c + n <= at->first + at->second.bytes;
}

/* As guard, for pinned memory. A sanitizer guards eight bytes at a time: what ends with its allocation is closed to the full
 * eight. */
static void guard_pinned(char *p, size_t n, bool closed) {
    auto at = std::prev(pinned_memory.upper_bound(p));
    guard(p, p + n == at->first + at->second.bytes ? (n + 7) / 8 * 8 : n, closed);
}

/* ---- streams ---- */

struct CUevent_st {
    int device;
    cudaStream_t stream;
    size_t upto; /* ops of that stream before it */
    bool timed;
    std::shared_ptr<double> ms; /* when it was reached */
};
struct CUgraph_st {
    int device;
    std::vector<std::function<void()>> ops;
    std::vector<std::pair<char *, size_t>> lands; /* pinned memory that its copies go to */
};
struct CUgraphExec_st {
    CUgraph_st g;
};
struct CUstream_st {
    int device;
    std::deque<std::function<void()>> ops;
    size_t n_done = 0, n_added = 0;
    cudaGraph_t capture = nullptr;
};

/* Set once a grid has broken the device: from then on nothing runs, and every call says so. */
static cudaError_t broken;
static std::vector<cudaStream_t> streams;
static thread_local cudaError_t last_error;

static cudaError_t note(cudaError_t e) {
    if (broken) e = broken;
    if (e != cudaSuccess) last_error = e;
    return e;
}

/* Is it another device's than the calling thread's? */
template <class T> static bool foreign(const T *of) { return of->device != device_now; }
static cudaError_t refused() { return note(cudaErrorInvalidResourceHandle); }

static void drain(cudaStream_t s, size_t upto) {
    on_device open(s->device);
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
    static const bool eager = emu_setting("EMU_STREAMS", "lazy") == "eager";
    if (!s) emu_fail("the legacy stream is not used");
    if (foreign(s)) return refused();
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
    static std::map<const void *, size_t> limits[DEVICES];
    return limits[device_now];
}

static void run_grid(dim3 grid, dim3 block, size_t shared, const std::function<void()> &body) {
    static const std::string fail_file = emu_setting("EMU_FAIL_FILE", "");
    if (!broken && !fail_file.empty() && access(fail_file.c_str(), F_OK) == 0) broken = cudaErrorLaunchFailure;
    if (broken) return;
    emu_run_grid(grid, block, shared, body);
}

/* 90 for 9.0 */
static int capability() {
    static const double is = std::stod(emu_setting("EMU_CAPABILITY", "9.0"));
    return (int)(is * 10 + 0.5);
}

static std::set<const void *> loaded[DEVICES];

cudaError_t emu_launch(const void *kernel, dim3 grid, dim3 block, size_t shared, cudaStream_t s, std::function<void()> body) {
    size_t n = (size_t)block.x * block.y * block.z, limit = STATIC_SHARED;
    if (capability() < 90) return note(cudaErrorNoKernelImageForDevice);
    if (kernel && !loaded[device_now].empty() && !loaded[device_now].count(kernel)) emu_fail("a kernel that was not loaded with the others");
    auto set = shared_limits().find(kernel);
    if (set != shared_limits().end()) limit = set->second;
    if (n < 1 || n > EMU_MAX_THREADS || block.z > 64 || grid.x < 1 || grid.y < 1 || grid.z < 1 || grid.x > 2147483647u || grid.y > 65535 ||
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
    case cudaErrorNoKernelImageForDevice: return "no kernel image is available for execution on the device";
    case cudaErrorInvalidResourceHandle: return "invalid resource handle";
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
    *n = DEVICES;
    return cudaSuccess;
}
cudaError_t cudaSetDevice(int i) {
    if (i < 0 || i >= DEVICES) return note(cudaErrorInvalidDevice);
    device_now = i;
    return note(cudaSuccess);
}
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int i) {
    if (i < 0 || i >= DEVICES) return note(cudaErrorInvalidDevice);
    *p = cudaDeviceProp{};
    snprintf(p->name, sizeof p->name, "emulated");
    p->totalGlobalMem = DEVICE_BYTES;
    p->sharedMemPerBlockOptin = OPTIN_SHARED;
    p->major = capability() / 10;
    p->minor = capability() % 10;
    p->multiProcessorCount = 4;
    p->l2CacheSize = 1 << 20;
    return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int *v) {
    *v = CUDART_VERSION;
    return cudaSuccess;
}
/* With n more. Allocations below half a block lie together in blocks, so the smallest one may take a whole block or nothing. */
static size_t taken_bytes(size_t n) {
    const bool small = n < BLOCK / 2;
    return large_bytes[device_now] + (small ? 0 : n) + (small_bytes[device_now] + (small ? n : 0) + BLOCK - 1) / BLOCK * BLOCK;
}
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total) {
    *free_bytes = DEVICE_BYTES - std::min(DEVICE_BYTES, taken_bytes(0));
    *total = DEVICE_BYTES;
    return note(cudaSuccess);
}

cudaError_t cudaMalloc(void **p, size_t n) {
    if (broken) return note(broken);
    if (capturing()) return note(cudaErrorStreamCaptureUnsupported);
    if (taken_bytes(n) > DEVICE_BYTES) return note(cudaErrorMemoryAllocation);
    char *c = static_cast<char *>(aligned_alloc(256, (n + 511) / 256 * 256));
    if (!c) return note(cudaErrorMemoryAllocation);
    memset(c, 0xff, (n + 511) / 256 * 256); /* NaNs: nobody may count on zeros */
    (n < BLOCK / 2 ? small_bytes : large_bytes)[device_now] += n;
    device_memory[c] = {n, device_now};
    guard(c + n, (n + 511) / 256 * 256 - n, true); /* no access to what lies behind at any time */
    guard(c, n, !device_work[device_now]);
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
    if (foreign(&at->second)) return refused();
    (at->second.bytes < BLOCK / 2 ? small_bytes : large_bytes)[device_now] -= at->second.bytes;
    guard(at->first, at->second.bytes, false);
    guard(at->first + at->second.bytes, (at->second.bytes + 511) / 256 * 256 - at->second.bytes, false);
    device_memory.erase(at);
    free(p);
    return cudaSuccess;
}
cudaError_t cudaMallocHost(void **p, size_t n) {
    char *c = static_cast<char *>(aligned_alloc(256, (n + 511) / 256 * 256));
    if (!c) return note(cudaErrorMemoryAllocation);
    memset(c, 0xff, n);
    pinned_memory[c] = {n, device_now};
    *p = c;
    return cudaSuccess;
}
cudaError_t cudaFreeHost(void *p) {
    if (!p) return cudaSuccess;
    cudaDeviceSynchronize();
    auto at = pinned_memory.find(static_cast<char *>(p));
    if (at == pinned_memory.end()) return note(cudaErrorInvalidValue);
    if (foreign(&at->second)) return refused();
    pinned_memory.erase(at);
    free(p);
    return cudaSuccess;
}

static cudaError_t copy(void *dst, const void *src, size_t n, enum cudaMemcpyKind kind, cudaStream_t s) {
    const bool to = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    const bool from = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    if (broken) return note(broken);
    if (foreign(s)) return refused();
    if (n == 0) return cudaSuccess;
    if (lies_in(device_memory, dst, n) != to || lies_in(device_memory, src, n) != from) return note(cudaErrorInvalidValue);
    char *d = static_cast<char *>(dst);
    if (kind == cudaMemcpyHostToDevice) {
        auto was = std::make_shared<std::vector<char>>(static_cast<const char *>(src), static_cast<const char *>(src) + n);
        const bool pinned = lies_in(pinned_memory, src, n), captured = s->capture;
        cudaError_t e = add(s, [=] {
            if (pinned && !captured && memcmp(src, was->data(), n)) emu_fail("pinned memory was written before it was copied");
            memcpy(d, pinned ? src : was->data(), n);
        });
        if (!pinned && !captured) drain(s, s->n_added); /* the host stops, as it may there */
        return broken ? note(broken) : e;
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
    static CUstream_st s[DEVICES];
    s[device_now].device = device_now;
    return &s[device_now];
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
    (*s)->device = device_now;
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
    if (foreign(s)) return refused();
    if (s->capture) return note(cudaErrorStreamCaptureUnsupported);
    drain(s, s->n_added);
    return note(cudaSuccess);
}
cudaError_t cudaStreamQuery(cudaStream_t s) {
    if (broken) return note(broken);
    if (foreign(s)) return refused();
    return s->n_done == s->n_added ? cudaSuccess : note(cudaErrorNotReady);
}
cudaError_t cudaStreamDestroy(cudaStream_t s) {
    if (!s) return cudaSuccess;
    if (foreign(s)) return refused();
    drain(s, s->n_added);
    streams.erase(std::find(streams.begin(), streams.end(), s));
    delete s;
    return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize(void) {
    if (capturing()) return note(cudaErrorStreamCaptureUnsupported);
    for (size_t i = 0; i < streams.size(); i++)
        if (!foreign(streams[i])) drain(streams[i], streams[i]->n_added);
    return note(cudaSuccess);
}

cudaError_t cudaDeviceReset(void) {
    for (auto &m : device_memory)
        if (!foreign(&m.second)) emu_fail("a device is reset that is in use");
    loaded[device_now].clear();
    return note(cudaSuccess);
}

static double now_ms() {
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count();
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned flags) {
    *e = new CUevent_st{device_now, nullptr, 0, !(flags & cudaEventDisableTiming), nullptr};
    return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t e) {
    if (foreign(e)) return refused();
    delete e;
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s) {
    if (foreign(e) || foreign(s)) return refused();
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
    if (foreign(e) || foreign(s)) return refused();
    if (!e->stream || s->capture) return cudaSuccess;
    cudaStream_t other = e->stream;
    size_t upto = e->upto;
    return add(s, [=] { drain(other, upto); });
}
cudaError_t cudaEventSynchronize(cudaEvent_t e) {
    if (foreign(e)) return refused();
    if (e->stream) drain(e->stream, e->upto);
    return note(cudaSuccess);
}
/* Who asks again and again sees time pass. As with the runtime, that it is not over is found by who asks for the last error. */
cudaError_t cudaEventQuery(cudaEvent_t e) {
    if (foreign(e)) return refused();
    if (!e->stream || e->stream->n_done >= e->upto) return cudaSuccess;
    drain(e->stream, e->stream->n_done + 1);
    return note(cudaErrorNotReady);
}
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to) {
    for (cudaEvent_t e : {from, to}) {
        if (foreign(e)) return refused();
        if (!e->timed || !e->stream) return note(cudaErrorInvalidResourceHandle);
        if (e->stream->n_done < e->upto) return note(cudaErrorNotReady);
    }
    *ms = (float)(*to->ms - *from->ms);
    return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t s, enum cudaStreamCaptureMode) {
    if (foreign(s)) return refused();
    if (s->capture) return note(cudaErrorStreamCaptureUnsupported);
    s->capture = new CUgraph_st;
    s->capture->device = s->device;
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *g) {
    if (foreign(s)) return refused();
    if (!s->capture) return note(cudaErrorInvalidValue);
    *g = s->capture;
    s->capture = nullptr;
    return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *x, cudaGraph_t g, unsigned long long) {
    if (foreign(g)) return refused();
    *x = new CUgraphExec_st{*g};
    return cudaSuccess;
}
cudaError_t cudaGraphUpload(cudaGraphExec_t x, cudaStream_t s) {
    if (foreign(&x->g) || foreign(s)) return refused();
    return s->capture ? note(cudaErrorStreamCaptureUnsupported) : cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t x, cudaStream_t s) {
    if (foreign(&x->g) || foreign(s)) return refused();
    auto ops = std::make_shared<std::vector<std::function<void()>>>(x->g.ops);
    for (const auto &l : x->g.lands) guard_pinned(l.first, l.second, true);
    return add(s, [=] {
        for (const auto &op : *ops) op();
    });
}
cudaError_t cudaGraphDestroy(cudaGraph_t g) {
    if (foreign(g)) return refused();
    delete g;
    return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t x) {
    if (foreign(&x->g)) return refused();
    delete x;
    return cudaSuccess;
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *a, const void *kernel) {
    if (capability() < 90) return note(cudaErrorNoKernelImageForDevice);
    *a = cudaFuncAttributes{};
    loaded[device_now].insert(kernel);
    return note(cudaSuccess);
}
cudaError_t cudaFuncSetAttribute(const void *kernel, enum cudaFuncAttribute, int value) {
    if (value > OPTIN_SHARED) return note(cudaErrorInvalidValue);
    shared_limits()[kernel] = (size_t)value;
    return cudaSuccess;
}

} /* extern "C" */
