/* test_emu.c - the emulator's own test: that it computes what a GPU would, and that it shows the bugs it is there for. A
 * case that ends the program, or depends on a setting, runs in a process of its own: this program with the case's name. */
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include <cuda_runtime_api.h>

#include "tests/cuda_emu/emu_kernels.h"
#include "tests/ref/ref.h"

enum { N = 64 };

static cudaStream_t new_stream(void) {
    cudaStream_t s;
    if (cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking) != cudaSuccess) abort();
    return s;
}
static void *device(size_t n) {
    void *p = NULL;
    if (cudaMalloc(&p, n) != cudaSuccess) abort();
    return p;
}
static void *uploaded(const void *from, size_t n) {
    void *p = device(n);
    if (cudaMemcpy(p, from, n, cudaMemcpyHostToDevice) != cudaSuccess) abort();
    return p;
}
static void taken(cudaStream_t s, void *to, const void *from, size_t n) {
    if (cudaStreamSynchronize(s) != cudaSuccess ||
        cudaMemcpy(to, from, n, cudaMemcpyDeviceToHost) != cudaSuccess)
        abort();
}

/* ---- cases, in a process of their own ---- */

static void print(const float *x, int n) {
    for (int i = 0; i < n; i++) printf("%g ", isnan(x[i]) ? -99.0 : (double)x[i]);
}

static void case_neighbour(int how) {
    cudaStream_t s = new_stream();
    float *out = device(N * sizeof *out), x[N];
    k_neighbour(s, out, N, (neighbour_how)how);
    taken(s, x, out, sizeof x);
    print(x, N);
}

static void case_copy(int how) {
    cudaStream_t s = new_stream();
    float x[4 * N];
    for (int i = 0; i < 4 * N; i++) x[i] = (float)i;
    float *in = uploaded(x, sizeof x), *out = device(sizeof x);
    k_copy(s, out, in, N, (copy_how)how);
    taken(s, x, out, sizeof x);
    print(x, 4 * N);
}

static void case_shared(int n) {
    cudaStream_t s = new_stream();
    float *out = device(N * sizeof *out), x[N];
    k_shared(s, out, n);
    taken(s, x, out, sizeof x);
    print(x, n);
}

static void case_diverge(int how) {
    cudaStream_t s = new_stream();
    k_diverge(s, (diverge_how)how);
    cudaStreamSynchronize(s);
}

/* how 0: after the wait; 1: before; 2: before, the copy being part of a graph */
static void case_pinned(int how) {
    cudaStream_t s = new_stream();
    float *p, x = 3, *d = uploaded(&x, sizeof x);
    cudaMallocHost((void **)&p, sizeof *p);
    cudaGraph_t g;
    cudaGraphExec_t e;
    if (how == 2) cudaStreamBeginCapture(s, cudaStreamCaptureModeGlobal);
    cudaMemcpyAsync(p, d, sizeof *p, cudaMemcpyDeviceToHost, s);
    if (how == 2 && (cudaStreamEndCapture(s, &g) || cudaGraphInstantiate(&e, g, 0) || cudaGraphLaunch(e, s)))
        abort();
    if (how == 0) cudaStreamSynchronize(s);
    printf("%g", (double)*p);
}

/* A copy out of pinned memory, which is written 0: after the wait; 1: before */
static void case_written(int how) {
    cudaStream_t s = new_stream();
    float *p, *d = device(sizeof *d);
    cudaMallocHost((void **)&p, sizeof *p);
    *p = 3;
    cudaMemcpyAsync(d, p, sizeof *p, cudaMemcpyHostToDevice, s);
    if (how == 0) cudaStreamSynchronize(s);
    *p = 4;
    if (cudaStreamSynchronize(s) != cudaSuccess) abort();
}

static void case_device(int unused) {
    (void)unused;
    float x = 3, *d = uploaded(&x, sizeof x);
    printf("%g", (double)*d);
}

