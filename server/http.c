/* http.c - see http.h. HTTP threads (libmicrohttpd's pool), and the caller's for start and stop.
 * Owns the daemon, the watcher, and one http_req per request, one http_conn per connection. */
#include "server/http.h"

#include <microhttpd.h>
#include <netdb.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "server/listen.h"
#include "server/metrics.h"
#include "server/reply.h"
#include "server/request_log.h"
#include "server/watch.h"

/* A body over its limit is read on to this bound, so that a client that writes first and reads later gets its
 * 413. */
static const size_t DRAIN_BYTES = (size_t)256 << 20;
/* A stream renders no further while this much waits for the socket. */
enum { CONNECTION_MEMORY = 64 << 10, MAX_HEADERS = 16, WRITE_STALL_S = 75 };

struct http_server {
    http_options o;
    struct MHD_Daemon *daemon;
    watch *watch;
    int port;
    struct MHD_Response *no_memory; /* made beforehand */
    atomic_int in_flight, connections;
    char library_error[200]; /* the last line that the library logged while it started */
    pthread_t starter;       /* who called http_start: the library's own threads log, too */
};

typedef struct http_conn {
    watch_entry watched;
    int fd;
    bool over_limit;
} http_conn;

struct http_req {
    http_server *srv;
    struct MHD_Connection *c;
    http_conn *conn;
    const http_route *route;
    const char *method; /* a literal */
    char path[128], id[132];
    double t_start, t_complete;
    const char *reason; /* of a refusal, for counting and the log */
    /* A refusal found in the headers or while the body came; answered when the body is drained. */
    int refusal;
    const char *refusal_message, *refusal_code;
    status refusal_status; /* where there is no such message */
    char retry_after[12];
    request_body body;
    size_t drained;
    struct {
        const char *name, *value;
    } headers[MAX_HEADERS];
    int n_headers;
    int http; /* replied with */
    bool dispatched;
    enum MHD_Result queued; /* what the callback returns */
    /* while the engine works */
    http_work work;
    buf out; /* SSE not yet sent */
    size_t out_at;
    bool rendered_end;
};

/* ---- replies
 * ------------------------------------------------------------------------------------------------ */

void *http_app(const http_req *r) {
    return r->srv->o.app;
}
const char *http_path(const http_req *r) {
    return r->path;
}
const char *http_id(const http_req *r) {
    return r->id;
}
double http_arrived(const http_req *r) {
    return r->t_complete;
}
request_body *http_body(http_req *r) {
    return &r->body;
}

void http_header(http_req *r, const char *name, const char *value) {
    CHECK(r->n_headers < MAX_HEADERS);
    r->headers[r->n_headers].name = name;
    r->headers[r->n_headers++].value = value;
}

static void queue(http_req *r, int http, const char *content_type, struct MHD_Response *resp) {
    if (!resp) { /* the status stays true */
        r->http = 503;
        r->queued = MHD_queue_response(r->c, 503, r->srv->no_memory);
        return;
    }
    bool ok = !content_type || MHD_add_response_header(resp, "Content-Type", content_type) == MHD_YES;
    ok = ok && MHD_add_response_header(resp, "X-Request-Id", r->id) == MHD_YES;
    for (int i = 0; i < r->n_headers && ok; i++)
        ok = MHD_add_response_header(resp, r->headers[i].name, r->headers[i].value) == MHD_YES;
    r->http = ok ? http : 503;
    r->queued = MHD_queue_response(r->c, (unsigned)r->http, ok ? resp : r->srv->no_memory);
    MHD_destroy_response(resp);
}

void http_reply(http_req *r, int http, const char *content_type, buf *body) {
    struct MHD_Response *resp = NULL;
    if (!body->failed) {
        if (body->data)
            resp = MHD_create_response_from_buffer_with_free_callback(body->len, body->data, mem_free);
        else
            resp = MHD_create_response_from_buffer(0, (void *)"", MHD_RESPMEM_PERSISTENT);
    }
    if (!resp) mem_free(body->data);
    *body = (buf){0};
    queue(r, http, content_type, resp);
}

