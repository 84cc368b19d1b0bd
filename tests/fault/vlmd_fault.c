/* vlmd_fault.c - the program with faults on demand: build/tests/fault/vlmd_fault.
 *
 * The functions below stand before those of the C library (and of a sanitizer, which they call) for the program and
 * for every library that it loads. VLMD_FAULT names the file by which tests/fault/inject.py counts calls and makes
 * some of them fail; without it, nothing fails. Whose call it is, the return address says. */
#include "server/main.c"

#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <link.h>
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "kernels/backend.h"
#include "tests/fault/wrap.h"

#pragma GCC diagnostic ignored "-Wmissing-prototypes"

#ifdef VLMD_CUDA
/* Stands before the backend's, so that neither that nor CUDA's runtime is linked: the runtime allocates before main does,
 * and does not live when it is refused. */
backend *cuda_backend_new(const backend_options *o, status *st) {
    (void)o;
    status_set(st, ST_UNSUPPORTED, "this program has no CUDA");
    return NULL;
}
#endif

/* ---- who calls ---- */

/* Not libwebp, which crashes itself when it is refused memory within a lossless picture. */
static const char *const libraries[] = {"libmicrohttpd", "libjansson", "libpng",    "libjpeg",
                                        "libgif",        "libpcre2",   "libnettle", "libz."};
typedef struct code_range {
    uintptr_t from, to;
    bool own;
} code_range;
static code_range ranges[64];
static int n_ranges;
static fault_control *control;

static int add_ranges(struct dl_phdr_info *info, size_t size, void *arg) {
    (void)size;
    (void)arg;
    bool own = !info->dlpi_name[0], wanted = own;
    for (size_t i = 0; i < ARRAY_LEN(libraries) && !wanted; i++)
        wanted = strstr(info->dlpi_name, libraries[i]) != NULL;
    for (int i = 0; wanted && i < info->dlpi_phnum && n_ranges < (int)ARRAY_LEN(ranges); i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        if (p->p_type != PT_LOAD || !(p->p_flags & PF_X)) continue;
        ranges[n_ranges++] =
            (code_range){info->dlpi_addr + p->p_vaddr, info->dlpi_addr + p->p_vaddr + p->p_memsz, own};
    }
    if (own && control) atomic_store(&control->base, info->dlpi_addr ? info->dlpi_addr : 1);
    return 0;
}

static const code_range *caller(const void *address) {
    for (int i = 0; i < n_ranges; i++)
        if ((uintptr_t)address >= ranges[i].from && (uintptr_t)address < ranges[i].to) return &ranges[i];
    return NULL;
}

__attribute__((constructor)) static void open_control(void) {
    const char *path = getenv("VLMD_FAULT");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *frames[2], *p = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (p == MAP_FAILED) return;
    backtrace(frames, 2); /* the first call allocates */
    control = p;
    dl_iterate_phdr(add_ranges, NULL);
}

/* ---- whether it fails ---- */

static bool by_chance(fault_kind *k) {
    uint64_t threshold = atomic_load(&k->threshold);
    if (!threshold) return false;
    uint64_t x = atomic_fetch_add(&control->random, 0x9E3779B97F4A7C15u);
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return (x >> 32) < threshold && atomic_fetch_sub(&control->budget, 1) > 0;
}

static void record(uint64_t kind, uint64_t call, void *const *frames, int n) {
    static atomic_flag busy = ATOMIC_FLAG_INIT;
    uint64_t hash = kind + 1;
    for (int i = 0; i < n; i++) hash = (hash ^ (uintptr_t)frames[i]) * 0x100000001B3u;
    while (atomic_flag_test_and_set(&busy)) continue;
    uint64_t at = hash % N_SITES, left = N_SITES;
    while (control->sites[at].hash && control->sites[at].hash != hash && --left) at = (at + 1) % N_SITES;
    fault_site *s = &control->sites[at];
    if (!s->hash) {
        *s = (fault_site){hash, kind, call, call};
        atomic_fetch_add(&control->n_sites, 1);
    }
    if (s->hash == hash) s->last = call;
    atomic_flag_clear(&busy);
}

static __thread bool inside;

static bool fails(enum kind kind, const void *address) {
    const code_range *who = control && !inside ? caller(address) : NULL;
    if (!who) return false;
    inside = true;
    uint64_t index = 2 * (uint64_t)kind + !who->own;
    fault_kind *k = &control->kinds[index];
    uint64_t call = atomic_fetch_add(&k->calls, 1) + 1;
    bool fail = (call >= atomic_load(&k->from) && call <= atomic_load(&k->to)) || by_chance(k);
    if (fail || atomic_load(&control->record)) {
        void *frames[N_FRAMES] = {0};
        int n = backtrace(frames, N_FRAMES);
        if (atomic_load(&control->record)) record(index, call, frames, n);
        for (int i = 0; fail && i < N_FRAMES; i++) atomic_store(&control->frames[i], (uintptr_t)frames[i]);
    }
    if (fail) atomic_fetch_add(&k->failed, 1);
    inside = false;
    return fail;
}

/* ---- the functions ---- */

#define CALLER __builtin_return_address(0)
/* The next function of that name: a sanitizer's or the library's. */
#define NEXT(name)                                                                                           \
    static __typeof__(name) *next;                                                                           \
    if (!next) *(void **)&next = dlsym(RTLD_NEXT, #name)
#define FAIL(kind, error, value)                                                                             \
    if (fails(kind, CALLER)) return errno = (error), (value)

/* dlsym allocates: these are found by their other names. */
void *__interceptor_malloc(size_t n) __attribute__((weak));
void *__interceptor_calloc(size_t count, size_t size) __attribute__((weak));
void *__interceptor_realloc(void *p, size_t n) __attribute__((weak));
void *__interceptor_memalign(size_t align, size_t n) __attribute__((weak));
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *p, size_t n);
void *__libc_memalign(size_t align, size_t n);

