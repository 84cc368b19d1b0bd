/* image_url.c - see image_url.h. */
#include "server/image_url.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "server/fields.h"

/* data:[<type>][;attribute=value]*;base64,<data>. The type is not believed: content decides. */
static bool split(const char *url, size_t n, const char *param, const char **b64, size_t *n_b64, status *st) {
    const char *comma = memchr(url, ',', n < 512 ? n : 512);
    if (!comma) {
        status_set(st, ST_INVALID, "%s: a data URL needs a comma before its data: data:image/png;base64,...",
                   param);
        return status_param(st, "%s", param);
    }
    size_t head = (size_t)(comma - url);
    if (head < 12 || strncasecmp(comma - 7, ";base64", 7) != 0) {
        status_set(st, ST_UNSUPPORTED, "%s: only base64 data URLs are accepted: data:image/png;base64,...",
                   param);
        return status_param(st, "%s", param);
    }
    *b64 = comma + 1;
    *n_b64 = n - head - 1;
    if (*n_b64 > 0) return true;
    status_set(st, ST_INVALID, "%s: the data URL holds no picture", param);
    return status_param(st, "%s", param);
}

bool image_url_find(const body_scan *scan, const json_t *v, const char *param, const char **b64,
                    size_t *n_b64, bool *lifted, status *st) {
    const char *url = json_string_value(v);
    size_t n = json_string_length(v);
    const body_span *span = body_scan_find(scan, url, n);
    *lifted = span != NULL;
    if (span) return split(span->p, span->n, param, b64, n_b64, st);
    if (n >= 5 && strncasecmp(url, "data:", 5) == 0) return split(url, n, param, b64, n_b64, st);
    if (n == 0)
        status_set(st, ST_INVALID, "%s: empty, expected a data URL with a picture", param);
    else if (strncasecmp(url, "http://", 7) == 0 || strncasecmp(url, "https://", 8) == 0)
        status_set(st, ST_UNSUPPORTED,
                   "%s: vlmd fetches no pictures from the network; send the picture itself as a data URL "
                   "(data:image/jpeg;base64,...)",
                   param);
    else
        status_set(st, ST_INVALID, "%s: expected a data URL (data:image/jpeg;base64,...), found \"%.40s\"",
                   param, url);
    return status_param(st, "%s", param);
}

const json_t *image_url_of(const json_t *v, const char *param, char *full, status *st) {
    snprintf(full, 64, "%s", param);
    if (json_is_string(v)) return v;
    if (!json_is_object(v))
        return field_wrong(st, v, "a data URL or an object with \"url\"", "%s", param), NULL;
    const json_t *detail = field_get(v, "detail"), *url = field_get(v, "url");
    if (detail && !json_is_string(detail)) return field_wrong(st, detail, "text", "%s.detail", param), NULL;
    if (detail) {
        const char *d = json_string_value(detail);
        if (strcmp(d, "auto") != 0 && strcmp(d, "low") != 0 && strcmp(d, "high") != 0) {
            status_set(st, ST_INVALID, "%s.detail: expected auto, low or high, found \"%.40s\"", param, d);
            return status_param(st, "%s.detail", param), NULL;
        }
    }
    snprintf(full, 64, "%.59s.url", param);
    if (!json_is_string(url)) return field_wrong(st, url, "a data URL", "%s", full), NULL;
    return url;
}