void http_reply_fault(http_req *r, int http, const char *message, const char *param, const char *code) {
    buf b = {0};
    reply_error(&b, http, message, param, code);
    buf_putc(&b, '\n');
    http_reply(r, http, "application/json", &b);
}

void http_reply_status(http_req *r, const status *st) {
    static const status none = {.code = ST_INTERNAL, .msg = "the request failed without a reason"};
    if (st->code == ST_OK) st = &none;
    int http = reply_http_status(st);
    buf b = {0};
    if (http == 400 && strstr(st->param, "image")) r->reason = "bad_image";
    int seconds = http == 429 ? r->srv->o.retry_after_s(r->srv->o.app) : 1;
    snprintf(r->retry_after, sizeof r->retry_after, "%d", seconds);
    if (http == 503 || http == 429) http_header(r, "Retry-After", r->retry_after);
    reply_error_status(&b, st);
    buf_putc(&b, '\n');
    http_reply(r, http, "application/json", &b);
}

/* ---- waiting for the engine
 * ---------------------------------------------------------------------------------- */

void http_wake(void *arg) {
    MHD_resume_connection(((http_req *)arg)->c);
}

static void suspend(void *arg) {
    MHD_suspend_connection(((http_req *)arg)->c);
}

/* The access handler of a request that waits: sleeps again or replies. */
static void continue_wait(http_req *r) {
    r->queued = MHD_YES;
    if (!outbox_sleep(r->work.ob, suspend)) r->work.ready(r, r->work.state);
}

void http_wait(http_req *r, const http_work *w) {
    r->work = *w;
    if (!outbox_over(w->ob)) watch_job(r->srv->watch, &r->conn->watched, w->ob);
    continue_wait(r);
}

/* Sends what is rendered, renders what the outbox holds, sleeps when there is nothing. */
static ssize_t read_stream(void *arg, uint64_t pos, char *to, size_t max) {
    (void)pos;
    http_req *r = arg;
    while (r->out_at == r->out.len) {
        if (r->rendered_end) return MHD_CONTENT_READER_END_OF_STREAM;
        if (outbox_sleep(r->work.ob, suspend)) return 0;
        outbox_batch batch = {0};
        outbox_end end;
        outbox_take(r->work.ob, &batch, &end);
        buf_clear(&r->out);
        r->out_at = 0;
        r->work.render(r->work.state, &batch, &end, &r->out);
        outbox_batch_fini(&batch);
        if (r->out.failed) return MHD_CONTENT_READER_END_WITH_ERROR;
        r->rendered_end = end.ended;
    }
    size_t n = r->out.len - r->out_at;
    if (n > max) n = max;
    memcpy(to, r->out.data + r->out_at, n);
    r->out_at += n;
    return (ssize_t)n;
}

void http_stream(http_req *r, const http_work *w) {
    r->work = *w;
    watch_job(r->srv->watch, &r->conn->watched, w->ob);
    http_header(r, "Cache-Control", "no-cache");
    http_header(r, "X-Accel-Buffering", "no");
    queue(r, 200, "text/event-stream",
          MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 16 << 10, read_stream, r, NULL));
}

/* ---- what the headers say
 * ------------------------------------------------------------------------------------- */

static const char *header(http_req *r, const char *name) {
    return MHD_lookup_connection_value(r->c, MHD_HEADER_KIND, name);
}

/* Tells a browser whether the page that asks may read the answer. */
static void add_cors(http_req *r) {
    const cors *c = r->srv->o.cors;
    if (!cors_on(c)) return;
    const char *origin = header(r, "Origin"), *allowed = origin ? cors_allow(c, origin) : NULL;
    if (!c->any_origin || c->credentials) http_header(r, "Vary", "Origin");
    if (!allowed) return;
    http_header(r, "Access-Control-Allow-Origin", allowed);
    if (c->credentials) http_header(r, "Access-Control-Allow-Credentials", "true");
    const char *asks = header(r, "Access-Control-Request-Method");
    if (strcmp(r->method, "OPTIONS") != 0 || !asks) {
        http_header(r, "Access-Control-Expose-Headers", "X-Request-Id, Retry-After");
        return;
    }
    const char *names = header(r, "Access-Control-Request-Headers");
    if (c->headers.len) names = c->headers.data;
    http_header(r, "Access-Control-Allow-Methods", c->methods.data);
    if (names) http_header(r, "Access-Control-Allow-Headers", names);
    http_header(r, "Access-Control-Max-Age", "600");
}