/* 0: within; 1: behind the end of an allocation; 2, 3: the same of shared memory */
static void case_beyond(int how) {
    cudaStream_t s = new_stream();
    float *d = device(5 * sizeof *d);
    if (how < 2)
        k_write(s, d, how ? 5 : 4);
    else
        k_write_shared(s, 100, how == 3 ? 100 : 99);
    cudaStreamSynchronize(s);
}

static void case_freed(int unused) {
    (void)unused;
    cudaStream_t s = new_stream();
    float *d = device(5 * sizeof *d);
    cudaFree(d);
    k_write(s, d, 0);
    cudaStreamSynchronize(s);
}

/* Once the listed kernels are loaded: 0: one of them; 1: another. */
static void case_late(int how) {
    cudaStream_t s = new_stream();
    k_unlisted(s);
    if (cuk_load(100 << 10) != cudaSuccess) abort();
    if (how)
        k_unlisted(s);
    else
        k_write(s, device(8), 0);
    if (cudaStreamSynchronize(s) != cudaSuccess) abort();
}

static const struct {
    const char *name;
    void (*run)(int how);
} cases[] = {{"neighbour", case_neighbour}, {"copy", case_copy},     {"shared", case_shared},
             {"diverge", case_diverge},     {"pinned", case_pinned}, {"device", case_device},
             {"beyond", case_beyond},       {"freed", case_freed},   {"late", case_late},
             {"written", case_written}};

/* What it wrote, in out; true when it ended well. */
static bool run_case(const char *name, int how, const char *order, char out[8192]) {
    int to[2];
    char number[16];
    snprintf(number, sizeof number, "%d", how);
    assert_int_equal(pipe(to), 0);
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        dup2(to[1], 1);
        dup2(to[1], 2);
        close(to[0]);
        close(to[1]);
        setenv("EMU_ORDER", order, 1);
        setenv("EMU_STREAMS", "lazy", 1);
        setenv("EMU_SHARED", "0xff", 1);
        execl("/proc/self/exe", "test_emu", name, number, (char *)NULL);
        _exit(127);
    }
    close(to[1]);
    size_t n = 0;
    char rest[4096];
    for (ssize_t got; (got = read(to[0], n < 8191 ? out + n : rest, n < 8191 ? 8191 - n : sizeof rest)) > 0;)
        if (n < 8191) n += (size_t)got;
    out[n] = 0;
    close(to[0]);
    int st = 0;
    assert_int_equal(waitpid(pid, &st, 0), pid);
    return WIFEXITED(st) && WEXITSTATUS(st) == 0;
}

static void expect_death(const char *name, int how, const char *text) {
    char out[8192];
    if (run_case(name, how, "forward", out)) fail_msg("%s %d went well: %s", name, how, out);
    if (!strstr(out, text)) fail_msg("%s %d: expected \"%s\" in: %s", name, how, text, out);
}

static const char *const orders[] = {"forward", "reverse", "shuffle"};

/* Do all orders write the same? In out: the first. */
static bool orders_agree(const char *name, int how, char out[8192]) {
    char other[8192];
    bool same = true;
    for (int i = 0; i < 3; i++) {
        if (!run_case(name, how, orders[i], i ? other : out))
            fail_msg("%s %d: %s", name, how, i ? other : out);
        same = same && (i == 0 || strcmp(out, other) == 0);
    }
    return same;
}

/* ---- bugs that have to show ---- */

static void test_missing_barrier(void **state) {
    (void)state;
    char out[8192];
    assert_true(orders_agree("neighbour", NEIGHBOUR_RIGHT, out));
    assert_non_null(strstr(out, "1 2 3 4 5 "));
    assert_false(orders_agree("neighbour", NEIGHBOUR_NOTHING, out));
    assert_false(orders_agree("neighbour", NEIGHBOUR_WARP, out));
}

