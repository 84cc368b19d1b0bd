/* serve.c - see serve.h. The main thread; a second one loads the model while the socket already answers. */
#include "server/serve.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "server/app.h"
#include "server/http.h"
#include "server/routes.h"

enum { LOST_SECONDS = 10 }; /* for replies after the device failed */

/* ---- the model folder
 * ------------------------------------------------------------------------------------------ */

static bool is_folder(const char *path) {
    struct stat s;
    return stat(path, &s) == 0 && S_ISDIR(s.st_mode);
}

bool serve_find_model(const char *given, buf *path, status *st) {
    if (given) {
        struct stat s;
        if (stat(given, &s) != 0)
            return status_set(st, ST_NOT_FOUND, "model folder %.300s: %s", given, strerror(errno));
        if (!S_ISDIR(s.st_mode)) return status_set(st, ST_NOT_FOUND, "%.300s is no folder", given);
        return buf_puts(path, given) || status_set(st, ST_NO_MEMORY, "no memory at start");
    }
    static const char *const below[] = {"/../models/vlmd-tiny", "/../../models/vlmd-tiny",
                                        "/../share/vlmd/models/vlmd-tiny"};
    char exe[1024];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    exe[n > 0 ? n : 0] = 0;
    char *slash = strrchr(exe, '/');
    if (slash) *slash = 0;
    for (size_t i = 0; slash && i < ARRAY_LEN(below); i++) {
        buf_clear(path);
        buf_printf(path, "%s%s", exe, below[i]);
        if (path->data && is_folder(path->data)) return true;
    }
    buf_clear(path);
    if (buf_puts(path, "models/vlmd-tiny") && is_folder(path->data)) return true;
    return status_set(st, ST_NOT_FOUND,
                      "the bundled model (models/vlmd-tiny) was not found beside the program or here; "
                      "name a model folder: vlmd serve MODEL_DIR");
}

/* The folder's own name, without trailing slashes: what clients call the model. */
static bool folder_name(const char *path, buf *out) {
    char real[PATH_MAX];
    if ((strcmp(path, ".") == 0 || strstr(path, "..")) && realpath(path, real)) path = real;
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') n--;
    size_t from = n;
    while (from > 0 && path[from - 1] != '/') from--;
    return buf_append(out, path + from, n - from);
}

/* ---- loading
 * ---------------------------------------------------------------------------------------------------- */

typedef struct loader {
    engine_options options;
    app *app;
    int done_fd; /* an eventfd, written when finished */
    engine *e;
    status st;
    double seconds;
    /* What HTTP threads read: it stays when a signal comes while the model loads. */
    cors cors;
    tls_files tls;
} loader;

static void *load(void *arg) {
    loader *l = arg;
    double t0 = time_now_s();
    l->e = engine_new(&l->options, &l->st);
    l->seconds = time_now_s() - t0;
    uint64_t one = 1;
    ssize_t k = write(l->done_fd, &one, sizeof one);
    (void)k;
    return NULL;
}

/* On the engine's thread. */
static void on_lost(void *user, const status *why) {
    loader *l = user;
    uint64_t one = 1;
    app_fail(l->app, why->msg);
    ssize_t k = write(l->done_fd, &one, sizeof one); /* the main thread looks at the state */
    (void)k;
}

/* A black rectangle, 64x64: any model with eyes has something to say. */
static const char sample_png[] =
    "iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAIAAAAlC+aJAAAAxklEQVR4nO3ZMQ6CQBQAUdHtoZIo3sSCW1l6CDpjpyHxWGpt"
    "AZZmC2+A2bWYkMzrP38nhIYt4uuzmLMlfYB/GUAzgGYAzQCaAbSQOjCMw/geczatQr2uQ0je+OOxqQOX27U7dRmbdtumP/fN"
    "psmYnZDzBu7PR96yGGPe4ITZfwMG0AygGUAzgGYAzQCaATQDaAbQDKAZQDOAlvxnrt23x0POpqqsqrLKmZxUeNENM4BmAM0A"
    "mgE0A2gG0AygGUAzgGYAbfYBX1k0HO0j+VRdAAAAAElFTkSuQmCC";