/* Compares every byte of the presented key whatever the outcome. */
static bool same_key(const char *key, const char *given, size_t ng) {
    size_t nk = strlen(key);
    volatile unsigned char diff = nk != ng;
    for (size_t i = 0; i < ng; i++) diff = (unsigned char)(diff | (given[i] ^ key[nk ? i % nk : 0]));
    return diff == 0;
}

static bool key_ok(http_req *r) {
    const arg_list *keys = &r->srv->o.keys;
    if (!keys->n) return true;
    const char *auth = header(r, "Authorization");
    if (!auth || strncasecmp(auth, "Bearer ", 7) != 0) return false;
    auth += 7;
    while (*auth == ' ') auth++;
    size_t n = strlen(auth);
    while (n && (auth[n - 1] == ' ' || auth[n - 1] == '\t')) n--;
    bool ok = false;
    for (int i = 0; i < keys->n; i++) ok |= same_key(keys->v[i], auth, n);
    return ok;
}

static void take_id(http_req *r) {
    const char *given = header(r, "X-Request-Id");
    size_t n = given ? strlen(given) : 0;
    bool ok = n >= 1 && n <= 128;
    for (size_t i = 0; i < n && ok; i++) ok = given[i] > 0x20 && given[i] < 0x7F;
    if (ok) {
        memcpy(r->id, given, n + 1);
        return;
    }
    uint64_t x[2] = {0};
    if (getrandom(x, sizeof x, GRND_NONBLOCK) != (ssize_t)sizeof x) {
        x[0] = (uint64_t)(time_now_s() * 1e9);
        x[1] = (uint64_t)(uintptr_t)r;
    }
    snprintf(r->id, sizeof r->id, "%016llx%016llx", (unsigned long long)x[0], (unsigned long long)x[1]);
}

static const http_route *find_route(const http_options *o, const char *url) {
    for (int i = 0; i < o->n_routes; i++) {
        const char *p = o->routes[i].path;
        size_t n = strlen(p);
        bool below = p[n - 1] == '*';
        if (below ? strncmp(url, p, n - 1) == 0 && url[n - 1] : strcmp(url, p) == 0) return &o->routes[i];
    }
    return NULL;
}

static void refuse(http_req *r, int http, const char *message, const char *code) {
    if (r->refusal) return;
    r->refusal = http;
    r->refusal_message = message;
    r->refusal_code = code;
}

/* For want of room; the reply is that of http_reply_status. */
static void refuse_status(http_req *r, const status *st) {
    if (r->refusal) return;
    r->refusal_status = *st;
    refuse(r, reply_http_status(st), NULL, NULL);
}

typedef struct length_check {
    int n_lengths, n_encodings;
    bool bad, differ;
    uint64_t value;
} length_check;

static enum MHD_Result check_length(void *arg, enum MHD_ValueKind kind, const char *name, const char *value) {
    (void)kind;
    length_check *k = arg;
    /* "Content-Length : 5" is another header to the library, and a length to others (RFC 9112, 5.1). */
    if (strpbrk(name, " \t")) k->bad = true;
    if (strcasecmp(name, "Transfer-Encoding") == 0) {
        k->n_encodings++;
        if (!value || strcasecmp(value, "chunked") != 0)
            k->bad = true; /* the library would read to the end */
    }
    if (strcasecmp(name, "Content-Length") != 0) return MHD_YES;
    uint64_t v = 0;
    size_t n = value ? strlen(value) : 0;
    if (n == 0 || n > 18) k->bad = true;
    for (size_t i = 0; i < n && !k->bad; i++) {
        if (value[i] < '0' || value[i] > '9') k->bad = true;
        v = v * 10 + (uint64_t)(value[i] - '0');
    }
    if (k->n_lengths++ && v != k->value) k->differ = true;
    k->value = v;
    return MHD_YES;
}

