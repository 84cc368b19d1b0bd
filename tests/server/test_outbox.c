/* test_outbox.c - the queue between engine and connection: order, bounds, wake-ups, references, also under
 * TSan. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <string.h>

#include "server/outbox.h"

typedef struct reader {
    sem_t woken;
    atomic_int suspended, resumed, released;
} reader;

static void on_wake(void *arg) {
    reader *r = arg;
    atomic_fetch_add(&r->resumed, 1);
    sem_post(&r->woken);
}
static void on_suspend(void *arg) {
    atomic_fetch_add(&((reader *)arg)->suspended, 1);
}
static void on_release(void *arg) {
    atomic_fetch_add(&((reader *)arg)->released, 1);
}

static outbox *make(reader *r, bool stream, bool tokens, size_t cap) {
    memset(r, 0, sizeof *r);
    sem_init(&r->woken, 0, 0);
    outbox_options o = {.stream = stream, .keep_tokens = tokens, .cap_bytes = cap, .wake = on_wake, .arg = r};
    outbox *ob = outbox_new(&o);
    assert_non_null(ob);
    outbox_keep(ob, on_release, r);
    outbox_engine_begin(ob);
    return ob;
}

static void put_text(outbox *ob, const char *text) {
    engine_token t = {.id = 5, .logprob = -1, .bytes = text, .n_bytes = strlen(text), .n_top = 1};
    t.top[0].bytes = "alt";
    t.top[0].n_bytes = 3;
    engine_event ev = {
        .kind = ENGINE_TOKENS, .text = text, .n_text = strlen(text), .tokens = &t, .n_tokens = 1};
    outbox_sink(ob, &ev);
}

static void put_done(outbox *ob) {
    engine_event ev = {
        .kind = ENGINE_DONE, .finish = FINISH_LENGTH, .prompt_tokens = 3, .completion_tokens = 2};
    outbox_sink(ob, &ev);
}

static void put_error(outbox *ob, status_code code) {
    status st = {0};
    status_set(&st, code, "why");
    engine_event ev = {.kind = ENGINE_ERROR, .error = &st};
    outbox_sink(ob, &ev);
}

static void test_stream_order(void **state) {
    (void)state;
    reader r;
    outbox *ob = make(&r, true, true, 0);
    assert_true(outbox_sleep(ob, on_suspend));
    put_text(ob, "a");
    assert_int_equal(r.resumed, 1);
    put_text(ob, "bc");
    assert_int_equal(r.resumed, 1); /* awake already */
    assert_false(outbox_sleep(ob, on_suspend));
    outbox_batch b = {0};
    outbox_end end;
    outbox_take(ob, &b, &end);
    assert_string_equal(b.text.data, "abc");
    assert_int_equal(b.n_tokens, 2);
    assert_int_equal(b.n_tops, 2);
    assert_memory_equal(b.bytes.data + b.tokens[1].bytes_at, "bc", 2);
    assert_memory_equal(b.bytes.data + b.tops[b.tokens[1].top_at].bytes_at, "alt", 3);
    assert_false(end.ended);
    assert_true(outbox_sleep(ob, on_suspend));
    put_done(ob);
    assert_int_equal(r.resumed, 2);
    outbox_take(ob, &b, &end);
    assert_true(end.ended && !end.failed && end.finish == FINISH_LENGTH && end.completion_tokens == 2);
    assert_int_equal(b.text.len, 0);
    assert_int_equal(r.released, 1);
    outbox_batch_fini(&b);
    outbox_unref(ob);
}

/* A special token's spelling is copied: the engine may be gone when it is sent. */
static void test_special_token(void **state) {
    (void)state;
    reader r;
    outbox *ob = make(&r, true, true, 0);
    char name[] = "</s>";
    engine_token t = {.id = 2, .bytes = "", .special = name, .n_top = 1};
    t.top[0].bytes = "";
    t.top[0].special = name;
    engine_event ev = {.kind = ENGINE_TOKENS, .text = "", .tokens = &t, .n_tokens = 1};
    outbox_sink(ob, &ev);
    put_done(ob);
    name[0] = 0;
    outbox_batch b = {0};
    outbox_end end;
    outbox_take(ob, &b, &end);
    assert_true(b.tokens[0].special && b.tops[0].special);
    assert_int_equal(b.tokens[0].n_bytes, 4);
    assert_string_equal(b.bytes.data, "</s></s>");
    outbox_batch_fini(&b);
    outbox_unref(ob);
}

static void test_unstreamed_wakes_once(void **state) {
    (void)state;
    reader r;
    outbox *ob = make(&r, false, false, 0);
    assert_true(outbox_sleep(ob, on_suspend));
    engine_event in = {.kind = ENGINE_INPUT_DONE};
    outbox_sink(ob, &in);
    assert_int_equal(r.released, 1);
    put_text(ob, "a");
    put_text(ob, "b");
    assert_int_equal(r.resumed, 0);
    assert_false(outbox_comment(ob));
    put_done(ob);
    assert_int_equal(r.resumed, 1);
    outbox_batch b = {0};
    outbox_end end;
    outbox_take(ob, &b, &end);
    assert_string_equal(b.text.data, "ab");
    assert_int_equal(b.n_tokens, 0);
    assert_int_equal(r.released, 1);
    outbox_batch_fini(&b);
    outbox_unref(ob);
}

