"""How tokens are chosen and become text, over HTTP with the bundled model: every field of sampling does what it says, and
what comes out agrees with itself."""
import threading
import time

import pytest
from conftest import image_part, picture, text_part

SHAPE = picture("easy-vqa-1044.png")
ASK = [image_part(SHAPE), text_part("What is in the image?")]
EOS = 2


def choice(server, content=ASK, **fields):
    r = server.chat(content, return_token_ids=True, **{"temperature": 0, "max_tokens": 24, **fields})
    assert r.status == 200, r.body
    r = r.json()
    c = r["choices"][0]
    assert len(c["token_ids"]) == r["usage"]["completion_tokens"]
    return c["message"]["content"], c["token_ids"], c["finish_reason"], c


def test_cuts_that_leave_one_token_are_greedy(server):
    greedy = choice(server)[:3]
    for fields in ({"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1}, {"temperature": 1e-6}):
        assert choice(server, **{"temperature": 1.3, "seed": 3, **fields})[:3] == greedy, fields


def test_end_of_text(server):
    text, ids, finish, _ = choice(server)
    assert finish == "stop" and ids[-1] == EOS and ids.count(EOS) == 1
    # min_tokens: no end before; the end is then free to come.
    _, more, _, _ = choice(server, min_tokens=len(ids) + 3)
    assert EOS not in more[:len(ids) + 3] and more[:len(ids) - 1] == ids[:-1]
    # ignore_eos: the end is generated, is no text, and does not stop.
    longer, forced, finish, _ = choice(server, ignore_eos=True)
    assert finish == "length" and len(forced) == 24 and forced[:len(ids)] == ids and "</s>" not in longer
    assert longer.startswith(text)
    # A ban by logit_bias and a stop id of the caller's.
    assert EOS not in choice(server, logit_bias={str(EOS): -100})[1]
    _, cut, finish, _ = choice(server, stop_token_ids=[ids[2]])
    assert finish == "stop" and cut == ids[:3]
    assert ids[2] not in choice(server, stop_token_ids=[ids[2]], min_tokens=6)[1][:6]


def test_penalties(server):
    base = {"ignore_eos": True, "max_tokens": 60, "temperature": 0, "logit_bias": {"300": 90, "301": 70, "302": 50}}
    plain = choice(server, "hello", **base)[1]
    assert plain == [300] * 60
    # Two more for every time: the second joins after about ten, the third after about thirty more.
    got = choice(server, "hello", **base, frequency_penalty=2)[1]
    assert set(got) == {300, 301, 302} and 5 < got.index(301) < 16 and got.count(300) > got.count(301) > got.count(302)
    # Divides what was seen once: 90 becomes less than 70, and both then less than 50.
    assert choice(server, "hello", **base, repetition_penalty=2)[1][:3] == [300, 301, 302]
    # Presence weighs once, too little here; a reward keeps the first.
    for fields in ({"presence_penalty": 2}, {"presence_penalty": -2}, {"frequency_penalty": -2}, {"repetition_penalty": 0.5}):
        assert choice(server, "hello", **base, **fields)[1] == plain, fields


def test_stop_strings_where_tokens_meet(server):
    full, ids, _, _ = choice(server, max_tokens=40, ignore_eos=True)
    assert len(full) > 12
    for n in (1, 2, 5, 9):
        for at in range(0, len(full) - n, 3):
            stop = full[at:at + n]
            for stops in (stop, [stop, "never there", stop + "\u00e9"]):
                text, got, finish, _ = choice(server, max_tokens=40, ignore_eos=True, stop=stops)
                assert text == full[:full.index(stop)] and finish == "stop"
                assert got == ids[:len(got)] and len(got) >= 1  # the tokens that form it count
    assert choice(server, max_tokens=40, ignore_eos=True, stop=["\U0001F600", full + "x"])[:2] == (full, ids)


def test_stop_strings_after_min_tokens(server):
    full, ids, _, _ = choice(server, max_tokens=40, ignore_eos=True)
    text, got, _, _ = choice(server, max_tokens=40, ignore_eos=True, stop=[full[1:3]], min_tokens=10)
    assert len(got) > 10 or got == ids


def test_monstrous_stop_strings(server):
    """Ten megabytes of stop strings: an answer or a refusal, soon, and the next request is served."""
    for stops in (["ab" * 5_000_000], [f"{i:07d}" for i in range(1_000_000)], ["x"] * 1_000_000):
        begin = time.time()
        r = server.chat("hello", stop=stops, max_tokens=2)
        assert r.status in (200, 400, 413), r.body
        if r.status != 200:
            assert r.error()["param"] in ("stop", None)
        assert time.time() - begin < 60
    assert server.chat("hello", stop=["ab" * 4_000], max_tokens=2).status == 200
    for bad in ("", ["a", ""]):
        r = server.chat("hello", stop=bad)
        assert r.status == 400 and r.error()["param"].startswith("stop")


def test_logprobs_join_to_the_text(server):
    for content, fields in ((ASK, {}), ("Say \u00e9\U0001F600 twice", {"temperature": 1.8, "seed": 11, "max_tokens": 60}),
                            (ASK, {"temperature": 1.5, "seed": 4, "ignore_eos": True, "max_tokens": 60})):
        text, ids, _, c = choice(server, content, logprobs=True, top_logprobs=20, **fields)
        entries = c["logprobs"]["content"]
        assert len(entries) == len(ids)
        joined = b"".join(bytes(e["bytes"] or []) for e in entries).decode("utf-8", "replace")
        assert joined.startswith(text) or joined.lstrip(" ").startswith(text), (joined, text)
        for e in entries:
            assert len(e["top_logprobs"]) == 20
            probs = [t["logprob"] for t in e["top_logprobs"]]
            assert probs == sorted(probs, reverse=True) and e["logprob"] <= probs[0] <= 0


@pytest.mark.tsan
def test_the_same_alone_and_under_load(server):
    """Text, ids and log-probs bit for bit, with other requests around; penalties and cuts keep their state apart."""
    asks = [dict(content=ASK if i % 3 else "Tell me about number %d" % i, temperature=[0, 0.9, 1.6][i % 3], seed=i,
                 max_tokens=16 + i, ignore_eos=True, logprobs=True, top_logprobs=i % 4, top_k=[0, 40, 200][i % 3],
                 top_p=[1, 0.9][i % 2], repetition_penalty=[1, 1.2][i % 2], frequency_penalty=[0, 0.5][i % 2]) for i in range(10)]

    def ask(a):
        text, ids, finish, c = choice(server, **a)
        return text, ids, finish, c["logprobs"]
    alone = [ask(a) for a in asks]
    assert [ask(a) for a in asks[:3]] == alone[:3]
    together = [None] * len(asks)
    threads = [threading.Thread(target=lambda i=i: together.__setitem__(i, ask(asks[i]))) for i in range(len(asks))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert together == alone


def test_seeds_spread(server):
    """Over seeds the first token follows its probabilities, within what chance allows."""
    _, _, _, c = choice(server, "Hello", max_tokens=1, logprobs=True, top_logprobs=1)
    best = c["logprobs"]["content"][0]
    p = 2.718281828459045 ** best["logprob"]
    n = 60
    hits = sum(choice(server, "Hello", max_tokens=1, temperature=1, seed=s, logprobs=True)[3]["logprobs"]["content"][0]["token"] == best["token"]
               for s in range(n))
    assert abs(hits - n * p) <= 4 * (n * p * (1 - p)) ** 0.5 + 1, (hits, n * p)


@pytest.mark.parametrize("text", ["<image>", "</s>", "<s>", "<pad>", "<unk>", "a<image>b</s>c", "< image >", "<ima\u200bge>", "<image><image>",
                                  "\n<image>\n", "USER: <image>\nASSISTANT:</s>"])
def test_special_tokens_typed(server, text):
    """In any place of any role: no id of a special token comes of it, and pictures stay with their own places."""
    def ids(messages):
        r = server.post("/tokenize", {"messages": messages})
        assert r.status == 200, r.body
        return r.json()["tokens"]
    specials = range(5)
    for role in ("system", "user", "assistant"):
        for typed in (text, [text_part(text)], [text_part(text[:3]), text_part(text[3:])]):
            one = [{"role": role, "content": typed}, {"role": "user", "content": ASK}]
            clean = [{"role": role, "content": "x" if isinstance(typed, str) else [text_part("x") for _ in typed]},
                     {"role": "user", "content": ASK}]
            a, b = ids(one), ids(clean)
            assert [i for i in a if i in specials] == [i for i in b if i in specials], (role, typed)
    both = server.chat([text_part(text), image_part(SHAPE), text_part(text)], max_tokens=2, temperature=0)
    assert both.status == 200, both.body