static bool contradictory(const length_check *k) {
    return (k->n_lengths && k->n_encodings) || k->bad || k->differ || k->n_encodings > 1;
}

static const char *allow_of(int methods) {
    if (methods == HTTP_GET) return "GET, HEAD, OPTIONS";
    if (methods == HTTP_POST) return "POST, OPTIONS";
    return "GET, HEAD, POST, OPTIONS";
}

static void judge_headers(http_req *r, const length_check *k) {
    const http_options *o = &r->srv->o;
    if (r->conn->over_limit) {
        http_header(r, "Retry-After", "1");
        http_header(r, "Connection", "close");
        refuse(r, 503, "too many connections", "too_many_connections");
        r->reason = "connections";
    }
    if (contradictory(k)) {
        http_header(r, "Connection", "close");
        refuse(r, 400,
               "the request's headers are not valid (Content-Length, Transfer-Encoding, or a space in a "
               "header's name)",
               NULL);
    }
    bool options = strcmp(r->method, "OPTIONS") == 0;
    bool open = r->route && r->route->open && !o->key_for_all;
    if (!open && !options && !key_ok(r)) {
        http_header(r, "WWW-Authenticate", "Bearer");
        refuse(r, 401,
               header(r, "Authorization") ? "the API key is not valid"
                                          : "an API key is needed: Authorization: Bearer <key>",
               "invalid_api_key");
        return;
    }
    if (!r->route) {
        refuse(r, 404, "no such route", "not_found");
        return;
    }
    int have = strcmp(r->method, "GET") == 0 || strcmp(r->method, "HEAD") == 0 ? HTTP_GET
               : strcmp(r->method, "POST") == 0                                ? HTTP_POST
                                                                               : 0;
    if (options || !(have & r->route->methods)) http_header(r, "Allow", allow_of(r->route->methods));
    if (!options && !(have & r->route->methods))
        refuse(r, 405, "this route does not have that method", "method_not_allowed");
    if (k->value > o->max_body_bytes) refuse(r, 413, NULL, "body_too_large");
    status st = {0};
    if (!r->refusal && !options && r->route->admit && !r->route->admit(o->app, &st)) refuse_status(r, &st);
}

/* ---- the life of a request
 * ---------------------------------------------------------------------------------------- */

static void answer_refusal(http_req *r) {
    char text[200];
    const char *message = r->refusal_message;
    if (r->refusal_status.code != ST_OK) {
        http_reply_status(r, &r->refusal_status);
        return;
    }
    if (r->refusal == 413) {
        snprintf(text, sizeof text,
                 "the request's body is larger than this server accepts (%zu bytes, see --max-body-size)",
                 r->srv->o.max_body_bytes);
        message = text;
    } else if (r->refusal == 404) {
        snprintf(text, sizeof text, "there is no route %s %.100s", r->method, r->path);
        message = text;
    } else if (r->refusal == 405) {
        snprintf(text, sizeof text, "%.100s does not have the method %s", r->path, r->method);
        message = text;
    }
    http_reply_fault(r, r->refusal, message, NULL, r->refusal_code);
}

static void dispatch(http_req *r) {
    r->dispatched = true;
    r->t_complete = time_now_s();
    atomic_fetch_add(&r->srv->in_flight, 1);
    if (strcmp(r->method, "OPTIONS") == 0) {
        buf none = {0};
        http_reply(r, 204, NULL, &none);
        return;
    }
    watch_enter(r->srv->watch, &r->conn->watched, WATCH_JOB);
    r->route->handler(r);
}

/* The path of http://host/path, which servers have to take, too (RFC 9112, 3.2.2). */
static const char *path_of(const char *url) {
    if (strncasecmp(url, "http://", 7) != 0) return url;
    const char *slash = strchr(url + 7, '/');
    return slash ? slash : "/";
}

