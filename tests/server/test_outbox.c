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
#include <unistd.h>

#include "server/outbox.h"

typedef struct reader {
    sem_t woken;
    atomic_int suspended, resumed, released, firsts, gaps, ends;
    double longest_gap_s;
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

static void on_token(void *observer, double seconds, bool first) {
    reader *r = observer;
    atomic_fetch_add(first ? &r->firsts : &r->gaps, 1);
    if (!first && seconds > r->longest_gap_s) r->longest_gap_s = seconds;
}
static void on_end(void *observer, const engine_event *done, double seconds) {
    (void)done, (void)seconds;
    atomic_fetch_add(&((reader *)observer)->ends, 1);
}

static outbox *make_many(reader *r, int n, bool stream, bool tokens, size_t cap) {
    memset(r, 0, sizeof *r);
    sem_init(&r->woken, 0, 0);
    outbox_options o = {.n_choices = n,
                        .stream = stream,
                        .keep_tokens = tokens,
                        .cap_bytes = cap,
                        .wake = on_wake,
                        .arg = r,
                        .on_token = on_token,
                        .on_end = on_end,
                        .observer = r};
    outbox *ob = outbox_new(&o);
    assert_non_null(ob);
    outbox_keep(ob, on_release, r);
    outbox_engine_begin(ob);
    return ob;
}
static outbox *make(reader *r, bool stream, bool tokens, size_t cap) {
    return make_many(r, 0, stream, tokens, cap);
}

static void put_text_of(outbox *ob, int choice, const char *text) {
    engine_token t = {.id = 5, .logprob = -1, .bytes = text, .n_bytes = strlen(text), .n_top = 1};
    t.top[0].bytes = "alt";
    t.top[0].n_bytes = 3;
    engine_event ev = {.kind = ENGINE_TOKENS,
                       .choice = choice,
                       .text = text,
                       .n_text = strlen(text),
                       .tokens = &t,
                       .n_tokens = 1};
    outbox_sink(ob, &ev);
}
static void put_text(outbox *ob, const char *text) {
    put_text_of(ob, 0, text);
}

static void put_done_of(outbox *ob, int choice, engine_finish finish) {
    engine_event ev = {.kind = ENGINE_DONE,
                       .choice = choice,
                       .n_choices = 1,
                       .finish = finish,
                       .prompt_tokens = 3,
                       .completion_tokens = 2,
                       .cached_tokens = choice ? 9 : 1};
    outbox_sink(ob, &ev);
}
static void put_done(outbox *ob) {
    put_done_of(ob, 0, FINISH_LENGTH);
}

static void put_error_of(outbox *ob, int choice, int n, status_code code, const char *why) {
    status st = {0};
    status_set(&st, code, "%s", why);
    engine_event ev = {.kind = ENGINE_ERROR, .choice = choice, .n_choices = n, .error = &st};
    outbox_sink(ob, &ev);
}
static void put_error(outbox *ob, status_code code) {
    put_error_of(ob, 0, 1, code, "why");
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
    assert_string_equal(b.choices[0].text.data, "abc");
    assert_int_equal(b.choices[0].n_tokens, 2);
    assert_int_equal(b.choices[0].n_tops, 2);
    assert_memory_equal(b.choices[0].bytes.data + b.choices[0].tokens[1].bytes_at, "bc", 2);
    assert_memory_equal(b.choices[0].bytes.data + b.choices[0].tops[b.choices[0].tokens[1].top_at].bytes_at,
                        "alt", 3);
    assert_false(end.ended);
    assert_true(outbox_sleep(ob, on_suspend));
    put_done(ob);
    assert_int_equal(r.resumed, 2);
    outbox_take(ob, &b, &end);
    assert_true(end.ended && !end.failed && end.finish == FINISH_LENGTH && end.completion_tokens == 2);
    assert_int_equal(b.choices[0].text.len, 0);
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
    assert_true(b.choices[0].tokens[0].special && b.choices[0].tops[0].special);
    assert_int_equal(b.choices[0].tokens[0].n_bytes, 4);
    assert_string_equal(b.choices[0].bytes.data, "</s></s>");
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
    assert_string_equal(b.choices[0].text.data, "ab");
    assert_int_equal(b.choices[0].n_tokens, 0);
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
    assert_true(outbox_is_lost(ob));
    assert_true(outbox_set_job(ob, 9) == false);
    assert_int_equal(outbox_cancel(ob), 9);
    assert_false(outbox_is_lost(ob)); /* said once */
    put_error(ob, ST_CANCELLED);
    outbox_batch b = {0};
    outbox_end end;
    outbox_take(ob, &b, &end);
    assert_true(b.choices[0].text.len >= 1000 && b.choices[0].text.len < 1100);
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

/* ---- several choices ---- */

static void test_choices(void **state) {
    (void)state;
    for (int stream = 0; stream < 2; stream++) {
        reader r;
        outbox *ob = make_many(&r, 3, stream, true, 0);
        put_text_of(ob, 2, "c");
        put_text_of(ob, 0, "a");
        put_done_of(ob, 0, FINISH_STOP);
        put_text_of(ob, 1, "b");
        put_text_of(ob, 2, "d");
        put_done_of(ob, 2, FINISH_STOP);
        outbox_batch b = {0};
        outbox_end end;
        if (stream) {
            assert_false(outbox_sleep(ob, on_suspend));
            outbox_take(ob, &b, &end);
            assert_false(end.ended || outbox_over(ob));
            assert_true(b.n_choices == 3 && b.choices[0].ended && !b.choices[1].ended && b.choices[2].ended);
            assert_string_equal(b.choices[2].text.data, "cd");
            assert_int_equal(b.choices[2].n_tokens, 2);
        }
        assert_true(outbox_sleep(ob, on_suspend));
        put_done_of(ob, 1, FINISH_LENGTH);
        assert_int_equal(r.resumed, 1);
        outbox_take(ob, &b, &end);
        assert_true(end.ended && !end.failed && end.mixed && end.finish == FINISH_STOP && outbox_over(ob));
        assert_int_equal(end.prompt_tokens, 3);
        assert_int_equal(end.cached_tokens, 1);
        assert_int_equal(end.completion_tokens, 6);
        assert_true(b.choices[1].ended && b.choices[1].finish == FINISH_LENGTH);
        if (stream)
            assert_true(!b.choices[0].ended && !b.choices[2].text.len);
        else
            assert_string_equal(b.choices[2].text.data, "cd");
        assert_true(r.firsts == 3 && r.gaps == 1 && r.ends == 3);
        outbox_batch_fini(&b);
        outbox_unref(ob);
        assert_int_equal(r.released, 1);
    }
}

/* From one token of a choice to its next, whoever had one in between. */
static void test_gaps_are_a_choices_own(void **state) {
    (void)state;
    reader r;
    outbox *ob = make_many(&r, 2, true, false, 0);
    put_text_of(ob, 0, "a");
    usleep(20000);
    put_text_of(ob, 1, "b");
    assert_true(r.firsts == 2 && r.gaps == 0);
    put_text_of(ob, 0, "a");
    assert_true(r.gaps == 1 && r.longest_gap_s >= 0.02);
    put_error_of(ob, 0, 2, ST_INTERNAL, "why");
    outbox_unref(ob);
}

/* The first failure is the request's, at once; the rest of the job is to be cancelled, and nothing of it is kept. */
static void test_one_choice_fails(void **state) {
    (void)state;
    for (int stream = 0; stream < 2; stream++) {
        reader r;
        outbox *ob = make_many(&r, 3, stream, true, 0);
        assert_false(outbox_set_job(ob, 5));
        put_text_of(ob, 0, "a");
        if (!stream) assert_true(outbox_sleep(ob, on_suspend));
        assert_false(outbox_is_lost(ob));
        put_error_of(ob, 1, 1, ST_NO_MEMORY, "first");
        assert_int_equal(r.resumed, stream ? 0 : 1);
        put_text_of(ob, 2, "c");
        put_done_of(ob, 2, FINISH_STOP);
        outbox_batch b = {0};
        outbox_end end;
        outbox_take(ob, &b, &end);
        assert_true(end.ended && end.failed && !outbox_over(ob) && outbox_is_lost(ob));
        assert_string_equal(end.error.msg, "first");
        assert_int_equal(b.choices[2].text.len, 0);
        assert_int_equal(outbox_cancel(ob), 5);
        assert_false(outbox_is_lost(ob)); /* said once */
        put_error_of(ob, 0, 1, ST_CANCELLED, "second");
        assert_true(outbox_over(ob));
        outbox_take(ob, &b, &end);
        assert_string_equal(end.error.msg, "first");
        outbox_batch_fini(&b);
        outbox_unref(ob);
        assert_int_equal(r.released, 1);
    }
}

static void test_all_fail_at_once(void **state) {
    (void)state;
    reader r;
    outbox *ob = make_many(&r, 16, false, true, 0);
    put_error_of(ob, 0, 16, ST_INVALID, "a bad picture");
    outbox_batch b = {0};
    outbox_end end;
    outbox_take(ob, &b, &end);
    assert_true(end.failed && outbox_over(ob) && end.error.code == ST_INVALID);
    outbox_batch_fini(&b);
    outbox_unref(ob);
    assert_int_equal(r.released, 1);
}

static void test_the_bound_is_for_all(void **state) {
    (void)state;
    reader r;
    outbox *ob = make_many(&r, 10, true, false, 1000);
    for (int i = 0; i < 10000; i++) put_text_of(ob, i % 10, "0123456789");
    assert_true(outbox_is_lost(ob));
    put_error_of(ob, 0, 10, ST_CANCELLED, "why");
    outbox_batch b = {0};
    outbox_end end;
    outbox_take(ob, &b, &end);
    size_t held = 0;
    for (int i = 0; i < 10; i++) held += b.choices[i].text.len;
    assert_in_range(held, 1000, 1100);
    assert_non_null(strstr(end.error.msg, "slowly"));
    outbox_batch_fini(&b);
    outbox_unref(ob);
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
            for (size_t i = 0; i < b.choices[0].text.len; i++)
                assert_int_equal(b.choices[0].text.data[i], 'a' + got++ % 26);
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
        cmocka_unit_test(test_stream_order),
        cmocka_unit_test(test_unstreamed_wakes_once),
        cmocka_unit_test(test_special_token),
        cmocka_unit_test(test_comment),
        cmocka_unit_test(test_overflow),
        cmocka_unit_test(test_cancel_before_number),
        cmocka_unit_test(test_detach_and_refs),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_choices),
        cmocka_unit_test(test_gaps_are_a_choices_own),
        cmocka_unit_test(test_one_choice_fails),
        cmocka_unit_test(test_all_fail_at_once),
        cmocka_unit_test(test_the_bound_is_for_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