static void test_missing_wait(void **state) {
    (void)state;
    char out[8192], right[8192];
    assert_true(orders_agree("copy", COPY_RIGHT, right));
    assert_non_null(strstr(right, "4 5 6 7 8 9 "));
    assert_true(orders_agree("copy", COPY_OWN, out));
    assert_non_null(strstr(out, "0 1 2 3 4 5 "));
    run_case("copy", COPY_NO_WAIT, "forward", out);
    assert_true(strncmp(out, "-99 -99 -99 -99 -99 ", 20) == 0); /* nothing has come */
    assert_false(orders_agree("copy", COPY_NO_BARRIER, out));
    assert_false(orders_agree("copy", COPY_TOO_EARLY, out)); /* some read after the next copy began */
}

static void test_shared_start(void **state) {
    (void)state;
    char out[8192];
    assert_true(run_case("shared", 3, "forward", out));
    assert_string_equal(out, "-99 -99 -99 ");
}

static void test_divergence(void **state) {
    (void)state;
    expect_death("diverge", DIVERGE_BARRIER, "a barrier that some threads never reach");
    expect_death("diverge", DIVERGE_ENDED, "a lane that has ended");
    expect_death("diverge", DIVERGE_MASKS, "wait for each other for ever");
    expect_death("diverge", DIVERGE_OUTSIDE, "outside its mask");
    expect_death("diverge", DIVERGE_SOURCE, "from a lane outside its mask");
    expect_death("diverge", DIVERGE_ALIGNMENT, "not aligned");
}

static void test_written_too_early(void **state) {
    (void)state;
    char out[8192];
    assert_true(run_case("written", 0, "forward", out));
    expect_death("written", 1, "written before it was copied");
}

static void test_late_kernel(void **state) {
    (void)state;
    char out[8192];
    assert_true(run_case("late", 0, "forward", out));
    expect_death("late", 1, "not loaded with the others");
}

static void test_memory_guards(void **state) {
    (void)state;
#ifndef __SANITIZE_ADDRESS__
    skip();
#else
    char out[8192];
    assert_true(run_case("pinned", 0, "forward", out));
    assert_string_equal(out, "3");
    expect_death("pinned", 1, "use-after-poison");
    expect_death("pinned", 2, "use-after-poison");
    expect_death("device", 0, "use-after-poison");
    assert_true(run_case("beyond", 0, "forward", out));
    expect_death("beyond", 1, "use-after-poison");
    assert_true(run_case("beyond", 2, "forward", out));
    expect_death("beyond", 3, "use-after-poison");
    expect_death("freed", 0, "heap-use-after-free");
#endif
}

/* ---- what a GPU computes ---- */

static void test_warp(void **state) {
    (void)state;
    cudaStream_t s = new_stream();
    int x[WARP_RESULTS][32], *out = device(sizeof x);
    k_warp(s, out);
    taken(s, x, out, sizeof x);
    unsigned thirds = 0;
    for (int i = 0; i < 32; i += 3) thirds |= 1u << i;
    for (int l = 0; l < 32; l++) {
        const int want[WARP_RESULTS] = {(l ^ 5) * (l ^ 5),
                                        l < 3 ? l * l : (l - 3) * (l - 3),
                                        l > 28 ? l * l : (l + 3) * (l + 3),
                                        (l * 7 % 32) * (l * 7 % 32),
                                        (l / 8 * 8 + 1) * (l / 8 * 8 + 1),
                                        l % 4 ? (l - 1) * (l - 1) : l * l,
                                        (int)thirds,
                                        l < 16 ? (l ^ 1) * (l ^ 1) : (int)0xaaaa0000u,
                                        3,
                                        496 * 100 + 31};
        for (int k = 0; k < WARP_RESULTS; k++)
            if (x[k][l] != want[k])
                fail_msg("result %d, lane %d: expected %d, found %d", k, l, want[k], x[k][l]);
    }
    cudaFree(out);
    cudaStreamDestroy(s);
}