static const char *known_method(const char *m) {
    static const char *const known[] = {"GET",    "POST",  "HEAD",  "OPTIONS", "PUT",
                                        "DELETE", "PATCH", "TRACE", "CONNECT"};
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        if (strcmp(m, known[i]) == 0) return known[i];
    return "?";
}

static enum MHD_Result begin(http_server *s, struct MHD_Connection *c, const char *url, const char *method,
                             void **cls) {
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(c, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    http_conn *conn = info ? info->socket_context : NULL;
    http_req *r = conn ? mem_calloc(1, sizeof *r) : NULL;
    if (!r) return MHD_queue_response(c, 503, s->no_memory);
    *cls = r;
    url = path_of(url);
    r->srv = s;
    r->c = c;
    r->conn = conn;
    r->body.pool = s->o.bodies;
    r->t_start = time_now_s();
    r->method = known_method(method);
    snprintf(r->path, sizeof r->path, "%s", url);
    r->route = find_route(&s->o, url);
    take_id(r);
    length_check k = {0};
    MHD_get_connection_values(c, MHD_HEADER_KIND, check_length, &k);
    add_cors(r);
    judge_headers(r, &k);
    watch_enter(s->watch, &conn->watched, WATCH_BODY);
    const char *expect = header(r, "Expect");
    bool waits = expect && strcasecmp(expect, "100-continue") == 0;
    /* A client that asks first, or means to send more than is worth draining, is answered before its body. */
    if (r->refusal && (waits || contradictory(&k) || k.value > s->o.max_body_bytes + DRAIN_BYTES)) {
        answer_refusal(r);
        return r->queued;
    }
    /* Memory that nothing has been written to is only promised; so a body is never copied to grow. */
    if (!r->refusal && k.value && !buf_reserve(&r->body.bytes, (size_t)k.value)) {
        body_free(&r->body);
        refuse(r, 503, "no memory for the request", NULL);
    }
    return MHD_YES;
}

/* The library cannot queue a reply in the middle of a body: this one is written past it, then it closes. */
static enum MHD_Result cut_off(http_req *r) {
    if (!r->srv->o.tls)
        watch_raw_reply(r->conn->fd, "413 Payload Too Large",
                        "the request's body is larger than this server accepts");
    r->http = 413;
    return MHD_NO;
}

static enum MHD_Result take_body(http_req *r, const char *data, size_t n) {
    watch_enter(r->srv->watch, &r->conn->watched, WATCH_BODY);
    status st = {0};
    if (!r->refusal && n > r->srv->o.max_body_bytes - r->body.bytes.len)
        refuse(r, 413, NULL, "body_too_large");
    if (!r->refusal && !body_append(&r->body, data, n, &st)) refuse_status(r, &st);
    if (!r->refusal) return MHD_YES;
    r->drained += r->body.bytes.len + n;
    body_free(&r->body);
    return r->drained > r->srv->o.max_body_bytes + DRAIN_BYTES ? cut_off(r) : MHD_YES;
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *c, const char *url, const char *method,
                                  const char *version, const char *data, size_t *n, void **cls) {
    (void)version;
    http_req *r = *cls;
    if (!r) return begin(arg, c, url, method, cls);
    if (*n) {
        enum MHD_Result res = take_body(r, data, *n);
        *n = 0;
        return res;
    }
    r->queued = MHD_NO;
    if (r->refusal)
        answer_refusal(r);
    else if (r->work.ob)
        continue_wait(r);
    else
        dispatch(r);
    return r->queued;
}

/* What is counted and logged, once a request is over. */
static void close_books(http_req *r, bool left) {
    http_server *s = r->srv;
    outbox_summary job;
    if (r->work.ob) outbox_sum_up(r->work.ob, &job);
    if (!r->http && watch_timed_out(s->watch, &r->conn->watched))
        r->http = 408; /* the watcher answered, or tried to */
    if (r->http) s->o.replied(s->o.app, r->http, r->reason);
    request_line l = {.id = r->id,
                      .method = r->method,
                      .path = r->path,
                      .http = r->http ? r->http : 499, /* as others log a client that left before its reply */
                      .left = left,
                      .quiet = r->route && r->route->open,
                      .total_s = time_now_s() - r->t_start,
                      .refusal = r->http >= 400 ? metrics_reason(r->http, r->reason) : NULL,
                      .job = r->work.ob ? &job : NULL,
                      .prompt_tokens = r->work.prompt_tokens,
                      .n_images = r->work.n_images};
    request_log(&l);
}

static void on_completed(void *arg, struct MHD_Connection *c, void **cls,
                         enum MHD_RequestTerminationCode why) {
    (void)c;
    http_server *s = arg;
    http_req *r = *cls;
    *cls = NULL;
    if (!r) return;
    close_books(r, why != MHD_REQUEST_TERMINATED_COMPLETED_OK);
    if (r->work.ob) {
        outbox_detach(r->work.ob);
        watch_job_over(s->watch, &r->conn->watched);
        if (!outbox_over(r->work.ob)) s->o.cancel(s->o.app, r->work.ob);
        r->work.drop(r->work.state);
        outbox_unref(r->work.ob);
    }
    watch_enter(s->watch, &r->conn->watched, WATCH_HEADERS);
    if (r->dispatched) atomic_fetch_sub(&s->in_flight, 1);
    body_free(&r->body);
    buf_fini(&r->out);
    mem_free(r);
}

static void on_connection(void *arg, struct MHD_Connection *c, void **ctx,
                          enum MHD_ConnectionNotificationCode what) {
    http_server *s = arg;
    http_conn *conn = *ctx;
    if (what == MHD_CONNECTION_NOTIFY_CLOSED) {
        atomic_fetch_sub(&s->connections, 1);
        if (!conn) return;
        watch_remove(s->watch, &conn->watched);
        mem_free(conn);
        *ctx = NULL;
        return;
    }
    int count = atomic_fetch_add(&s->connections, 1) + 1;
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD);
    conn = info ? mem_calloc(1, sizeof *conn) : NULL;
    if (!conn) return;
    conn->fd = info->connect_fd;
    conn->over_limit = count > s->o.max_connections;
    if (!watch_add(s->watch, &conn->watched, conn->fd)) {
        mem_free(conn);
        return;
    }
    *ctx = conn;
}