/* Each is taken at once or bounded, so that their sum is what the server plans to live in. */
static void print_gpu_memory(const engine_info *i, size_t bodies) {
    printf("  GPU memory: %.1f MB weights, %.1f MB KV cache, %.1f MB activations, %.1f MB workspace, ",
           (double)i->weight_bytes / 1e6, (double)i->kv_bytes / 1e6, (double)i->activation_bytes / 1e6,
           (double)i->workspace_bytes / 1e6);
    if (i->takes_images)
        printf("%.1f MB pictures (%.1f MB of them may be kept), ", (double)i->image_bytes / 1e6,
               (double)i->image_cache_bytes / 1e6);
    printf("within %.1f of %.1f MB; beside it request bodies up to %.1f MB\n",
           (double)i->device_planned_bytes / 1e6, (double)i->device_bytes / 1e6, (double)bodies / 1e6);
}

static void print_memory(const engine_info *i, size_t bodies) {
    if (i->device_bytes) {
        print_gpu_memory(i, bodies);
        return;
    }
    printf("  memory: %.1f MB weights, %.1f MB KV cache, %.1f MB activations, ",
           (double)i->weight_bytes / 1e6, (double)i->kv_bytes / 1e6, (double)i->activation_bytes / 1e6);
    if (i->takes_images)
        printf("pictures up to %.1f MB (%.1f MB of them may be kept), ", (double)i->image_bytes / 1e6,
               (double)i->image_cache_bytes / 1e6);
    size_t all = i->weight_bytes + i->kv_bytes + i->activation_bytes + i->image_bytes + bodies;
    printf("request bodies up to %.1f MB; %.1f MB together\n", (double)bodies / 1e6, (double)all / 1e6);
}

static void print_loaded(const loader *l, const char *name, const char *curl, bool keyed) {
    const engine_info *i = engine_get_info(l->e);
    printf("serving %s: %s\n", name, i->summary ? i->summary : i->family);
    if (i->embed_width)
        printf("  a text has %d tokens at most; loaded in %.1f s\n", i->max_model_len, l->seconds);
    else
        printf("  %d tokens at most, %zu bytes of KV cache each (%s); loaded in %.1f s\n", i->max_model_len,
               i->kv_bytes_per_token, i->kv_dtype, l->seconds);
    print_memory(i, l->app->bodies.max);
    printf("try:\n  curl %s%s -H 'Content-Type: application/json'%s -d ", curl,
           i->embed_width ? "/v1/zero-shot" : "/v1/chat/completions",
           keyed ? " -H \"Authorization: Bearer $VLMD_API_KEY\"" : "");
    if (!i->embed_width) printf("'{\"max_tokens\": 32, \"messages\": [{\"role\": \"user\", \"content\": ");
    if (i->embed_width)
        printf("'{\"labels\": [\"black rectangle\", \"cat\"], \"image\": \"data:image/png;base64,%s\"}'\n",
               sample_png);
    else if (i->takes_images)
        printf("[{\"type\": \"image_url\", \"image_url\": {\"url\": \"data:image/png;base64,%s\"}}, "
               "{\"type\": \"text\", \"text\": \"What is in the image?\"}]}]}'\n",
               sample_png);
    else
        printf("\"Hello\"}]}'\n");
    fflush(stdout);
}

/* ---- waiting
 * ------------------------------------------------------------------------------------------------------ */

typedef struct waiter {
    int signal_fd, done_fd;
} waiter;

/* Waits for a signal (returns its number) or, when asked to, for the loader (0); -1 after timeout_ms. */
static int wait_event(const waiter *w, bool loading, int timeout_ms) {
    struct pollfd p[2] = {{w->signal_fd, POLLIN, 0}, {w->done_fd, POLLIN, 0}};
    for (;;) {
        int n = poll(p, loading ? 2 : 1, timeout_ms);
        if (n < 0 && timeout_ms < 0) { /* for want of memory, it may be: no reason to end */
            if (errno != EINTR) usleep(50000);
            continue;
        }
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return -1;
        unsigned char sig;
        if ((p[0].revents & POLLIN) && read(w->signal_fd, &sig, 1) == 1) return sig;
        if (loading && (p[1].revents & POLLIN)) return 0;
    }
}

/* Lets running requests finish for a while, then ends them with an error. A second signal ends the wait. */
static void drain(http_server *http, const waiter *w, double seconds, const char *why) {
    double until = time_now_s() + seconds;
    int n = http_in_flight(http);
    if (n) log_info("stopping: waiting for %d requests, at most %g s", n, seconds);
    while (http_in_flight(http) && time_now_s() < until)
        if (wait_event(w, false, 50) > 0) break;
    until = time_now_s() + 5;
    while (http_in_flight(http) && time_now_s() < until) {
        http_cancel_all(http, ST_CANCELLED, why);
        wait_event(w, false, 50);
    }
}