static void test_atomics(void **state) {
    (void)state;
    cudaStream_t s = new_stream();
    int x[5] = {0}, *out = uploaded(x, sizeof x);
    k_atomics(s, out, 3, 40);
    taken(s, x, out, sizeof x);
    assert_int_equal(x[0], 119 * 60);
    assert_int_equal(x[1], 119);
    assert_int_equal(x[2], -119);
    assert_int_equal(x[3], 0x7fffffff);
    assert_int_equal(x[4], 77);
    cudaFree(out);
    cudaStreamDestroy(s);
}

static void test_mma(void **state) {
    (void)state;
    cudaStream_t s = new_stream();
    uint64_t seed = 3;
    for (int way = 0; way < 3; way++) { /* bf16, f16, bf16 from shared memory */
        const dtype type = way == 1 ? DT_F16 : DT_BF16;
        uint16_t a[16][16], b[16][8];
        float d[16][8], got[16][8];
        for (int i = 0; i < 16; i++) {
            for (int k = 0; k < 16; k++) a[i][k] = (way == 1 ? ref_to_f16 : ref_to_bf16)(ref_normal(&seed));
            for (int k = 0; k < 8; k++) {
                b[i][k] = (way == 1 ? ref_to_f16 : ref_to_bf16)(ref_normal(&seed));
                d[i][k] = ref_normal(&seed);
            }
        }
        void *da = uploaded(a, sizeof a), *db = uploaded(b, sizeof b), *dd = uploaded(d, sizeof d);
        if (way == 2)
            k_mma_shared(s, dd, da, db);
        else
            k_mma(s, dd, da, db, way);
        taken(s, got, dd, sizeof got);
        for (int i = 0; i < 16; i++)
            for (int j = 0; j < 8; j++) {
                double want = d[i][j];
                for (int k = 0; k < 16; k++)
                    want += ref_from(type, a, i * 16 + k) * ref_from(type, b, k * 8 + j);
                if (fabs(want - got[i][j]) > 1e-6 * (1 + fabs(want)))
                    fail_msg("%d: %d,%d: expected %g, found %g", way, i, j, want, got[i][j]);
            }
        cudaFree(da);
        cudaFree(db);
        cudaFree(dd);
    }
    cudaStreamDestroy(s);
}

/* A graph is replayed over what the memory then holds. */
static void test_graph(void **state) {
    (void)state;
    cudaStream_t s = new_stream();
    float one = 1, x = 0, *d = uploaded(&one, sizeof one), *y = device(sizeof *y);
    cudaGraph_t g;
    cudaGraphExec_t e;
    assert_int_equal(cudaStreamBeginCapture(s, cudaStreamCaptureModeGlobal), cudaSuccess);
    k_affine(s, d, 1, 2, 1);
    cudaMemcpyAsync(y, d, sizeof *y, cudaMemcpyDeviceToDevice, s);
    void *no = NULL; /* what allocates or waits is not for a capture */
    assert_int_equal(cudaMalloc(&no, 8), cudaErrorStreamCaptureUnsupported);
    assert_int_equal(cudaStreamSynchronize(s), cudaErrorStreamCaptureUnsupported);
    cudaGetLastError();
    assert_int_equal(cudaStreamEndCapture(s, &g), cudaSuccess);
    assert_int_equal(cudaGraphInstantiate(&e, g, 0), cudaSuccess);
    taken(s, &x, d, sizeof x);
    assert_true(x == 1); /* a capture runs nothing */
    cudaGraphLaunch(e, s);
    cudaGraphLaunch(e, s);
    taken(s, &x, y, sizeof x);
    assert_true(x == 7);
    one = 10;
    cudaMemcpyAsync(d, &one, sizeof one, cudaMemcpyHostToDevice, s);
    cudaGraphLaunch(e, s);
    one = 50; /* pageable memory has been read by then */
    taken(s, &x, y, sizeof x);
    assert_true(x == 21);
    cudaGraphExecDestroy(e);
    cudaGraphDestroy(g);
    cudaFree(d);
    cudaFree(y);
    cudaStreamDestroy(s);
}

