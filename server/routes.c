/* routes.c - the table of routes, and the handlers that only tell: health, version, models, metrics. HTTP
 * threads. */
#include "server/routes.h"

#include <string.h>

#include "server/app.h"
#include "server/reply.h"

static void health_handler(http_req *r) {
    const app *a = http_app(r);
    int state = atomic_load(&a->state);
    static const char *const words[] = {"loading", "ok", "draining", "failed"};
    buf b = {0};
    buf_printf(&b, "{\"status\":\"%s\"", words[state]);
    if (state == APP_FAILED) {
        buf_puts(&b, ",\"reason\":");
        json_put_cstring(&b, a->failure);
    }
    buf_puts(&b, "}\n");
    http_reply(r, state == APP_READY ? 200 : 503, "application/json", &b);
}

static void version_handler(http_req *r) {
    buf b = {0};
    buf_puts(&b, "{\"version\":\"" VLMD_VERSION "\"}\n");
    http_reply(r, 200, "application/json", &b);
}

static void put_model(buf *b, const app *a, int i, const engine_info *info) {
    buf_puts(b, "{\"id\":");
    json_put_cstring(b, a->names.v[i]);
    buf_printf(b, ",\"object\":\"model\",\"created\":%ld,\"owned_by\":\"vlmd\",\"root\":", a->started);
    json_put_cstring(b, a->names.v[0]);
    buf_printf(b, ",\"parent\":null,\"max_model_len\":%d", info->max_model_len);
    if (info->embed_width)
        buf_printf(b, ",\"task\":\"embed\",\"embedding_size\":%d}", info->embed_width);
    else
        buf_puts(b, ",\"task\":\"generate\"}");
}

static void models_handler(http_req *r) {
    app *a = http_app(r);
    status st = {0};
    engine *e = app_enter(a, &st);
    if (!e) {
        http_reply_status(r, &st);
        return;
    }
    const engine_info info = *engine_get_info(e);
    app_leave(a);
    buf b = {0};
    const char *below = strncmp(http_path(r), "/v1/models/", 11) == 0 ? http_path(r) + 11 : NULL;
    if (below) {
        if (!app_model(a, below, &st)) {
            http_reply_status(r, &st);
            return;
        }
        for (int i = 0; i < a->names.n; i++)
            if (strcmp(a->names.v[i], below) == 0 && !b.len) put_model(&b, a, i, &info);
    } else {
        buf_puts(&b, "{\"object\":\"list\",\"data\":[");
        for (int i = 0; i < a->names.n; i++) {
            if (i) buf_putc(&b, ',');
            put_model(&b, a, i, &info);
        }
        buf_puts(&b, "]}");
    }
    buf_putc(&b, '\n');
    http_reply(r, 200, "application/json", &b);
}

static void metrics_handler(http_req *r) {
    app *a = http_app(r);
    engine_stats stats;
    buf b = {0};
    pthread_rwlock_rdlock(&a->engine_lock); /* also while draining */
    if (a->e) engine_get_stats(a->e, &stats);
    metrics_text(&a->m, a->names.v[0], a->e ? engine_get_info(a->e) : NULL, a->e ? &stats : NULL, &b);
    metrics_bodies(a->names.v[0], a->bodies.max, atomic_load(&a->bodies.used), &b);
    pthread_rwlock_unlock(&a->engine_lock);
    http_reply(r, 200, "text/plain; version=0.0.4; charset=utf-8", &b);
}

const http_route routes_table[] = {
    {"/health", HTTP_GET, true, NULL, health_handler},
    {"/metrics", HTTP_GET, true, NULL, metrics_handler},
    {"/version", HTTP_GET, false, NULL, version_handler},
    {"/v1/models", HTTP_GET, false, NULL, models_handler},
    {"/v1/models/*", HTTP_GET, false, NULL, models_handler},
    {"/v1/chat/completions", HTTP_POST, false, app_has_room, chat_handler},
    {"/v1/embeddings", HTTP_POST, false, app_has_room, embeddings_handler},
    {"/v1/zero-shot", HTTP_POST, false, app_has_room, zero_shot_handler},
    {"/tokenize", HTTP_POST, false, NULL, tokenize_handler},
    {"/detokenize", HTTP_POST, false, NULL, detokenize_handler},
};
const int routes_count = ARRAY_LEN(routes_table);