/* The engine has ended its jobs; their replies are to reach their clients. It is not taken apart: calls to a device that is
 * gone may not return. */
static serve_result end_lost(http_server *http, const waiter *w, const serve_options *o) {
    drain(http, w, o->drain_seconds < LOST_SECONDS ? o->drain_seconds : LOST_SECONDS, "the device failed");
    if (o->uds) unlink(o->uds);
    return SERVE_LOST;
}

static void stop(app *a, http_server *http, const waiter *w, double seconds) {
    atomic_store(&a->state, APP_DRAINING);
    drain(http, w, seconds, "the server is shutting down");
    engine *e = app_take_engine(a);
    if (e) engine_free(e); /* every outbox gets its end: nothing stays suspended */
    http_stop(http);
}

static serve_result run(app *a, http_server *http, loader *l, const serve_options *o, const char *curl,
                        const waiter *w, status *st) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, load, l) != 0) {
        status_set(st, ST_IO, "cannot start a thread");
        http_stop(http);
        return SERVE_FAILED;
    }
    if (wait_event(w, true, -1) > 0) return SERVE_LOADING;
    pthread_join(thread, NULL);
    if (!l->e) {
        *st = l->st;
        http_stop(http);
        return SERVE_FAILED;
    }
    app_set_engine(a, l->e); /* first: who reads the curl line may send it */
    print_loaded(l, a->names.v[0], curl, o->api_key.n > 0);
    while (wait_event(w, true, -1) == 0) {
        uint64_t n;
        ssize_t k = read(w->done_fd, &n, sizeof n); /* the loader's, or on_lost's */
        (void)k;
        if (atomic_load(&a->state) == APP_FAILED) return end_lost(http, w, o);
    }
    stop(a, http, w, o->drain_seconds);
    return SERVE_DONE;
}

/* Written by the handler; set once, before the handler is. A handler and no blocked mask with signalfd: libraries start
 * threads before main does, and a signal may choose one of those. */
static int signal_pipe[2] = {-1, -1};

static void on_signal(int sig) {
    int e = errno;
    unsigned char byte = (unsigned char)sig;
    ssize_t k = write(signal_pipe[1], &byte, 1);
    (void)k;
    errno = e;
}

static bool open_waiter(waiter *w, status *st) {
    w->done_fd = eventfd(0, EFD_CLOEXEC);
    if (w->done_fd < 0 || pipe2(signal_pipe, O_CLOEXEC | O_NONBLOCK) != 0)
        return status_set(st, ST_IO, "cannot wait for signals: %s", strerror(errno));
    w->signal_fd = signal_pipe[0];
    struct sigaction act = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigaction(SIGTERM, &act, NULL);
    sigaction(SIGINT, &act, NULL);
    signal(SIGPIPE, SIG_IGN);
    return true;
}

/* The address as a person names it, and curl's arguments that reach it. */
static void urls_of(const serve_options *o, int port, char *url, char *curl, size_t n) {
    bool six = strchr(o->host, ':') != NULL, tls = o->ssl_certfile != NULL;
    const char *scheme = tls ? "https" : "http", *any = tls ? "-k " : "";
    if (o->uds) {
        snprintf(url, n, "unix:%s%s", o->uds, tls ? " (TLS)" : "");
        snprintf(curl, n, "%s--unix-socket '%s' %s://localhost", any, o->uds, scheme);
        return;
    }
    snprintf(url, n, "%s://%s%.200s%s:%d", scheme, six ? "[" : "", o->host, six ? "]" : "", port);
    snprintf(curl, n, "%s%s", any, url);
}