static void test_streams(void **state) {
    (void)state;
    const char *how = getenv("EMU_STREAMS");
    const bool eager = how && strcmp(how, "eager") == 0;
    cudaStream_t a = new_stream(), b = new_stream();
    cudaEvent_t e;
    cudaEventCreateWithFlags(&e, cudaEventDisableTiming);
    float x = 1, *d = uploaded(&x, sizeof x);
    k_affine(a, d, 1, 1, 1); /* 2 */
    cudaEventRecord(e, a);
    k_affine(a, d, 1, 1, 100); /* after the event */
    assert_int_equal(cudaEventQuery(e), eager ? cudaSuccess : cudaErrorNotReady);
    assert_int_equal(cudaGetLastError(), eager ? cudaSuccess : cudaErrorNotReady);
    assert_int_equal(cudaStreamQuery(a), eager ? cudaSuccess : cudaErrorNotReady);
    cudaGetLastError();
    cudaStreamWaitEvent(b, e, 0);
    k_affine(b, d, 1, 10, 0); /* 20, if a's later work has not come before */
    cudaStreamSynchronize(b);
    assert_int_equal(cudaEventQuery(e), cudaSuccess);
    taken(b, &x, d, sizeof x); /* a plain copy waits for all */
    assert_true(x == (eager ? 1020 : 120));
    k_affine(a, d, 1, 0, 7);
    cudaMemcpyAsync(d, &x, sizeof x, cudaMemcpyHostToDevice,
                    a); /* from memory that is not pinned: it waits */
    assert_int_equal(cudaStreamQuery(a), cudaSuccess);
    k_affine(a, d, 1, 0, 5);
    cudaEventRecord(e, a);
    cudaEventSynchronize(e);
    assert_int_equal(cudaStreamQuery(a), cudaSuccess);
    cudaEventDestroy(e);
    cudaEvent_t timed[2];
    float ms = -1;
    for (int i = 0; i < 2; i++) {
        cudaEventCreateWithFlags(&timed[i], cudaEventDefault);
        cudaEventRecord(timed[i], a);
    }
    assert_int_equal(cudaEventElapsedTime(&ms, timed[0], timed[1]), eager ? cudaSuccess : cudaErrorNotReady);
    cudaGetLastError();
    cudaEventSynchronize(timed[1]);
    assert_int_equal(cudaEventElapsedTime(&ms, timed[0], timed[1]), cudaSuccess);
    assert_true(ms >= 0);
    for (int i = 0; i < 2; i++) cudaEventDestroy(timed[i]);
    cudaFree(d);
    cudaStreamDestroy(a);
    cudaStreamDestroy(b);
}

static void test_limits(void **state) {
    (void)state;
    cudaStream_t s = new_stream();
    int x = 0, *d = uploaded(&x, sizeof x);
    static const struct {
        unsigned gx, gy, gz, threads;
        int shared;
        bool ok;
    } launches[] = {{2, 3, 4, 33, 0, true},    {1, 1, 1, 1024, 0, true},   {1, 1, 1, 1025, 0, false},
                    {0, 1, 1, 32, 0, false},   {1, 65536, 1, 1, 0, false}, {1, 1, 65536, 1, 0, false},
                    {1, 1, 1, 0, 0, false},    {70000, 1, 1, 1, 0, true},  {1, 1, 1, 1, 48 << 10, true},
                    {1, 1, 1, 1, 49153, false}};
    int want = 0;
    for (size_t i = 0; i < sizeof launches / sizeof *launches; i++) {
        k_grid(s, d, launches[i].gx, launches[i].gy, launches[i].gz, launches[i].threads, launches[i].shared);
        assert_int_equal(cudaPeekAtLastError(), launches[i].ok ? cudaSuccess : cudaErrorInvalidConfiguration);
        assert_int_equal(cudaGetLastError(), launches[i].ok ? cudaSuccess : cudaErrorInvalidConfiguration);
        assert_int_equal(cudaGetLastError(), cudaSuccess);
        if (launches[i].ok)
            want += (int)(launches[i].gx * launches[i].gy * launches[i].gz * launches[i].threads);
    }
    k_allow(100 << 10);
    k_grid(s, d, 1, 1, 1, 1, 100 << 10);
    assert_int_equal(cudaGetLastError(), cudaSuccess);
    k_allow(228 << 10);
    assert_int_equal(cudaGetLastError(), cudaErrorInvalidValue);
    taken(s, &x, d, sizeof x);
    assert_int_equal(x, want + 1);
    cudaFree(d);
    cudaStreamDestroy(s);
}

