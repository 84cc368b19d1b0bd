/* chat_messages.c - the messages of a chat body: roles, parts and pictures. See chat_request.h.
 * One thread; the request owns what is made here. The parsed JSON is rewritten into what engine_chat expects.
 */
#include <stdio.h>
#include <string.h>

#include "server/chat_request.h"
#include "server/fields.h"
#include "server/image_url.h"

static bool no_memory(status *st) {
    return status_set(st, ST_NO_MEMORY, "no memory for the request");
}

static bool add_image(chat_request *r, const char *b64, size_t n, const char *param, status *st) {
    int at = r->chat.n_images;
    if (at == r->cap_images) {
        int cap = at ? at * 2 : 4;
        engine_image *im = mem_realloc(r->images, sizeof *im * (size_t)cap);
        if (im) r->images = im;
        char(*pa)[64] = im ? mem_realloc(r->image_params, sizeof *pa * (size_t)cap) : NULL;
        if (!pa) return no_memory(st);
        r->image_params = pa;
        r->cap_images = cap;
    }
    snprintf(r->image_params[at], sizeof r->image_params[at], "%s", param);
    r->images[at] = (engine_image){b64, n, NULL}; /* names are set when the array stands still */
    r->chat.n_images = at + 1;
    return true;
}

/* A string that was not lifted, for it is spelt with escapes, outlives its part, which is about to be replaced. */
static bool parse_image_part(chat_request *r, const json_t *part, const char *path, status *st) {
    char param[64], full[64];
    const char *b64;
    size_t n;
    bool lifted;
    snprintf(param, sizeof param, "%s.image_url", path);
    const json_t *url = image_url_of(field_get(part, "image_url"), param, full, st);
    if (!url || !image_url_find(&r->scan, url, full, &b64, &n, &lifted, st)) return false;
    if (!lifted && !r->kept) r->kept = json_array();
    if (!lifted && json_array_append(r->kept, (json_t *)(uintptr_t)url) != 0) return no_memory(st);
    return add_image(r, b64, n, full, st);
}

static bool parse_part(chat_request *r, json_t *parts, size_t j, size_t i, status *st) {
    char path[48];
    snprintf(path, sizeof path, "messages[%zu].content[%zu]", i, j);
    json_t *part = json_array_get(parts, j);
    if (!json_is_object(part)) return field_wrong(st, part, "an object with \"type\"", "%s", path);
    const json_t *type = field_get(part, "type");
    if (!json_is_string(type)) return field_wrong(st, type, "\"text\" or \"image_url\"", "%s.type", path);
    const char *name = json_string_value(type);
    if (strcmp(name, "text") == 0) {
        const json_t *text = field_get(part, "text");
        if (!json_is_string(text)) return field_wrong(st, text, "text", "%s.text", path);
        return true;
    }
    if (strcmp(name, "image_url") == 0) {
        if (!parse_image_part(r, part, path, st)) return false;
        json_t *image = json_pack("{s:s}", "type", "image");
        if (!image || json_array_set_new(parts, j, image) != 0) return no_memory(st);
        return true;
    }
    status_set(st, ST_UNSUPPORTED,
               "%s.type: \"%.40s\" is not supported; parts are \"text\" and \"image_url\"", path, name);
    return status_param(st, "%s.type", path);
}

static bool parse_role(json_t *m, size_t i, const char **role, status *st) {
    const json_t *v = field_get(m, "role");
    if (!json_is_string(v)) return field_wrong(st, v, "system, user or assistant", "messages[%zu].role", i);
    *role = json_string_value(v);
    if (strcmp(*role, "developer") == 0) {
        if (json_object_set_new(m, "role", json_string("system")) != 0) return no_memory(st);
        *role = "system";
        return true;
    }
    static const char *const known[] = {"system", "user", "assistant", "tool"};
    for (size_t k = 0; k < ARRAY_LEN(known); k++)
        if (strcmp(*role, known[k]) == 0) return true;
    status_set(st, ST_INVALID,
               "messages[%zu].role: expected system, developer, user, assistant or tool, found \"%.40s\"", i,
               *role);
    return status_param(st, "messages[%zu].role", i);
}

static bool parse_message(chat_request *r, json_t *m, size_t i, status *st) {
    const char *role = NULL;
    if (!json_is_object(m)) return field_wrong(st, m, "an object with role and content", "messages[%zu]", i);
    if (!parse_role(m, i, &role, st)) return false;
    const json_t *name = field_get(m, "name");
    if (name && !json_is_string(name)) return field_wrong(st, name, "text", "messages[%zu].name", i);
    json_t *content = json_object_get(m, "content");
    if (!content || json_is_null(content)) {
        /* A turn of the assistant that only called tools has no content. */
        if (strcmp(role, "assistant") == 0 && field_get(m, "tool_calls")) {
            if (json_object_set_new(m, "content", json_string("")) != 0) return no_memory(st);
            return true;
        }
        return field_wrong(st, content, "text or a list of parts", "messages[%zu].content", i);
    }
    if (json_is_string(content)) return true;
    if (!json_is_array(content))
        return field_wrong(st, content, "text or a list of parts", "messages[%zu].content", i);
    size_t n = json_array_size(content);
    if (n == 0) {
        status_set(st, ST_INVALID, "messages[%zu].content: the list of parts is empty", i);
        return status_param(st, "messages[%zu].content", i);
    }
    for (size_t j = 0; j < n; j++)
        if (!parse_part(r, content, j, i, st)) return false;
    return true;
}

bool chat_request_messages(chat_request *r, status *st) {
    json_t *messages = json_object_get(r->root, "messages");
    if (!json_is_array(messages)) return field_wrong(st, messages, "a list of messages", "messages");
    size_t n = json_array_size(messages);
    if (n == 0) {
        status_set(st, ST_INVALID, "messages: the list is empty, expected at least one message");
        return status_param(st, "messages");
    }
    for (size_t i = 0; i < n; i++)
        if (!parse_message(r, json_array_get(messages, i), i, st)) return false;
    for (int i = 0; i < r->chat.n_images; i++) r->images[i].param = r->image_params[i];
    r->chat.messages = messages;
    r->chat.images = r->images;
    return true;
}
