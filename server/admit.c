/* admit.c - see admit.h. */
#include "server/admit.h"

void admit_request(http_req *r, admit_fn *make) {
    app *a = http_app(r);
    status st = {0};
    http_work w = {0};
    bool ok = false, stream = false;
    engine *e = app_enter(a, &st);
    if (e) {
        if (engine_has_room(e, &st)) { /* once more: much may have come since the headers */
            request_body body = body_take(http_body(r));
            if (!body.bytes.data) buf_putc(&body.bytes, ' '); /* an empty body has no bytes to point at */
            ok = make(a, e, body, r, &w, &st);
            stream = ok && outbox_streams(w.ob);
        }
        app_leave(a);
    }
    if (!ok)
        http_reply_status(r, &st);
    else if (stream)
        http_stream(r, &w);
    else
        http_wait(r, &w);
}