static void test_memory(void **state) {
    (void)state;
    cudaStream_t s = new_stream();
    size_t have, all, left;
    void *p = NULL;
    float x = 1, y;
    cudaMemGetInfo(&have, &all);
    float *d = uploaded(&x, sizeof x);
    cudaMemGetInfo(&left, &all); /* small ones lie in blocks of 2 MiB */
    assert_true(left == have - (2 << 20));
    void *small = device(1 << 19), *large = device(3 << 20);
    cudaMemGetInfo(&left, &all);
    assert_true(left == have - (5 << 20));
    cudaFree(small);
    cudaFree(large);
    assert_int_equal(cudaMalloc(&p, all + 1), cudaErrorMemoryAllocation);
    assert_int_equal(cudaGetLastError(), cudaErrorMemoryAllocation);
    /* a wrong direction, and a copy that is too long */
    assert_int_equal(cudaMemcpyAsync(&y, d, sizeof y, cudaMemcpyHostToDevice, s), cudaErrorInvalidValue);
    assert_int_equal(cudaMemcpyAsync(&y, &x, sizeof y, cudaMemcpyDeviceToHost, s), cudaErrorInvalidValue);
    assert_int_equal(cudaMemcpyAsync(&y, d, sizeof y + 1, cudaMemcpyDeviceToHost, s), cudaErrorInvalidValue);
    assert_int_equal(cudaMemsetAsync(d, 0, sizeof y + 1, s), cudaErrorInvalidValue);
    assert_int_equal(cudaFree(&x), cudaErrorInvalidValue);
    cudaGetLastError();
    assert_int_equal(cudaMallocManaged(&p, sizeof x, cudaMemAttachGlobal), cudaSuccess);
    *(float *)p = 4;
    k_affine(s, p, 1, 2, 1);
    cudaStreamSynchronize(s);
    assert_true(*(float *)p == 9);
    cudaFree(p);
    cudaFree(d);
    cudaMemGetInfo(&left, &all);
    assert_true(left == have);
    cudaStreamDestroy(s);
}

/* What belongs to one device is refused while the other one is current, which each thread says for itself. */
static void *on_first_device(void *refused) {
    cudaStream_t s = new_stream(); /* of this thread's device, whatever the other has chosen */
    *(bool *)refused = cudaStreamSynchronize(s) != cudaSuccess || cudaStreamDestroy(s) != cudaSuccess;
    return NULL;
}