/* ---- start and stop
 * ------------------------------------------------------------------------------------------------ */

static void library_log(void *arg, const char *fmt, va_list ap) PRINTF_LIKE(2, 0);
static void library_log(void *arg, const char *fmt, va_list ap) {
    http_server *s = arg;
    char line[400];
    vsnprintf(line, sizeof line, fmt, ap);
    if (pthread_equal(pthread_self(), s->starter))
        snprintf(s->library_error, sizeof s->library_error, "%.*s", (int)strcspn(line, "\n"), line);
    log_debug("libmicrohttpd: %s", line);
}

/* Connections need descriptors; what the system does not give bounds them. */
static int bound_connections(int wanted) {
    struct rlimit lim;
    if (getrlimit(RLIMIT_NOFILE, &lim) != 0) return wanted;
    rlim_t need = (rlim_t)wanted + 128;
    if (lim.rlim_cur < need) {
        lim.rlim_cur = lim.rlim_max < need ? lim.rlim_max : need;
        setrlimit(RLIMIT_NOFILE, &lim);
        getrlimit(RLIMIT_NOFILE, &lim);
    }
    if (lim.rlim_cur >= need) return wanted;
    int most = lim.rlim_cur > 256 ? (int)lim.rlim_cur - 128 : (int)lim.rlim_cur / 2;
    log_warn("the system allows %llu open files: at most %d connections", (unsigned long long)lim.rlim_cur,
             most);
    return most;
}