static void test_comment(void **state) {
    (void)state;
    reader r;
    outbox *ob = make(&r, true, false, 0);
    assert_true(outbox_sleep(ob, on_suspend));
    assert_true(outbox_comment(ob));
    assert_int_equal(r.resumed, 1);
    outbox_batch b = {0};
    outbox_end end;
    outbox_take(ob, &b, &end);
    assert_int_equal(b.n_comments, 1);
    put_text(ob, "a");
    assert_false(outbox_comment(ob));
    put_done(ob);
    outbox_batch_fini(&b);
    outbox_unref(ob);
}

static void test_overflow(void **state) {
    (void)state;
    reader r;
    outbox *ob = make(&r, true, false, 1000);
    for (int i = 0; i < 10000; i++) put_text(ob, "0123456789");
    assert_true(outbox_overflowed(ob));
    assert_true(outbox_set_job(ob, 9) == false);
    assert_int_equal(outbox_cancel(ob), 9);
    assert_false(outbox_overflowed(ob)); /* said once */
    put_error(ob, ST_CANCELLED);
    outbox_batch b = {0};
    outbox_end end;
    outbox_take(ob, &b, &end);
    assert_true(b.text.len >= 1000 && b.text.len < 1100);
    assert_true(end.failed);
    assert_non_null(strstr(end.error.msg, "slowly"));
    outbox_batch_fini(&b);
    outbox_unref(ob);
}

static void test_cancel_before_number(void **state) {
    (void)state;
    reader r;
    outbox *ob = make(&r, false, false, 0);
    assert_int_equal(outbox_cancel(ob), 0);
    assert_true(outbox_set_job(ob, 4)); /* the submitter is told to cancel */
    outbox_reason(ob, ST_CANCELLED, "first");
    outbox_reason(ob, ST_CANCELLED, "second");
    put_error(ob, ST_CANCELLED);
    assert_int_equal(outbox_cancel(ob), 0);
    assert_false(outbox_set_job(ob, 4));
    outbox_batch b = {0};
    outbox_end end;
    outbox_take(ob, &b, &end);
    assert_string_equal(end.error.msg, "first");
    outbox_batch_fini(&b);
    outbox_unref(ob);
}

static void test_detach_and_refs(void **state) {
    (void)state;
    reader r;
    outbox *ob = make(&r, true, true, 0);
    assert_true(outbox_sleep(ob, on_suspend));
    outbox_detach(ob);
    put_text(ob, "a");
    assert_int_equal(r.resumed, 0);
    outbox_unref(ob); /* the engine still holds it */
    put_text(ob, "b");
    put_done(ob); /* frees it */
    assert_int_equal(r.released, 1);
    ob = make(&r, true, true, 0);
    outbox_engine_refused(ob);
    outbox_unref(ob);
    assert_int_equal(r.released, 1);
}

/* A writer and a reader at full speed: everything arrives in order, and the reader is never left asleep. */
enum { ROUNDS = 200, EVENTS = 200 };

static void *writer(void *arg) {
    outbox *ob = arg;
    for (int i = 0; i < EVENTS; i++) {
        char c[2] = {(char)('a' + i % 26), 0};
        put_text(ob, c);
    }
    put_done(ob);
    return NULL;
}

static void *commenter(void *arg) {
    while (outbox_comment(arg)) {
    }
    outbox_unref(arg);
    return NULL;
}

static void test_threads(void **state) {
    (void)state;
    for (int round = 0; round < ROUNDS; round++) {
        reader r;
        outbox *ob = make(&r, round % 4 != 0, true, 0);
        pthread_t w, c;
        assert_int_equal(pthread_create(&c, NULL, commenter, outbox_ref(ob)), 0);
        assert_int_equal(pthread_create(&w, NULL, writer, ob), 0);
        int got = 0;
        for (outbox_end end = {0}; !end.ended;) {
            if (outbox_sleep(ob, on_suspend)) sem_wait(&r.woken);
            outbox_batch b = {0};
            outbox_take(ob, &b, &end);
            for (size_t i = 0; i < b.text.len; i++) assert_int_equal(b.text.data[i], 'a' + got++ % 26);
            outbox_batch_fini(&b);
        }
        assert_int_equal(got, EVENTS);
        assert_int_equal(r.suspended, r.resumed);
        outbox_detach(ob);
        pthread_join(w, NULL);
        pthread_join(c, NULL);
        outbox_unref(ob);
        assert_int_equal(r.released, 1);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stream_order),    cmocka_unit_test(test_unstreamed_wakes_once),
        cmocka_unit_test(test_special_token),   cmocka_unit_test(test_comment),
        cmocka_unit_test(test_overflow),        cmocka_unit_test(test_cancel_before_number),
        cmocka_unit_test(test_detach_and_refs), cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