static void test_devices(void **state) {
    (void)state;
    int n = 0;
    float x = 1, y = 0, *p, *q, *d = uploaded(&x, sizeof x);
    cudaGraph_t g;
    cudaGraphExec_t exec;
    cudaEvent_t e;
    cudaStream_t s = new_stream();
    size_t first, second, all;
    assert_int_equal(cudaGetDeviceCount(&n), cudaSuccess);
    assert_int_equal(n, 2);
    assert_int_equal(cudaSetDevice(2), cudaErrorInvalidDevice);
    cudaEventCreateWithFlags(&e, cudaEventDisableTiming);
    cudaMallocHost((void **)&p, sizeof *p);
    cudaStreamBeginCapture(s, cudaStreamCaptureModeGlobal);
    k_affine(s, d, 1, 2, 1);
    cudaStreamEndCapture(s, &g);
    cudaGraphInstantiate(&exec, g, 0);
    cudaMemGetInfo(&first, &all);
    assert_int_equal(cudaSetDevice(1), cudaSuccess);
    cudaMemGetInfo(&second, &all);
    assert_true(first < all && second == all);
    cudaStream_t other = new_stream();
    cudaEvent_t of_other;
    cudaEventCreateWithFlags(&of_other, cudaEventDisableTiming);
    cudaGetLastError();
    const cudaError_t no = cudaErrorInvalidResourceHandle;
    k_affine(s, d, 1, 2, 1);
    assert_int_equal(cudaGetLastError(), no);
    assert_int_equal(cudaMemcpyAsync(&y, d, sizeof y, cudaMemcpyDeviceToHost, s), no);
    assert_int_equal(cudaMemcpyAsync(p, d, sizeof y, cudaMemcpyDeviceToHost, other), cudaErrorInvalidValue);
    assert_int_equal(cudaMemsetAsync(d, 0, sizeof y, other), cudaErrorInvalidValue);
    assert_int_equal(cudaStreamSynchronize(s), no);
    assert_int_equal(cudaStreamQuery(s), no);
    assert_int_equal(cudaStreamBeginCapture(s, cudaStreamCaptureModeGlobal), no);
    assert_int_equal(cudaEventRecord(e, other), no);
    assert_int_equal(cudaEventRecord(of_other, s), no);
    assert_int_equal(cudaStreamWaitEvent(other, e, 0), no);
    assert_int_equal(cudaEventQuery(e), no);
    assert_int_equal(cudaEventSynchronize(e), no);
    assert_int_equal(cudaGraphLaunch(exec, other), no);
    assert_int_equal(cudaGraphLaunch(exec, s), no);
    assert_int_equal(cudaFree(d), no);
    assert_int_equal(cudaFreeHost(p), no);
    assert_int_equal(cudaEventDestroy(e), no);
    assert_int_equal(cudaGraphExecDestroy(exec), no);
    assert_int_equal(cudaGraphDestroy(g), no);
    assert_int_equal(cudaStreamDestroy(s), no);
    cudaGetLastError();
    q = uploaded(&x, sizeof x);
    k_affine(other, q, 1, 10, 0);
    taken(other, &y, q, sizeof y);
    assert_true(y == 10);
    assert_int_equal(cudaFree(q), cudaSuccess);
    pthread_t t;
    bool refused = true;
    assert_int_equal(pthread_create(&t, NULL, on_first_device, &refused), 0);
    pthread_join(t, NULL);
    assert_false(refused);
    cudaEventDestroy(of_other);
    cudaStreamDestroy(other);
    assert_int_equal(cudaSetDevice(0), cudaSuccess);
    assert_int_equal(cudaGraphLaunch(exec, s), cudaSuccess);
    taken(s, &y, d, sizeof y);
    assert_true(y == 3); /* nothing of what was refused has happened */
    cudaGraphExecDestroy(exec);
    cudaGraphDestroy(g);
    cudaEventDestroy(e);
    cudaFreeHost(p);
    cudaFree(d);
    cudaStreamDestroy(s);
}

int main(int argc, char **argv) {
    for (size_t i = 0; argc == 3 && i < sizeof cases / sizeof *cases; i++)
        if (strcmp(argv[1], cases[i].name) == 0) {
            cases[i].run(atoi(argv[2]));
            fflush(stdout);
            _exit(0); /* what a case leaves behind is not its point */
        }
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_missing_barrier),
                                       cmocka_unit_test(test_missing_wait),
                                       cmocka_unit_test(test_shared_start),
                                       cmocka_unit_test(test_divergence),
                                       cmocka_unit_test(test_memory_guards),
                                       cmocka_unit_test(test_warp),
                                       cmocka_unit_test(test_atomics),
                                       cmocka_unit_test(test_mma),
                                       cmocka_unit_test(test_graph),
                                       cmocka_unit_test(test_streams),
                                       cmocka_unit_test(test_limits),
                                       cmocka_unit_test(test_memory),
                                       cmocka_unit_test(test_devices),
                                       cmocka_unit_test(test_late_kernel),
                                       cmocka_unit_test(test_written_too_early)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