static bool start_daemon(http_server *s, int fd, status *st) {
    static const char busy[] =
        "{\"error\":{\"message\":\"the server is out of memory\",\"type\":\"server_error\","
        "\"param\":null,\"code\":null}}\n";
    s->no_memory = MHD_create_response_from_buffer(sizeof busy - 1, (void *)busy, MHD_RESPMEM_PERSISTENT);
    if (!s->no_memory) return status_set(st, ST_NO_MEMORY, "no memory for the HTTP server");
    MHD_add_response_header(s->no_memory, "Content-Type", "application/json");
    unsigned flags =
        MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG;
    /* The library's own limit lies above ours, for each of its threads: who is over ours gets an answer. */
    unsigned limit = ((unsigned)s->o.max_connections + 64) * (unsigned)s->o.threads;
    struct MHD_OptionItem more[4];
    int n = 0;
    if (s->o.threads > 1)
        more[n++] = (struct MHD_OptionItem){MHD_OPTION_THREAD_POOL_SIZE, s->o.threads, NULL};
    if (s->o.tls) {
        if (MHD_is_feature_supported(MHD_FEATURE_TLS) != MHD_YES)
            return status_set(st, ST_UNSUPPORTED, "this system's libmicrohttpd was built without TLS");
        flags |= MHD_USE_TLS;
        more[n++] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_MEM_CERT, 0, s->o.tls->cert.data};
        more[n++] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_MEM_KEY, 0, s->o.tls->key.data};
    }
    more[n] = (struct MHD_OptionItem){MHD_OPTION_END, 0, NULL};
    s->daemon = MHD_start_daemon(flags, 0, NULL, NULL, on_request, s, MHD_OPTION_EXTERNAL_LOGGER, library_log,
                                 s, MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_NOTIFY_COMPLETED, on_completed,
                                 s, MHD_OPTION_NOTIFY_CONNECTION, on_connection, s,
                                 MHD_OPTION_CONNECTION_LIMIT, limit, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
                                 (size_t)CONNECTION_MEMORY, MHD_OPTION_CONNECTION_TIMEOUT,
                                 (unsigned)WRITE_STALL_S, MHD_OPTION_ARRAY, more, MHD_OPTION_END);
    if (s->daemon) return true;
    if (s->o.tls)
        return status_set(
            st, ST_INVALID,
            "TLS does not start with the files of --ssl-certfile and --ssl-keyfile; the key must "
            "be that of the certificate, and both undamaged (%s)",
            s->library_error);
    return status_set(st, ST_IO, "cannot start the HTTP server's threads (%s)", s->library_error);
}

http_server *http_start(const http_options *o, status *st) {
    http_server *s = mem_calloc(1, sizeof *s);
    if (!s) return status_set(st, ST_NO_MEMORY, "no memory for the HTTP server"), NULL;
    s->o = *o;
    s->starter = pthread_self();
    s->o.max_connections = bound_connections(o->max_connections);
    int fd = o->uds ? listen_unix(o->uds, st) : listen_open(o->host, o->port, &s->port, st);
    if (fd >= 0) {
        watch_options w = {.headers_s = o->headers_s,
                           .body_s = o->body_s,
                           .request_s = o->request_s,
                           .comment_s = o->comment_s,
                           .encrypted = o->tls != NULL,
                           .cancel = o->cancel,
                           .arg = o->app};
        s->watch = watch_new(&w, st);
    }
    if (s->watch && start_daemon(s, fd, st)) return s;
    if (fd >= 0) close(fd);
    if (fd >= 0 && o->uds) unlink(o->uds);
    watch_free(s->watch);
    if (s->no_memory) MHD_destroy_response(s->no_memory);
    mem_free(s);
    return NULL;
}

int http_port(const http_server *s) {
    return s->port;
}

int http_in_flight(http_server *s) {
    return atomic_load(&s->in_flight);
}

void http_cancel_all(http_server *s, status_code code, const char *why) {
    watch_cancel_all(s->watch, code, why);
}

void http_stop(http_server *s) {
    MHD_stop_daemon(s->daemon); /* closes the listening socket, too */
    if (s->o.uds) unlink(s->o.uds);
    watch_free(s->watch);
    MHD_destroy_response(s->no_memory);
    mem_free(s);
}