void *malloc(size_t n) {
    FAIL(K_MEMORY, ENOMEM, NULL);
    return __interceptor_malloc ? __interceptor_malloc(n) : __libc_malloc(n);
}

void *calloc(size_t count, size_t size) {
    FAIL(K_MEMORY, ENOMEM, NULL);
    return __interceptor_calloc ? __interceptor_calloc(count, size) : __libc_calloc(count, size);
}

void *realloc(void *p, size_t n) {
    FAIL(K_MEMORY, ENOMEM, NULL);
    return __interceptor_realloc ? __interceptor_realloc(p, n) : __libc_realloc(p, n);
}

int posix_memalign(void **p, size_t align, size_t n) {
    if (fails(K_MEMORY, CALLER)) return ENOMEM;
    void *q = __interceptor_memalign ? __interceptor_memalign(align, n) : __libc_memalign(align, n);
    if (q) *p = q;
    return q ? 0 : ENOMEM;
}

void *mmap(void *at, size_t n, int prot, int flags, int fd, off_t offset) {
    NEXT(mmap);
    FAIL(K_MAP, ENOMEM, MAP_FAILED);
    return next(at, n, prot, flags, fd, offset);
}

int open(const char *path, int flags, ...) {
    static int (*next)(const char *, int, ...);
    if (!next) *(void **)&next = dlsym(RTLD_NEXT, "open");
    va_list ap;
    va_start(ap, flags);
    int mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(ap, int) : 0;
    va_end(ap);
    FAIL(K_OPEN, EMFILE, -1);
    return next(path, flags, mode);
}

FILE *fopen(const char *path, const char *mode) {
    NEXT(fopen);
    FAIL(K_OPEN, EMFILE, NULL);
    return next(path, mode);
}

ssize_t read(int fd, void *p, size_t n) {
    NEXT(read);
    FAIL(K_READ, EIO, -1);
    return next(fd, p, n);
}

size_t fread(void *p, size_t size, size_t n, FILE *f) {
    NEXT(fread);
    if (fails(K_READ, CALLER)) {
        f->_flags |= 0x20; /* glibc's mark of an error, for ferror */
        errno = EIO;
        return 0;
    }
    return next(p, size, n, f);
}

int fstat(int fd, struct stat *s) {
    NEXT(fstat);
    FAIL(K_READ, EIO, -1);
    return next(fd, s);
}

int pthread_create(pthread_t *t, const pthread_attr_t *attr, void *(*run)(void *), void *arg) {
    NEXT(pthread_create);
    if (fails(K_THREAD, CALLER)) return EAGAIN;
    return next(t, attr, run, arg);
}

int pthread_mutex_init(pthread_mutex_t *m, const pthread_mutexattr_t *attr) {
    NEXT(pthread_mutex_init);
    if (fails(K_LOCK, CALLER)) return ENOMEM;
    return next(m, attr);
}

int eventfd(unsigned value, int flags) {
    NEXT(eventfd);
    FAIL(K_FD, EMFILE, -1);
    return next(value, flags);
}

int pipe2(int fd[2], int flags) {
    NEXT(pipe2);
    FAIL(K_FD, EMFILE, -1);
    return next(fd, flags);
}

int epoll_create1(int flags) {
    NEXT(epoll_create1);
    FAIL(K_FD, EMFILE, -1);
    return next(flags);
}

int socket(int domain, int type, int protocol) {
    NEXT(socket);
    FAIL(K_FD, EMFILE, -1);
    return next(domain, type, protocol);
}

int listen(int fd, int backlog) {
    NEXT(listen);
    FAIL(K_FD, EADDRINUSE, -1);
    return next(fd, backlog);
}

int accept4(int fd, struct sockaddr *a, socklen_t *n, int flags) {
    NEXT(accept4);
    FAIL(K_FD, EMFILE, -1);
    return next(fd, a, n, flags);
}

int epoll_ctl(int epoll, int op, int fd, struct epoll_event *ev) {
    NEXT(epoll_ctl);
    if (op == EPOLL_CTL_ADD) FAIL(K_WATCH, ENOSPC, -1);
    return next(epoll, op, fd, ev);
}

int epoll_wait(int epoll, struct epoll_event *ev, int n, int timeout) {
    NEXT(epoll_wait);
    FAIL(K_WAIT, EINTR, -1);
    return next(epoll, ev, n, timeout);
}

int poll(struct pollfd *p, nfds_t n, int timeout) {
    NEXT(poll);
    FAIL(K_WAIT, ENOMEM, -1);
    return next(p, n, timeout);
}

ssize_t send(int fd, const void *p, size_t n, int flags) {
    NEXT(send);
    FAIL(K_SEND, ECONNRESET, -1);
    return next(fd, p, n, flags);
}

ssize_t sendmsg(int fd, const struct msghdr *m, int flags) {
    NEXT(sendmsg);
    FAIL(K_SEND, ECONNRESET, -1);
    return next(fd, m, flags);
}

ssize_t writev(int fd, const struct iovec *v, int n) {
    NEXT(writev);
    FAIL(K_SEND, ECONNRESET, -1);
    return next(fd, v, n);
}

ssize_t recv(int fd, void *p, size_t n, int flags) {
    NEXT(recv);
    FAIL(K_RECV, ECONNRESET, -1);
    return next(fd, p, n, flags);
}

ssize_t getrandom(void *p, size_t n, unsigned flags) {
    NEXT(getrandom);
    FAIL(K_RANDOM, EAGAIN, -1);
    return next(p, n, flags);
}