static serve_result serve_network(const serve_options *o, const char *dir, app *a, loader *l, status *st) {
    waiter w = {-1, -1};
    if (!open_waiter(&w, st)) return SERVE_FAILED;
    http_options h = {.host = o->host,
                      .port = o->port,
                      .uds = o->uds,
                      .tls = o->ssl_certfile ? &l->tls : NULL,
                      .cors = &l->cors,
                      .threads = o->http_threads,
                      .max_connections = o->max_connections,
                      .max_body_bytes = o->max_body_size,
                      .bodies = &a->bodies,
                      .keys = o->api_key,
                      .key_for_all = o->api_key_for_all,
                      .headers_s = o->headers_timeout,
                      .body_s = o->body_timeout,
                      .request_s = o->request_timeout,
                      .comment_s = o->keepalive_seconds,
                      .routes = routes_table,
                      .n_routes = routes_count,
                      .app = a,
                      .cancel = app_cancel,
                      .replied = app_replied,
                      .retry_after_s = app_retry_after_s};
    serve_result res = SERVE_FAILED;
    http_server *http = http_start(&h, st);
    if (http) {
        char url[300], curl[300];
        urls_of(o, http_port(http), url, curl, sizeof url);
        printf("vlmd " VLMD_VERSION " listening on %s, loading %s\n", url, dir);
        fflush(stdout);
        l->app = a;
        l->done_fd = w.done_fd;
        l->options = (engine_options){.model_dir = dir,
                                      .chat_template = o->chat_template,
                                      .device = o->device,
                                      .isa = o->isa,
                                      .threads = o->threads,
                                      .max_model_len = o->max_model_len,
                                      .max_num_seqs = o->max_num_seqs,
                                      .max_num_batched_tokens = o->max_num_batched_tokens,
                                      .kv_cache_bytes = o->kv_cache_memory,
                                      .kv_cache_dtype = o->kv_cache_dtype,
                                      .gpu_memory_utilization = o->gpu_memory_utilization,
                                      .deterministic = o->deterministic,
                                      .enforce_eager = o->enforce_eager,
                                      .max_image_pixels = o->max_image_pixels,
                                      .image_workers = o->image_workers,
                                      .image_bytes = o->image_memory,
                                      .image_cache_bytes = o->image_cache_memory,
                                      .max_queued_requests = o->max_queued_requests,
                                      .max_queued_tokens = o->max_queued_tokens,
                                      .by_priority = strcmp(o->scheduling_policy, "priority") == 0,
                                      .no_prefix_caching = o->no_prefix_caching,
                                      .lost = on_lost,
                                      .lost_user = l};
        res = run(a, http, l, o, curl, &w, st);
    }
    if (res == SERVE_LOADING && o->uds) unlink(o->uds);
    if (res == SERVE_LOADING || res == SERVE_LOST) return res;
    close(w.done_fd); /* the handler stays, and its pipe */
    return res;
}

static serve_result serve(const serve_options *o, const char *dir, app *a, loader *l, status *st) {
    if (o->ssl_certfile && !tls_load(o->ssl_certfile, o->ssl_keyfile, &l->tls, st)) return SERVE_FAILED;
    if (!cors_init(&l->cors, &o->allowed_origins, &o->allowed_methods, &o->allowed_headers,
                   o->allow_credentials, st)) {
        tls_fini(&l->tls);
        return SERVE_FAILED;
    }
    serve_result res = serve_network(o, dir, a, l, st);
    if (res == SERVE_LOADING || res == SERVE_LOST) return res;
    tls_fini(&l->tls);
    cors_fini(&l->cors);
    return res;
}

serve_result serve_run(const serve_options *o, const char *positional, status *st) {
    buf dir = {0}, name = {0};
    serve_result res = SERVE_FAILED;
    app *a = mem_calloc(1, sizeof *a);
    loader *l = mem_calloc(1, sizeof *l);
    if (!a || !l) {
        status_set(st, ST_NO_MEMORY, "no memory at start");
    } else if (serve_find_model(positional ? positional : o->model, &dir, st)) {
        arg_list names = o->served_model_name;
        const char *first = NULL;
        bool ok = folder_name(dir.data, &name) || status_set(st, ST_NO_MEMORY, "no memory at start");
        if (!names.n) {
            first = name.data;
            names = (arg_list){&first, 1};
        }
        if (ok && app_init(a, names, st)) {
            a->bodies.max = o->request_memory;
            res = serve(o, dir.data, a, l, st);
            if (res != SERVE_LOADING && res != SERVE_LOST) app_fini(a);
        }
    }
    /* The loading thread, or the engine's, still reads all of this. */
    if (res == SERVE_LOADING || res == SERVE_LOST) return res;
    mem_free(a);
    mem_free(l);
    buf_fini(&dir);
    buf_fini(&name);
    return res;
}
